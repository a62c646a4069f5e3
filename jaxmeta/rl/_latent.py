"""Latent policies of PEARL: a latent describes the task, and its posterior narrows from episode to episode."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from jaxmeta._checks import check_integer
from jaxmeta._parallel import constrain, map_tasks
from jaxmeta._types import MetaParams, PyTree
from jaxmeta.envs import MetaEnv
from jaxmeta.models import MLP
from jaxmeta.rl._distributions import DiagonalGaussian
from jaxmeta.rl._evaluate import ReturnCurve
from jaxmeta.rl._normalization import seen, seen_steps
from jaxmeta.rl._observations import ObservationEncoder
from jaxmeta.rl._replay import Transition, transitions
from jaxmeta.rl._rollout import Trajectory, episode_returns, rollout
from jaxmeta.rl._sac import TanhGaussian


class LatentPolicy(nn.Module):
    """Policy that is conditioned on a latent, with an encoder that infers the latent and two critics.

    Parameters are `{"actor": ..., "encoder": ..., "critic_0": ..., "critic_1": ...}`, all made by `init`.

    Attributes:
        action_size: number of values in an action.
        latent_size: number of values in a latent.
        sizes: width of each hidden layer of the policy and the critics.
        encoder_sizes: width of each hidden layer of the encoder.
        observation_size: that of the environment if its observations are no vectors: each network then has an
            `ObservationEncoder` of its own.

    Raises:
        ValueError: if a size is less than 1.

    Example:
        >>> policy = LatentPolicy(action_size=2, sizes=(8,), encoder_sizes=(8,))
        >>> obs, prior = jnp.zeros((3, 4)), policy.prior()
        >>> params = jax.jit(policy.init)(jax.random.key(0), obs, prior.mean)
        >>> actions = policy.apply(params, obs, prior.sample(jax.random.key(1)))
        >>> actions.mode().shape
        (3, 2)

    References:
        Rakelly, Zhou, Quillen, Finn & Levine, *Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic
        Context Variables*, ICML 2019, https://arxiv.org/abs/1903.08254
    """

    action_size: int
    latent_size: int = 5
    sizes: Sequence[int] = (300, 300, 300)
    encoder_sizes: Sequence[int] = (200, 200, 200)
    observation_size: Any = None

    def __post_init__(self) -> None:
        check_integer(action_size=self.action_size, latent_size=self.latent_size)
        for name in ("sizes", "encoder_sizes"):
            check_integer(**{f"{name}[{i}]": size for i, size in enumerate(getattr(self, name))})
        super().__post_init__()

    def setup(self) -> None:
        """Builds the networks."""
        size = self.observation_size
        names = () if size is None else ("actor", "encoder", "critic_0", "critic_1")
        self.see = {name: ObservationEncoder(size) for name in names}
        self.actor = MLP(self.sizes, 2 * self.action_size)
        self.encoder = MLP(self.encoder_sizes, 2 * self.latent_size)
        self.critic = [MLP(self.sizes) for _ in range(2)]

    def prior(self) -> DiagonalGaussian:
        """Returns the prior over latents, a standard normal distribution `[latent_size]`."""
        return DiagonalGaussian(jnp.zeros(self.latent_size), jnp.zeros(self.latent_size))

    def __call__(self, obs: PyTree, latent: jax.Array) -> TanhGaussian:
        """Returns the distributions of actions for `obs: [..., observation_size]` and `latent: [latent_size]`."""
        if self.is_initializing():
            number = self._seen("actor", obs)[..., 0]
            action = jnp.zeros((*number.shape, self.action_size))
            self.q_values(obs, action, latent)
            self.encoder(self._features(Transition(obs, action, number, obs, number > 0)))
        mean, log_std = jnp.split(self.actor(self._seen("actor", obs), latent), 2, axis=-1)
        return TanhGaussian(DiagonalGaussian(mean, jnp.clip(log_std, -20, 2)))

    def q_values(self, obs: PyTree, action: jax.Array, latent: jax.Array) -> jax.Array:
        """Returns the values `Q_i(s, a, z)` of both critics, `[2, ...]`."""
        x = [jnp.concatenate([self._seen(f"critic_{i}", obs), action], axis=-1) for i in range(2)]
        return jnp.stack([critic(x, latent)[..., 0] for critic, x in zip(self.critic, x, strict=True)])

    def infer(self, prior: DiagonalGaussian, context: Transition, valid: jax.Array) -> DiagonalGaussian:
        """Updates a distribution over latents with a context.

        Each transition `c_n` gives a Gaussian factor, and the order of the factors does not matter: the posterior
        `q(z | c)` is proportional to `prior(z) * prod_n N(z; mean(c_n), variance(c_n))`.

        Args:
            prior: distribution before the context, `[latent_size]`, such as `prior()`.
            context: transitions, `[n, ...]`.
            valid: which transitions count, bool `[n]`.

        Returns:
            The posterior, `[latent_size]`.
        """
        mean, raw = jnp.split(self.encoder(self._features(context)), 2, axis=-1)
        variance = jnp.maximum(jax.nn.softplus(raw), 1e-7)
        return product(prior, DiagonalGaussian(mean, 0.5 * jnp.log(variance)), valid)

    def _seen(self, name: str, obs: PyTree) -> jax.Array:
        """Returns what a network sees of observations, a vector for each."""
        return obs if self.observation_size is None else self.see[name](obs)

    def _features(self, context: Transition) -> jax.Array:
        """Returns the encoder's inputs, `[..., 2 * n + action_size + 1]`."""
        obs, next_obs = self._seen("encoder", context.obs), self._seen("encoder", context.next_obs)
        return jnp.concatenate([obs, context.action, context.reward[..., None], next_obs], axis=-1)


