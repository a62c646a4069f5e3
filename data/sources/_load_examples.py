"""Reading of a benchmark's examples from its files, and division of its classes."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta._checks import check_choice, check_optional_integer
from jaxmeta._files import expanded
from jaxmeta._names import find_name
from jaxmeta.data.archives import Files, is_archive
from jaxmeta.data.containers import Examples, is_column
from jaxmeta.data.sources._cache import cached, data_folder
from jaxmeta.data.sources._division import (
    Division,
    RecordedLists,
    check_lists,
    check_seed,
    divide,
    first_examples,
    large_enough,
    lists_of_parts,
    random_lists,
)
from jaxmeta.data.sources._download import fetch
from jaxmeta.data.sources._images import adapt
from jaxmeta.data.sources._layouts import Layout, Source, describe_layouts, standard_splits
from jaxmeta.data.sources._omniglot import SPLITS, Omniglot
from jaxmeta.data.sources._packed import packed_examples
from jaxmeta.data.sources._readers import ReadRequest, any_folders, hint_at_level, own_vectors
from jaxmeta.data.sources._sentences import own_sentences
from jaxmeta.data.sources._sources import SOURCES
from jaxmeta.data.sources._tfds import find_prepared, read_prepared

FOLDER = "folder"
SENTENCES = "sentences"
FEATURES = "features"
OMNIGLOT = "omniglot"
_OWN = {
    FOLDER: Source("Images of your own", "", (Layout((), any_folders),), ()),
    SENTENCES: Source("Sentences of your own", "", (Layout((), own_sentences, cached=False),), (), "text", 2048),
    FEATURES: Source(
        "Vectors of your own", "", (Layout((), own_vectors, cached=False),), (), "vectors", scalable=False
    ),
}
_VERSION = 3  # to be increased when the decoding changes


def load_examples(
    name: str,
    root: str | Path | None = None,
    *,
    split: str | Mapping[str, Sequence[str]] | None = None,
    seed: int | None = None,
    ways: int = 1,
    test_ways: int | None = None,
    size: int | None = None,
    channels: int | None = None,
    invert: bool = False,
    per_class: int | None = None,
    min_per_class: int | None = None,
    download: bool = False,
    examples: Any = None,
    progress: bool = True,
) -> Division:
    """Reads the examples of a benchmark and divides its classes into training, validation and test.

    Images are decoded once, scaled to a square, and cached as one array in the folder that the environment variable
    `JAXMETA_CACHE` names, else in the user's cache folder, under a fingerprint of the files. Archives are read in place
    and never changed. `describe_tasksets(name).files` tells which files a benchmark reads.

    Args:
        name: a benchmark that is read from files, see `list_tasksets`, `"folder"` for images of your own,
            `"sentences"` for text and `"features"` for vectors of your own. Omniglot comes without its rotated classes.
        root: folder of the files, which are looked for in it and in its subfolder `name`. By default the folder that
            the environment variable `JAXMETA_DATA` names, else the user's cache folder. Or a file `.npz` of all
            examples that `Examples.save` wrote, which replaces the files. For `"folder"` the folder
            (or zip or tar archive) that contains `<class>/<image>`, or `train/<class>/<image>` and so on. For
            `"sentences"` a table `.csv` with the columns `text` and `label`, or a folder of these or of `<class>.txt`
            with a sentence in each line, or a list `.txt` of lines `class<TAB>sentence`. For `"features"` a file
            `.npz`, see `Examples.load`.
        split: a published split, `"files"` for the split of the files if they are in folders `train` and `test`,
            `"random"`, or `"all"` for all classes in each part, to test on classes of another data set. Or the class
            names of each part, as in `BenchmarkTasksets.classes`, where other classes are left out. By default that of
            the files, else the first published one, else `"random"`. For `"folder"` this default is called `"auto"`.
        seed: seed of `split="random"`, by default 0.
        ways: the least number of training classes of `split="random"`. The shares of its parts hold approximately,
            because each class is placed by a hash of its name, so that another class moves none.
        test_ways: the least number of validation and of test classes of `split="random"`, by default `ways`. Where
            there are too few classes for three parts, the validation part has none.
        size: height and width of the images in pixels, by default the benchmark's. For `"folder"` by default that of
            the files if all are squares of one size of at most 128 pixels, else 84.
        channels: 1 for gray images, 3 for RGB, by default the benchmark's. For `"folder"` by default 1 if all files are
            gray, else 3.
        invert: whether to exchange dark and light. Omniglot has white ink on black, most scans have the opposite.
        per_class: number of examples of each class to read, the first ones. By default the benchmark's, mostly all.
        min_per_class: leaves out the classes that have fewer examples.
        download: whether to download missing files, if there is a published checksum.
        examples: data to use instead of files: the inputs and the class name of each, in two containers that are
            read by position (arrays, lists, series, frames), or `Examples` or a `MetaDataset`.
        progress: whether to show progress bars.

    Returns:
        The examples of the three parts, which share no class.

    Raises:
        ValueError: if there is no such benchmark or split, an argument is out of range or does not apply, or the data
            is damaged or not complete.
        FileNotFoundError: if the data is missing.
        ConnectionError: if a download fails.
        ImportError: if a prepared TFDS directory was found, and TFDS is not installed.

    Example:
        >>> import numpy as np
        >>> images, names = np.zeros((8, 4, 4, 3), np.uint8), ["a", "b", "c", "d"] * 2
        >>> train, validation, test = load_examples("folder", examples=(images, names))
        >>> train.names, validation.names, test.names
        (('b', 'c'), ('d',), ('a',))
    """
    name = find_name("name", name, (*SOURCES, *_OWN, OMNIGLOT))
    source = source_of(name)
    if examples is None and name not in (*_OWN, OMNIGLOT) and (packed := packed_examples(root)) is not None:
        examples, root = packed, None
    check_optional_integer(size=size, per_class=per_class, ways=ways, test_ways=test_ways, min_per_class=min_per_class)
    check_optional_integer(seed=seed, least=0)
    if size is not None and (not source.scalable or source.kind == "text" or examples is not None):
        raise ValueError(f"size does not apply to {name!r}{' given as arrays' if examples is not None else ''}")
    per_class = source.per_class if per_class is None else per_class
    if channels is not None:
        check_choice("channels", channels, (1, 3))
    own = (size, channels) if name == FOLDER else (size or source.size, 3)
    request = ReadRequest(_known(name), *own, per_class, progress)
    if examples is not None and (root is not None or download):
        raise ValueError("root and download do not apply to examples that are given")
    if name == OMNIGLOT:
        parts = _omniglot(examples, root, split, seed, download=download, progress=progress)
        parts = Division(*(first_examples(part, per_class) for part in parts))
        return Division(*(replace(part, inputs=adapt(part.inputs, channels, invert)) for part in parts))
    if examples is None:
        found = _read(name, source, root, request, download)
        if name == FOLDER and found.parts is None:
            hint_at_level(found.names)
    else:
        found = _given(name, examples, per_class)
    try:
        found = replace(found, inputs=adapt(found.inputs, channels, invert))
        return _divide(name, source, found, split, seed, (ways, test_ways or ways), min_per_class)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _known(name: str) -> frozenset[str]:
    return frozenset(of for split in standard_splits(name).values() for names in split.values() for of in names)


def _given(name: str, examples: Any, per_class: int | None) -> Examples:
    if hasattr(examples, "named_targets"):  # a MetaDataset
        examples = examples.take_all(), examples.named_targets
    if not isinstance(examples, Examples):
        if not isinstance(examples, tuple | list) or len(examples) != 2 or not all(map(is_column, examples)):
            raise ValueError("examples must be a pair: the inputs, and the class name of each")
        try:
            examples = Examples.of(*examples)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return first_examples(examples, per_class)


def _divide(
    name: str, source: Source, found: Examples, split: Any, seed: int | None, ways: tuple[int, int], least: int | None
) -> Division:
    published = standard_splits(name)
    numbered = found.parts is not None and _known(name).isdisjoint(found.names)
    if split is None or (split == "auto" and not published) or (numbered and split == next(iter(published), None)):
        split = "files" if found.parts is not None else next(iter(published), "random")
    if not isinstance(split, Mapping):
        check_choice("split", split, (*published, "random", "all", *(["files"] if found.parts is not None else [])))
    check_seed(split, seed)
    if isinstance(split, str) and split in published:
        parts = divide(found, published[split])
        return parts if least is None else Division(*(large_enough(part, least) for part in parts))
    if least is not None:
        found = large_enough(found, least)
    if split == "random":
        return divide(found, random_lists(found.names, source.random, int(seed or 0), *ways))
    if split == "all":
        return Division(found, found, found)
    lists = check_lists(split) if isinstance(split, Mapping) else lists_of_parts(found)
    return divide(found, lists, others="reported" if isinstance(split, RecordedLists) else "left out")


def _read(name: str, source: Source, root: str | Path | None, request: ReadRequest, download: bool) -> Examples:
    """Finds the files and reads them, or returns their examples from the cache."""
    if name in _OWN:
        return _read_own(name, source, root, request, download)
    folder = data_folder(root)
    bases = (folder, folder / name, folder / source.kind / name)
    for layout in source.layouts:
        for base in bases:
            if paths := _paths(layout, base):
                return _read_layout(name, layout, paths, request)
    prepared = source.prepared
    for base in bases:
        if prepared and (path := find_prepared(prepared.name, base)):
            return _cached(
                name, request, Files([path]).stamp(), lambda path=path: read_prepared(path, prepared, request)
            )
    if not (download and source.downloadable):
        raise FileNotFoundError(_missing(name, source, folder))
    target = folder / name if source.kind == "text" else folder
    paths = [fetch(remote, target, request.progress) for remote in source.remotes]
    return _read_layout(name, source.layouts[0], paths, request)


def source_of(name: str) -> Source:
    """Returns the description of a benchmark that is read from files, or of data of one's own."""
    if name == OMNIGLOT:
        return Source("Omniglot", "", (), (), size=28, scalable=False)
    return _OWN[name] if name in _OWN else SOURCES[name]


