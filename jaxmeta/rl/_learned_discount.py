"""Meta-gradient reinforcement learning (Xu, van Hasselt & Silver 2018, https://arxiv.org/abs/1805.09801).

The discount and the trace decay of a policy gradient are learned from the effect of an update on the next episodes.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta._checks import check_fraction, check_positive, check_transformation
from jaxmeta._learned import no_value_fn, update_with
from jaxmeta._parallel import constrain, map_tasks
from jaxmeta._types import MetaParams, Metrics, PyTree, Training, definite
from jaxmeta.display import described, short_repr
from jaxmeta.rl._collector import Collector, estimate_advantages
from jaxmeta.rl._meta_policy import batch_sizes, mean_over_tasks
from jaxmeta.rl._policies import policy_params
from jaxmeta.rl._rollout import Trajectory, episode_returns
from jaxmeta.rl._surrogates import reinforce, surrogate_loss


class LearnedDiscountState(NamedTuple):
    """State of the `Training` that `learned_discount` builds."""

    meta: MetaParams
    """Meta-parameters: the policy's parameters, and the logits of the discount and the trace decay."""
    opt_state: optax.OptState
    """State of the policy's optimizer."""
    meta_opt_state: optax.OptState
    """State of the logits' optimizer."""

    __repr__ = short_repr


@described
def learned_discount(
    collect: Collector,
    optimizer: optax.GradientTransformation,
    meta_optimizer: optax.GradientTransformation,
    *,
    num_tasks: int = 20,
    discount: float | jax.Array = 0.9,
    trace_decay: float | jax.Array = 0.9,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Training:
    """Policy gradient whose discount and trace decay are learned online, within a single training run.

    Each iteration plays episodes `tau`, updates the policy with the learned numbers `eta = (gamma, lambda)`, and plays
    episodes `tau'` with the new policy. With the policy gradient loss `J`, whose advantages depend on `eta`, and the
    numbers `eta'` of `collect`, the two updates are::

        theta' = optimizer(theta, d J(theta, tau, eta) / d theta)
        eta <- meta_optimizer(eta, d J(theta', tau', eta') / d theta' * d theta' / d eta)

    Args:
        collect: collector of the samples. Its `discount` and `trace_decay` define the objective of the meta-gradient.
        optimizer: optimizer of the policy. Second order through a square root (`optax.adam`) needs `eps_root > 0`.
        meta_optimizer: optimizer of the logits of `eta`, such as `optax.adam(0.01)`.
        num_tasks: number of tasks per iteration.
        discount: initial value of the learned discount `gamma`, between 0 and 1.
        trace_decay: initial value of the learned trace decay `lambda`, between 0 and 1.
        batch_size: see `maml_trpo`.
        mesh: see `maml_trpo`.

    Returns:
        A `Training`, whose state is a `LearnedDiscountState`. Its `meta` is a `MetaParams` of the policy's parameters
        and a dictionary of the logits. Its metrics are `return`, before the update, `loss`, minus the return after the
        update, `discount` and `trace_decay`.

    Raises:
        TypeError: if an optimizer is not an optax transformation.
        ValueError: if a number is out of range.

    Example:
        >>> from jaxmeta import envs, rl
        >>> def policy(weights, obs):
        ...     return rl.Categorical(obs @ weights)
        >>> collect = rl.Collector(env=envs.make("tabular", horizon=3), policy=policy, episodes=4)
        >>> training = learned_discount(collect, optax.sgd(0.1), optax.adam(0.01), num_tasks=2)
        >>> state, metrics = jax.jit(training.step)(training.init(jnp.zeros((10, 5))), jax.random.key(0))
        >>> round(float(metrics["discount"]), 2)
        0.9

    References:
        Xu, van Hasselt & Silver, *Meta-Gradient Reinforcement Learning*, NeurIPS 2018,
        https://arxiv.org/abs/1805.09801
    """
    check_transformation(optimizer=optimizer, meta_optimizer=meta_optimizer)
    sizes = batch_sizes(collect, num_tasks, batch_size, mesh)
    collect.check_bound()
    check_positive(discount=discount, trace_decay=trace_decay)
    check_fraction(below_one=True, discount=discount, trace_decay=trace_decay)
    objective_numbers = {"discount": collect.discount, "trace_decay": collect.trace_decay}  # eta'
    returns = jax.vmap(episode_returns)

    def loss(params: PyTree, data: Trajectory, numbers: dict[str, Any]) -> jax.Array:
        def in_task(data: Trajectory) -> jax.Array:
            return surrogate_loss(collect.policy, reinforce, params, estimate_advantages(data, **numbers))

        return mean_over_tasks(in_task, data, batch_size=sizes.differentiate)

    def init(params: PyTree, key: jax.Array | None = None) -> LearnedDiscountState:
        del key
        logits = jax.tree.map(jax.scipy.special.logit, {"discount": discount, "trace_decay": trace_decay})
        meta = definite(policy_params(params, logits))
        return LearnedDiscountState(meta, optimizer.init(meta.params), meta_optimizer.init(meta.learned))

    def step(state: LearnedDiscountState, key: jax.Array) -> tuple[LearnedDiscountState, Metrics]:
        (params, logits, _), opt_state, meta_opt_state = state
        task_key, *keys = jax.random.split(key, 3)
        tasks = collect.env.sample_tasks(task_key, num_tasks)

        def play(params: PyTree, key: jax.Array) -> Trajectory:
            return map_tasks(partial(collect.play, params), tasks, key, mesh, sizes.play)

        data = play(params, keys[0])

        def objective(logits: PyTree) -> tuple[jax.Array, tuple[PyTree, optax.OptState, Trajectory]]:
            numbers = jax.tree.map(jax.nn.sigmoid, logits)
            value, grads = jax.value_and_grad(loss)(params, data, numbers)
            given = {"value": value, "value_fn": no_value_fn("learned_discount")}
            new_params, new_opt_state = update_with(optimizer, grads, opt_state, params, **given)  # theta'
            new_data = play(new_params, keys[1])
            return loss(new_params, new_data, objective_numbers), (new_params, new_opt_state, new_data)

        (value, (params, opt_state, new_data)), gradient = jax.value_and_grad(objective, has_aux=True)(logits)
        given = {"value": value, "value_fn": lambda logits: objective(logits)[0]}
        new_logits, meta_opt_state = update_with(meta_optimizer, gradient, meta_opt_state, logits, **given)
        metrics = {"loss": -jnp.mean(returns(new_data)), "return": jnp.mean(returns(data))}
        metrics |= jax.tree.map(jax.nn.sigmoid, logits)
        new_state = LearnedDiscountState(MetaParams(params, new_logits), opt_state, meta_opt_state)
        return constrain((new_state, metrics), mesh)

    return Training(init, step)
