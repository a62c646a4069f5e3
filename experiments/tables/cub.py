"""CUB-200-2011: the four-layer learners of Chen et al. (2019), with crops, flips and changes of color.

Meta-learners train on augmented tasks, baselines on minibatches as they are. The division of the classes is theirs.
"""

from dataclasses import replace

from photos import FOUR, INNER, Entry, gradient, head, numbers, rows
from rows import Budget

CHEN = "https://arxiv.org/abs/1904.04232"
TABLE = "Table 2"
_COLOR = {**FOUR, "augment": "color", "queries": 15}
_OWN = {"split": "closer-look"}
_PRETRAINED = {"paper": Budget(20_000)}

ENTRIES = [
    Entry(
        "maml",
        gradient(40_000),
        {**FOUR, **INNER, "augment": "color"},
        numbers(CHEN, TABLE, "memory", (54.73, 0.97), (75.75, 0.76)),
    ),
    Entry(
        "protonet",
        head(40_000),
        {**_COLOR, "train_ways": 20},
        numbers(CHEN, TABLE, "memory", (50.46, 0.88), (76.39, 0.64)),
    ),
    Entry(
        "relation-network",
        head(10_000, 4),
        {**_COLOR, "test_queries": 15},
        numbers(CHEN, TABLE, "memory", (62.34, 0.94), (77.84, 0.68)),
    ),
    Entry(
        "matching-network",
        head(40_000),
        {**_COLOR, "train_ways": 5},
        numbers(CHEN, TABLE, "memory", (60.52, 0.88), (75.29, 0.75)),
    ),
    Entry(
        "baseline",
        _PRETRAINED,
        {**FOUR, "queries": 15},
        numbers(CHEN, TABLE, "memory", (47.12, 0.74), (64.16, 0.71)),
    ),
    Entry(
        "baseline-plus-plus",
        _PRETRAINED,
        {**FOUR, "queries": 15},
        numbers(CHEN, TABLE, "memory", (60.53, 0.83), (79.34, 0.61)),
    ),
]
ROWS = rows("cub", "cub200", [replace(entry, options={**entry.options, **_OWN}) for entry in ENTRIES])
