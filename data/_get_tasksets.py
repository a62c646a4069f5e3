"""Few-shot benchmarks by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmeta.data._benchmarks import BENCHMARKS, Options, TaskSets, TaskSetsInfo, benchmark


def list_tasksets() -> tuple[str, ...]:
    """Return the names that `get_tasksets` knows, sorted.

    Returns:
        The names.

    Example:
        >>> "omniglot" in list_tasksets()
        True
    """
    return tuple(sorted(BENCHMARKS))


def describe_tasksets(name: str) -> TaskSetsInfo:
    """Return what there is to know about a benchmark before it is read.

    Args:
        name: One of `list_tasksets()`.

    Returns:
        What it is.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> describe_tasksets("cub200").splits
        ('meta-dataset', 'closer-look', 'random')
    """
    return benchmark(name).info


def get_tasksets(
    name: str,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    *,
    test_ways: int | None = None,
    test_shots: int | None = None,
    test_queries: int | None = None,
    test_rotations: bool | None = None,
    split: str | None = None,
    seed: int | None = None,
    root: str | Path | None = None,
    download: bool | None = None,
    size: int | None = None,
    per_class: int | None = None,
    examples: tuple[Any, Sequence[str]] | None = None,
) -> TaskSets:
    """Make the samplers of a benchmark.

    What there is, and what files it is read from, is in the documentation, under Benchmarks; in short:

    | name | what | arguments that apply |
    | --- | --- | --- |
    | `"glyphs"` | `Glyphs`: endless procedural characters, no download | sizes, `seed` |
    | `"sinusoid"`, `"harmonic"`, `"linear"` | regression; the three parts are the same distribution | sizes but `ways` |
    | `"omniglot"` | `Omniglot`; in training, rotations are classes of their own, in validation and test there are none, as in MAML's code | all but `size`, `per_class` |
    | `"mini-imagenet"`, `"cub200"`, ... | images, as `load_examples` reads them | all; `size` for photos |
    | `"clinc150"`, `"banking77"`, `"huffpost"` | sentences, as `hash_ngrams` turns them into vectors | all |
    | `"folder"` | images of your own | all but `download` |

    An argument that is `None` takes the benchmark's default; one that is given but does not apply is an error.

    Args:
        name: One of `list_tasksets()`.
        ways: Classes in a task; 5 by default.
        shots: Support examples per class; 1 by default, in regression 10 per task.
        queries: Query examples per class; 15 by default, in regression 10 per task.
        test_ways: Classes in a task of validation and test; `ways` by default.
        test_shots: Support examples per class in validation and test; `shots` by default.
        test_queries: Query examples per class in validation and test; `queries` by default.
        test_rotations: Whether characters of Omniglot that are turned by 90, 180 and 270 degrees are classes of their
            own in validation and test too, as in ProtoNets' paper; no by default.
        split: How classes are divided, see `describe_tasksets`; by default the first one there.
        seed: Which classes there are (`"glyphs"`), or the seed of `split="random"`; 0 by default.
        root: Folder with the data, see `load_examples` and `Omniglot.load`.
        download: Whether to fetch missing data; no by default.
        size: Height and width of images, or length of the vectors of sentences.
        per_class: How many examples of each class to read, the first ones.
        examples: The data itself, to be read from no file: inputs, and the name of each one's class (for `"omniglot"`,
            see `Omniglot.of`).

    Returns:
        The samplers for training, validation and test.

    Raises:
        ValueError: If the name is unknown, an argument is out of range or does not apply, or the data is damaged.
        FileNotFoundError: If the data is missing.

    Example:
        >>> import jax
        >>> tasksets = get_tasksets("sinusoid", shots=5)
        >>> tasksets.train(jax.random.key(0)).support.x.shape
        (5, 1)
    """  # noqa: E501
    found = benchmark(name)
    sizes = (ways, shots, queries, test_ways, test_shots, test_queries)
    options = Options(*sizes, test_rotations, split, seed, root, download, size, per_class, examples)
    for argument, value in options._asdict().items():
        if value is not None and argument not in found.info.arguments:
            allowed = ", ".join(sorted(found.info.arguments))
            raise ValueError(f"{argument} does not apply to {name!r}, got {value!r}; what applies: {allowed}")
    return found.build(name, options)
