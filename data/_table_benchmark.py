"""Benchmark of random tables."""

from jaxmeta.data._benchmark_types import SIZES, Benchmark, BenchmarkInfo, BenchmarkTasksets
from jaxmeta.data.samplers import Size, TablePrior, largest

_FEWEST = 5  # support examples of a training task


def _table_prior(
    ways: Size = 10,
    shots: Size = 10,
    queries: Size = 4,
    test_ways: Size | None = None,
    test_shots: Size | None = None,
    test_queries: Size | None = None,
) -> BenchmarkTasksets:
    """Returns samplers of tables with up to `ways` classes and `ways * shots` labeled rows."""

    def sampler(ways: Size, shots: Size, queries: Size) -> TablePrior:
        most = largest(ways)
        least, rows = (most * bound for bound in (shots if isinstance(shots, tuple) else (shots, shots)))
        least = least if isinstance(shots, tuple) else min(_FEWEST, rows)
        classes = ways if isinstance(ways, tuple) else (min(2, ways), ways)
        return TablePrior(ways=classes, shots=(least, rows), queries=most * largest(queries))

    sizes = ((ways, test_ways), (shots, test_shots), (queries, test_queries))
    test = sampler(*(size if at_test is None else at_test for size, at_test in sizes))
    return BenchmarkTasksets(sampler(ways, shots, queries), test, test)


TABLE_PRIOR = Benchmark(
    "table-prior",
    _table_prior,
    BenchmarkInfo(
        "Random tables of up to 32 columns, 2 to `ways` classes and 5 to `ways * shots` labeled rows",
        "vectors",
        (),
        frozenset(SIZES),
        "Hollmann et al., TabPFN, 2023, https://arxiv.org/abs/2207.01848",
    ),
)
