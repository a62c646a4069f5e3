"""Meta-policy search: collect and adapt in many tasks, then improve the initial parameters on those samples."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta._adapt import unroll
from jaxmeta._checks import (
    check_integer,
    check_mesh,
    check_not_negative,
    check_optional_integer,
    check_takes,
    check_through_steps,
    check_transformation,
)
from jaxmeta._learned import combine, partition, update_with
from jaxmeta._parallel import constrain, map_in_batches, map_tasks, over_tasks
from jaxmeta._types import LossFn, MetaParams, Metrics, PyTree, Training, TrainingState, definite
from jaxmeta.display import brief
from jaxmeta.meta_gradients import MetaGradient
from jaxmeta.rl._collector import Collector, Samples
from jaxmeta.rl._policies import policy_params
from jaxmeta.rl._returns import masked_mean
from jaxmeta.rl._rollout import Policy, episode_returns
from jaxmeta.rl._surrogates import Surrogate, reinforce, surrogate_loss
from jaxmeta.rl._trpo import TRPOState

_STEPS = 2**20
"""Steps of environments that an accelerator computes at once: about 4 GiB for ProMP with a policy of 2 x 64 units."""

InnerState = tuple[PyTree, optax.OptState]
"""Parameters in the inner loop, and the inner optimizer's state."""


class Inner(NamedTuple):
    """Adaptation of a policy to a task."""

    collect: Collector
    """Collector of the samples of each inner step."""
    optimizer: optax.GradientTransformation
    """Inner optimizer."""
    surrogate: Surrogate
    """Surrogate of the inner loss."""
    steps: int
    """Number of inner steps."""
    meta_gradient: MetaGradient | None = None
    """Derivative through the inner loop."""


class Outer(NamedTuple):
    """Improvement of the initial parameters on the samples of one meta-iteration."""

    optimizer: optax.GradientTransformation
    """Outer optimizer."""
    surrogate: Surrogate
    """Surrogate of the outer loss."""
    epochs: int = 1
    """Number of outer steps on the same samples."""
    kl_penalty: float | jax.Array | None = None
    """Weight of the KL penalty of ProMP, None for no penalty."""
    exploration: float | jax.Array | None = None
    """Weight of the exploration term of E-MAML, None for no such term."""


class BatchSizes(NamedTuple):
    """Numbers of tasks that are computed at once."""

    play: int
    """Tasks that play and adapt at once."""
    differentiate: int
    """Tasks whose loss is differentiated at once."""


def check_collector(collect: Any) -> None:
    """Raises TypeError unless a value collects samples."""
    if not hasattr(collect, "episodes"):
        raise TypeError(f"collect must be a Collector(env=..., policy=...), got {brief(collect)}")