def _omniglot(examples: Any, root: str | Path | None, split: Any, seed: int | None, **load: bool) -> Division:
    """Returns the drawings of the characters of each part of Omniglot."""
    check_seed(split, seed)
    omniglot = Omniglot.of(*examples) if examples is not None else Omniglot.load(root, **load)
    rows, found = omniglot.split(split or SPLITS[0], seed or 0), omniglot.examples()
    return Division(*(found.select([omniglot.names[row] for row in of]) for of in rows))


def _read_own(name: str, source: Source, root: str | Path | None, request: ReadRequest, download: bool) -> Examples:
    what = "a file .npz with x and y" if name == FEATURES else "a folder, or a zip or tar archive"
    what += " or a table .csv or a list .txt" if name == SENTENCES else ""
    if root is None or download:
        raise ValueError(f"{name!r} needs root, {what}, and downloads nothing")
    path = expanded(root).absolute()
    single = path.is_file() and path.name.lower().endswith(
        {SENTENCES: (".csv", ".txt"), FEATURES: ".npz"}.get(name, ())
    )
    folder = name != FEATURES and (path.is_dir() or (path.is_file() and is_archive(path)))
    if not single and not folder:
        raise FileNotFoundError(f"root must be {what}, got {path}")
    return _read_layout(name, source.layouts[0], [path], request)


