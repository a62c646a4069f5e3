"""PEARL (Rakelly et al. 2019, https://arxiv.org/abs/1903.08254).

An encoder infers the posterior over a latent that describes the task from a context of transitions. Soft actor-critic
(SAC) learns, from a replay buffer, a policy that is conditioned on a latent drawn from the posterior.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta._checks import check_fraction, check_integer, check_not_negative, check_transformation
from jaxmeta._learned import update_with
from jaxmeta._parallel import constrain, map_tasks, over_tasks
from jaxmeta._types import MetaParams, Metrics, PyTree, Training
from jaxmeta.display import brief, described, short_repr
from jaxmeta.envs import MetaEnv
from jaxmeta.rl._latent import LatentPolicy, posterior_sampling
from jaxmeta.rl._meta_policy import numbered
from jaxmeta.rl._normalization import learn_observations, no_observations, seen_steps
from jaxmeta.rl._observations import example_observations
from jaxmeta.rl._policies import policy_params
from jaxmeta.rl._replay import Replay, Transition, add, draw, empty_replay, transitions
from jaxmeta.rl._sac import critic_loss, soft_value, td_target


class PearlState(NamedTuple):
    """State of the `Training` that `pearl` builds."""

    meta: MetaParams
    """Meta-parameters: the parameters of all networks of the policy.

    With `normalize` their `state` holds the statistics of the observations."""
    opt_state: optax.OptState
    """State of the optimizer."""
    target: PyTree
    """Slowly updated copy of the parameters, for the critics' targets."""
    tasks: PyTree
    """Training tasks, stacked on the first axis."""
    replay: Replay
    """Replay buffer of each training task."""

    __repr__ = short_repr


