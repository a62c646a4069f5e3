"""Builders of the samplers of all built-in benchmarks, and their table."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmeta._checks import check_optional_integer
from jaxmeta.data._benchmark_types import SIZES, Benchmark, BenchmarkInfo, BenchmarkTasksets
from jaxmeta.data._ngrams import hash_ngrams
from jaxmeta.data.containers import Examples
from jaxmeta.data.samplers import (
    FewShot,
    GaussianProcess,
    Glyphs,
    Harmonic,
    Linear,
    Sinusoid,
    Size,
    check_sizes,
    largest,
)
from jaxmeta.data.sources import (
    FEATURES,
    FOLDER,
    SENTENCES,
    SOURCES,
    SPLITS,
    Omniglot,
    check_seed,
    describe_files,
    load_examples,
    source_of,
    standard_splits,
)


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
    split: str | Mapping[str, Sequence[str]] = SPLITS[0],
    seed: int | None = None,
    root: str | Path | None = None,
    download: bool = False,
    examples: Any = None,
    test_rotations: bool = False,
    **sizes: Size,
) -> BenchmarkTasksets:
    check_seed(split, seed)
    if examples is not None and (root is not None or download):
        raise ValueError("root and download do not apply to examples that are given")
    train, test = _sizes(**sizes)
    omniglot = Omniglot.load(root, download=download) if examples is None else Omniglot.of(*examples)
    rows = omniglot.split(split, 0 if seed is None else seed)

    def sampler(part: str, sizes: _Sizes, rotations: int) -> FewShot:
        of = getattr(rows, part)
        names = [omniglot.names[row] for row in of]
        try:
            return FewShot.from_classes(omniglot.images[of], rotations=rotations, names=names, **sizes._asdict())
        except ValueError as error:
            raise ValueError(f"{part} tasks of 'omniglot': {error}") from error

    rotations = 4 if test_rotations else 1
    return BenchmarkTasksets(
        sampler("train", train, 4), sampler("validation", test, rotations), sampler("test", test, rotations)
    )


def _from_files(
    name: str,
    *,
    root: str | Path | None = None,
    size: int | None = None,
    ways: Size = 5,
    test_ways: Size | None = None,
    shots: Size = 1,
    queries: Size = 15,
    test_shots: Size | None = None,
    test_queries: Size | None = None,
    **options: Any,
) -> BenchmarkTasksets:
    text = source_of(name).kind == "text"
    check_optional_integer(size=size)
    train, test = _sizes(ways, shots, queries, test_ways, test_shots, test_queries)
    least = (largest(*check_sizes(ways=part.ways)) for part in (train, test))
    options |= dict(zip(("ways", "test_ways"), least, strict=True))
    division = load_examples(name, root, size=None if text else size, **options)
    if not division.validation.names:
        told = f"{name}: no classes are left for validation, so validation tasks are drawn from the training classes"
        warnings.warn(told, stacklevel=3)
        division = division._replace(validation=division.train)
    samplers = []
    for part, found, sizes in zip(BenchmarkTasksets._fields, division, (train, test, test), strict=True):
        if text:
            found = replace(found, inputs=_vectors(found.inputs, size or source_of(name).size))
        try:
            samplers.append(FewShot.create(found, **sizes._asdict()))
        except ValueError as error:
            raise ValueError(f"{part} tasks of {name!r}: {error}. {_way_out(part, found, sizes)}".rstrip()) from error
    return BenchmarkTasksets(*samplers)


def _vectors(sentences: Any, size: int) -> Any:
    """Returns sentences as vectors. Arrays of numbers are taken for vectors already."""
    return hash_ngrams(sentences, size) if sentences.dtype.kind == "U" else sentences


def _way_out(part: str, found: Examples, sizes: _Sizes) -> str:
    """Returns what helps if a part has too few classes or examples for its tasks."""
    counts = np.bincount(found.labels)
    if largest(sizes.ways) > len(counts):
        option = "ways, in a run --train-ways" if part == "train" else "test_ways, in a run --ways"
        return f"The {part} part has {', '.join(found.names)}. Take fewer ways ({option}), or another split"
    needed = largest(sizes.shots) + largest(sizes.queries)
    if counts.min() >= needed:
        return ""
    option = "queries (--queries)" if part == "train" else "test_queries (--test-queries)"
    return f"Take fewer {option}, or leave such classes out by min_per_class={needed} (--min-per-class)"


def _regression(
    family: Callable[..., Sinusoid | Harmonic | Linear | GaussianProcess],
    *,
    fewest: int | None = None,
    shots: int = 10,
    queries: int = 10,
    **sizes: Size,
) -> BenchmarkTasksets:
    _, test = _sizes(0, shots, queries, **sizes)
    others = family(shots=test.shots, queries=test.queries)
    train = family(shots=shots if fewest is None else (fewest, largest(shots)), queries=queries)
    return BenchmarkTasksets(train, others, others)


_SIZES = frozenset(SIZES)
_REGRESSION_SIZES = _SIZES - {"ways", "test_ways"}
_FILES = _SIZES | {"split", "seed", "root", "download", "examples"}


def _source_info(name: str) -> BenchmarkInfo:
    source = SOURCES[name]
    return BenchmarkInfo(
        source.about,
        source.kind,
        (*standard_splits(name), "random"),
        _FILES
        | {"per_class", "min_per_class"}
        | ({"size"} if source.scalable else frozenset())
        | ({"channels", "invert"} if source.kind == "images" else frozenset()),
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
            ("auto", "files", "random"),
            (_FILES - {"download"}) | {"per_class", "min_per_class", "size", "channels", "invert"},
            files="root is a folder, or a zip or tar archive, with <class>/<image>, or with train/<class>/<image>, "
            "validation/<class>/<image> and test/<class>/<image>. No download.",
        ),
    ),
    Benchmark(
        SENTENCES,
        partial(_from_files, SENTENCES),
        BenchmarkInfo(
            "Sentences of your own: a table root.csv with text and label, or root/<class>.txt with one in each line",
            "text",
            ("random",),
            (_FILES - {"download"}) | {"per_class", "min_per_class", "size"},
            files="root is a table .csv with the columns text and label, or a folder or archive of tables, or of "
            "<class>.txt with a sentence in each line, or a list .txt of lines class<TAB>sentence. No download.",
        ),
    ),
    Benchmark(
        FEATURES,
        partial(_from_files, FEATURES),
        BenchmarkInfo(
            "Vectors of your own, such as features of a frozen network: root.npz with the arrays x and y",
            "vectors",
            ("auto", "files", "random"),
            (_FILES - {"download"}) | {"per_class", "min_per_class"},
            files="root is a file .npz with x, the vectors [n, d], y, the name of the class of each, and if the "
            "classes are divided part, train, validation or test for each. No download.",
        ),
    ),
    Benchmark(
        "glyphs",
        _glyphs,
        BenchmarkInfo(
            "Endless characters that look handwritten, drawn on the device",
            "images",
            (),
            _SIZES | {"seed"},
            bright_ink=True,
        ),
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
            bright_ink=True,
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
        "gp-prior",
        partial(_regression, GaussianProcess, fewest=0),
        BenchmarkInfo(
            "Gaussian processes with random kernels, trained with 0 to `shots` examples (Müller et al. 2022)",
            "regression",
            (),
            _REGRESSION_SIZES,
            "Müller et al., Transformers Can Do Bayesian Inference, 2022, https://arxiv.org/abs/2112.10510",
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
