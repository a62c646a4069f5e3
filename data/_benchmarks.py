"""The table of all benchmarks, and how the samplers of each are made."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import jax

from jaxmeta._types import Sampler
from jaxmeta.data._ngrams import hash_ngrams
from jaxmeta.data.samplers import FewShot, Glyphs, Harmonic, Linear, Sinusoid, check_positive
from jaxmeta.data.sources import FOLDER, SOURCES, SPLITS, Omniglot, load_examples, standard_splits


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


class TaskSetsInfo(NamedTuple):
    """What there is to know about a benchmark before it is read."""

    about: str
    """What it is, in one line."""
    kind: Literal["images", "text", "regression"]
    """What the inputs are: images `[H, W, C]`, vectors of sentences `[d]`, or numbers `[1]`, as the targets."""
    splits: tuple[str, ...]
    """How its classes may be divided, the default first; empty if there is no choice."""
    arguments: frozenset[str]
    """The arguments of `get_tasksets` that apply."""


class Options(NamedTuple):
    """The arguments of `get_tasksets`; `None` is the benchmark's default."""

    ways: int | None
    shots: int | None
    queries: int | None
    test_ways: int | None
    test_shots: int | None
    test_queries: int | None
    test_rotations: bool | None
    split: str | None
    seed: int | None
    root: str | Path | None
    download: bool | None
    size: int | None
    per_class: int | None
    examples: tuple[Any, Sequence[str]] | None


class _Sizes(NamedTuple):
    ways: int
    shots: int
    queries: int


def _sizes(options: Options) -> tuple[_Sizes, _Sizes]:
    """Return the sizes of training tasks and of validation and test tasks."""

    def first(*values: int | None) -> int:
        return next(value for value in values if value is not None)

    train = _Sizes(first(options.ways, 5), first(options.shots, 1), first(options.queries, 15))
    test = (options.test_ways, options.test_shots, options.test_queries)
    return train, _Sizes(*(first(value, default) for value, default in zip(test, train, strict=True)))


def _glyphs(_: str, options: Options) -> TaskSets:
    train, test = _sizes(options)
    seed = options.seed or 0
    return TaskSets(
        train=Glyphs(*train, split="train", seed=seed),
        validation=Glyphs(*test, split="validation", seed=seed),
        test=Glyphs(*test, split="test", seed=seed),
    )


def _omniglot(_: str, options: Options) -> TaskSets:
    split = options.split or SPLITS[0]
    if options.seed is not None and split != "random":
        raise ValueError(f"seed applies to split='random' only, got seed={options.seed!r} with split={split!r}")
    if options.examples is not None and (options.root is not None or options.download):
        raise ValueError("root and download do not apply to examples that are given")
    train, test = _sizes(options)
    if options.examples is None:
        omniglot = Omniglot.load(options.root, download=bool(options.download))
    else:
        omniglot = Omniglot.of(*options.examples)
    rows = omniglot.split(split, options.seed or 0)

    def sampler(part: str, sizes: _Sizes, rotations: int) -> FewShot:
        images = omniglot.images[getattr(rows, part)]
        try:
            return FewShot.from_classes(images, rotations=rotations, **sizes._asdict())
        except ValueError as error:
            raise ValueError(f"{part} tasks of 'omniglot': {error}") from error

    turned = 4 if options.test_rotations else 1
    return TaskSets(sampler("train", train, 4), sampler("validation", test, turned), sampler("test", test, turned))


def _from_files(name: str, options: Options) -> TaskSets:
    text = name in SOURCES and SOURCES[name].kind == "text"
    if text and options.size is not None:
        check_positive(size=options.size)
    division = load_examples(
        name,
        options.root,
        split=options.split,
        seed=options.seed,
        size=None if text else options.size,
        per_class=options.per_class,
        download=bool(options.download),
        examples=options.examples,
    )
    train, test = _sizes(options)
    samplers = []
    for part, examples, sizes in zip(TaskSets._fields, division, (train, test, test), strict=True):
        inputs = hash_ngrams(examples.inputs, options.size or SOURCES[name].size) if text else examples.inputs
        try:
            samplers.append(FewShot.create(inputs, examples.labels, **sizes._asdict()))
        except ValueError as error:
            raise ValueError(f"{part} tasks of {name!r}: {error}") from error
    return TaskSets(*samplers)


def _regression(name: str, options: Options) -> TaskSets:
    family = _FAMILIES[name]
    default = family()
    train = family(
        shots=default.shots if options.shots is None else options.shots,
        queries=default.queries if options.queries is None else options.queries,
    )
    test = family(
        shots=train.shots if options.test_shots is None else options.test_shots,
        queries=train.queries if options.test_queries is None else options.test_queries,
    )
    return TaskSets(train, test, test)


class Benchmark(NamedTuple):
    """A benchmark by its name."""

    build: Callable[[str, Options], TaskSets]
    """Makes the samplers."""
    info: TaskSetsInfo
    """What it is."""


_FAMILIES: dict[str, Callable[..., Sinusoid | Harmonic | Linear]] = {
    "harmonic": Harmonic,
    "linear": Linear,
    "sinusoid": Sinusoid,
}
_COMMON = frozenset({"shots", "queries", "test_shots", "test_queries"})
_WAYS = _COMMON | {"ways", "test_ways"}
_FILES = _WAYS | {"split", "seed", "root", "download", "examples"}


def _info(name: str) -> TaskSetsInfo:
    source = SOURCES[name]
    arguments = _FILES | {"per_class"} | ({"size"} if source.scalable else frozenset())
    return TaskSetsInfo(source.about, source.kind, (*standard_splits(name), "random"), arguments)


BENCHMARKS: dict[str, Benchmark] = {
    FOLDER: Benchmark(
        _from_files,
        TaskSetsInfo(
            "Images of your own: root/<class>/<image>, or root/train/<class>/<image> and so on",
            "images",
            ("files", "random"),
            (_FILES - {"download"}) | {"per_class", "size"},
        ),
    ),
    "glyphs": Benchmark(
        _glyphs,
        TaskSetsInfo("Endless characters that look handwritten, drawn on the device", "images", (), _WAYS | {"seed"}),
    ),
    "omniglot": Benchmark(
        _omniglot,
        TaskSetsInfo(
            "Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each (Lake et al. 2015)",
            "images",
            SPLITS,
            _FILES | {"test_rotations"},
        ),
    ),
    "harmonic": Benchmark(
        _regression, TaskSetsInfo("Sums of two sines (Lacoste et al. 2018)", "regression", (), _COMMON)
    ),
    "linear": Benchmark(_regression, TaskSetsInfo("Straight lines (Finn et al. 2018)", "regression", (), _COMMON)),
    "sinusoid": Benchmark(_regression, TaskSetsInfo("Sinusoids (Finn et al. 2017)", "regression", (), _COMMON)),
    **{name: Benchmark(_from_files, _info(name)) for name in SOURCES},
}


def benchmark(name: str) -> Benchmark:
    """Return a benchmark by its name; raise ValueError if there is none."""
    if name not in BENCHMARKS:
        raise ValueError(f"name must be one of {', '.join(map(repr, sorted(BENCHMARKS)))}, got {name!r}")
    return BENCHMARKS[name]
