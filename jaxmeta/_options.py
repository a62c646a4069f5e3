"""Checks of the options of an `Experiment`."""

import math
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jaxmeta import data
from jaxmeta._recipes import RECIPES, SPECIFIC, learners_with


def kind_of(hint: Any) -> tuple[type, tuple[str, ...]]:
    """The type of an option, leaving None aside, and what it may be if only certain names are allowed."""
    if type(None) in get_args(hint):
        hint = next(part for part in get_args(hint) if part is not type(None))
    return (str, get_args(hint)) if get_origin(hint) is Literal else (hint, ())


def check_options(experiment: Any) -> None:
    """Raises a `ValueError` if a name is unknown, a number out of range, or an option does not apply."""
    registries = {"benchmark": data.list_tasksets(), "learner": tuple(RECIPES)}
    for name, hint in get_type_hints(type(experiment)).items():
        value = getattr(experiment, name)
        if value is None:
            continue
        kind, allowed = kind_of(hint)
        allowed = registries.get(name, allowed)
        if allowed and value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
        least = 0 if name == "seed" else 1
        if kind is int and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        if kind is float and not (isinstance(value, int | float) and 0 < value < math.inf):
            raise ValueError(f"{name} must be a positive number, got {value!r}")
        if name in SPECIFIC and experiment.learner not in learners_with(name):
            learners = ", ".join(learners_with(name))
            raise ValueError(f"{name} does not apply to {experiment.learner}, only to {learners}")
    if experiment.model is not None and (experiment.model == "mlp") != (experiment.kind != "images"):
        allowed = "cnn, cnn4 or fc" if experiment.kind == "images" else "mlp"
        raise ValueError(f"model must be {allowed} for {experiment.benchmark}, got {experiment.model!r}")
    kind = "regression" if experiment.regressing else "images"
    able = [name for name, recipe in RECIPES.items() if getattr(recipe, kind) is not None]
    if experiment.learner not in able:
        what = "regression" if experiment.regressing else "classification"
        raise ValueError(f"learner must be one for {what} ({', '.join(able)}), got {experiment.learner!r}")
