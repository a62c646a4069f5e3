"""Descriptions of everything that a run can name, for `jaxmeta list` and for the documentation."""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxmeta import data, envs
from jaxmeta._names import intended_name
from jaxmeta.catalog import (
    GROUPS,
    KINDS,
    LEARNERS,
    META_GRADIENTS,
    MODELS,
    default_of,
    kinds_of,
    unknown,
)
from jaxmeta.runs._options import OPTIONS


def overview() -> dict[str, dict[str, str]]:
    """Returns the tables of `jaxmeta list`: for each kind of thing, a line about each name."""
    policy = {name for name, entry in LEARNERS.items() if entry.trains_on == "environment"}
    return {
        "benchmarks (--benchmark)": {name: data.describe_tasksets(name).about for name in data.list_tasksets()},
        "learners (--learner)": {name: e.about for name, e in LEARNERS.items() if name not in policy},
        "environments (--benchmark)": {name: envs.describe(name).about for name in envs.list_envs()},
        "learners in environments (--learner)": {name: e.about for name, e in LEARNERS.items() if name in policy},
        "models (--model)": {name: entry.about for name, entry in MODELS.items()},
        "meta-gradients (--meta-gradient)": {name: entry.about for name, entry in META_GRADIENTS.items()},
    }


def describe(name: str) -> str:
    """Returns what there is to know about a name: its kind, its paper, its options with defaults, its file.

    Raises:
        ValueError: if nothing has this name.
    """
    name = intended_name(name, (known for table in overview().values() for known in table))
    found = [*_benchmark(name), *_environment(name), *_learner(name), *_model(name), *_meta_gradient(name)]
    if not found:
        names = [known for table in overview().values() for known in table]
        raise unknown("name", name, names)
    return "\n".join(found)


def _entry(kind: str, name: str, facts: Mapping[str, Any]) -> Iterator[str]:
    yield f"{name} ({kind})"
    for title, value in facts.items():
        if value:
            yield f"  {title + ':':12s} {value}"


def _options(values: Mapping[str, Any]) -> str:
    return ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in values.items())


def _benchmark(name: str) -> Iterator[str]:
    if name in data.list_tasksets():
        info = data.describe_tasksets(name)
        facts = {"what": info.about, "kind": info.kind, "splits": ", ".join(info.splits)}
        facts |= {"paper": info.paper, "files": info.files or "none needed"}
        yield from _entry("benchmark", name, facts | {"learners": ", ".join(_learners(info.kind))})


def _environment(name: str) -> Iterator[str]:
    if name in envs.list_envs():
        info = envs.describe(name)
        facts = {"what": info.about, "paper": info.paper, "variants": ", ".join(info.variants)}
        facts |= {"fields": ", ".join(f"{k}={v!r}" for k, v in info.options.items())}
        yield from _entry("environment", name, facts | {"learners": ", ".join(_learners("environment"))})


def _learners(kind: str) -> list[str]:
    return [name for name, entry in LEARNERS.items() if kind in kinds_of(entry)]


def _learner(name: str) -> Iterator[str]:
    if name in LEARNERS:
        entry = LEARNERS[name]
        yield from _entry("learner", name, {"what": entry.about, "paper": entry.paper, "file": entry.file})
        for recipe in entry.recipes:
            ways = f", from {recipe.from_ways} ways on" if recipe.from_ways else ""
            yield f"  on {' and '.join(recipe.kinds)}{ways} ({recipe.source}):"
            yield f"    {_options(recipe.values)}"
        if entry.meta_gradients:
            yield f"  {'gradients:':12s} {', '.join(entry.meta_gradients)}"


def _model(name: str) -> Iterator[str]:
    if name in MODELS:
        entry = MODELS[name]
        facts = {"what": entry.about, "kinds": ", ".join(entry.kinds), "options": _options(entry.options)}
        yield from _entry("model", name, facts | {"paper": entry.paper, "file": entry.file})


def _meta_gradient(name: str) -> Iterator[str]:
    if name in META_GRADIENTS:
        entry = META_GRADIENTS[name]
        facts = {"what": entry.about, "options": _options(entry.options), "paper": entry.paper, "file": entry.file}
        yield from _entry("meta-gradient", name, facts)


def options_tables() -> dict[str, list[str]]:
    """Returns the documentation's tables of options, as lines of Markdown by group."""
    tables = {}
    for group in GROUPS:
        lines = ["| option | default | meaning |", "| --- | --- | --- |"]
        for option in (option for option in OPTIONS.values() if option.group == group):
            value = {int: " N", float: " X", str: " NAME", bool: ""}[option.type]
            choices = f" One of {', '.join(f'`{c}`' for c in option.choices)}." if option.choices else ""
            lines.append(f"| `{option.flag}{value}` | {default_of(option)} | {option.help}{choices} |")
        tables[group] = lines
    return tables


def recipes_tables() -> dict[str, list[str]]:
    """Returns the documentation's tables of recipes, as lines of Markdown by kind of benchmark."""
    columns = ("steps", "test_steps", "inner_rate", "outer_rate", "outer_schedule", "num_tasks")
    tables = {}
    for kind in KINDS:
        lines = ["| learner | " + " | ".join(f"`--{c.replace('_', '-')}`" for c in columns) + " | others | source |"]
        lines.append("| --- " * (len(columns) + 3) + "|")
        for name, entry in LEARNERS.items():
            for recipe in (recipe for recipe in entry.recipes if kind in recipe.kinds):
                ways = f", from {recipe.from_ways} ways" if recipe.from_ways else ""
                cells = [str(recipe.values.get(column, "")) for column in columns]
                rest = {k: v for k, v in recipe.values.items() if k not in columns}
                others = ", ".join(f"`--{k.replace('_', '-')} {v}`" for k, v in rest.items())
                lines.append(f"| `{name}`{ways} | " + " | ".join([*cells, others, recipe.source]) + " |")
        tables[kind] = lines
    return tables
