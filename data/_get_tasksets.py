"""Few-shot benchmarks by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmeta._names import suggestion
from jaxmeta.data._benchmark_types import ARGUMENTS, BenchmarkTasksets
from jaxmeta.data._benchmarks import find_benchmark
from jaxmeta.data.samplers import Size

_ELSEWHERE = {  # the arguments of learn2learn
    "train_ways": "has ways for training, and test_ways for validation and test",
    "train_samples": "has shots (support) and queries (query) per class instead of their sum",
    "test_samples": "has test_shots (support) and test_queries (query) per class instead of their sum",
    "train_shots": "has shots for training, and test_shots for validation and test",
    "train_queries": "has queries for training, and test_queries for validation and test",
    "num_tasks": "returns endless samplers: data.FixedTasks(sampler, key, num_tasks) fixes their number",
    "device": "puts data on JAX's default device, which jax.default_device(...) changes",
}


def get_tasksets(
    name: str,
    ways: Size | None = None,
    shots: Size | None = None,
    queries: Size | None = None,
    *,
    test_ways: Size | None = None,
    test_shots: Size | None = None,
    test_queries: Size | None = None,
    test_rotations: bool | None = None,
    split: str | Mapping[str, Sequence[str]] | None = None,
    seed: int | None = None,
    root: str | Path | None = None,
    download: bool | None = None,
    size: int | None = None,
    channels: int | None = None,
    invert: bool | None = None,
    per_class: int | None = None,
    min_per_class: int | None = None,
    examples: Any = None,
    **others: Any,
) -> BenchmarkTasksets:
    """Builds the samplers of a benchmark by its name.

    These benchmarks are built in. `register_tasksets` adds others, and `describe_tasksets` tells more about each:

    | name | benchmark | arguments that apply |
    | --- | --- | --- |
    | `"glyphs"` | `Glyphs`: endless procedural characters, no download | sizes, `seed` |
    | `"sinusoid"`, `"harmonic"`, `"linear"` | regression with the same distribution in all three parts | sizes except `ways` |
    | `"gp-prior"` | `GaussianProcess`, in training with 0 to `shots` examples | sizes except `ways` |
    | `"omniglot"` | `Omniglot`. Rotated characters are classes of their own in training only, as in MAML's code | all except `size`, `per_class`, `min_per_class` |
    | `"mini-imagenet"`, `"cub200"`, ... | images, read by `load_examples` | all except `test_rotations`, `size` for photos only |
    | `"clinc150"`, `"banking77"`, `"huffpost"` | sentences as vectors, see `hash_ngrams` | all except `test_rotations` |
    | `"sentences"` | sentences of your own, as vectors | all except `test_rotations`, `download` |
    | `"folder"` | images of your own | all except `test_rotations`, `download` |

    An argument that is `None` takes the benchmark's default. One that is given but does not apply is an error.

    Args:
        name: one of `list_tasksets()`. Underscores, capitals and missing hyphens are accepted.
        ways: number of classes in a task, by default 5. This and the other sizes may be pairs `(least, most)`, from
            which each task draws a number, as in `FewShot`. Glyphs and regression take numbers only.
        shots: number of support examples per class, by default 1. In regression per task, by default 10.
        queries: number of query examples per class, by default 15. In regression per task, by default 10.
        test_ways: number of classes in a task of validation and test, by default `ways`.
        test_shots: number of support examples in validation and test, by default `shots`.
        test_queries: number of query examples in validation and test, by default `queries`.
        test_rotations: whether characters of Omniglot rotated by 90, 180 and 270 degrees are classes of their own in
            validation and test too, as in ProtoNets' paper. By default they are not.
        split: name of the division of the classes, by default the first in `describe_tasksets(name).splits`. Or
            `"all"` for all classes in each part, to test on classes of another data set. Or the class names of each
            part, as in `BenchmarkTasksets.classes`.
        seed: seed of the classes of `"glyphs"`, or of `split="random"`, by default 0.
        root: folder of the data, see `load_examples` and `Omniglot.load`.
        download: whether to download missing data, by default not.
        size: height and width of images in pixels, or length of the vectors of sentences. For `"folder"` by default
            that of the files, where it is one.
        channels: 1 for gray images, 3 for RGB. For `"folder"` by default those of the files.
        invert: whether to exchange dark and light in images. Omniglot has white ink on black.
        per_class: number of examples of each class to read, the first ones.
        min_per_class: leaves out the classes that have fewer examples.
        examples: data to use instead of files: the inputs and the class name of each, `Examples` or a `MetaDataset`, as
            for `load_examples` (for `"omniglot"` see `Omniglot.of`).
        others: no other arguments are known. Those of learn2learn get an error that says what they are here.

    Returns:
        The samplers for training, validation and test.

    Raises:
        ValueError: if the name is unknown, an argument is out of range or does not apply, or the data is damaged.
        FileNotFoundError: if the data is missing.
        TypeError: if an argument has another name, or the `build` of a registered benchmark returns something else.

    Example:
        >>> import jax
        >>> tasksets = get_tasksets("sinusoid", shots=5)
        >>> tasksets.train(jax.random.key(0)).support.x.shape
        (5, 1)
    """  # noqa: E501
    for other in others:
        here = _ELSEWHERE.get(other, f"has no such argument{suggestion(other, ARGUMENTS)}".rstrip("?"))
        raise TypeError(f"got {other}={others[other]!r}: get_tasksets {here}")
    found = find_benchmark(name)
    arguments = {
        "ways": ways,
        "shots": shots,
        "queries": queries,
        "test_ways": test_ways,
        "test_shots": test_shots,
        "test_queries": test_queries,
        "test_rotations": test_rotations,
        "split": split,
        "seed": seed,
        "root": root,
        "download": download,
        "size": size,
        "channels": channels,
        "invert": invert,
        "per_class": per_class,
        "min_per_class": min_per_class,
        "examples": examples,
    }
    given = {argument: value for argument, value in arguments.items() if value is not None}
    for argument, value in given.items():
        if argument not in found.info.arguments:
            allowed = ", ".join(sorted(found.info.arguments))
            raise ValueError(
                f"{argument} does not apply to {found.name!r}, got {value!r}. Arguments that apply: {allowed}"
            )
    tasksets = found.build(**given)
    if not isinstance(tasksets, BenchmarkTasksets):
        raise TypeError(f"build of {found.name!r} must return BenchmarkTasksets, got {type(tasksets).__name__}")
    return tasksets
