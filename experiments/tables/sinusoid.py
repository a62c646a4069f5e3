"""Sinusoid regression: every learner for regression, tested with 5 and 10 shots after 1, 5 and 10 inner steps.

All are trained with 10 shots, 25 tasks per update, and validated after as many steps as they take by default. Learners
without inner steps have one test per number of shots.
"""

from typing import Any

from rows import Budget, Published, Row

FINN = "https://arxiv.org/abs/1703.03400"
ZINTGRAF = "https://arxiv.org/abs/1810.03642"
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "maml": ("maml", {}),
    "maml-5": ("maml", {"steps": 5, "inner_rate": 0.01}),
    "fomaml": ("fomaml", {}),
    "anil": ("anil", {}),
    "meta-sgd": ("meta-sgd", {}),
    "cavia-5": ("cavia", {"context_size": 5}),
    "cavia-2": ("cavia", {"context_size": 2}),
    "cavia-1": ("cavia", {"context_size": 1}),
    "reptile": ("reptile", {}),
    "meta-curvature": ("meta-curvature", {}),
    "meta-kfo": ("meta-kfo", {}),
    "tnet": ("tnet", {}),
    "boil": ("boil", {}),
    "anil-kfo": ("anil-kfo", {}),
    "maml-plus-plus": ("maml-plus-plus", {}),
    "ml3": ("ml3", {}),
    "imaml": ("imaml", {}),
    "oml": ("oml", {}),
    "conditional-neural-process": ("conditional-neural-process", {}),
    "in-context": ("in-context", {}),
    "pfn": ("pfn", {}),
}
WITHOUT_STEPS = ("oml", "conditional-neural-process", "in-context", "pfn")
STEPS = (1, 5, 10)
"""Inner steps at test."""
_SLOW = ("imaml", "oml", "in-context", "pfn")
_NUMBERS = {("maml", 5, 1): 0.67, ("maml", 5, 5): 0.38, ("maml", 5, 10): 0.35}
_NUMBERS |= {("cavia-5", 10, 1): 0.19, ("cavia-2", 10, 1): 0.21, ("cavia-1", 10, 1): 0.84}


def _published(label: str, shots: int, steps: int) -> Published | None:
    value = _NUMBERS.get((label, shots, steps))
    if value is None:
        return None
    if label == "maml":
        return Published(value, None, FINN, "Table 2", "quoted")
    return Published(value, None, ZINTGRAF, "Table 1", "memory")


def _rows() -> list[Row]:
    found = []
    for place, (label, (learner, own)) in enumerate(LEARNERS.items()):
        full = Budget(70_000, 25, seeds=3)
        budgets = {"paper": full, "cpu": Budget(20_000, 25, seeds=3) if label in _SLOW else full}
        options = {"shots": 10, "train_shots": 10, "queries": 10, "test_queries": 100, **own}
        for shots in (5, 10):
            for steps in (0,) if label in WITHOUT_STEPS else STEPS:
                ending = f", after {steps} step{'s' if steps > 1 else ''}" if steps else ""
                test = {"shots": shots} | ({"test_steps": steps} if steps else {})
                found.append(
                    Row(
                        "sinusoid",
                        label,
                        f"{shots} shots{ending}",
                        "sinusoid",
                        learner,
                        budgets,
                        options,
                        test,
                        _published(label, shots, steps),
                        2.5 + 0.1 * place + 0.001 * steps + 0.0001 * shots,
                    )
                )
    return found


ROWS = _rows()
