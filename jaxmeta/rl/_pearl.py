"""PEARL (Rakelly et al. 2019, https://arxiv.org/abs/1903.08254).

An encoder infers from transitions what task it is, as a distribution over a latent; soft actor-critic (SAC) learns from
old data what to do given a draw from it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta._checks import check_integer, check_number, check_transformation
from jaxmeta._parallel import constrain, map_tasks, over_tasks
from jaxmeta._types import MetaParams, Metrics, PyTree, Training
from jaxmeta.envs import MetaEnv
from jaxmeta.rl._collector import check_fraction
from jaxmeta.rl._latent import LatentPolicy, posterior_sampling
from jaxmeta.rl._replay import Replay, Transition, add, draw, empty_replay, transitions
from jaxmeta.rl._sac import critic_loss, soft_value, td_target


class PearlState(NamedTuple):
    """State of the `Training` that `pearl` builds."""

    meta: Any
    """The meta-parameters, a `jaxmeta.MetaParams` of the policy's parameters."""
    opt_state: optax.OptState
    """State of the optimizer."""
    target: PyTree
    """Parameters that follow slowly, for the critics' targets."""
    tasks: PyTree
    """The training tasks, stacked on the first axis."""
    replay: Replay
    """What was seen in them."""


def pearl(
    env: MetaEnv,
    policy: LatentPolicy,
    tasks: PyTree,
    *,
    num_tasks: int = 16,
    episodes: int = 5,
    updates: int = 200,
    optimizer: optax.GradientTransformation | None = None,
    context_size: int = 64,
    batch_size: int = 256,
    capacity: int = 10_000,
    discount: float = 0.99,
    entropy_weight: float = 0.2,
    kl_weight: float = 0.1,
    target_rate: float = 0.005,
    mesh: Mesh | None = None,
) -> Training:
    """PEARL: off-policy meta-reinforcement learning, by posterior sampling.

    One iteration: play a few episodes in each of some training tasks, the first with a latent of the prior, each other
    one with a latent of what is believed after those before; store their steps, in a ring buffer for each task; then
    update. An update draws tasks, and of each a context among its newest `episodes * env.horizon` steps, from which
    the encoder infers the latent, and a batch of any age for soft actor-critic. The encoder learns from the critics'
    errors and the divergence from the prior, and not from the policy.

    Here the prior is one of the factors of the belief, so that no context gives the prior; the critics' targets are of
    slow copies of themselves, with no network for the value.

    Args:
        env: the environment, of continuous actions.
        policy: the networks.
        tasks: the training tasks, stacked on the first axis, such as `env.sample_tasks(key, 100)`.
        num_tasks: different tasks to play in per iteration, and tasks per update.
        episodes: how many are played in a task.
        updates: per iteration.
        optimizer: of all parameters; `optax.adam(3e-4)` if `None`.
        context_size: transitions from which a latent is inferred in an update.
        batch_size: transitions per task for the actor and the critics.
        capacity: transitions that are kept of each task.
        discount: `gamma`, per step; what follows an episode that was cut off counts.
        entropy_weight: of the policy's entropy, which is paid for: 1 divided by the paper's scale of rewards.
        kl_weight: of the divergence of the belief from the prior, the paper's `beta`.
        target_rate: how far the slow copies move in an update.
        mesh: see `maml_trpo`; every device has all of the stored steps.

    Returns:
        A `Training`, whose state is a `PearlState`. Its metrics: `return_0`, ... `return_<episodes - 1>`, the
        mean undiscounted return of each episode; `loss`, minus the last of them; `critic_error`, a mean square,
        `entropy` in nats, and `kl`, the divergence of the belief from the prior, means over the updates.

    Raises:
        TypeError: if `optimizer` is not an optax transformation.
        ValueError: if a number is out of its range, there are fewer `tasks` than `num_tasks`, or actions are discrete.

    Example:
        >>> from jaxmeta import envs, rl
        >>> env = envs.make("particles2d", horizon=5)
        >>> policy = rl.LatentPolicy(env.action_size, sizes=(8,), encoder_sizes=(8,))
        >>> tasks = env.sample_tasks(jax.random.key(0), 4)
        >>> training = pearl(env, policy, tasks, num_tasks=2, episodes=2, updates=3, batch_size=8)
        >>> obs = jnp.zeros((1, env.observation_size))
        >>> state = training.init(jax.jit(policy.init)(jax.random.key(1), obs, policy.prior().mean))
        >>> state, metrics = jax.jit(training.step)(state, jax.random.key(2))
        >>> sorted(state.replay.size.tolist())
        [0, 0, 10, 10]

    References:
        Rakelly, Zhou, Quillen, Finn & Levine, *Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic
        Context Variables*, ICML 2019, https://arxiv.org/abs/1903.08254
    """
    optimizer = optax.adam(3e-4) if optimizer is None else optimizer
    check_transformation(optimizer=optimizer)
    check_integer(num_tasks=num_tasks, episodes=episodes, updates=updates)
    check_integer(context_size=context_size, batch_size=batch_size, capacity=capacity)
    check_fraction(discount=discount, target_rate=target_rate)
    check_number(entropy_weight=entropy_weight, kl_weight=kl_weight)
    total = jax.tree.leaves(tasks)[0].shape[0]
    if num_tasks > total:
        raise ValueError(f"num_tasks must be at most the number of tasks ({total}), got {num_tasks}")
    if env.discrete:
        raise ValueError(f"env must have continuous actions, got {env!r}")

    loss = partial(_task_loss, policy, discount, entropy_weight, kl_weight)

    def init(params: PyTree, key: jax.Array | None = None) -> PearlState:
        del key
        obs, action, number = jnp.zeros(env.observation_size), jnp.zeros(env.action_size), jnp.zeros(())
        replay = empty_replay(Transition(obs, action, number, obs, number > 0), total, capacity)
        target = jax.tree.map(jnp.copy, params)  # so that a jitted step may reuse the memory of its state
        return PearlState(MetaParams(params), optimizer.init(params), target, tasks, replay)

    def step(state: PearlState, key: jax.Array) -> tuple[PearlState, Metrics]:
        task_key, play_key, key = jax.random.split(key, 3)
        chosen = jax.random.permutation(task_key, total)[:num_tasks]
        play = partial(posterior_sampling, env, policy, state.meta.params, episodes=episodes)
        now = jax.tree.map(lambda x: x[chosen], state.tasks)
        data, _ = map_tasks(play, now, play_key, mesh)  # [num_tasks, episodes, T]
        flat = jax.tree.map(lambda x: x.reshape(num_tasks, -1, *x.shape[3:]), (transitions(data), data.valid))
        replay = add(state.replay, chosen, *constrain(flat, mesh))
        carry = state.meta.params, state.opt_state, state.target
        sample = partial(_sample, replay, num_tasks, context_size, episodes * env.horizon, batch_size)
        update = partial(_update, loss, optimizer, sample, target_rate, mesh)
        carry, metrics = jax.lax.scan(update, carry, jax.random.split(key, updates))
        params, opt_state, target = carry
        returns = jnp.mean(jnp.sum(data.reward, axis=2), axis=0)
        metrics = {f"return_{i}": returns[i] for i in range(episodes)} | jax.tree.map(jnp.mean, metrics)
        state = PearlState(MetaParams(params), opt_state, target, state.tasks, replay)
        return constrain((state, {"loss": -returns[-1], **metrics}), mesh)

    return Training(init, step)


