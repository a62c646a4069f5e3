"""Options of a run. Each one is declared once, as a field of `Experiment` with the metadata that `option` gives it.

The command line, the checks, the resolved `Settings`, the report and the documentation all read this metadata.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jaxmeta._checks import check_choice, check_integer, check_not_negative, check_positive

KINDS = ("images", "text", "vectors", "regression", "environment")
TASKS = ("images", "text", "vectors", "regression")
CLASSES = ("images", "text", "vectors")
GROUPS = ("tasks", "environment", "model", "learner", "outer loop", "run")


class Same(NamedTuple):
    """The default of an option that takes the value of another one."""

    name: str


class Option(NamedTuple):
    """An option of a run."""

    name: str
    type: type
    help: str
    group: str
    defaults: Mapping[str, Any]
    """Default of each kind of run that has the option whatever its benchmark, learner and model are."""
    least: float
    """Smallest value of a number. A float with `least=0` and `positive` must be above it."""
    positive: bool
    choices: tuple[str, ...]
    known_as: tuple[str, ...]
    """Names of the option in other libraries, for suggestions."""

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")


def option(
    help: str,
    group: str,
    *,
    default: Any = None,
    kinds: tuple[str, ...] = KINDS,
    least: float | None = None,
    choices: tuple[str, ...] = (),
    known_as: tuple[str, ...] = (),
) -> Any:
    """Declares an option.

    Args:
        help: one or two sentences for people.
        group: one of `GROUPS`.
        default: the value if none is given, for the `kinds`, or a mapping from kind to value. `Same("shots")` takes the
            value of another option. `None` leaves the default to the benchmark, the learner, the model or the
            meta-gradient: then the option applies only to those that have it.
        kinds: the kinds of run for which `default` holds.
        least: smallest value of a number; by default 1 for integers, and any positive number for floats.
        choices: the allowed strings, if they are few.
        known_as: names of the option in other libraries.
    """
    defaults = default if isinstance(default, dict) else {} if default is None else dict.fromkeys(kinds, default)
    metadata = {"help": help, "group": group, "defaults": defaults, "least": least}
    return dataclasses.field(default=None, metadata={**metadata, "choices": choices, "known_as": known_as})


def options_of(experiment: type) -> dict[str, Option]:
    """All options that a dataclass declares, by name."""
    hints = typing.get_type_hints(experiment)
    found = {}
    for field in dataclasses.fields(experiment):
        meta, hint = field.metadata, hints[field.name]
        kind = next(t for t in typing.get_args(hint) if t is not types.NoneType) if typing.get_args(hint) else hint
        least = meta["least"]
        found[field.name] = Option(
            field.name,
            kind,
            meta["help"],
            meta["group"],
            meta["defaults"],
            least if least is not None else (1 if kind is int else 0),
            least is None,
            meta["choices"],
            meta["known_as"],
        )
    return found


def checked(option: Option, value: Any) -> Any:
    """Returns the value in the option's type.

    Raises:
        ValueError: if it has another type, is out of range, or is not among the choices.
    """
    name = option.name
    if option.type is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, got {value!r}")
        return value
    if option.type is int:
        return check_integer(least=int(option.least), **{name: value})[0]
    if option.type is float:
        check = check_positive if option.positive else check_not_negative
        check(**{name: value})
        return float(value)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string, got {value!r}")
    value = value.replace("_", "-") if value.replace("_", "-") in option.choices else value
    if option.choices:
        check_choice(name, value, option.choices)
    return value


class Settings(Mapping[str, Any]):
    """The settings of a run: every option that applies to it, with its final value, as attributes or as a mapping.

    An option that does not apply is absent, so no value is `None`.

    Attributes:
        kind: kind of run, one of `KINDS`.
    """

    def __init__(self, kind: str, values: Mapping[str, Any]):
        self.kind = kind
        self._values = dict(values)

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("_values", {})
        if name not in values:
            raise AttributeError(f"{name!r} is no setting of this run; it has {', '.join(values)}")
        return values[name]

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.items())})"


def check_minutes(settings: Settings, minutes: float | None) -> None:
    """Raises ValueError if a limit of time would cut a training whose rate is to decay over a number of updates."""
    if minutes is None:
        return
    check_positive(minutes=minutes)
    if "pretraining" in settings:
        raise ValueError(
            f"minutes does not apply to {settings.learner}, whose pre-training decays its rate; got {minutes}"
        )
    schedule = settings.get("outer_schedule", "constant")
    if schedule != "constant":
        raise ValueError(
            f"minutes needs outer_schedule 'constant', got {schedule!r}, which decays over all {settings.iterations} "
            "iterations"
        )
