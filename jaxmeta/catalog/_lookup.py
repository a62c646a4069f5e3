"""Looking up names, with suggestions for unknown ones, and resolving the options of a run."""

from collections.abc import Iterable, Mapping
from typing import Any

from flax import linen as nn

from jaxmeta import data, envs
from jaxmeta._names import intended_name, suggestion
from jaxmeta.catalog._options import KINDS, Option, Same, Settings, checked
from jaxmeta.catalog._registry import LEARNERS, META_GRADIENTS, MODELS, Learner, Model, Recipe
from jaxmeta.meta_gradients import MetaGradient


def resolve(options: Mapping[str, Option], given: Mapping[str, Any]) -> Settings:
    """Returns every option that applies to a run, with its final value.

    The options that apply are those of the kind of run, and those that the benchmark, the learner, the model and the
    meta-gradient have.

    Raises:
        ValueError: if a name is unknown, a number is out of range, or an option does not apply.
    """
    given = {name: checked(options[name], value) for name, value in given.items() if value is not None}
    given["benchmark"], kind = find_benchmark(given.get("benchmark", options["benchmark"].defaults["images"]))
    found = {name: option.defaults[kind] for name, option in options.items() if kind in option.defaults}
    found |= _benchmark_options(given, kind)

    def chosen(name: str, of: str, allowed: tuple[str, ...], default: Any) -> str:
        value = given.get(name, default)
        if value not in allowed:
            value = intended_name(value, allowed)
        if value not in allowed:
            raise unknown(name, value, allowed, of)
        return value

    names = {"learner": chosen("learner", f"{given['benchmark']} ({kind})", learners_for(kind), found["learner"])}
    learner = LEARNERS[names["learner"]]
    recipe = recipe_of(learner, kind, given.get("ways", found.get("ways", 0)))
    if "model" in found and learner.has_network:
        allowed = learner.models or tuple(
            name for name in models_for(kind) if MODELS[name].has_body or not learner.needs_body
        )
        default = recipe.values.get("model", found["model"])
        default = default if default in allowed else next(name for name in models_for(kind) if name in allowed)
        names["model"] = chosen("model", names["learner"], allowed, default)
        own = options_of_model(MODELS[names["model"]], kind)
        found |= own if learner.dropout else {name: value for name, value in own.items() if name != "drop_rate"}
        found |= {name: value for name, value in recipe.values.items() if name != "norm" or "norm" in found}
    else:
        found.pop("model", None)
        found |= recipe.values
    if "meta_gradient" in recipe.values:
        default = recipe.values["meta_gradient"]
        names["meta_gradient"] = chosen("meta_gradient", names["learner"], learner.meta_gradients, default)
        found |= META_GRADIENTS[names["meta_gradient"]].options
    if kind == "images" and learner.trains_on == "tasks":
        found["augment"] = "none"
    if learner.trains_on in ("classes", "features") and given["benchmark"] == "glyphs":
        found["base_classes"] = 400
    for name in given:
        if name not in found:
            raise _does_not_apply(options[name], given, kind, names)
    values = {name: names.get(name, given.get(name, found[name])) for name in options if name in found}
    values = {name: values[v.name] if isinstance(v, Same) else v for name, v in values.items()}
    return Settings(kind, {name: values[v.name] if isinstance(v, Same) else v for name, v in values.items()})


