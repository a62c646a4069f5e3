"""Few-shot benchmarks by name."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import jax

from jaxmeta._types import Sampler
from jaxmeta.data._few_shot import FewShot
from jaxmeta.data._glyphs import Glyphs
from jaxmeta.data._omniglot import Omniglot
from jaxmeta.data._sinusoid import Sinusoid


class TaskSampler(Sampler, Protocol):
    """A sampler that also shows what its inputs look like."""

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, ...]`."""
        ...


class TaskSets(NamedTuple):
    """Samplers of the three parts of a benchmark; no class is in two of them."""

    train: TaskSampler
    """For meta-training."""
    validation: TaskSampler
    """For choosing among meta-parameters and hyper-parameters."""
    test: TaskSampler
    """For the number to report."""


class _Options(NamedTuple):
    """The arguments of `get_tasksets`; `None` is the benchmark's default."""

    ways: int | None
    shots: int | None
    queries: int | None
    test_ways: int | None
    test_shots: int | None
    test_queries: int | None
    split: str | None
    seed: int | None
    root: str | Path | None
    download: bool | None


class _Sizes(NamedTuple):
    ways: int
    shots: int
    queries: int


def _sizes(options: _Options) -> tuple[_Sizes, _Sizes]:
    """Return the sizes of training tasks and of validation and test tasks."""

    def first(*values: int | None) -> int:
        return next(value for value in values if value is not None)

    train = _Sizes(first(options.ways, 5), first(options.shots, 1), first(options.queries, 15))
    test = (options.test_ways, options.test_shots, options.test_queries)
    return train, _Sizes(*(first(value, default) for value, default in zip(test, train, strict=True)))


def _glyphs(options: _Options) -> TaskSets:
    train, test = _sizes(options)
    seed = options.seed or 0
    return TaskSets(
        train=Glyphs(*train, split="train", seed=seed),
        validation=Glyphs(*test, split="validation", seed=seed),
        test=Glyphs(*test, split="test", seed=seed),
    )


def _omniglot(options: _Options) -> TaskSets:
    split = options.split or "vinyals"
    if options.seed is not None and split != "random":
        raise ValueError(f"seed applies to split='random' only, got seed={options.seed!r} with split={split!r}")
    train, test = _sizes(options)
    omniglot = Omniglot.load(options.root, download=bool(options.download))
    rows = omniglot.split(split, options.seed or 0)

    def sampler(part: str, sizes: _Sizes, rotations: int) -> FewShot:
        images = omniglot.images[getattr(rows, part)]
        try:
            return FewShot.from_classes(images, rotations=rotations, **sizes._asdict())
        except ValueError as error:
            raise ValueError(f"{part} tasks of 'omniglot': {error}") from error

    return TaskSets(sampler("train", train, 4), sampler("validation", test, 1), sampler("test", test, 1))


def _sinusoid(options: _Options) -> TaskSets:
    default = Sinusoid()
    train = Sinusoid(
        shots=default.shots if options.shots is None else options.shots,
        queries=default.queries if options.queries is None else options.queries,
    )
    test = Sinusoid(
        shots=train.shots if options.test_shots is None else options.test_shots,
        queries=train.queries if options.test_queries is None else options.test_queries,
    )
    return TaskSets(train, test, test)


class _Benchmark(NamedTuple):
    build: Callable[[_Options], TaskSets]
    options: frozenset[str]
    """What applies beside `shots`, `queries`, `test_shots` and `test_queries`."""


_BENCHMARKS = {
    "glyphs": _Benchmark(_glyphs, frozenset({"ways", "test_ways", "seed"})),
    "omniglot": _Benchmark(_omniglot, frozenset({"ways", "test_ways", "split", "seed", "root", "download"})),
    "sinusoid": _Benchmark(_sinusoid, frozenset()),
}
_COMMON = frozenset({"shots", "queries", "test_shots", "test_queries"})


def list_tasksets() -> tuple[str, ...]:
    """Return the names that `get_tasksets` knows, sorted.

    Returns:
        The names.

    Example:
        >>> list_tasksets()
        ('glyphs', 'omniglot', 'sinusoid')
    """
    return tuple(sorted(_BENCHMARKS))


def get_tasksets(
    name: str,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    *,
    test_ways: int | None = None,
    test_shots: int | None = None,
    test_queries: int | None = None,
    split: str | None = None,
    seed: int | None = None,
    root: str | Path | None = None,
    download: bool | None = None,
) -> TaskSets:
    """Make the samplers of a benchmark.

    | name | what | arguments that apply |
    | --- | --- | --- |
    | `"glyphs"` | `Glyphs`: endless procedural characters, no download | sizes, `seed` |
    | `"omniglot"` | `Omniglot`: 28x28 characters; in training, rotations are classes of their own, in validation and test there are none, as in MAML's code | sizes, `split`, `seed`, `root`, `download` |
    | `"sinusoid"` | `Sinusoid`: regression; the three parts are the same distribution | sizes but `ways` and `test_ways` |

    An argument that is `None` takes the benchmark's default; one that is given but does not apply is an error.

    Args:
        name: One of `list_tasksets()`.
        ways: Classes in a task; 5 by default.
        shots: Support examples per class; 1 by default, 10 for `"sinusoid"`.
        queries: Query examples per class; 15 by default, 10 for `"sinusoid"`.
        test_ways: Classes in a task of validation and test; `ways` by default.
        test_shots: Support examples per class in validation and test; `shots` by default.
        test_queries: Query examples per class in validation and test; `queries` by default.
        split: How classes are divided, see `Omniglot.split`; `"vinyals"` by default.
        seed: Which classes there are (`"glyphs"`), or the seed of `split="random"` (`"omniglot"`); 0 by default.
        root: Folder with the data, see `Omniglot.load`.
        download: Whether to fetch missing data; no by default.

    Returns:
        The samplers for training, validation and test.

    Raises:
        ValueError: If the name is unknown, or an argument is out of range or does not apply.
        FileNotFoundError: If the data is missing.

    Example:
        >>> import jax
        >>> tasksets = get_tasksets("sinusoid", shots=5)
        >>> tasksets.train(jax.random.key(0)).support.x.shape
        (5, 1)
    """  # noqa: E501
    if name not in _BENCHMARKS:
        raise ValueError(f"name must be one of {', '.join(map(repr, list_tasksets()))}, got {name!r}")
    options = _Options(ways, shots, queries, test_ways, test_shots, test_queries, split, seed, root, download)
    benchmark = _BENCHMARKS[name]
    for argument, value in options._asdict().items():
        if value is not None and argument not in benchmark.options | _COMMON:
            allowed = ", ".join(sorted(benchmark.options | _COMMON))
            raise ValueError(f"{argument} does not apply to {name!r}, got {value!r}; what applies: {allowed}")
    return benchmark.build(options)
