"""Checks of the options of a run."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from jaxmeta.runs._run import Run

R = TypeVar("R", bound="Run")


def kind_of(hint: Any) -> tuple[type, tuple[str, ...]]:
    """The type of an option, leaving None aside, and what it may be if only certain names are allowed."""
    if type(None) in get_args(hint):
        hint = next(part for part in get_args(hint) if part is not type(None))
    return (str, get_args(hint)) if get_origin(hint) is Literal else (hint, ())


def with_options(run: R, options: dict[str, Any]) -> R:
    """The run with other values of some options; raises a `ValueError` for one that it does not have."""
    known = {field.name for field in dataclasses.fields(run)}
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"{name} does not apply to {run.benchmark}, got {value!r}")
    return dataclasses.replace(run, **options)


def check_options(run: "Run") -> None:
    """Raises a `ValueError` if a name is unknown, a number out of range, or an option does not apply."""
    names, limited = run.names(), run.limited()
    for name, hint in get_type_hints(type(run)).items():
        value = getattr(run, name)
        kind, allowed = kind_of(hint)
        if value is None or (value is False and kind is bool):
            continue
        allowed = names.get(name, allowed)
        if allowed and value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
        if kind is bool and not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, got {value!r}")
        least = 0 if name == "seed" else 1
        if kind is int and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        if kind is float and not (isinstance(value, int | float) and 0 < value < math.inf):
            raise ValueError(f"{name} must be a positive number, got {value!r}")
        able = limited.get(name)
        if able is not None and run.learner not in able:
            raise ValueError(f"{name} does not apply to {run.learner}, only to {', '.join(able)}")