def batch_sizes(collect: Collector, num_tasks: int, batch_size: int | None, mesh: Mesh | None) -> BatchSizes:
    """Chooses the sizes of batches of tasks; `None` chooses by backend.

    On a CPU the losses of the tasks follow each other, so that everything the gradient of one task needs stays in the
    caches.
    """
    check_integer(num_tasks=num_tasks)
    check_optional_integer(batch_size=batch_size)
    check_mesh(mesh)
    check_collector(collect)
    if mesh is not None:
        if batch_size is not None:
            raise ValueError(f"batch_size must be None with a mesh, whose devices compute at once, got {batch_size}")
        return BatchSizes(num_tasks, num_tasks)
    if batch_size is not None:
        return BatchSizes(batch_size, batch_size)
    most = max(1, _STEPS // (collect.episodes * collect.env.horizon))
    return BatchSizes(most, 1 if jax.default_backend() == "cpu" else most)


def meta_policy_search(
    adaptation: Inner, outer: Outer, num_tasks: int, batch_size: int | None, mesh: Mesh | None
) -> Training:
    """Builds the training that `maml_trpo`, `promp` and the other algorithms are cases of."""
    check_transformation(inner=adaptation.optimizer, optimizer=outer.optimizer)
    check_takes(2, " (log_prob, samples)", surrogate=adaptation.surrogate)
    check_integer(epochs=outer.epochs)
    check_through_steps(adaptation.meta_gradient)
    sizes = batch_sizes(adaptation.collect, num_tasks, batch_size, mesh)
    weights = {"kl_penalty": outer.kl_penalty, "exploration": outer.exploration}
    check_not_negative(**{name: weight for name, weight in weights.items() if weight is not None})

    collect = adaptation.collect

    def init(params: PyTree, key: jax.Array | None = None) -> TrainingState:
        meta = policy_params(params)
        learned, _ = partition(adaptation.optimizer.init(meta.params))
        meta = definite(meta._replace(learned=learned))
        state = collect.init_state(jax.random.key(0) if key is None else key)
        return TrainingState(meta._replace(state=state), outer.optimizer.init(meta), jnp.int32(0))

    def step(state: TrainingState, key: jax.Array) -> tuple[TrainingState, Metrics]:
        task_key, key = jax.random.split(key)
        tasks = collect.env.sample_tasks(task_key, num_tasks)
        start, carried = state.meta._replace(state=()), state.meta.state
        inner = adaptation._replace(collect=collect.at(carried))
        play = partial(collect_and_adapt, inner, start)
        _, samples = over_tasks(map_tasks(play, tasks, key, mesh, sizes.play), mesh)
        returns = jax.vmap(jax.vmap(episode_returns))(samples.trajectory).mean(axis=2)  # [num_tasks, steps + 1]

        def loss_fn(meta: MetaParams) -> jax.Array:
            credit = _standardize(returns[:, -1])
            task_loss = partial(_task_loss, inner, outer, meta)
            return mean_over_tasks(task_loss, samples, credit, batch_size=sizes.differentiate)

        def kl_fn(meta: MetaParams) -> jax.Array:
            return mean_over_tasks(partial(_adapted_kl, inner, meta), samples, batch_size=sizes.differentiate)

        def value_fn(meta: MetaParams, kl_fn: Any = None) -> jax.Array:
            del kl_fn  # optax's line searches hand it on
            return loss_fn(meta)

        def epoch(carry: tuple[MetaParams, optax.OptState], _: None) -> tuple[Any, None]:
            meta, opt_state = carry
            value, grads = jax.value_and_grad(loss_fn)(meta)
            return update_with(
                outer.optimizer, grads, opt_state, meta, value=value, value_fn=value_fn, kl_fn=kl_fn
            ), None

        (meta, opt_state), _ = jax.lax.scan(epoch, (start, state.opt_state), length=outer.epochs)
        data = samples.trajectory
        entropy = masked_mean(data.dist.entropy(), data.valid)
        metrics = {"loss": -jnp.mean(returns[:, -1]), **numbered(jnp.mean(returns, axis=0)), "entropy": entropy}
        if isinstance(opt_state, TRPOState):
            metrics |= opt_state._asdict()
        else:
            metrics["kl"] = kl_fn(meta)
        meta = meta._replace(state=collect.learn(carried, data, jax.random.fold_in(key, 1)))
        return constrain((TrainingState(meta, opt_state, state.update + 1), metrics), mesh)

    return Training(init, step)


def numbered(returns: jax.Array) -> Metrics:
    """Returns `return_0`, `return_1` and so on, of returns `[n]`."""
    return {f"return_{i}": returns[i] for i in range(len(returns))}


def collect_and_adapt(inner: Inner, meta: MetaParams, task: PyTree, key: jax.Array) -> tuple[PyTree, Samples]:
    """Returns a task's parameters and samples before the inner loop and after each step, leading axis `[steps + 1]`.

    The scan takes one inner step too many and drops it, so that the program contains the environment only once.
    """
    loss_fn = inner_loss(inner.collect.policy, inner.surrogate)

    def step(carry: InnerState, key: jax.Array) -> tuple[InnerState, tuple[PyTree, Samples]]:
        samples = inner.collect(carry[0], task, key)
        return adapt_once(loss_fn, inner.optimizer, carry, samples), (carry[0], samples)

    return jax.lax.scan(step, initial_state(inner.optimizer, meta), jax.random.split(key, inner.steps + 1))[1]


def initial_state(optimizer: optax.GradientTransformation, meta: MetaParams) -> InnerState:
    """Returns the state at the start of the inner loop."""
    # If nothing is learned, `meta.learned` may have the structure of another inner optimizer's state.
    learned = meta.learned if jax.tree.leaves(meta.learned) else None
    return meta.params, combine(learned, optimizer.init(meta.params))


def adapt_once(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, start: InnerState, samples: Samples
) -> InnerState:
    """Takes one inner step on samples."""
    params, state = start
    one = jax.tree.map(lambda x: x[None], samples)
    end = unroll(loss_fn, optimizer, params, None, one, state=state)
    return end.params, end.state


def inner_loss(policy: Policy, surrogate: Surrogate) -> LossFn:
    """Builds the loss `(params, None, samples) -> (scalar, metrics)` of the inner loop."""

    def loss_fn(params: PyTree, batch: Any, samples: Any) -> tuple[jax.Array, Metrics]:
        del batch
        return surrogate_loss(policy, surrogate, params, samples), {}

    return loss_fn


def _adapted(inner: Inner, meta: MetaParams, samples: Samples) -> PyTree:
    """Returns the parameters after the inner loop on samples `[steps + 1, ...]`, without the last ones."""
    return unroll(
        inner_loss(inner.collect.policy, inner.surrogate),
        inner.optimizer,
        meta.params,
        None,
        jax.tree.map(lambda x: x[: inner.steps], samples),
        learned=meta.learned,
        meta_gradient=inner.meta_gradient,
    ).params


def _task_loss(inner: Inner, outer: Outer, meta: MetaParams, samples: Samples, credit: jax.Array) -> jax.Array:
    """Returns the outer loss of one task.

    With the initial parameters `theta`, the adapted ones `theta'`, the surrogate loss `J` on the last samples, ProMP's
    penalty `eta`, E-MAML's weight `nu` and the task's `credit` this is::

        J(theta') + eta * KL(pi_old || pi_theta) - nu * credit * mean(log pi_theta)

    The last two terms are means over the first samples. `credit` is the standardized return after adaptation.
    """
    policy, first = inner.collect.policy, _at(samples, 0)
    loss = surrogate_loss(policy, outer.surrogate, _adapted(inner, meta, samples), _at(samples, -1))
    if outer.kl_penalty is not None:
        loss += outer.kl_penalty * _mean_kl(policy, meta.params, first)
    if outer.exploration is not None:
        credited = first._replace(advantage=jnp.full_like(first.advantage, credit))
        loss += outer.exploration * surrogate_loss(policy, reinforce, meta.params, credited)
    return loss


def _adapted_kl(inner: Inner, meta: MetaParams, samples: Samples) -> jax.Array:
    """Returns the mean KL divergence from the adapted policy that played to the adapted policy of `meta`."""
    return _mean_kl(inner.collect.policy, _adapted(inner, meta, samples), _at(samples, -1))


def mean_over_tasks(fn: Callable[..., jax.Array], *xs: PyTree, batch_size: int) -> jax.Array:
    """Returns the mean of `fn` over tasks, whose gradient holds what it needs of `batch_size` tasks at most."""
    if batch_size >= jax.tree.leaves(xs)[0].shape[0]:
        return jnp.mean(jax.vmap(fn)(*xs))
    return jnp.mean(map_in_batches(jax.checkpoint(lambda x: fn(*x)), xs, batch_size))


def _at(samples: Samples, step: int) -> Samples:
    """Returns the samples of one inner step."""
    return jax.tree.map(lambda x: x[step], samples)


def _mean_kl(policy: Policy, params: PyTree, samples: Samples) -> jax.Array:
    """Returns the mean of `KL(pi_old || pi_params)` over the valid steps, where `pi_old` played."""
    data = samples.trajectory
    return masked_mean(data.dist.kl(policy(params, data.obs)), data.valid)


def _standardize(x: jax.Array) -> jax.Array:
    """Scales to mean 0 and standard deviation 1."""
    return (x - jnp.mean(x)) / (jnp.std(x) + 1e-8)
