"""Descriptions of benchmarks that are read from files: their layouts, downloads and published splits."""

import json
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple

from jaxmeta.data.sources._download import Remote
from jaxmeta.data.sources._readers import Reader
from jaxmeta.data.sources._tfds import Prepared


class Layout(NamedTuple):
    """One possible set of files of a benchmark."""

    files: tuple[tuple[str, ...], ...]
    """Archives, folders and files that must be there. Each may have one of several names."""
    read: Reader
    """Function that reads the files."""
    shown: str = ""
    """Text about the files, by default their names."""
    cached: bool = True
    """True if the result is cached. Files that contain arrays are read again instead."""

    def __str__(self) -> str:
        return self.shown or " + ".join(_either(names, several=len(self.files) > 1) for names in self.files)


class Source(NamedTuple):
    """A benchmark that is read from files."""

    about: str
    """Description in one line."""
    paper: str
    """Short citation with a link."""
    layouts: tuple[Layout, ...]
    """Possible layouts, in the order in which they are looked for."""
    remotes: tuple[Remote, ...]
    """Files to download, named as in the first layout."""
    kind: Literal["images", "text", "vectors"] = "images"
    """Kind of the examples."""
    size: int = 84
    """Default height and width of images in pixels, or default length of the vectors of sentences."""
    scalable: bool = True
    """True if another size can be requested."""
    prepared: Prepared | None = None
    """The benchmark in TFDS, if it is there."""
    random: tuple[int, int, int] = (64, 16, 20)
    """Proportions in which `split="random"` divides the classes."""
    per_class: int | None = None
    """Default number of examples of each class to read, or `None` for all."""

    @property
    def downloadable(self) -> bool:
        """True if all files can be downloaded and checked."""
        return all(remote.checksum for remote in self.remotes)


@cache
def standard_splits(name: str) -> dict[str, dict[str, list[str]]]:
    """Returns the published splits of a benchmark: class names by part by split. The first split is the default."""
    path = resources.files("jaxmeta.data") / f"splits/{name}.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def describe_layouts(source: Source) -> str:
    """Returns a text about the files that a benchmark can be read from."""
    layouts = "; or ".join(map(str, source.layouts))
    return layouts + (f"; or {source.prepared.name}/<version>/ prepared by TFDS" if source.prepared else "")


def describe_files(source: Source) -> str:
    """Returns a text about the files that a benchmark can be read from, and about their download."""
    size = describe_size(sum(remote.megabytes for remote in source.remotes))
    if source.downloadable:
        names = " + ".join(remote.name for remote in source.remotes)
        return f"{describe_layouts(source)}. download=True fetches {names} ({size})."
    return f"{describe_layouts(source)}. Not downloaded: get them ({size}) from {source.remotes[0].url}"


def describe_size(megabytes: float) -> str:
    """Returns a rounded size with its unit."""
    return f"{megabytes / 1000:.3g} GB" if megabytes >= 1000 else f"{megabytes:.3g} MB"


def _either(names: tuple[str, ...], several: bool) -> str:
    """Returns alternative names of one file. A name without a dot is a folder."""
    text = " or ".join(name if "." in name else f"{name}/" for name in names)
    return f"({text})" if several and len(names) > 1 else text
