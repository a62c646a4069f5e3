"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each (Lake et al. 2015)."""

import contextlib
import json
import os
import random
import tempfile
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmeta.data._omniglot_files import ARCHIVES, DRAWINGS, advice, find_source, fingerprint, read_characters

_SPLITS = ("vinyals", "background", "random")


class OmniglotSplit(NamedTuple):
    """Which characters belong to which part: sorted rows of `Omniglot.images`."""

    train: np.ndarray
    """`[n]`, int."""
    validation: np.ndarray
    """`[n]`, int."""
    test: np.ndarray
    """`[n]`, int."""


@dataclass(frozen=True, eq=False)
class Omniglot:
    """The Omniglot characters as 28x28 images. Read them with `Omniglot.load`.

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
    """Drawings, ink = 255: `[1623, 20, 28, 28, 1]`, uint8."""
    names: tuple[str, ...]
    """'Alphabet/characterNN' of each character, sorted."""
    background: np.ndarray
    """Whether a character is of the background set (30 alphabets, 964 characters): `[1623]`, bool."""

    @classmethod
    def load(cls, root: str | Path | None = None, *, download: bool = False, progress: bool = True) -> "Omniglot":
        """Read Omniglot from its archives or folders.

        Reads `images_background` and `images_evaluation`, each a `.zip` or a folder of that name, in `root` or
        `root/omniglot`; archives are read in place and never changed. Drawings are inverted and reduced to 28x28 with a
        Lanczos filter. The result is kept in the folder that the environment variable `JAXMETA_CACHE` names (else the
        user's cache folder), under the fingerprint of what was read: the next time takes a fraction of a second.

        Args:
            root: Where the data is; by default the folder that the environment variable `JAXMETA_DATA` names, else the
                user's cache folder.
            download: Fetch missing archives into `root` (16 MB) and check them against the published checksums.
            progress: Show progress bars.

        Returns:
            The data set.

        Raises:
            FileNotFoundError: If an archive is missing and `download` is false.
            ConnectionError: If a download fails.
            ValueError: If an archive or a drawing is damaged or incomplete.
        """
        folder = Path(root or os.environ.get("JAXMETA_DATA") or _user_cache()).expanduser()
        sources = {name: find_source(name, folder, download, progress) for name in ARCHIVES}
        cached = _cache_path(list(sources.values()))
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return _read_cache(cached)  # absent or damaged: made again below
        images, names = [], []
        for name, source in sources.items():
            part, characters = read_characters(source, progress)
            if len(characters) != ARCHIVES[name].characters:
                raise ValueError(
                    f"{source} is not complete: it has {len(characters)} characters, "
                    f"but {name} has {ARCHIVES[name].characters}. {advice()}"
                )
            images.append(part)
            names += characters
        order = sorted(range(len(names)), key=names.__getitem__)
        background = np.arange(len(names)) < ARCHIVES["images_background"].characters
        result = cls(np.concatenate(images)[order], tuple(names[i] for i in order), background[order])
        try:
            _write_cache(cached, result)
        except OSError as error:
            warnings.warn(f"Omniglot will be decoded again the next time: no cache at {cached} ({error})", stacklevel=2)
        return result

    def split(self, split: str = "vinyals", seed: int = 0) -> OmniglotSplit:
        """Divide the characters into three disjoint parts.

        Args:
            split: `"vinyals"`: the 1028/172/423 characters of Vinyals et al. (2016); `"background"`: test on the
                659 characters of the evaluation set, validate on the five smallest alphabets of the background set, as
                Meta-Dataset does (883/81/659); `"random"`: 1100/100/423 characters, shuffled, as learn2learn does.
            seed: Seed of the shuffle, for `"random"` only.

        Returns:
            The rows of `images` in each part.

        Raises:
            ValueError: If there is no such split.
        """
        if split == "vinyals":
            letters = json.loads((resources.files("jaxmeta.data") / "splits/omniglot_vinyals.json").read_text("utf-8"))
            alphabets = (name.rsplit("/character", 1) for name in self.names)
            part = np.array(["tve".index(letters[alphabet][int(number) - 1]) for alphabet, number in alphabets])
        elif split == "background":
            alphabet = np.array([name.split("/")[0] for name in self.names])
            found, sizes = np.unique(alphabet[self.background], return_counts=True)
            smallest = found[np.argsort(sizes, kind="stable")[:5]]
            part = np.where(self.background, np.isin(alphabet, smallest).astype(int), 2)
        elif split == "random":
            order = list(range(len(self.names)))
            random.Random(seed).shuffle(order)
            part = np.full(len(order), 2)
            part[order[:1100]], part[order[1100:1200]] = 0, 1
        else:
            raise ValueError(f"split must be one of {', '.join(map(repr, _SPLITS))}, got {split!r}")
        return OmniglotSplit(*(np.flatnonzero(part == i) for i in range(3)))


def _user_cache() -> Path:
    import pooch

    return Path(pooch.os_cache("jaxmeta"))


def _cache_path(sources: list[Path]) -> Path:
    """Return where the packed images of these sources are kept."""
    folder = Path(os.environ.get("JAXMETA_CACHE") or _user_cache()).expanduser()
    return folder / f"omniglot28-{fingerprint(sources)}.npz"


def _read_cache(path: Path) -> Omniglot:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
        images, names, background = stored["images"], stored["names"], stored["background"]
    if images.shape != (len(names), DRAWINGS, 28, 28, 1) or images.dtype != np.uint8 or len(background) != len(names):
        raise ValueError(f"{path} does not hold Omniglot")
    return Omniglot(images, tuple(names.tolist()), background)


def _write_cache(path: Path, omniglot: Omniglot) -> None:
    """Write the packed images in one step: readers see the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            names = np.array(omniglot.names)
            np.savez_compressed(file, images=omniglot.images, names=names, background=omniglot.background)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
