"""The tables of the page "On a GPU" from made-up results."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "experiments" / "benchmarks"
RESULTS = [
    {"part": "machine", "name": "versions", "device": "H100", "jax": "0.11.2", "row_s": 1.0, "at_s": 1.0},
    {"part": "Conv-4", "name": "MAML, 1 step, conv, 32 tasks", "ms": 15.25, "tasks": 32, "tasks_per_s": 2098.4},
    {"part": "Conv-4", "name": "MAML, 1 step, im2col, 32 tasks", "error": "out of memory"},
]


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_page  # pyright: ignore[reportMissingImports]

    yield gpu_page
    sys.modules.pop("gpu_page")


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("machine", "device H100, jax 0.11.2."),
        ("memory", "Not measured yet."),
        (
            "Conv-4",
            "| | ms | tasks/s |\n| --- | --- | --- |\n| MAML, 1 step, conv, 32 tasks | 15.25 | 2,098 |\n"
            "| MAML, 1 step, im2col, 32 tasks | failed |  |",
        ),
    ],
)
def test_tables_hold_the_results_and_replace_old_ones(page, part, expected):
    text = f"Before.\n<!-- generated: gpu {part} -->\nold\n<!-- end -->\nAfter."
    made = page.generated(text, RESULTS)
    assert made == f"Before.\n<!-- generated: gpu {part} -->\n{expected}\n<!-- end -->\nAfter."
    assert page.generated(made, RESULTS) == made


def test_plot_is_written(page, tmp_path):
    row = {"part": "Conv-4", "name": "MAML, 1 step, im2col, 64 tasks", "tasks": 64, "tasks_per_s": 9.0}
    page.plot([*RESULTS, row], tmp_path / "gpu.png")
    assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")
