"""Types that describe a benchmark."""

import hashlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np

from jaxmeta._types import Sampler
from jaxmeta.display import short_repr

Kind: TypeAlias = Literal["images", "text", "vectors", "regression"]
KINDS: tuple[Kind, ...] = ("images", "text", "vectors", "regression")
SIZES = ("ways", "shots", "queries", "test_ways", "test_shots", "test_queries")
"""Arguments of `get_tasksets` for the sizes of tasks."""
ARGUMENTS = (*SIZES, "test_rotations", "split", "seed", "root", "download", "size", "per_class", "min_per_class")
ARGUMENTS += ("channels", "invert", "examples")
"""All arguments of `get_tasksets` except the name."""


class TaskSampler(Sampler, Protocol):
    """A sampler with an example of its inputs."""

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, ...]`."""
        ...


class BenchmarkTasksets(NamedTuple):
    """Samplers for the three parts of a benchmark, which share no class.

    Example:
        >>> import numpy as np
        >>> from jaxmeta import data
        >>> examples = np.zeros((24, 2)), np.repeat(["a", "b", "c", "d", "e", "f"], 4)
        >>> tasksets = data.get_tasksets("folder", ways=2, queries=2, examples=examples)
        >>> tasksets.classes["test"]
        ('a', 'd')
        >>> again = data.get_tasksets("folder", ways=2, queries=3, examples=examples, split=tasksets.classes)
        >>> again.classes == tasksets.classes, again.stamp == tasksets.stamp
        (True, True)
    """

    train: TaskSampler
    """Sampler for meta-training."""
    validation: TaskSampler
    """Sampler for choosing meta-parameters and hyper-parameters."""
    test: TaskSampler
    """Sampler for the reported numbers."""

    __repr__ = short_repr

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Class names of each part, which `get_tasksets` takes as `split`. Empty where classes have no names.

        A part whose classes are those of the training part, because there are too few, has none of its own.
        """
        names = {part: tuple(getattr(sampler, "class_names", ())) for part, sampler in self._asdict().items()}
        return names | {"validation": ()} if names["validation"] == names["train"] else names

    @property
    def stamp(self) -> str:
        """Fingerprint of the examples and class names of the three parts. The sizes of tasks do not matter.

        Of a `Taskset` whose examples are no array it sees the labels only.
        """
        digest = hashlib.sha256()
        for sampler in self:
            digest.update(repr(tuple(getattr(sampler, "class_names", ()))).encode())
            for leaf in _arrays_of(sampler):
                array = np.ascontiguousarray(leaf)
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(array.view(np.uint8).data if array.ndim else array.tobytes())
        return digest.hexdigest()[:16]


def _arrays_of(sampler: Any) -> list[Any]:
    """Returns the arrays that a sampler draws from."""
    dataset: Any = getattr(sampler, "dataset", None)
    if not hasattr(dataset, "targets"):
        return jax.tree.leaves(sampler)
    inputs = dataset.inputs_in_memory
    return [dataset.targets] if inputs is None else [dataset.targets, inputs]


class BenchmarkInfo(NamedTuple):
    """Facts about a benchmark that are known before it is read."""

    about: str
    """Description in one line."""
    kind: Kind
    """Kind of the inputs: images `[H, W, C]`, text or other vectors `[d]`, or for regression numbers `[1]`."""
    splits: tuple[str, ...]
    """Possible divisions of the classes, the default first. Empty if there is no choice."""
    arguments: frozenset[str]
    """Arguments of `get_tasksets` that apply."""
    paper: str = ""
    """Short citation with a link, if there is a paper."""
    files: str = ""
    """Files that must be in `root`, and whether they can be downloaded. Empty if no files are needed."""
    bright_ink: bool = False
    """True for drawings with ink = 1, so that pictures of dark ink are inverted for a model that was trained on it."""

    __repr__ = short_repr


class Benchmark(NamedTuple):
    """A benchmark in the registry."""

    name: str
    """Name of the benchmark."""
    build: Callable[..., BenchmarkTasksets]
    """Function from the given arguments of `get_tasksets` to the samplers."""
    info: BenchmarkInfo
    """Facts about the benchmark."""
