"""Agent for environments outside of JAX: a meta-trained policy that adapts to each of them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta._checks import check_fraction, check_transformation
from jaxmeta._types import MetaParams, PyTree
from jaxmeta.rl._collector import estimate_advantages
from jaxmeta.rl._meta_policy import InnerState, adapt_once, initial_state, inner_loss
from jaxmeta.rl._returns import next_step
from jaxmeta.rl._rollout import Policy, Trajectory
from jaxmeta.rl._surrogates import Surrogate, ratio


class AdaptingAgent:
    """Meta-trained policy that adapts in each lane of a vector environment outside of JAX.

    Every lane is in a task of its own. The methods are those of an agent in Meta-World's evaluation,
    `metaworld.evaluation.metalearning_evaluation`. Actions are sampled until `adapt` takes an inner step in every lane
    on its episodes so far, as in `adaptation_curve`. Actions of the evaluation are the most probable ones.

    Args:
        policy: `(params, obs) -> Distribution`, such as the `apply` of a Flax module.
        meta: the meta-parameters from which every lane starts.
        inner: the inner optimizer.
        surrogate: surrogate of the inner loss.
        discount: see `Collector`.
        trace_decay: see `Collector`.
        seed: seed of the sampled actions.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if `discount` or `trace_decay` is not between 0 and 1.

    Example:
        >>> from jaxmeta import rl
        >>> policy = rl.GaussianPolicy(action_size=4)
        >>> params = policy.init(jax.random.key(0), jnp.zeros((1, 39)))
        >>> agent = AdaptingAgent(policy.apply, MetaParams(params), optax.sgd(0.1))
        >>> actions, _ = agent.adapt_action(np.zeros((20, 39)))
        >>> actions.shape
        (20, 4)
        >>> arms = gymnasium.make_vec("Meta-World/ML10-test", total_tasks_per_cls=40, seed=0)  # doctest: +SKIP
        >>> success_rate, _, _ = metaworld.evaluation.metalearning_evaluation(agent, arms)  # doctest: +SKIP
    """

    def __init__(
        self,
        policy: Policy,
        meta: MetaParams,
        inner: optax.GradientTransformation,
        *,
        surrogate: Surrogate = ratio,
        discount: float | jax.Array = 0.99,
        trace_decay: float | jax.Array = 1.0,
        seed: int = 0,
    ) -> None:
        check_transformation(inner=inner)
        check_fraction(discount=discount, trace_decay=trace_decay)
        loss_fn = inner_loss(policy, surrogate)

        def adapt(lane: InnerState, *episodes: jax.Array) -> InnerState:
            data = jax.lax.stop_gradient(_trajectory(policy, lane[0], *episodes))
            samples = estimate_advantages(data, discount=discount, trace_decay=trace_decay)
            return adapt_once(loss_fn, inner, lane, samples)

        self._start = initial_state(inner, meta)
        self._act = jax.jit(partial(_act, policy), static_argnames="mode")
        self._adapt = jax.jit(jax.vmap(adapt))
        self._key = jax.random.key(seed)
        self.init()

    def init(self) -> None:
        """Forgets all episodes and restarts every lane from the meta-parameters."""
        self._lanes: InnerState | None = None  # leading axis [num_envs], once that is known
        self._steps: list[Any] = []

    def adapt_action(self, observations: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Samples actions.

        Args:
            observations: observations of all lanes, `[num_envs, observation_size]`.

        Returns:
            The actions, and an empty dictionary.
        """
        return self._actions(observations, mode=False), {}

    def step(self, timestep: Any) -> None:
        """Records a step for `adapt`.

        Args:
            timestep: a step of all lanes, with the fields of `metaworld.evaluation.Timestep`: `observation`, the
                sampled `action`, `reward`, `terminated` and `truncated`.
        """
        self._steps.append(timestep)

    def adapt(self) -> None:
        """Takes an inner step in every lane on the steps since `init` or the last `adapt`.

        Raises:
            ValueError: if there are no such steps.
        """
        if self._lanes is None or not self._steps:
            raise ValueError("adapt must come after adapt_action and step, got no steps")
        self._lanes = self._adapt(self._lanes, *_episodes(self._steps))
        self._steps = []

    def eval_action(self, observations: np.ndarray) -> np.ndarray:
        """Returns the most probable actions."""
        return self._actions(observations, mode=True)

    def reset(self, env_mask: np.ndarray) -> None:
        """Accepts the start of new episodes in some lanes. The policy has no memory, so nothing changes."""

    def _actions(self, observations: np.ndarray, mode: bool) -> np.ndarray:
        """Returns sampled or most probable actions."""
        start = jax.tree.map(lambda x: jnp.stack([x] * len(observations)), self._start)
        self._lanes = lanes = start if self._lanes is None else self._lanes
        self._key, key = jax.random.split(self._key)
        return np.asarray(self._act(lanes[0], observations, key, mode=mode))


def _act(policy: Policy, params: PyTree, observations: jax.Array, key: jax.Array, mode: bool) -> jax.Array:
    """Returns the actions of all lanes, each with its own parameters."""

    def in_lane(params: PyTree, obs: jax.Array, key: jax.Array) -> jax.Array:
        dist = policy(params, obs[None])
        return (dist.mode() if mode else dist.sample(key))[0]

    return jax.vmap(in_lane)(params, observations, jax.random.split(key, len(observations)))


def _trajectory(
    policy: Policy,
    params: PyTree,
    obs: jax.Array,
    action: jax.Array,
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    valid: jax.Array,
) -> Trajectory:
    """Returns the episodes of one lane, played by the policy of `params`."""
    dist = policy(params, obs)
    return Trajectory(
        obs=obs,
        action=action,
        dist=dist,
        log_prob=dist.log_prob(action),
        reward=reward,
        next_obs=next_step(obs),
        terminated=terminated,
        truncated=truncated,
        valid=valid,
    )


def _episodes(steps: list[Any]) -> tuple[np.ndarray, ...]:
    """Arranges consecutive steps of all lanes as episodes, `[num_envs, T, E, ...]`.

    Returns:
        Observations, actions, rewards, terminations, truncations, and which steps are valid.
    """
    names = ("observation", "action", "reward", "terminated", "truncated")
    obs, action, reward, terminated, truncated = (np.stack([getattr(step, name) for step in steps]) for name in names)
    truncated[-1] |= ~terminated[-1]
    ended = terminated | truncated
    now, lane = np.indices(ended.shape)
    episode = np.cumsum(ended, axis=0) - ended
    starts = np.concatenate([np.ones_like(ended[:1]), ended[:-1]])
    time = now - np.maximum.accumulate(np.where(starts, now, 0))
    shape = ended.shape[1], time.max() + 1, episode.max() + 1

    def place(x: np.ndarray) -> np.ndarray:
        placed = np.zeros((*shape, *x.shape[2:]), x.dtype)
        placed[lane, time, episode] = x
        return placed

    return tuple(place(x) for x in (obs, action, reward, terminated, truncated, np.ones_like(ended)))
