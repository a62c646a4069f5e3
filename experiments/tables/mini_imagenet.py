"""mini-ImageNet: the learners with four layers and with ResNet-12, as their papers report them. For an accelerator."""

from photos import DEEP, FOUR, INNER, WIDE, Entry, gradient, head, numbers, rows
from rows import Budget

LEE = "https://arxiv.org/abs/1904.03758"
BASELINE = "https://github.com/yinboc/few-shot-meta-baseline"
_ONE, _BASES = "Table 1", "Table 3"
_INNER = {**FOUR, **INNER, "hidden": 32}
_COLOR = {**DEEP, "train_ways": 5, "train_shots": 15, "queries": 6, "test_queries": 15, "augment": "color"}
_HEAD = {**FOUR, "train_ways": 30, "queries": 15}
_FIVE = {"test_queries": 15}

ENTRIES = [
    Entry("maml", gradient(60_000), _INNER, numbers(LEE, _ONE, "paper", (48.7, 1.84), (63.11, 0.92))),
    Entry("protonet", head(40_000), _HEAD, numbers(LEE, _ONE, "paper", (49.42, 0.78), (68.2, 0.66))),
    Entry(
        "r2d2",
        head(60_000),
        {**WIDE, "train_ways": 16, "queries": 5, "test_queries": 15},
        numbers(LEE, _ONE, "paper", (51.2, 0.6), (68.8, 0.1)),
    ),
    Entry(
        "relation-network",
        head(31_250, 16),
        {**FOUR, **_FIVE},
        numbers(LEE, _ONE, "paper", (50.44, 0.82), (65.32, 0.7)),
    ),
    Entry(
        "matching-network",
        head(40_000),
        {**FOUR, "train_ways": 5, "queries": 15},
        numbers(LEE, _ONE, "paper", (43.56, 0.84), (55.31, 0.73)),
    ),
    Entry(
        "fomaml",
        gradient(60_000),
        _INNER,
        numbers("https://arxiv.org/abs/1703.03400", "Table 1", "paper", (48.07, 1.75), (63.15, 0.91)),
    ),
    Entry(
        "anil",
        gradient(60_000),
        _INNER,
        numbers("https://arxiv.org/abs/1909.09157", "Table 2", "quoted", (46.7, 0.4), (61.5, 0.5)),
    ),
    Entry(
        "reptile",
        {"paper": Budget(100_000, 5, seeds=3)},
        {**FOUR, "hidden": 32, "steps": 8, "train_shots": 15, "queries": 15},
        numbers(
            "https://arxiv.org/abs/1803.02999", "Table 1, with transduction", "quoted", (49.97, 0.32), (65.99, 0.58)
        ),
    ),
    Entry(
        "cavia",
        gradient(60_000),
        {**FOUR, "hidden": 128, "queries": 15},
        numbers("https://arxiv.org/abs/1810.03642", "Table 3", "quoted", (49.84, 0.68), (64.63, 0.53)),
    ),
    Entry(
        "metaoptnet",
        head(60_000, 8),
        _COLOR,
        numbers(LEE, _ONE, "paper", (62.64, 0.61), (78.63, 0.46)),
        "metaoptnet, ResNet-12",
        3.2,
    ),
    Entry(
        "protonet",
        head(60_000, 8),
        _COLOR,
        numbers(LEE, _BASES, "paper", (59.25, 0.64), (75.6, 0.48)),
        "protonet, ResNet-12",
        3.2,
    ),
    Entry(
        "meta-baseline",
        head(20_000, 4),
        {**DEEP, "train_ways": 5, "queries": 15},
        numbers(BASELINE, "README", "paper", (63.17, None), (79.26, None)),
        "meta-baseline, ResNet-12, not pre-trained",
        3.2,
    ),
    Entry(
        "baseline-plus-plus",
        {"paper": Budget(60_000)},
        {**DEEP, "queries": 15},
        numbers(BASELINE, "README", "paper", (51.87, None), (75.68, None)),
        "baseline-plus-plus, ResNet-12",
        3.2,
    ),
    Entry("simpleshot", {"paper": Budget(60_000)}, {**DEEP, "queries": 15}, label="simpleshot, ResNet-12", order=3.2),
    Entry(
        "leo",
        {"paper": Budget(100_000, 12, {"pretraining": 60_000})},
        {"model": "wrn28"},
        numbers("https://arxiv.org/abs/1807.05960", "Table 2", "quoted", (61.76, 0.08), (77.59, 0.12)),
        "leo, WRN-28",
        3.2,
    ),
]
ROWS = rows("mini-imagenet", "mini-imagenet", ENTRIES)
