"""The registry of benchmarks."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from jaxmeta._checks import check_choice, check_function
from jaxmeta._names import check_new_name, find_name
from jaxmeta.data._benchmark_types import (
    ARGUMENTS,
    KINDS,
    SIZES,
    Benchmark,
    BenchmarkInfo,
    BenchmarkTasksets,
    Kind,
)
from jaxmeta.data._built_in import BUILT_IN
from jaxmeta.data._table_benchmark import TABLE_PRIOR

BENCHMARKS: dict[str, Benchmark] = {**BUILT_IN, TABLE_PRIOR.name: TABLE_PRIOR}


def register_tasksets(
    name: str,
    build: Callable[..., BenchmarkTasksets],
    *,
    about: str,
    kind: Kind,
    splits: Iterable[str] = (),
    arguments: Iterable[str] | None = None,
    paper: str = "",
    files: str = "",
) -> None:
    """Adds a benchmark of your own to `get_tasksets`, `list_tasksets` and `describe_tasksets`.

    `get_tasksets(name, ...)` calls `build(**arguments)` with the arguments that were given and are not `None`. `build`
    chooses the defaults of all others. `jaxmeta.run` and `jaxmeta train` pass all sizes of tasks: `shots`, `queries`,
    `test_shots` and `test_queries`, and except for regression `ways` and `test_ways`.

    Args:
        name: new name, of lower-case letters, digits and hyphens.
        build: function from the given arguments of `get_tasksets` to the samplers of the three parts.
        about: description in one line.
        kind: `"images"` for inputs `[H, W, C]`, `"text"` for vectors of sentences `[d]`, `"vectors"` for
            others, or `"regression"`.
        splits: possible values of the argument `split`, the default first. Empty if `build` has no such argument.
        arguments: arguments of `get_tasksets` that apply. By default those that are parameters of `build`, where `**`
            stands for the sizes of tasks.
        paper: short citation with a link.
        files: short text about the files that must be in `root`.

    Raises:
        TypeError: if `build` is not a function.
        ValueError: if the name is malformed or belongs to another `build`, or another argument is out of range.

    Example:
        >>> import jax
        >>> from jaxmeta import data
        >>> def noisy_lines(shots=10, queries=10, test_shots=10, test_queries=10):
        ...     test = data.Linear(test_shots, test_queries, noise=0.3)
        ...     return data.BenchmarkTasksets(data.Linear(shots, queries, noise=0.3), test, test)
        >>> data.register_tasksets("noisy-lines", noisy_lines, about="Lines with noise", kind="regression")
        >>> data.get_tasksets("noisy-lines", shots=5).train(jax.random.key(0)).support.x.shape
        (5, 1)
        >>> data.describe_tasksets("noisy-lines").about
        'Lines with noise'
    """
    check_function(build=build)
    check_choice("kind", kind, KINDS)
    check_new_name("benchmark", name, (known for known, b in BENCHMARKS.items() if (known, b.build) != (name, build)))
    applying = _parameters(build, kind) if arguments is None else frozenset(arguments)
    for argument in sorted(applying):
        check_choice("arguments", argument, ARGUMENTS)
    splits = tuple(splits)
    if bool(splits) != ("split" in applying):
        raise ValueError(f"splits must be given exactly if split is an argument, got {splits!r} for {sorted(applying)}")
    BENCHMARKS[name] = Benchmark(name, build, BenchmarkInfo(about, kind, splits, applying, paper, files))


def list_tasksets() -> tuple[str, ...]:
    """Returns the names of all benchmarks that `get_tasksets` knows, sorted.

    Returns:
        The names.

    Example:
        >>> "omniglot" in list_tasksets()
        True
    """
    return tuple(sorted(BENCHMARKS))


def describe_tasksets(name: str) -> BenchmarkInfo:
    """Returns facts about a benchmark: its splits, arguments, paper and files.

    Args:
        name: one of `list_tasksets()`. Underscores, capitals and missing hyphens are accepted.

    Returns:
        The facts about it. Nothing is read.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> describe_tasksets("cub200").splits
        ('meta-dataset', 'closer-look', 'random')
    """
    return find_benchmark(name).info


def find_benchmark(name: Any) -> Benchmark:
    """Returns the benchmark with a name, which may differ in hyphens, underscores and capitals.

    Raises:
        ValueError: if there is none. The message suggests the nearest name.
    """
    return BENCHMARKS[name if name in BENCHMARKS else find_name("name", name, sorted(BENCHMARKS))]


def _parameters(build: Callable[..., Any], kind: Kind) -> frozenset[str]:
    """Returns the arguments of `get_tasksets` that a function takes."""
    parameters = inspect.signature(build).parameters
    found = frozenset(parameters) & frozenset(ARGUMENTS)
    if all(parameter.kind != inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return found
    return found | (frozenset(SIZES) - ({"ways", "test_ways"} if kind == "regression" else frozenset()))
