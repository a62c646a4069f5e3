"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each (Lake et al. 2015)."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmeta._checks import check_choice, check_integer
from jaxmeta.data.containers import Examples, as_array, as_labels
from jaxmeta.data.sources._cache import cached, data_folder
from jaxmeta.data.sources._division import PARTS, check_lists, few
from jaxmeta.data.sources._omniglot_files import ARCHIVES, DRAWINGS, EVALUATION, advice, find_halves
from jaxmeta.data.sources._packed import packed_examples
from jaxmeta.display import short_repr

_VERSION = 2  # to be increased when the decoding changes
SPLITS = ("vinyals", "background", "random")


class OmniglotSplit(NamedTuple):
    """Characters of each part: sorted rows of `Omniglot.images`."""

    train: np.ndarray
    """Characters for meta-training: `[n]`, int."""
    validation: np.ndarray
    """Characters for choosing meta-parameters and hyper-parameters: `[n]`, int."""
    test: np.ndarray
    """Characters for the reported numbers: `[n]`, int."""

    __repr__ = short_repr


@dataclass(frozen=True, eq=False)
class Omniglot:
    """The Omniglot characters as 28x28 images, read with `Omniglot.load`.

    Example:
        >>> omniglot = Omniglot.load("/data")                                       # doctest: +SKIP
        >>> train, validation, test = omniglot.split("vinyals")                     # doctest: +SKIP
        >>> FewShot.from_classes(omniglot.images[train], rotations=4).num_classes   # doctest: +SKIP
        4112

    References:
        Lake et al., Human-level concept learning through probabilistic program induction, 2015,
        https://doi.org/10.1126/science.aab3050
    """

    images: np.ndarray
    """Drawings with ink = 255: `[1623, 20, 28, 28, 1]`, uint8."""
    names: tuple[str, ...]
    """Sorted names of the characters, `Alphabet/characterNN`."""
    background: np.ndarray
    """Mask of the background set (30 alphabets, 964 characters): `[1623]`, bool."""

    __repr__ = short_repr

    @classmethod
    def load(cls, root: str | Path | None = None, *, download: bool = False, progress: bool = True) -> "Omniglot":
        """Reads Omniglot from its archives or folders.

        It looks for `images_background` and `images_evaluation`, each a `.zip` or a folder of that name, in `root` and
        `root/omniglot`. If they are missing, it looks for data that TensorFlow Datasets prepared in
        `root/omniglot/<version>` or `root/tfds/omniglot/<version>`, which it reads without TensorFlow. Archives are
        read in place and never changed. Drawings are inverted and reduced to 28x28 with a Lanczos filter. The result
        is kept in the folder that the environment variable `JAXMETA_CACHE` names (else the user's cache folder), under
        a fingerprint of the files. Reading it again takes a fraction of a second.

        Args:
            root: folder of the data. By default the folder that the environment variable `JAXMETA_DATA` names, else
                the user's cache folder. Or a file `.npz` of all drawings that `Examples.save` wrote.
            download: whether to download missing archives to `root` (16 MB) and check their published checksums.
            progress: whether to show progress bars.

        Returns:
            The data set.

        Raises:
            FileNotFoundError: if an archive is missing and `download` is false.
            ConnectionError: if a download fails.
            ValueError: if an archive or a drawing is damaged or incomplete.
            ImportError: if a prepared TFDS directory was found, and TFDS is not installed.
        """
        if (packed := packed_examples(root)) is not None:
            return cls._packed(packed)
        halves = find_halves(data_folder(root), download, progress)

        def make() -> dict[str, np.ndarray]:
            images, names = [], []
            for half, (name, archive) in zip(halves, ARCHIVES.items(), strict=True):
                part, characters = half.read()
                if len(characters) != archive.characters:
                    raise ValueError(
                        f"{half.where} is not complete: it has {len(characters)} characters, "
                        f"but {name} has {archive.characters}. {advice()}"
                    )
                images.append(part)
                names += characters
            background = np.arange(len(names)) < ARCHIVES["images_background"].characters
            return {"images": np.concatenate(images), "names": np.array(names), "background": background}

        key = hashlib.sha256(repr((_VERSION, [half.stamp for half in halves])).encode()).hexdigest()[:16]
        stored = cached(f"omniglot28-{key}", ["images", "names", "background"], make)
        return cls._sorted(stored["images"], stored["names"], stored["background"])

    @classmethod
    def of(cls, images: Any, names: Any) -> "Omniglot":
        """Builds the data set from arrays.

        Args:
            images: drawings with ink = 255: `[1623, 20, 28, 28]` or `[1623, 20, 28, 28, 1]`, uint8.
            names: name of each character, `Alphabet/characterNN`, in any order.

        Returns:
            The data set.

        Raises:
            ValueError: if the arrays do not have these shapes and types.
        """
        images, found = np.asarray(as_array(images, "images")), as_labels(names, "names").astype(str)
        shape = (sum(archive.characters for archive in ARCHIVES.values()), DRAWINGS, 28, 28)
        if images.shape not in (shape, (*shape, 1)) or images.dtype != np.uint8 or found.shape != shape[:1]:
            raise ValueError(
                f"images must be uint8 of shape {list(shape)} with as many names, "
                f"got {images.dtype} of shape {images.shape} and {len(found)} names"
            )
        alphabets = [name.split("/")[0] for name in found.tolist()]
        return cls._sorted(images.reshape(*shape, 1), found, ~np.isin(alphabets, EVALUATION))

    @classmethod
    def _packed(cls, found: Examples) -> "Omniglot":
        """Builds the data set from all drawings of all characters."""
        counts = np.bincount(found.labels)
        if (counts != DRAWINGS).any():
            name = found.names[int(np.argmax(counts != DRAWINGS))]
            raise ValueError(f"omniglot must have {DRAWINGS} drawings of each character, and of {name} it has others")
        order = np.argsort(found.labels, kind="stable")
        return cls.of(found.inputs[order].reshape(-1, DRAWINGS, *found.inputs.shape[1:]), found.names)

    @classmethod
    def _sorted(cls, images: np.ndarray, names: np.ndarray, background: np.ndarray) -> "Omniglot":
        order = np.argsort(names)
        return cls(images[order], tuple(names[order].tolist()), background[order])

    def examples(self) -> Examples:
        """Returns all drawings as examples with the names of their characters."""
        labels = np.repeat(np.arange(len(self.names)), DRAWINGS)
        return Examples(self.images.reshape(-1, *self.images.shape[2:]), labels, self.names)

    def split(self, split: str | Mapping[str, Sequence[str]] = "vinyals", seed: int = 0) -> OmniglotSplit:
        """Divides the characters into three disjoint parts.

        Args:
            split: name of the split. `"vinyals"` is the split of Vinyals et al. (2016), 1028/172/423 characters.
                `"background"` tests on the evaluation set and validates on the five smallest alphabets of the
                background set, as Meta-Dataset does, 883/81/659 characters. `"random"` shuffles the characters, as
                learn2learn does, 1100/100/423 characters. `"all"` has all characters in each part, to test on another
                data set. Or the names of the characters of each part.
            seed: seed of the shuffle, for `"random"` only.

        Returns:
            The rows of `images` in each part.

        Raises:
            ValueError: if there is no such split, or the seed is not an integer of at least 0.
        """
        if not isinstance(split, Mapping):
            check_choice("split", split, (*SPLITS, "all"))
        (seed,) = check_integer(seed=seed, least=0)
        if isinstance(split, Mapping):
            return self._listed(check_lists(split))
        if split == "all":
            return OmniglotSplit(*3 * [np.arange(len(self.names))])
        if split == "vinyals":
            letters = json.loads((resources.files("jaxmeta.data") / "splits/omniglot_vinyals.json").read_text("utf-8"))
            alphabets = (name.rsplit("/character", 1) for name in self.names)
            part = np.array(["tve".index(letters[alphabet][int(number) - 1]) for alphabet, number in alphabets])
        elif split == "background":
            alphabet = np.array([name.split("/")[0] for name in self.names])
            found, sizes = np.unique(alphabet[self.background], return_counts=True)
            smallest = found[np.argsort(sizes, kind="stable")[:5]]
            part = np.where(self.background, np.isin(alphabet, smallest).astype(int), 2)
        else:
            order = list(range(len(self.names)))
            random.Random(seed).shuffle(order)
            part = np.full(len(order), 2)
            part[order[:1100]], part[order[1100:1200]] = 0, 1
        return OmniglotSplit(*(np.flatnonzero(part == i) for i in range(3)))

    def _listed(self, lists: Mapping[str, Sequence[str]]) -> OmniglotSplit:
        """Returns the rows of the characters of each part."""
        missing = sorted({name for names in lists.values() for name in names} - set(self.names))
        if missing:
            raise ValueError(f"split must name characters of Omniglot, got {few(missing)}")
        return OmniglotSplit(*(np.flatnonzero(np.isin(self.names, lists[part])) for part in PARTS))