def product(prior: DiagonalGaussian, factors: DiagonalGaussian, valid: jax.Array) -> DiagonalGaussian:
    """Returns the normalized product of a Gaussian `[d]` and of the valid ones among Gaussian factors `[n, d]`.

    The precision of the product is the sum of the precisions, and its mean is the precision-weighted mean.
    """
    prior_precision = jnp.exp(-2 * prior.log_std)
    precision = jnp.where(valid[:, None], jnp.exp(-2 * factors.log_std), 0)
    total = prior_precision + jnp.sum(precision, axis=0)
    means = precision * jnp.where(valid[:, None], factors.mean, 0)
    mean = (prior_precision * prior.mean + jnp.sum(means, axis=0)) / total
    return DiagonalGaussian(mean, -0.5 * jnp.log(total))


def posterior_sampling(
    env: MetaEnv,
    policy: LatentPolicy,
    params: PyTree,
    task: PyTree,
    key: jax.Array,
    *,
    episodes: int,
    state: PyTree = (),
) -> tuple[Trajectory, DiagonalGaussian]:
    """Plays consecutive episodes of one task, each with a latent drawn from the posterior after the previous ones.

    Args:
        env: the environment.
        policy: the networks.
        params: the networks' parameters.
        task: the environment's task.
        key: a random key for latents, resets, actions and the environment's noise.
        episodes: number of episodes.
        state: statistics by which the networks see observations, the `meta.state` of `pearl(normalize=True)`.

    Returns:
        A `Trajectory`, `[episodes, T]`, and the distributions over latents before each episode,
        `[episodes, latent_size]`, the first of which is the prior. Use `jax.vmap` to batch over tasks.

    Raises:
        ValueError: if `episodes` is less than 1.

    Example:
        >>> from jaxmeta import envs, rl
        >>> env = envs.make("particles2d", horizon=5)
        >>> policy = rl.LatentPolicy(env.action_size, sizes=(8,), encoder_sizes=(8,))
        >>> params = jax.jit(policy.init)(jax.random.key(0), jnp.zeros((1, 2)), policy.prior().mean)
        >>> goal = {"goal": jnp.array([0.3, 0.4])}
        >>> data, posteriors = posterior_sampling(env, policy, params, goal, jax.random.key(1), episodes=3)
        >>> data.reward.shape, posteriors.mean[0].tolist(), bool((posteriors.log_std[1:] < 0).all())
        ((3, 5), [0.0, 0.0, 0.0, 0.0, 0.0], True)
    """
    check_integer(episodes=episodes)
    apply: Any = policy.apply

    def episode(prior: DiagonalGaussian, key: jax.Array) -> tuple[DiagonalGaussian, Any]:
        latent_key, key = jax.random.split(key)
        data = _one_episode(env, policy, params, task, key, prior.sample(latent_key), state)
        context = seen_steps(state, transitions(data))
        posterior = apply(params, prior, context, data.valid, method="infer")
        return posterior, (data, prior)

    return jax.lax.scan(episode, policy.prior(), jax.random.split(key, episodes))[1]


