"""Names of benchmarks as users write them."""

import difflib
from collections.abc import Iterable
from typing import Any

from jaxmeta._checks import check_choice


def find_name(name: Any, known: Iterable[str]) -> str:
    """Returns the known name that is meant by `name`, which may differ in hyphens, underscores and capitals.

    Args:
        name: name as the user wrote it, such as `"mini_imagenet"` or `"cifarfs"`.
        known: the known names.

    Returns:
        The known name.

    Raises:
        ValueError: if there is none. The message lists the known names and suggests the nearest one.
    """
    known = sorted(known)
    meant = next((candidate for candidate in known if same_name(str(name), candidate)), name)
    try:
        check_choice("name", meant, known)
    except ValueError as error:
        raise ValueError(f"{error}{_suggestion(name, known)}") from None
    return meant


def same_name(first: str, second: str) -> bool:
    """Returns whether two names are the same except for hyphens, underscores and capitals."""
    return _letters(first) == _letters(second)


def _letters(name: str) -> str:
    return name.strip().lower().replace("-", "").replace("_", "")


def _suggestion(name: Any, known: Iterable[str]) -> str:
    by_letters = {_letters(candidate): candidate for candidate in known}
    near = difflib.get_close_matches(_letters(str(name)), by_letters, n=2)
    return f". Did you mean {' or '.join(repr(by_letters[letters]) for letters in near)}?" if near else ""
