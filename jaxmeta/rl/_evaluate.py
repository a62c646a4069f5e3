"""Evaluation of meta-trained policies: returns in held-out tasks by the number of episodes that were seen."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jax.sharding import Mesh

from jaxmeta._checks import check_integer, check_transformation
from jaxmeta._parallel import constrain, map_tasks
from jaxmeta._types import MetaParams, PyTree
from jaxmeta.display import short_repr
from jaxmeta.rl._collector import Collector
from jaxmeta.rl._meta_policy import Inner, check_collector, collect_and_adapt
from jaxmeta.rl._rollout import episode_returns, rollout
from jaxmeta.rl._surrogates import Surrogate, ratio


class ReturnCurve(NamedTuple):
    """Mean undiscounted return in each task, by the number of episodes of the task that were seen before.

    `adaptation_curve`, `trial_curve` and `pearl_curve` measure it, so that all meta-reinforcement learners have results
    of one kind.
    """

    episodes: jax.Array
    """Number of episodes that were seen before each measurement, integers `[n]`, the first of them 0."""
    sampled: jax.Array
    """Return with sampled actions, `[num_tasks, n]`."""
    mode: jax.Array
    """Return with the most probable actions, `[num_tasks, n]`."""
    states: Any = None
    """States of one of the episodes with the most probable actions, leading axes `[num_tasks, n, T]`.

    `jaxmeta.envs.save_video` takes those of one episode. `None` if they were not asked for."""

    __repr__ = short_repr


def adaptation_curve(
    collect: Collector,
    inner: optax.GradientTransformation,
    steps: int = 3,
    *,
    surrogate: Surrogate = ratio,
    states: bool = False,
    mesh: Mesh | None = None,
) -> Callable[[MetaParams, PyTree, jax.Array], ReturnCurve]:
    """Builds an evaluation that adapts to tasks and measures the return before and after each inner step.

    Args:
        collect: collector of the samples, used at every step.
        inner: the inner optimizer. If you take more steps than in meta-training, let the later ones be smaller: an
            optax schedule in `inner` counts the steps, as in the example.
        steps: number of inner steps, at least 0. With 0 the policy plays as it starts.
        surrogate: surrogate of the inner loss.
        states: whether to keep the states of an episode at every step.
        mesh: devices that share the tasks, see `maml_trpo`.

    Returns:
        `(meta, tasks, key) -> ReturnCurve`, a pure function to jit. Every inner step sees the episodes of the
        collector: `sampled` is their mean return, and `mode` is that of as many others. `env.sample_tasks(key,
        num_tasks, split="test")` draws tasks that were not trained on.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if `steps` is not an integer of at least 0.

    Example:
        >>> from jaxmeta import envs, rl
        >>> def policy(weights, obs):
        ...     return rl.Categorical(obs @ weights)
        >>> env, weights = envs.make("tabular", horizon=3), jnp.zeros((10, 5))
        >>> collect = rl.Collector(env=env, policy=policy, episodes=4)
        >>> halved = optax.sgd(optax.piecewise_constant_schedule(0.1, {1: 0.5}))
        >>> run = jax.jit(adaptation_curve(collect, halved))
        >>> tasks = env.sample_tasks(jax.random.key(0), 2, split="test")
        >>> curve = run(MetaParams(weights), tasks, jax.random.key(1))
        >>> curve.episodes.tolist(), curve.sampled.shape
        ([0, 4, 8, 12], (2, 4))
    """
    check_collector(collect)
    check_transformation(inner=inner)
    check_integer(least=0, steps=steps)
    adaptation = Inner(collect, inner, surrogate, steps)

    def in_task(meta: MetaParams, task: PyTree, key: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
        adapt_key, key = jax.random.split(key)
        bound = collect.at(meta.state)
        start = meta._replace(state=())
        params, samples = collect_and_adapt(adaptation._replace(collect=bound), start, task, adapt_key)

        def play(params: PyTree, key: jax.Array) -> tuple[jax.Array, Any]:
            options: dict[str, Any] = {"episodes": bound.episodes, "mode": True, "states": states}
            data = rollout(bound.env, bound.policy, params, task, key, **options)
            return jnp.mean(episode_returns(data)), jax.tree.map(lambda x: x[:, 0], data.states)

        sampled = jax.vmap(episode_returns)(samples.trajectory).mean(axis=1)
        return sampled, *jax.vmap(play)(params, jax.random.split(key, steps + 1))

    def run(meta: MetaParams, tasks: PyTree, key: jax.Array) -> ReturnCurve:
        seen = collect.episodes * jnp.arange(steps + 1)
        return constrain(ReturnCurve(seen, *map_tasks(partial(in_task, meta), tasks, key, mesh)), mesh)

    return run


class Interval(NamedTuple):
    """Statistic with its 95 % bootstrap interval."""

    value: float
    """Value of the statistic for all scores."""
    low: float
    """2.5 % quantile of the resampled values."""
    high: float
    """97.5 % quantile of the resampled values."""

    __repr__ = short_repr

    def __str__(self) -> str:
        return f"{self.value:z.2f} [{self.low:z.2f}, {self.high:z.2f}]"


def interquartile_mean(
    scores: npt.ArrayLike, *, whole_runs: bool = False, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Returns the mean of the middle half of all scores, with a bootstrap interval over the runs.

    The bootstrap is stratified: each resample draws as many runs as there are, independently for every task. That fits
    an agent that was trained anew for each task. A meta-trained policy is good or bad in all of its tasks at once, so
    its runs are drawn whole.

    Args:
        scores: scores, `[runs, tasks]` or `[runs]`.
        whole_runs: whether a resample keeps the tasks of a run together.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        The mean and its interval. With a single run the interval is empty.

    Raises:
        ValueError: if `scores` has another shape or `resamples` is less than 1.

    Example:
        >>> print(interquartile_mean(np.array([1.0, 2.0, 3.0, 100.0])))
        2.50 [1.00, 100.00]

    References:
        Agarwal, Schwarzer, Castro, Courville & Bellemare, *Deep Reinforcement Learning at the Edge of the Statistical
        Precipice*, NeurIPS 2021, https://arxiv.org/abs/2108.13264
    """
    check_integer(resamples=resamples)
    table = np.asarray(scores, np.float64)
    if table.ndim not in (1, 2) or table.size == 0:
        raise ValueError(f"scores must be [runs, tasks] or [runs] and not empty, got shape {table.shape}")
    table = table.reshape(table.shape[0], -1)
    drawn = 1 if whole_runs else table.shape[1]
    runs = np.random.default_rng(seed).integers(len(table), size=(resamples, len(table), drawn))
    low, high = np.quantile(_middle_mean(np.take_along_axis(table[None], runs, axis=1)), [0.025, 0.975])
    return Interval(float(_middle_mean(table[None])[0]), float(low), float(high))


def _middle_mean(tables: np.ndarray) -> np.ndarray:
    """Returns the mean `[n]` of tables `[n, runs, tasks]` without their lowest and highest quarter, rounded down."""
    ordered = np.sort(tables.reshape(len(tables), -1), axis=1)
    cut = ordered.shape[1] // 4
    return ordered[:, cut : ordered.shape[1] - cut].mean(axis=1)