@described
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
    discount: float | jax.Array = 0.99,
    entropy_weight: float | jax.Array = 0.2,
    kl_weight: float | jax.Array = 0.1,
    target_rate: float | jax.Array = 0.005,
    normalize: bool = False,
    mesh: Mesh | None = None,
) -> Training:
    """PEARL: off-policy meta-reinforcement learning by posterior sampling.

    An iteration plays a few episodes in each of some training tasks. The first episode has a latent drawn from the
    prior, each later one a latent drawn from the posterior after the previous ones. The steps go to the task's replay
    buffer, and then the networks are updated.

    An update draws tasks. From each task it draws a context `c` among the newest `episodes * env.horizon` steps, from
    which the encoder infers the posterior `q(z | c)` of the latent `z`, and a batch of any age for soft actor-critic.
    With the critics `Q_i`, their slow copies `Q'_i` and the prior `p(z)`, the losses are::

        critics and encoder:  mean(sum_i (Q_i(s, a, z) - y)^2) + beta * KL(q(z | c) || p(z))
        target:               y = r + gamma * (min_i Q'_i(s', a', z) - alpha * log pi(a' | s', z))
        actor:                mean(alpha * log pi(a | s, z) - min_i Q_i(s, a, z))

    The encoder does not learn from the actor's loss. Two details differ from the paper: the prior is one of the factors
    of the posterior, so that an empty context gives the prior, and the critics' targets come from slow copies of the
    critics instead of a value network.

    Args:
        env: the environment, with continuous actions.
        policy: the networks.
        tasks: the training tasks, stacked on the first axis, such as `env.sample_tasks(key, 100)`.
        num_tasks: number of different tasks to play per iteration, and number of tasks per update.
        episodes: number of episodes per task and iteration.
        updates: number of updates per iteration.
        optimizer: optimizer of all parameters; `optax.adam(3e-4)` if `None`.
        context_size: number of transitions in the context of an update.
        batch_size: number of transitions per task for the actor and the critics.
        capacity: number of transitions in the replay buffer of each task.
        discount: `gamma`, the discount per step. Values after a truncated episode count.
        entropy_weight: `alpha`, the weight of the policy's entropy, at least 0. It is 1 divided by the reward scale of
            the paper.
        kl_weight: `beta`, the weight of the KL divergence of the posterior from the prior, at least 0.
        target_rate: fraction by which the slow copies move towards the parameters in an update.
        normalize: whether policy, critics and encoder see observations of mean 0 and variance 1, by running statistics
            of all steps that were played, which are kept in `meta.state`. The replay buffer holds observations as they
            are, so that old steps are seen by the newest statistics too.
        mesh: see `maml_trpo`. Every device holds the whole replay buffer.

    Returns:
        A `Training`, whose state is a `PearlState`. Its metrics are `return_0`, ... `return_<episodes - 1>`, the mean
        undiscounted return of each episode, `loss`, minus the last of them, and as means over the updates
        `critic_error`, the critics' mean squared error, `entropy` in nats, and `kl`, the KL divergence of the posterior
        from the prior.

    Raises:
        TypeError: if `optimizer` is not an optax transformation.
        ValueError: if a number is out of range, if there are fewer `tasks` than `num_tasks`, or if actions are
            discrete.

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
    check_not_negative(entropy_weight=entropy_weight, kl_weight=kl_weight)
    total = _number_of_tasks(tasks, num_tasks)
    if env.discrete:
        raise ValueError(f"env must have continuous actions, got {env!r}")

    loss = partial(_task_loss, policy, discount, entropy_weight, kl_weight)

    def init(params: PyTree, key: jax.Array | None = None) -> PearlState:
        del key
        meta = policy_params(params)._replace(state=no_observations(env) if normalize else ())
        target = jax.tree.map(jnp.copy, params)  # a jitted step may then reuse the memory of its state
        return PearlState(meta, optimizer.init(params), target, tasks, _nothing_played(env, total, capacity))

    def step(state: PearlState, key: jax.Array) -> tuple[PearlState, Metrics]:
        task_key, play_key, key = jax.random.split(key, 3)
        chosen = jax.random.permutation(task_key, total)[:num_tasks]
        meta = state.meta
        play = partial(posterior_sampling, env, policy, meta.params, episodes=episodes, state=meta.state)
        played = jax.tree.map(lambda x: x[chosen], state.tasks)
        data, _ = map_tasks(play, played, play_key, mesh)  # [num_tasks, episodes, T]
        flat = jax.tree.map(lambda x: x.reshape(num_tasks, -1, *x.shape[3:]), (transitions(data), data.valid))
        replay = add(state.replay, chosen, *constrain(flat, mesh))
        meta = meta._replace(state=learn_observations(meta.state, data.obs, data.valid))
        carry = meta.params, state.opt_state, state.target
        sample = partial(_sample, replay, meta.state, num_tasks, context_size, episodes * env.horizon, batch_size)
        update = partial(_update, loss, optimizer, sample, target_rate, mesh)
        carry, metrics = jax.lax.scan(update, carry, jax.random.split(key, updates))
        params, opt_state, target = carry
        returns = jnp.mean(jnp.sum(data.reward, axis=2), axis=0)
        metrics = numbered(returns) | jax.tree.map(jnp.mean, metrics)
        state = PearlState(meta._replace(params=params), opt_state, target, state.tasks, replay)
        return constrain((state, {"loss": -returns[-1], **metrics}), mesh)

    return Training(init, step)


def _nothing_played(env: MetaEnv, total: int, capacity: int) -> Replay:
    """Returns empty replay buffers for the transitions of an environment."""
    obs = jax.tree.map(lambda x: x[0], example_observations(env))
    action, number = jnp.zeros(env.action_size), jnp.zeros(())
    return empty_replay(Transition(obs, action, number, obs, number > 0), total, capacity)


def _number_of_tasks(tasks: PyTree, least: int) -> int:
    """Returns the number of stacked tasks, and raises an error if there are too few."""
    if not jax.tree.leaves(tasks):
        raise TypeError(f"tasks must be training tasks, such as env.sample_tasks(key, 100), got {brief(tasks)}")
    total = jax.tree.leaves(tasks)[0].shape[0]
    if least > total:
        raise ValueError(f"num_tasks must be at most the number of tasks ({total}), got {least}")
    return total


def _sample(
    replay: Replay, state: PyTree, num_tasks: int, context_size: int, newest: int, batch_size: int, *keys: jax.Array
) -> tuple[Transition, Transition]:
    """Draws tasks among those that have been played, and for each a context and a batch, `[num_tasks, ...]`.

    The observations are as the networks see them by the statistics in `state`, of old and new steps alike.
    """
    task_key, context_key, batch_key = keys
    total, capacity = replay.data.reward.shape
    played = (replay.size > 0).astype(float)
    chosen = jax.random.choice(task_key, total, (num_tasks,), p=played / jnp.sum(played))
    context = draw(replay, chosen, context_key, context_size, newest=newest)
    batch = draw(replay, chosen, batch_key, batch_size, newest=capacity)
    return seen_steps(state, context), seen_steps(state, batch)


def _update(
    loss: Callable[..., tuple[jax.Array, Metrics]],
    optimizer: optax.GradientTransformation,
    sample: Callable[..., tuple[Transition, Transition]],
    target_rate: float | jax.Array,
    mesh: Mesh | None,
    carry: tuple[PyTree, optax.OptState, PyTree],
    key: jax.Array,
) -> tuple[Any, Metrics]:
    """Takes a step of the optimizer on the mean loss of sampled tasks, and then moves the target."""
    params, opt_state, target = carry
    *sample_keys, key = jax.random.split(key, 4)
    data = sample(*sample_keys)
    data, keys = over_tasks((data, jax.random.split(key, len(data[0].reward))), mesh)

    def objective(params: PyTree) -> tuple[jax.Array, Metrics]:
        losses, metrics = jax.vmap(partial(loss, params, target))(*data, keys)
        return jnp.mean(losses), jax.tree.map(jnp.mean, metrics)

    (value, metrics), grads = jax.value_and_grad(objective, has_aux=True)(params)
    params, opt_state = update_with(
        optimizer, grads, opt_state, params, value=value, value_fn=lambda params: objective(params)[0]
    )
    return (params, opt_state, optax.incremental_update(params, target, target_rate)), metrics


def _task_loss(
    policy: LatentPolicy,
    discount: float | jax.Array,
    entropy_weight: float | jax.Array,
    kl_weight: float | jax.Array,
    params: PyTree,
    target: PyTree,
    context: Transition,
    batch: Transition,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Returns the sum of all losses in one task, see `pearl`.

    Each loss has derivatives for its own network only, except that those of the critics also reach the encoder. The
    gradient of the sum therefore holds the separate gradients of all networks.
    """
    latent_key, next_key, key = jax.random.split(key, 3)
    apply: Any = policy.apply
    fixed_params = jax.lax.stop_gradient(params)
    posterior = apply(params, policy.prior(), context, jnp.ones_like(context.terminated), method="infer")  # q(z | c)
    latent = posterior.sample(latent_key)
    fixed_latent = jax.lax.stop_gradient(latent)

    # mean(sum_i (Q_i(s, a, z) - y)^2) with y = r + gamma * (min_i Q'_i(s', a', z) - alpha * log pi(a' | s', z))
    next_action, next_log_prob = apply(fixed_params, batch.next_obs, fixed_latent).sample_with_log_prob(next_key)
    next_values = apply(target, batch.next_obs, next_action, fixed_latent, method="q_values")
    next_value = soft_value(next_values, next_log_prob, entropy_weight)
    q_target = td_target(batch.reward, batch.terminated, next_value, discount)
    error = critic_loss(apply(params, batch.obs, batch.action, latent, method="q_values"), q_target)

    # mean(alpha * log pi(a | s, z) - min_i Q_i(s, a, z))
    action, log_prob = apply(params, batch.obs, fixed_latent).sample_with_log_prob(key)
    values = apply(fixed_params, batch.obs, action, fixed_latent, method="q_values")
    actor_loss = -jnp.mean(soft_value(values, log_prob, entropy_weight))

    kl = posterior.kl(policy.prior())  # KL(q(z | c) || p(z))
    return error + kl_weight * kl + actor_loss, {"critic_error": error / 2, "entropy": -jnp.mean(log_prob), "kl": kl}
