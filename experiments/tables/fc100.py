"""FC100, classes of CIFAR-100 divided by superclass: learners with four layers, and with ResNet-12.

MetaOptNet and its ProtoNets train with 15 shots, crops, flips and changes of color. MAML's numbers are of Meta-RKHS's
paper, which ran it.
"""

from photos import DEEP, FOUR, INNER, Entry, gradient, head, numbers, rows
from rows import Budget

LEE = "https://arxiv.org/abs/1904.03758"
RKHS = "https://openreview.net/forum?id=Ti87Pv5Oc8"
TABLE = "Table 2"
_COLOR = {**DEEP, "train_ways": 5, "train_shots": 15, "queries": 6, "test_queries": 15, "augment": "color"}
_PRETRAINED = {"paper": Budget(60_000)}

ENTRIES = [
    Entry(
        "protonet",
        head(40_000, small=(1000, 1)),
        {**FOUR, "train_ways": 20, "queries": 5, "test_queries": 15},
        numbers(LEE, TABLE, "paper", (35.3, 0.6), (48.6, 0.6)),
    ),
    Entry(
        "maml",
        gradient(60_000, (1500, 4)),
        {**FOUR, **INNER, "hidden": 32},
        numbers(RKHS, "Table 2", "quoted", (38.0, 1.95), (49.34, 0.97)),
    ),
    Entry(
        "protonet",
        head(60_000, 8),
        _COLOR,
        numbers(LEE, TABLE, "paper", (37.5, 0.6), (52.5, 0.6)),
        "protonet, ResNet-12",
        3.1,
    ),
    Entry(
        "metaoptnet",
        head(60_000, 8),
        _COLOR,
        numbers(LEE, TABLE, "paper", (41.1, 0.6), (55.5, 0.6)),
        "metaoptnet, ResNet-12",
        3.1,
    ),
    Entry("baseline-plus-plus", _PRETRAINED, {**DEEP, "queries": 15}, label="baseline-plus-plus, ResNet-12", order=3.1),
    Entry("simpleshot", _PRETRAINED, {**DEEP, "queries": 15}, label="simpleshot, ResNet-12", order=3.1),
]
ROWS = rows("fc100", "fc100", ENTRIES)