def _one_episode(
    env: MetaEnv,
    policy: LatentPolicy,
    params: PyTree,
    task: PyTree,
    key: jax.Array,
    latent: jax.Array,
    state: PyTree,
    *,
    mode: bool = False,
    states: bool = False,
) -> Trajectory:
    """Plays one episode with one latent, `[T]`."""

    def act(params: PyTree, obs: PyTree) -> Any:
        return policy.apply(params, seen(state, obs), latent)

    data = rollout(env, act, params, task, key, episodes=1, mode=mode, states=states)
    return jax.tree.map(lambda x: x[:, 0], data)


def pearl_curve(
    env: MetaEnv, policy: LatentPolicy, steps: int = 3, *, states: bool = False, mesh: Mesh | None = None
) -> Callable[[MetaParams, PyTree, jax.Array], ReturnCurve]:
    """Builds an evaluation that measures the returns of `pearl`'s policy with a context of 0, 1, ... episodes.

    Args:
        env: the environment.
        policy: the networks.
        steps: largest number of episodes in the context, at least 0.
        states: see `adaptation_curve`.
        mesh: devices that share the tasks, see `maml_trpo`.

    Returns:
        `(meta, tasks, key) -> ReturnCurve`, a pure function to jit. `sampled` are the returns of the episodes that
        become the context, each with a latent drawn from the posterior before it. `mode` are the returns of one more
        episode at every step, with the most probable actions given the most probable latent.

    Raises:
        ValueError: if `steps` is not an integer of at least 0.

    Example:
        >>> from jaxmeta import envs, rl
        >>> env = envs.make("particles2d", horizon=5)
        >>> policy = rl.LatentPolicy(env.action_size, sizes=(8,), encoder_sizes=(8,))
        >>> params = jax.jit(policy.init)(jax.random.key(0), jnp.zeros((1, 2)), policy.prior().mean)
        >>> run = jax.jit(pearl_curve(env, policy, steps=2))
        >>> tasks = env.sample_tasks(jax.random.key(1), 4, split="test")
        >>> run(MetaParams(params), tasks, jax.random.key(2)).sampled.shape
        (4, 3)
    """
    check_integer(least=0, steps=steps)

    def in_task(meta: MetaParams, task: PyTree, key: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
        sample_key, key = jax.random.split(key)
        start = {"episodes": steps + 1, "state": meta.state}
        data, posteriors = posterior_sampling(env, policy, meta.params, task, sample_key, **start)

        def play(latent: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
            options = {"mode": True, "states": states}
            data = _one_episode(env, policy, meta.params, task, key, latent, meta.state, **options)
            return episode_returns(data), data.states

        found = jax.vmap(play)(posteriors.mode(), jax.random.split(key, steps + 1))
        return jax.vmap(episode_returns)(data), *found

    def run(meta: MetaParams, tasks: PyTree, key: jax.Array) -> ReturnCurve:
        found = map_tasks(partial(in_task, meta), tasks, key, mesh)
        return constrain(ReturnCurve(jnp.arange(steps + 1), *found), mesh)

    return run
