"""Types that describe a benchmark."""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, TypeAlias

import jax

from jaxmeta._types import Sampler

Kind: TypeAlias = Literal["images", "text", "regression"]
KINDS: tuple[Kind, ...] = ("images", "text", "regression")
SIZES = ("ways", "shots", "queries", "test_ways", "test_shots", "test_queries")
"""Arguments of `get_tasksets` for the sizes of tasks."""
ARGUMENTS = (*SIZES, "test_rotations", "split", "seed", "root", "download", "size", "per_class", "examples")
"""All arguments of `get_tasksets` except the name."""


class TaskSampler(Sampler, Protocol):
    """A sampler with an example of its inputs."""

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, ...]`."""
        ...


class BenchmarkTasksets(NamedTuple):
    """Samplers for the three parts of a benchmark, which share no class."""

    train: TaskSampler
    """Sampler for meta-training."""
    validation: TaskSampler
    """Sampler for choosing meta-parameters and hyper-parameters."""
    test: TaskSampler
    """Sampler for the reported numbers."""


class BenchmarkInfo(NamedTuple):
    """Facts about a benchmark that are known before it is read."""

    about: str
    """Description in one line."""
    kind: Kind
    """Kind of the inputs: images `[H, W, C]`, vectors of sentences `[d]`, or for regression numbers `[1]`."""
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


class Benchmark(NamedTuple):
    """A benchmark in the registry."""

    name: str
    """Name of the benchmark."""
    build: Callable[..., BenchmarkTasksets]
    """Function from the given arguments of `get_tasksets` to the samplers."""
    info: BenchmarkInfo
    """Facts about the benchmark."""
