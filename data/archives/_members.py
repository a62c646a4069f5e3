"""The members of an archive, and the links among them."""

import posixpath
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

FILE, FOLDER, HARD_LINK, SYMBOLIC_LINK = "file", "folder", "hard link", "symbolic link"
_CHAIN = 16  # links that lead to one another
_ADVICE = "Pack the folder again with the files themselves, such as by tar with -h"


class Member(NamedTuple):
    """An entry of an archive."""

    name: str
    """Name that the archive gives it."""
    kind: str = FILE
    """One of `FILE`, `FOLDER`, `HARD_LINK` and `SYMBOLIC_LINK`, or what else it is."""
    target: str = ""
    """Name that a link leads to."""


def resolve(path: Path, members: Sequence[Member]) -> list[tuple[str, int]]:
    """Returns the files of an archive, and for each the number of the member that has its content.

    Args:
        path: path of the archive.
        members: all its members.

    Returns:
        Name and number of each file and of each link to a file.

    Raises:
        ValueError: if a name leads out of the archive, a link leads to no file in it, or a member is something else.
    """
    names = [safe_name(path, member.name) for member in members]
    places: dict[str, int] = {}
    links: dict[str, str] = {}
    for number, (name, member) in enumerate(zip(names, members, strict=True)):
        if member.kind == FILE:
            places.setdefault(name, number)
        elif member.kind == HARD_LINK:
            links[name] = PurePosixPath(member.target).as_posix()
        elif member.kind == SYMBOLIC_LINK:
            links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.target))
        elif member.kind != FOLDER:
            raise ValueError(f"{path}: {name} is {member.kind}, which is not read. {_ADVICE}")
    found = []
    for number, (name, member) in enumerate(zip(names, members, strict=True)):
        if member.kind == FILE:
            found.append((name, number))
        elif member.kind != FOLDER:
            end = name
            for _ in range(_CHAIN):
                end = links.get(end, end)
            if end not in places:
                told = f"is a {member.kind} to {member.target!r}, which is no file in the archive"
                raise ValueError(f"{path}: {name} {told}. {_ADVICE}")
            found.append((name, places[end]))
    return found


def safe_name(path: Path, raw: str) -> str:
    """Returns a name with `/` that does not lead out of its archive.

    Raises:
        ValueError: if it does.
    """
    name = PurePosixPath(raw.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or (name.parts and ":" in name.parts[0]):
        raise ValueError(f"{path} has a file outside of itself, which is refused: {raw!r}")
    return name.as_posix()
