"""Omniglot: every learner that classifies, 5- and 20-way, 1- and 5-shot.

MAML and its relatives have its network with strides, as many query examples per class as shots and a random division of
the characters (1100/100/423). Learners with a head and pre-trained ones have Vinyals' division, and turned characters
as test classes of their own where their paper does. `omniglot-equal` and `omniglot-small` compare learners at equal
small budgets.
"""

from collections.abc import Mapping
from typing import Any, Literal

from rows import Budget, Published, Row

Read = Literal["paper", "quoted", "memory"]
SETTINGS = {(5, 1): "5-way 1-shot", (20, 1): "20-way 1-shot", (5, 5): "5-way 5-shot", (20, 5): "20-way 5-shot"}
TURNED = ", rotated test classes"

MAML = "https://arxiv.org/abs/1703.03400"
REPTILE = "https://arxiv.org/abs/1803.02999"
# Accuracy in %, with its 95 % interval where the paper has one: (ways, shots) of each learner.
Numbers = dict[tuple[int, int], tuple[float, float | None]]
PUBLISHED: dict[str, tuple[str, str, Read, Numbers]] = {
    "maml": (
        MAML,
        "Table 1",
        "paper",
        {(5, 1): (98.7, 0.4), (5, 5): (99.9, 0.1), (20, 1): (95.8, 0.3), (20, 5): (98.9, 0.2)},
    ),
    "fomaml": (
        REPTILE,
        "Table 2",
        "quoted",
        {(5, 1): (98.3, 0.5), (5, 5): (99.2, 0.2), (20, 1): (89.4, 0.5), (20, 5): (97.9, 0.1)},
    ),
    "reptile": (
        REPTILE,
        "Table 2, with transduction",
        "quoted",
        {(5, 1): (97.68, 0.04), (5, 5): (99.48, 0.06), (20, 1): (89.43, 0.14), (20, 5): (97.12, 0.32)},
    ),
    "anil": ("https://arxiv.org/abs/1909.09157", "Table 2", "quoted", {(20, 1): (96.2, 0.5), (20, 5): (98.0, 0.3)}),
    "meta-sgd": (
        "https://arxiv.org/abs/1707.09835",
        "Table 2",
        "memory",
        {(5, 1): (99.53, 0.26), (5, 5): (99.93, 0.09), (20, 1): (95.93, 0.38), (20, 5): (98.97, 0.19)},
    ),
    "maml-plus-plus": (
        "https://arxiv.org/abs/1810.09502",
        "Tables 1 and 2",
        "memory",
        {(5, 1): (99.47, None), (5, 5): (99.93, None), (20, 1): (97.65, 0.05), (20, 5): (99.33, 0.03)},
    ),
    "meta-curvature": (
        "https://arxiv.org/abs/1902.03356",
        "Table 2",
        "memory",
        {(5, 1): (99.97, None), (5, 5): (99.89, None), (20, 1): (99.12, None), (20, 5): (99.65, None)},
    ),
    "imaml": (
        "https://arxiv.org/abs/1909.04630",
        "Table 2",
        "memory",
        {(5, 1): (99.5, 0.26), (5, 5): (99.74, 0.11), (20, 1): (96.18, 0.36), (20, 5): (99.14, 0.1)},
    ),
    "protonet": (
        "https://arxiv.org/abs/1703.05175",
        "Table 1",
        "quoted",
        {(5, 1): (98.8, None), (5, 5): (99.7, None), (20, 1): (96.0, None), (20, 5): (98.9, None)},
    ),
    "matching-network": (
        MAML,
        "Table 1",
        "paper",
        {(5, 1): (98.1, None), (5, 5): (98.9, None), (20, 1): (93.8, None), (20, 5): (98.5, None)},
    ),
    "relation-network": (
        "https://arxiv.org/abs/1711.06025",
        "Table 1",
        "quoted",
        {(5, 1): (99.6, 0.2), (5, 5): (99.8, 0.1), (20, 1): (97.6, 0.2), (20, 5): (99.1, 0.1)},
    ),
    "r2d2": (
        "https://arxiv.org/abs/1805.08136",
        "Table 2",
        "memory",
        {(5, 1): (98.91, 0.05), (5, 5): (99.74, 0.02), (20, 1): (96.24, 0.05), (20, 5): (99.2, 0.02)},
    ),
    "baseline": (
        "https://arxiv.org/abs/1904.04232",
        "appendix",
        "memory",
        {(5, 1): (94.89, 0.45), (5, 5): (99.12, 0.13)},
    ),
    "baseline-plus-plus": (
        "https://arxiv.org/abs/1904.04232",
        "appendix",
        "memory",
        {(5, 1): (95.41, 0.39), (5, 5): (99.38, 0.1)},
    ),
}
QUOTED = {("meta-sgd", 5), ("maml-plus-plus", 5)}  # Table 2 of T-NAS, https://openreview.net/forum?id=r1eowANFvr

FAMILY = ("maml", "fomaml", "meta-sgd", "meta-curvature", "maml-plus-plus", "imaml", "reptile", "anil")
FAMILY += ("boil", "meta-kfo", "cavia")
HEADS = ("protonet", "r2d2", "matching-network", "relation-network", "metaoptnet", "lr-d2")
PRETRAINED = ("baseline-plus-plus", "baseline", "simpleshot", "fine-tuning")

_UPDATES = {"reptile": 100_000, "imaml": 20_000, "maml-plus-plus": 75_000}
_SMALL = {(5, 1): (8000, 16), (5, 5): (4000, 8), (20, 1): (2500, 4), (20, 5): (1000, 2)}