def _read_layout(name: str, layout: Layout, paths: Sequence[Path], request: ReadRequest) -> Examples:
    files = Files(paths, "It was left as it is: move it away and get it again." if name not in _OWN else "")
    if not layout.cached:
        return layout.read(files, request)
    return _cached(name, request, files.stamp(), lambda: layout.read(files, request))


def _cached(name: str, request: ReadRequest, stamp: str, read: Callable[[], Examples]) -> Examples:
    def make() -> dict[str, np.ndarray]:
        found = read()
        about = json.dumps({"names": found.names, "parts": found.parts})  # an array makes each name as long as any
        return {"inputs": found.inputs, "labels": found.labels, "about": np.frombuffer(about.encode(), np.uint8)}

    mark = hashlib.sha256(
        repr((_VERSION, stamp, request.size, request.channels, request.per_class)).encode()
    ).hexdigest()[:16]
    stored = cached(f"{name}-{request.size or 'own'}-{mark}", ["inputs", "labels", "about"], make)
    about = json.loads(stored["about"].tobytes())
    parts = None if about["parts"] is None else tuple(about["parts"])
    return Examples(stored["inputs"], stored["labels"], tuple(about["names"]), parts)


def _paths(layout: Layout, base: Path) -> list[Path] | None:
    """Returns the files of a layout in a folder, or in the folder that it is itself, or `None` if some are missing."""
    found = []
    for names in layout.files:
        here = [base / name for name in names if (base / name).exists()]
        here += [base for name in names if base.name == name and base.is_dir()]
        here = [path for path in here if not any(path.glob("*/dataset_info.json"))]  # prepared by TFDS
        if not here:
            return None
        found.append(here[0])
    return found


def _missing(name: str, source: Source, folder: Path) -> str:
    """Returns the message about missing files: where they were looked for, which ones, and how to get them."""
    if source.downloadable:
        advice = "Name the folder with root (--root) or JAXMETA_DATA, or allow a download (--download)."
    else:
        advice = "Name the folder with root (--root) or JAXMETA_DATA. There is no download that could be checked."
    return (
        f"{name}: nothing to read in {folder}, {folder / name} or {folder / source.kind / name}. "
        f"It reads {describe_layouts(source)}. Get {' and '.join(map(str, source.remotes))}. {advice}"
    )