def _sample(
    replay: Replay, num_tasks: int, context_size: int, newest: int, batch_size: int, *keys: jax.Array
) -> tuple[Transition, Transition]:
    """A context and a batch of each of some tasks, `[num_tasks, ...]`, among those that have been played."""
    task_key, context_key, batch_key = keys
    total, capacity = replay.data.reward.shape
    played = (replay.size > 0).astype(float)
    chosen = jax.random.choice(task_key, total, (num_tasks,), p=played / jnp.sum(played))
    context = draw(replay, chosen, context_key, context_size, newest=newest)
    return context, draw(replay, chosen, batch_key, batch_size, newest=capacity)


def _update(
    loss: Callable[..., tuple[jax.Array, Metrics]],
    optimizer: optax.GradientTransformation,
    sample: Callable[..., tuple[Transition, Transition]],
    target_rate: float,
    mesh: Mesh | None,
    carry: tuple[PyTree, optax.OptState, PyTree],
    key: jax.Array,
) -> tuple[Any, Metrics]:
    """One step of the optimizer on the mean loss of sampled tasks, and of the target after it."""
    params, opt_state, target = carry
    *sample_keys, key = jax.random.split(key, 4)
    data = sample(*sample_keys)
    data, keys = over_tasks((data, jax.random.split(key, len(data[0].reward))), mesh)

    def objective(params: PyTree) -> tuple[jax.Array, Metrics]:
        losses, metrics = jax.vmap(partial(loss, params, target))(*data, keys)
        return jnp.mean(losses), jax.tree.map(jnp.mean, metrics)

    grads, metrics = jax.grad(objective, has_aux=True)(params)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    return (params, opt_state, optax.incremental_update(params, target, target_rate)), metrics


def _task_loss(
    policy: LatentPolicy,
    discount: float,
    entropy_weight: float,
    kl_weight: float,
    params: PyTree,
    target: PyTree,
    context: Transition,
    batch: Transition,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """All losses in one task, with no derivative from one network's into another but from the critics' to the encoder.

    The sum is the same as one loss for each network: the optimizer sees separate gradients.
    """
    latent_key, next_key, key = jax.random.split(key, 3)
    apply: Any = policy.apply
    still = jax.lax.stop_gradient(params)
    belief = apply(params, policy.prior(), context, jnp.ones_like(context.terminated), method="infer")
    latent = belief.sample(latent_key)
    given = jax.lax.stop_gradient(latent)

    next_action, next_log_prob = apply(still, batch.next_obs, given).sample_with_log_prob(next_key)
    next_values = apply(target, batch.next_obs, next_action, given, method="judge")
    next_value = soft_value(next_values, next_log_prob, entropy_weight)
    wanted = td_target(batch.reward, batch.terminated, next_value, discount)
    error = critic_loss(apply(params, batch.obs, batch.action, latent, method="judge"), wanted)

    action, log_prob = apply(params, batch.obs, given).sample_with_log_prob(key)
    values = apply(still, batch.obs, action, given, method="judge")
    actor_loss = -jnp.mean(soft_value(values, log_prob, entropy_weight))

    kl = belief.kl(policy.prior())
    return error + kl_weight * kl + actor_loss, {"critic_error": error / 2, "entropy": -jnp.mean(log_prob), "kl": kl}
