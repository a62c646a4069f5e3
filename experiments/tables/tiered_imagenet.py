"""tiered-ImageNet: learners with four layers and with ResNet-12, as their papers report them. For an accelerator."""

from photos import DEEP, FOUR, INNER, Entry, gradient, head, numbers, rows
from rows import Budget

LEE = "https://arxiv.org/abs/1904.03758"
_ONE = "Table 1"
_COLOR = {**DEEP, "train_ways": 5, "train_shots": 10, "queries": 6, "test_queries": 15, "augment": "color"}

ENTRIES = [
    Entry(
        "maml",
        gradient(60_000),
        {**FOUR, **INNER, "hidden": 32},
        numbers(LEE, _ONE, "paper", (51.67, 1.81), (70.3, 1.75)),
    ),
    Entry(
        "protonet",
        head(40_000),
        {**FOUR, "train_ways": 20, "queries": 15},
        numbers(LEE, _ONE, "paper", (53.31, 0.89), (72.69, 0.74)),
    ),
    Entry(
        "relation-network",
        head(31_250, 16),
        {**FOUR, "test_queries": 15},
        numbers(LEE, _ONE, "paper", (54.48, 0.93), (71.32, 0.78)),
    ),
    Entry(
        "metaoptnet",
        head(60_000, 8),
        _COLOR,
        numbers(LEE, _ONE, "paper", (65.99, 0.72), (81.56, 0.53)),
        "metaoptnet, ResNet-12",
        3.3,
    ),
    Entry(
        "protonet",
        head(60_000, 8),
        _COLOR,
        numbers(LEE, "Table 3", "paper", (61.74, 0.77), (80.0, 0.55)),
        "protonet, ResNet-12",
        3.3,
    ),
    Entry(
        "leo",
        {"paper": Budget(100_000, 12, {"pretraining": 60_000})},
        {"model": "wrn28"},
        numbers("https://github.com/yinboc/few-shot-meta-baseline", "README", "quoted", (66.33, None), (81.44, None)),
        "leo, WRN-28",
        3.3,
    ),
]
ROWS = rows("tiered-imagenet", "tiered-imagenet", ENTRIES)
