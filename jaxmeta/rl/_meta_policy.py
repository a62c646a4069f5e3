"""Meta-policy search: collect and adapt in many tasks, then improve the initial parameters on those data."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta._adapt import unroll
from jaxmeta._checks import check_integer, check_number, check_transformation
from jaxmeta._learned import combine, partition
from jaxmeta._parallel import constrain, map_tasks, over_tasks
from jaxmeta._types import MetaParams, Metrics, PyTree, Training, TrainingState, definite
from jaxmeta.meta_gradients import MetaGradient
from jaxmeta.rl._collector import Collector, Samples
from jaxmeta.rl._returns import masked_mean
from jaxmeta.rl._rollout import episode_returns
from jaxmeta.rl._surrogates import Surrogate, reinforce, surrogate_loss
from jaxmeta.rl._trpo import TRPOState


InnerState = tuple[PyTree, optax.OptState]
"""Parameters in the inner loop, and the inner optimizer's state."""


class Inner(NamedTuple):
    """How a policy adapts to a task."""

    collect: Collector
    optimizer: optax.GradientTransformation
    surrogate: Surrogate
    steps: int
    meta_gradient: MetaGradient | None = None


class Outer(NamedTuple):
    """How the initial parameters are improved on the data of one meta-iteration."""

    optimizer: optax.GradientTransformation
    surrogate: Surrogate
    epochs: int = 1
    kl_penalty: float = 0.0
    exploration: float = 0.0


def meta_policy_search(inner: Inner, outer: Outer, num_tasks: int, mesh: Mesh | None) -> Training:
    """The training that `maml_trpo`, `promp` and the others are cases of."""
    check_transformation(inner=inner.optimizer, optimizer=outer.optimizer)
    check_integer(num_tasks=num_tasks, epochs=outer.epochs)
    check_number(kl_penalty=outer.kl_penalty, exploration=outer.exploration)
    update = optax.with_extra_args_support(outer.optimizer).update

    def init(params: PyTree, key: jax.Array | None = None) -> TrainingState:
        del key
        learned, _ = partition(inner.optimizer.init(params))
        meta = definite(MetaParams(params, learned))
        return TrainingState(meta, outer.optimizer.init(meta), jnp.int32(0))

    def step(state: TrainingState, key: jax.Array) -> tuple[TrainingState, Metrics]:
        task_key, key = jax.random.split(key)
        tasks = inner.collect.env.sample_tasks(task_key, num_tasks)
        _, samples = over_tasks(map_tasks(partial(collect_and_adapt, inner, state.meta), tasks, key, mesh), mesh)
        returns = jax.vmap(jax.vmap(episode_returns))(samples.trajectory).mean(axis=2)  # [num_tasks, steps + 1]

        def loss_fn(meta: MetaParams) -> jax.Array:
            credit = _standardize(returns[:, -1])
            return mean_over_tasks(partial(_task_loss, inner, outer, meta), samples, credit, mesh=mesh)

        def kl_fn(meta: MetaParams) -> jax.Array:
            return mean_over_tasks(partial(_divergence, inner, meta), samples, mesh=mesh)

        def epoch(carry: tuple[MetaParams, optax.OptState], _: None) -> tuple[Any, None]:
            meta, opt_state = carry
            updates, opt_state = update(jax.grad(loss_fn)(meta), opt_state, meta, value_fn=loss_fn, kl_fn=kl_fn)
            return (optax.apply_updates(meta, updates), opt_state), None

        (meta, opt_state), _ = jax.lax.scan(epoch, (state.meta, state.opt_state), length=outer.epochs)
        data = samples.trajectory
        metrics = {
            "loss": -jnp.mean(returns[:, -1]),
            **{f"return_{i}": jnp.mean(returns[:, i]) for i in range(inner.steps + 1)},
            "entropy": masked_mean(data.dist.entropy(), data.valid),
        }
        if isinstance(opt_state, TRPOState):
            metrics |= opt_state._asdict()
        else:
            metrics["kl"] = kl_fn(meta)
        return constrain((TrainingState(meta, opt_state, state.update + 1), metrics), mesh)

    return Training(init, step)


