"""Names of things as users write them: forgiving look-up, suggestions, and what may be registered."""

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from jaxmeta._checks import check_choice


def same_name(first: str, second: str) -> bool:
    """Returns whether two names are the same except for hyphens, underscores and capitals."""
    return _letters(first) == _letters(second)


def intended_name(value: Any, known: Iterable[str]) -> Any:
    """Returns the known name that is the same except for hyphens, underscores and capitals, or the value itself."""
    known = tuple(known)
    if not isinstance(value, str) or value in known:
        return value
    return next((name for name in known if same_name(name, value)), value)


def find_name(argument: str, value: Any, known: Iterable[str]) -> str:
    """Returns the known name that is meant by a value.

    Args:
        argument: name of the argument that has the value.
        value: name as the user wrote it, such as `"mini_imagenet"` or `"cifarfs"`.
        known: the known names.

    Raises:
        ValueError: if there is none. The message lists the known names and suggests the nearest ones.
    """
    known = tuple(known)
    name = intended_name(value, known)
    try:
        check_choice(argument, name, known)
    except ValueError as error:
        raise ValueError(f"{error}{suggestion(value, known)}") from None
    return name


def suggestion(value: Any, known: Iterable[str]) -> str:
    """Returns a question for the nearest names, or nothing if none is near."""
    by_letters = {_letters(name): name for name in known}
    near = difflib.get_close_matches(_letters(str(value)), by_letters, n=2)
    return f". Did you mean {' or '.join(repr(by_letters[letters]) for letters in near)}?" if near else ""


def explain_missing(owner: Any, elsewhere: Mapping[str, str]) -> None:
    """Makes a module or a class answer a name that it does not have with the one that is meant.

    A public module inside a package is imported then, so that `jaxmeta.rl` needs no import of its own.

    Args:
        owner: the module or the class.
        elsewhere: what is done here instead of names of other libraries, as a sentence without its end.
    """
    kind = f"{owner.__name__!r} object" if isinstance(owner, type) else f"module {owner.__name__!r}"

    def answer(name: str) -> Any:
        if hasattr(owner, "__path__") and not name.startswith("_") and find_spec(f"{owner.__name__}.{name}"):
            return import_module(f"{owner.__name__}.{name}")
        known = [other for other in dir(owner) if not other.startswith("_")]
        hint = f". Here {elsewhere[name]}" if name in elsewhere else suggestion(name, known)
        raise AttributeError(f"{kind} has no attribute {name!r}{'' if name.startswith('_') else hint}", name=name)

    # By assignment, so that type checkers go on to report names that do not exist.
    owner.__getattr__ = (lambda self, name: answer(name)) if isinstance(owner, type) else answer


def check_new_name(kind: str, name: Any, known: Iterable[str]) -> None:
    """Raises ValueError unless a name is well-formed and differs from the known ones, of things of one kind."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise ValueError(f"name must consist of lower-case letters, digits and hyphens, got {name!r}")
    for other in known:
        if same_name(name, other):
            raise ValueError(f"name must be new, but there is a {kind} {other!r} already, got {name!r}")


def about(thing: object) -> tuple[str, str]:
    """Returns the first line of an object's docstring, and its first reference with its link."""
    doc = inspect.getdoc(thing) or ""
    _, _, references = doc.partition("References:\n")
    reference = " ".join(re.split(r"\n\s*\n", references)[0].split())
    linked = re.match(r".*?https?://[^\s,]+", reference)
    return doc.split("\n")[0], (linked[0] if linked else reference).rstrip(".")


def _letters(name: str) -> str:
    return name.strip().lower().replace("-", "").replace("_", "")
