"""CIFAR-FS, 64/16/20 classes of CIFAR-100: learners with four layers, and with ResNet-12.

The papers halve their rates at given updates. Here the rate falls by a cosine. MetaOptNet and its ProtoNets train with
5 shots, crops, flips and changes of color.
"""

from photos import DEEP, FOUR, INNER, WIDE, Entry, gradient, head, numbers, rows
from rows import Budget

LEE = "https://arxiv.org/abs/1904.03758"
TABLE = "Table 2"
_COLOR = {**DEEP, "train_ways": 5, "train_shots": 5, "queries": 6, "test_queries": 15, "augment": "color"}
_PRETRAINED = {"paper": Budget(60_000)}

ENTRIES = [
    Entry(
        "maml",
        gradient(60_000, (1500, 4)),
        {**FOUR, **INNER, "hidden": 32},
        numbers(LEE, TABLE, "paper", (58.9, 1.9), (71.5, 1.0)),
    ),
    Entry(
        "protonet",
        head(40_000, small=(1000, 1)),
        {**FOUR, "train_ways": 20, "queries": 5, "test_queries": 15},
        numbers(LEE, TABLE, "paper", (55.5, 0.7), (72.0, 0.6)),
    ),
    Entry(
        "r2d2",
        head(60_000, small=(300, 1)),
        {**WIDE, "train_ways": 20, "queries": 5, "test_queries": 15},
        numbers(LEE, TABLE, "paper", (65.3, 0.2), (79.4, 0.1)),
    ),
    Entry(
        "relation-network",
        head(31_250, 16, (300, 4)),
        {**FOUR, "test_queries": 15},
        numbers(LEE, TABLE, "paper", (55.0, 1.0), (69.3, 0.8)),
    ),
    Entry(
        "metaoptnet",
        head(60_000, 8),
        _COLOR,
        numbers(LEE, TABLE, "paper", (72.0, 0.7), (84.2, 0.5)),
        "metaoptnet, ResNet-12",
        3.0,
    ),
    Entry(
        "protonet",
        head(60_000, 8),
        _COLOR,
        numbers(LEE, TABLE, "paper", (72.2, 0.7), (83.5, 0.5)),
        "protonet, ResNet-12",
        3.0,
    ),
    Entry("baseline-plus-plus", _PRETRAINED, {**DEEP, "queries": 15}, label="baseline-plus-plus, ResNet-12", order=3.0),
    Entry("simpleshot", _PRETRAINED, {**DEEP, "queries": 15}, label="simpleshot, ResNet-12", order=3.0),
]
ROWS = rows("cifar-fs", "cifar-fs", ENTRIES)