def collect_and_adapt(inner: Inner, meta: MetaParams, task: PyTree, key: jax.Array) -> tuple[PyTree, Samples]:
    """Parameters and samples of a task before the inner loop and after each step of it, leading axis `[steps + 1]`.

    The scan's last update is dropped: so there is one copy of the environment in the program.
    """

    def step(carry: InnerState, key: jax.Array) -> tuple[InnerState, tuple[PyTree, Samples]]:
        samples = inner.collect(carry[0], task, key)
        return adapt_once(inner, carry, samples), (carry[0], samples)

    return jax.lax.scan(step, begin(inner, meta), jax.random.split(key, inner.steps + 1))[1]


def begin(inner: Inner, meta: MetaParams) -> InnerState:
    """Where the inner loop starts."""
    # Nothing learned may have the structure of another inner optimizer's state.
    learned = meta.learned if jax.tree.leaves(meta.learned) else None
    return meta.params, combine(learned, inner.optimizer.init(meta.params))


def adapt_once(inner: Inner, start: InnerState, samples: Samples) -> InnerState:
    """One inner step."""
    params, state = start
    one = jax.tree.map(lambda x: x[None], samples)
    end = unroll(partial(_inner_loss, inner), inner.optimizer, params, None, one, state=state)
    return end.params, end.state


def _adapted(inner: Inner, meta: MetaParams, samples: Samples) -> PyTree:
    """The parameters after the inner loop on samples `[steps + 1, ...]`, the last of which are for the outer loss."""
    return unroll(
        partial(_inner_loss, inner),
        inner.optimizer,
        meta.params,
        None,
        jax.tree.map(lambda x: x[: inner.steps], samples),
        learned=meta.learned,
        meta_gradient=inner.meta_gradient,
    ).params


def _task_loss(inner: Inner, outer: Outer, meta: MetaParams, samples: Samples, credit: jax.Array) -> jax.Array:
    """The outer loss; `credit` says how much better than in other tasks the adapted policy did."""
    collect, first = inner.collect, _at(samples, 0)
    loss = surrogate_loss(collect, outer.surrogate, _adapted(inner, meta, samples), _at(samples, -1))
    if outer.kl_penalty:
        loss += outer.kl_penalty * _mean_kl(collect, meta.params, first)
    if outer.exploration:
        credited = first._replace(advantage=jnp.full_like(first.advantage, credit))
        loss += outer.exploration * surrogate_loss(collect, reinforce, meta.params, credited)
    return loss


def _divergence(inner: Inner, meta: MetaParams, samples: Samples) -> jax.Array:
    """Between the adapted policy that played and that of `meta`."""
    return _mean_kl(inner.collect, _adapted(inner, meta, samples), _at(samples, -1))


def _inner_loss(inner: Inner, params: PyTree, batch: Any, samples: Any) -> tuple[jax.Array, Metrics]:
    del batch
    return surrogate_loss(inner.collect, inner.surrogate, params, samples), {}


def mean_over_tasks(fn: Callable[..., jax.Array], *xs: PyTree, mesh: Mesh | None) -> jax.Array:
    """On one CPU one task after the other: what its gradient needs then stays in the caches."""
    if mesh is None and jax.default_backend() == "cpu":
        return jnp.mean(jax.lax.map(jax.checkpoint(lambda x: fn(*x)), xs))
    return jnp.mean(jax.vmap(fn)(*xs))


def _at(samples: Samples, step: int) -> Samples:
    return jax.tree.map(lambda x: x[step], samples)


def _mean_kl(collect: Collector, params: PyTree, samples: Samples) -> jax.Array:
    """Mean divergence from the policy that played to that of `params`."""
    data = samples.trajectory
    return masked_mean(data.dist.kl(collect.policy(params, data.obs)), data.valid)


def _standardize(x: jax.Array) -> jax.Array:
    return (x - jnp.mean(x)) / (jnp.std(x) + 1e-8)