def published(learner: str, ways: int, shots: int) -> Published | None:
    """Returns the number of the learner's paper, if it has one."""
    if learner not in PUBLISHED or (ways, shots) not in PUBLISHED[learner][-1]:
        return None
    source, where, read, numbers = PUBLISHED[learner]
    return Published(*numbers[ways, shots], source, where, "quoted" if (learner, ways) in QUOTED else read)


def order(learner: str, ways: int, shots: int) -> float:
    """Returns the order of value: 5-way 1-shot first, then 20-way, and learners with published numbers first."""
    return list(SETTINGS).index((ways, shots)) + 1 + 4 * (published(learner, ways, shots) is None)


def _tasks(learner: str, ways: int) -> int:
    """Tasks per update of the learner's paper."""
    if learner in ("reptile", "maml-plus-plus"):
        return {"reptile": 5, "maml-plus-plus": 8}[learner]
    return 16 if ways == 20 and learner != "imaml" else 32


def _family() -> list[Row]:
    """MAML and its relatives."""
    found = []
    for (ways, shots), setting in SETTINGS.items():
        for place, learner in enumerate(FAMILY):
            updates = _UPDATES.get(learner, 60_000) * (2 if learner == "reptile" and ways == 20 else 1)
            small, tasks = _SMALL[ways, shots]
            if learner == "maml":
                small = {(5, 1): 27_000, (5, 5): 9000}.get((ways, shots), small)
            falls: dict[str, Any] = {} if learner in ("reptile", "maml-plus-plus") else {"outer_schedule": "cosine"}
            budgets = {
                "paper": Budget(updates, _tasks(learner, ways), seeds=3 if ways == 5 else 1),
                "cpu": Budget(small, min(tasks, _tasks(learner, ways)), falls),
            }
            options = {"ways": ways, "shots": shots, "queries": shots, "split": "random"}
            rank = order(learner, ways, shots) + 0.01 * place
            found.append(
                Row(
                    "omniglot",
                    learner,
                    setting,
                    "omniglot",
                    learner,
                    budgets,
                    options,
                    paper=published(learner, ways, shots),
                    order=rank,
                )
            )
    return found


def _heads() -> list[Row]:
    """Learners that fit a head to features. One training serves tests of 5 and 20 ways, turned characters or not."""
    found = []
    for (ways, shots), setting in SETTINGS.items():
        for place, learner in enumerate(HEADS):
            relation = learner == "relation-network"
            options: dict[str, Any] = {"ways": ways if relation else 20, "shots": shots, "model": "cnn4"}
            options |= {"test_rotations": True, "test_queries": 15, "queries": 5}
            small = {"protonet": 7500}.get(learner, 2000) if shots == 1 else 1000
            budgets = {
                "paper": Budget(31_250, 16) if relation else Budget(20_000, 1, seeds=3 if ways == 5 else 1),
                "cpu": Budget(600, 4) if relation else Budget(small, 1, {"queries": 2}),
            }
            rank = order(learner, ways, shots) + 0.05 + 0.01 * place
            for turned in (True, False):
                test = {} if turned else {"test_rotations": False}
                test |= {} if relation or ways == 20 else {"ways": 5}
                found.append(
                    Row(
                        "omniglot-heads",
                        learner,
                        setting + (TURNED if turned else ""),
                        "omniglot",
                        learner,
                        budgets,
                        options,
                        test,
                        published(learner, ways, shots) if turned else None,
                        rank if turned else rank + 0.005,
                    )
                )
    return found


def _pretrained() -> list[Row]:
    """Learners on a network that was trained to tell all training classes apart."""
    found = []
    for (ways, shots), setting in SETTINGS.items():
        for place, learner in enumerate(PRETRAINED):
            budgets = {"paper": Budget(100_000, seeds=3 if ways == 5 else 1), "cpu": Budget(10_000)}
            # All tasks are tests of one network, which is validated on the first kind of them.
            options: dict[str, Any] = {"ways": 5, "shots": 1, "queries": 15}
            options |= {"fine_tune": True} if learner == "fine-tuning" else {}
            for turned in (False, True):
                test: Mapping[str, Any] = {"ways": ways, "shots": shots, "test_rotations": turned}
                rank = order(learner, ways, shots) + 0.2 + 0.01 * place
                found.append(
                    Row(
                        "omniglot-pretrained",
                        learner,
                        setting + (TURNED if turned else ""),
                        "omniglot",
                        "baseline" if learner == "fine-tuning" else learner,
                        budgets,
                        options,
                        {name: value for name, value in test.items() if value != {"ways": 5, "shots": 1}.get(name)},
                        published(learner, ways, shots) if turned else None,
                        rank,
                    )
                )
    return found


def _equal() -> list[Row]:
    """Learners of the family at one small budget, and heads at another."""
    options: dict[str, Any] = {"ways": 20, "shots": 1, "queries": 1, "split": "random"}
    found = []
    for place, learner in enumerate(FAMILY):
        falls = {} if learner in ("reptile", "maml-plus-plus") else {"outer_schedule": "cosine"}
        budgets = {"cpu": Budget(2500, 2, falls)}
        paper, rank = published(learner, 20, 1), 20 + 0.01 * place
        found.append(
            Row(
                "omniglot-equal",
                learner,
                "20-way 1-shot",
                "omniglot",
                learner,
                budgets,
                options,
                paper=paper,
                order=rank,
            )
        )
    for place, learner in enumerate((*HEADS, "meta-baseline", "in-context")):
        budgets = {"cpu": Budget(500, 16 if learner in ("relation-network", "in-context") else 1)}
        paper, rank = published(learner, 5, 1), 21 + 0.01 * place
        found.append(
            Row("omniglot-small", learner, "5-way 1-shot", "omniglot", learner, budgets, paper=paper, order=rank)
        )
    return found


ROWS = [*_family(), *_heads(), *_pretrained(), *_equal()]
