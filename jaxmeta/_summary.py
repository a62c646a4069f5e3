"""Means and intervals of metrics over tasks."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxmeta._types import PyTree
from jaxmeta.display import brief, short_repr


class Summary(NamedTuple):
    """Statistics of one metric over many tasks."""

    mean: float
    """Mean over the tasks. Infinite or NaN if the value of some task is."""
    interval: float
    """Half the width of the 95 % confidence interval of the mean: 1.96 standard errors."""
    median: float
    """Median over the tasks, with NaN counted as infinite. It is meaningful while most tasks converge."""
    finite: float
    """Share of the tasks whose value is finite, in [0, 1]."""
    num_tasks: int
    """Number of tasks."""

    __repr__ = short_repr

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.interval:.4f}"


def summarize(metrics: Mapping[str, jax.typing.ArrayLike]) -> dict[str, Summary]:
    """Mean, 95 % interval, median and share of finite values of every metric that `evaluate` gave.

    Args:
        metrics: arrays `[num_tasks]`.

    Returns:
        A `Summary` per metric.

    Raises:
        TypeError: if the metrics have no names.
        ValueError: if a metric is not `[num_tasks]`, one number per task.

    Example:
        >>> import jax.numpy as jnp
        >>> str(summarize({"accuracy": jnp.array([0.0, 1.0, 1.0, 1.0])})["accuracy"])
        '0.7500 ± 0.4900'
    """

    def summary(name: str, values: PyTree) -> Summary:
        try:
            array = np.asarray(values, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"metrics must be arrays [num_tasks], got {brief(values)} for {name!r}") from error
        if array.ndim != 1:
            raise ValueError(f"metrics must be arrays [num_tasks], got shape {array.shape} for {name!r}")
        n = array.size
        with np.errstate(all="ignore"):
            spread = float(np.std(array, ddof=1)) if n > 1 else float("nan")
            return Summary(
                float(np.mean(array)),
                1.96 * spread / n**0.5,
                float(np.median(np.nan_to_num(array, nan=np.inf, posinf=np.inf, neginf=-np.inf))),
                float(np.mean(np.isfinite(array))),
                n,
            )

    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must be a mapping from names to arrays [num_tasks], got {brief(metrics)}")
    return {name: summary(name, values) for name, values in metrics.items()}
