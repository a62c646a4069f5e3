"""Builders of the samplers of all built-in benchmarks, and their table."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jaxmeta._checks import check_choice, check_optional_integer
from jaxmeta.data._benchmark_types import SIZES, Benchmark, BenchmarkInfo, BenchmarkTasksets
from jaxmeta.data._ngrams import hash_ngrams
from jaxmeta.data.samplers import FewShot, Glyphs, Harmonic, Linear, Sinusoid, Size
from jaxmeta.data.sources import FOLDER, SOURCES, SPLITS, Omniglot, describe_files, load_examples, standard_splits


class _Sizes(NamedTuple):
    """Sizes of the tasks of one part."""

    ways: Any
    shots: Any
    queries: Any


def _sizes(
    ways: Size = 5,
    shots: Size = 1,
    queries: Size = 15,
    test_ways: Size | None = None,
    test_shots: Size | None = None,
    test_queries: Size | None = None,
) -> tuple[_Sizes, _Sizes]:
    """Returns the sizes of training tasks, and those of validation and test tasks."""
    train, test = _Sizes(ways, shots, queries), (test_ways, test_shots, test_queries)
    return train, _Sizes(*(default if size is None else size for size, default in zip(test, train, strict=True)))


def _glyphs(seed: int = 0, **sizes: int) -> BenchmarkTasksets:
    train, test = _sizes(**sizes)
    return BenchmarkTasksets(
        train=Glyphs(*train, split="train", seed=seed),
        validation=Glyphs(*test, split="validation", seed=seed),
        test=Glyphs(*test, split="test", seed=seed),
    )


def _omniglot(
    *,
    split: str = SPLITS[0],
    seed: int | None = None,
    root: str | Path | None = None,
    download: bool = False,
    examples: Any = None,
    test_rotations: bool = False,
    **sizes: Size,
) -> BenchmarkTasksets:
    check_choice("split", split, SPLITS)
    check_optional_integer(seed=seed, least=0)
    if seed is not None and split != "random":
        raise ValueError(f"seed applies to split='random' only, got seed={seed!r} with split={split!r}")
    if examples is not None and (root is not None or download):
        raise ValueError("root and download do not apply to examples that are given")
    train, test = _sizes(**sizes)
    omniglot = Omniglot.load(root, download=download) if examples is None else Omniglot.of(*examples)
    rows = omniglot.split(split, 0 if seed is None else seed)

    def sampler(part: str, sizes: _Sizes, rotations: int) -> FewShot:
        images = omniglot.images[getattr(rows, part)]
        try:
            return FewShot.from_classes(images, rotations=rotations, **sizes._asdict())
        except ValueError as error:
            raise ValueError(f"{part} tasks of 'omniglot': {error}") from error

    rotations = 4 if test_rotations else 1
    return BenchmarkTasksets(
        sampler("train", train, 4), sampler("validation", test, rotations), sampler("test", test, rotations)
    )


def _from_files(
    name: str,
    *,
    split: str | None = None,
    seed: int | None = None,
    root: str | Path | None = None,
    download: bool = False,
    size: int | None = None,
    per_class: int | None = None,
    examples: Any = None,
    **sizes: Size,
) -> BenchmarkTasksets:
    text = name in SOURCES and SOURCES[name].kind == "text"
    check_optional_integer(size=size)
    division = load_examples(
        name,
        root,
        split=split,
        seed=seed,
        size=None if text else size,
        per_class=per_class,
        download=download,
        examples=examples,
    )
    train, test = _sizes(**sizes)
    samplers = []
    for part, found, part_sizes in zip(BenchmarkTasksets._fields, division, (train, test, test), strict=True):
        inputs = hash_ngrams(found.inputs, size or SOURCES[name].size) if text else found.inputs
        try:
            samplers.append(FewShot.create(inputs, found.labels, **part_sizes._asdict()))
        except ValueError as error:
            raise ValueError(f"{part} tasks of {name!r}: {error}") from error
    return BenchmarkTasksets(*samplers)


def _regression(
    family: Callable[..., Sinusoid | Harmonic | Linear],
    *,
    shots: int = 10,
    queries: int = 10,
    test_shots: int | None = None,
    test_queries: int | None = None,
) -> BenchmarkTasksets:
    test = family(
        shots=shots if test_shots is None else test_shots, queries=queries if test_queries is None else test_queries
    )
    return BenchmarkTasksets(family(shots=shots, queries=queries), test, test)


_SIZES = frozenset(SIZES)
_REGRESSION_SIZES = _SIZES - {"ways", "test_ways"}
_FILES = _SIZES | {"split", "seed", "root", "download", "examples"}


def _source_info(name: str) -> BenchmarkInfo:
    source = SOURCES[name]
    return BenchmarkInfo(
        source.about,
        source.kind,
        (*standard_splits(name), "random"),
        _FILES | {"per_class"} | ({"size"} if source.scalable else frozenset()),
        source.paper,
        describe_files(source),
    )


_BENCHMARKS = (
    Benchmark(
        FOLDER,
        partial(_from_files, FOLDER),
        BenchmarkInfo(
            "Images of your own: root/<class>/<image>, or root/train/<class>/<image> and so on",
            "images",
            ("files", "random"),
            (_FILES - {"download"}) | {"per_class", "size"},
            files="root is a folder, or a zip or tar archive, with <class>/<image>, or with train/<class>/<image>, "
            "validation/<class>/<image> and test/<class>/<image>. No download.",
        ),
    ),
    Benchmark(
        "glyphs",
        _glyphs,
        BenchmarkInfo("Endless characters that look handwritten, drawn on the device", "images", (), _SIZES | {"seed"}),
    ),
    Benchmark(
        "omniglot",
        _omniglot,
        BenchmarkInfo(
            "Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each (Lake et al. 2015)",
            "images",
            SPLITS,
            _FILES | {"test_rotations"},
            "Lake et al., Human-level concept learning through probabilistic program induction, 2015, "
            "https://doi.org/10.1126/science.aab3050",
            "images_background.zip + images_evaluation.zip, or folders of these names; or omniglot/<version>/ prepared "
            "by TFDS. download=True fetches the two archives (16 MB).",
        ),
    ),
    Benchmark(
        "harmonic",
        partial(_regression, Harmonic),
        BenchmarkInfo(
            "Sums of two sines (Lacoste et al. 2018)",
            "regression",
            (),
            _REGRESSION_SIZES,
            "Lacoste et al., Uncertainty in Multitask Transfer Learning, 2018, https://arxiv.org/abs/1806.07528",
        ),
    ),
    Benchmark(
        "linear",
        partial(_regression, Linear),
        BenchmarkInfo(
            "Straight lines (Finn et al. 2018)",
            "regression",
            (),
            _REGRESSION_SIZES,
            "Finn, Xu and Levine, Probabilistic Model-Agnostic Meta-Learning, 2018, https://arxiv.org/abs/1806.02817",
        ),
    ),
    Benchmark(
        "sinusoid",
        partial(_regression, Sinusoid),
        BenchmarkInfo(
            "Sinusoids (Finn et al. 2017)",
            "regression",
            (),
            _REGRESSION_SIZES,
            "Finn et al., Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, 2017, "
            "https://arxiv.org/abs/1703.03400",
        ),
    ),
    *(Benchmark(name, partial(_from_files, name), _source_info(name)) for name in SOURCES),
)
BUILT_IN: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _BENCHMARKS}