def _benchmark_options(given: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The options of the benchmark or the environment, with their defaults."""
    name = given["benchmark"]
    if kind != "environment":
        info = data.describe_tasksets(name)
        found: dict[str, Any] = {"split": info.splits[0]} if info.splits else {}
        if given.get("split", found.get("split")) not in (*info.splits, None):
            raise (
                unknown("split", given["split"], info.splits)
                if found
                else ValueError(f"split does not apply to {name}")
            )
        if given.get("split", found.get("split")) in ("random", "auto") and "seed" in info.arguments:
            found["split_seed"] = 0
        found |= {name: 0 for name in ("size", "channels", "per_class", "min_per_class") if name in info.arguments}
        found |= {name: False for name in ("invert",) if name in info.arguments}
        return found | ({"test_rotations": False} if "test_rotations" in info.arguments else {})
    variants = tuple(envs.describe(name).variants)
    env = envs.make(name, **{k: given[k] for k in ("variant", "horizon", "backend") if k in given})
    found = {"variant": variants[0]} if variants else {}
    found["horizon"] = env.horizon
    return found | {name: getattr(env, name) for name in ("backend",) if hasattr(env, name)}


def _does_not_apply(option: Option, given: Mapping[str, Any], kind: str, names: Mapping[str, str]) -> ValueError:
    """The error for an option that does not apply, with what it is for."""
    name, got = option.name, f"got {given[option.name]!r}"

    def error(what: str, have: Iterable[str]) -> ValueError:
        return ValueError(f"{name} does not apply to {what}, only to {', '.join(have)}; {got}")

    if name == "drop_rate" and not LEARNERS[names["learner"]].dropout:
        return error(names["learner"], (n for n in learners_for(kind) if LEARNERS[n].dropout))
    have = tuple(n for n in models_for(kind) if name in options_of_model(MODELS[n], kind))
    if have and "model" in names:
        return error(f"model {names['model']}", have)
    learners = tuple(n for n in learners_for(kind) if name in recipe_of(LEARNERS[n], kind, 0).values)
    if learners:
        return error(names["learner"], learners)
    have = tuple(n for n, entry in META_GRADIENTS.items() if name in entry.options)
    if have and "meta_gradient" in names:
        return error(f"meta_gradient {names['meta_gradient']}", have)
    return ValueError(f"{name} does not apply to {names['learner']} on {given['benchmark']} ({kind}); {got}")


def learners_with(option: str) -> tuple[str, ...]:
    """Returns the learners that have an option of their own."""

    def has(entry: Learner) -> bool:
        return any(option in recipe.values for recipe in entry.recipes)

    return tuple(name for name, entry in LEARNERS.items() if has(entry))


def find_benchmark(value: str) -> tuple[str, str]:
    """Returns the name of a benchmark or an environment, and the kind of run that it is for.

    Raises:
        ValueError: if there is none.
    """
    tasksets = data.list_tasksets()
    name = value if value in tasksets else intended_name(value, (*tasksets, *envs.list_envs()))
    if name in tasksets:
        return name, data.describe_tasksets(name).kind
    if name in envs.list_envs():
        return name, "environment"
    raise unknown("benchmark", value, (*tasksets, *envs.list_envs()))


def kinds_of(learner: Learner) -> tuple[str, ...]:
    """Returns the kinds of benchmark that a learner is for."""
    return tuple(kind for kind in KINDS if any(kind in recipe.kinds for recipe in learner.recipes))


def learners_for(kind: str) -> tuple[str, ...]:
    """Returns the names of the learners for one kind of benchmark."""
    return tuple(name for name, entry in LEARNERS.items() if kind in kinds_of(entry))


def models_for(kind: str) -> tuple[str, ...]:
    """Returns the names of the models for one kind of benchmark."""
    return tuple(name for name, entry in MODELS.items() if kind in entry.kinds)


def options_of_model(model: Model, kind: str) -> dict[str, Any]:
    """Returns the options that a model has on one kind of benchmark, with their defaults."""
    by_kind = {name: value if isinstance(value, dict) else {kind: value} for name, value in model.options.items()}
    return {name: values[kind] for name, values in by_kind.items() if kind in values}


def recipe_of(learner: Learner, kind: str, ways: int) -> Recipe:
    """Returns the recipe for a kind of benchmark and a number of ways."""
    fitting = [r for r in learner.recipes if kind in r.kinds and ways >= r.from_ways]
    return max(fitting, key=lambda r: r.from_ways)


def plural(kind: str) -> str:
    """Returns the name of a kind of benchmark in a sentence."""
    return "environments" if kind == "environment" else kind


def unknown(option: str, value: Any, allowed: Iterable[str], of: str = "") -> ValueError:
    """Returns the error for a name that is not among the allowed ones, with what it is elsewhere.

    Args:
        option: the option that has the value.
        value: the unknown name.
        allowed: the names that would do.
        of: what they are the names of, such as a learner.
    """
    allowed = tuple(allowed)
    known = dict.fromkeys((*data.list_tasksets(), *envs.list_envs()), "a benchmark")
    known |= dict.fromkeys(META_GRADIENTS, "a meta-gradient")
    known |= {name: f"a model for {_sentence(entry.kinds)}" for name, entry in MODELS.items()}
    known |= {name: f"a learner for {_sentence(kinds_of(entry))}" for name, entry in LEARNERS.items()}
    text = f"{option}{f' of {of}' if of else ''} must be one of {', '.join(map(repr, allowed))}, got {value!r}"
    name = intended_name(value, known)
    if name in known:
        return ValueError(f"{text}, which is {known[name]}")
    return ValueError(text + (suggestion(value, allowed) or suggestion(value, known)))


def _sentence(kinds: Iterable[str]) -> str:
    """Kinds of benchmark in a sentence."""
    return " and ".join("environments" if kind == "environment" else kind for kind in kinds)


def default_of(option: Option) -> str:
    """Returns the default of an option as text, such as `2000; environment: 200`."""
    if not option.defaults:
        return "by " + ", ".join(owners(option.name))
    groups: dict[str, list[str]] = {}
    for kind, value in option.defaults.items():
        shown = f"--{value.name.replace('_', '-')}" if isinstance(value, Same) else str(value)
        groups.setdefault(shown, []).append(kind)
    if len(groups) == 1:
        return next(iter(groups))
    largest = max(groups, key=lambda shown: len(groups[shown]))
    rest = [f"{', '.join(kinds)}: {shown}" for shown, kinds in groups.items() if shown != largest]
    return "; ".join([largest, *rest])


def owners(name: str) -> list[str]:
    """Returns the kinds of thing that have an option of their own: benchmark, learner, model or meta-gradient."""
    found = []
    if any(name in recipe.values for entry in LEARNERS.values() for recipe in entry.recipes):
        found.append("learner")
    if any(name in entry.options for entry in MODELS.values()):
        found.append("model")
    if any(name in entry.options for entry in META_GRADIENTS.values()):
        found.append("meta-gradient")
    return found or ["benchmark"]


def build_network(settings: Settings, ways: int) -> nn.Module:
    """Returns the network that the options name."""
    return MODELS[settings.model].build(settings, ways)


def build_meta_gradient(settings: Settings) -> MetaGradient:
    """Returns the meta-gradient that the options name."""
    return META_GRADIENTS[settings.meta_gradient].build(settings)
