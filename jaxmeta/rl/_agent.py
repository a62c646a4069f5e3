"""A meta-trained policy that adapts in environments outside of JAX."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta._checks import check_transformation
from jaxmeta._types import MetaParams, PyTree
from jaxmeta.rl._collector import Collector
from jaxmeta.rl._meta_policy import Inner, InnerState, adapt_once, begin
from jaxmeta.rl._returns import next_step
from jaxmeta.rl._rollout import Policy, Trajectory
from jaxmeta.rl._surrogates import Surrogate, ratio


class AdaptingAgent:
    """A meta-trained policy in a vector environment outside of JAX, in every lane in a task of its own.

    It has the methods of an agent in Meta-World's evaluation, `metaworld.evaluation.metalearning_evaluation`: actions
    are drawn at random until `adapt` takes an inner step in every lane on the episodes so far, as `adaptation_curve`
    does; those of the evaluation are the most probable ones.

    Args:
        policy: `(params, obs) -> Distribution`, such as the `apply` of a Flax module.
        meta: where every lane starts.
        inner: the inner optimizer.
        surrogate: of the inner loss.
        discount: see `Collector`.
        trace_decay: see `Collector`.
        seed: of the actions.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if `discount` or `trace_decay` is not in [0, 1].

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
        discount: float = 0.99,
        trace_decay: float = 1.0,
        seed: int = 0,
    ) -> None:
        check_transformation(inner=inner)
        nowhere: Any = None  # the collector judges episodes, and plays none
        collect = Collector(env=nowhere, policy=policy, discount=discount, trace_decay=trace_decay)
        adaptation = Inner(collect, inner, surrogate, 1)
        self._start = begin(adaptation, meta)
        self._act = jax.jit(partial(_act, policy), static_argnames="mode")
        self._adapt = jax.jit(jax.vmap(partial(_adapt, adaptation)))
        self._key = jax.random.key(seed)
        self.init()

    def init(self) -> None:
        """Forget all episodes, and begin with the meta-parameters in every lane."""
        self._lanes: InnerState | None = None  # leading axis [num_envs], once that is known
        self._steps: list[Any] = []

    def adapt_action(self, observations: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Draw actions.

        Args:
            observations: of all lanes, `[num_envs, observation_size]`.

        Returns:
            The actions, and nothing more.
        """
        return self._actions(observations, mode=False), {}

    def step(self, timestep: Any) -> None:
        """Keep a step for `adapt`.

        Args:
            timestep: of all lanes, with the fields of `metaworld.evaluation.Timestep`: `observation`, the drawn
                `action`, `reward`, `terminated` and `truncated`.
        """
        self._steps.append(timestep)

    def adapt(self) -> None:
        """Take an inner step in every lane, on the steps since `init` or the last `adapt`.

        Raises:
            ValueError: if there are none.
        """
        if self._lanes is None or not self._steps:
            raise ValueError("adapt must come after adapt_action and step, got no steps")
        self._lanes = self._adapt(self._lanes, *_episodes(self._steps))
        self._steps = []

    def eval_action(self, observations: np.ndarray) -> np.ndarray:
        """Return the most probable actions."""
        return self._actions(observations, mode=True)

    def reset(self, env_mask: np.ndarray) -> None:
        """Begin new episodes in these lanes; there is no memory to empty."""

    def _actions(self, observations: np.ndarray, mode: bool) -> np.ndarray:
        same = jax.tree.map(lambda x: jnp.stack([x] * len(observations)), self._start)
        self._lanes = lanes = same if self._lanes is None else self._lanes
        self._key, key = jax.random.split(self._key)
        return np.asarray(self._act(lanes[0], observations, key, mode=mode))


def _act(policy: Policy, params: PyTree, observations: jax.Array, key: jax.Array, mode: bool) -> jax.Array:
    def in_lane(params: PyTree, obs: jax.Array, key: jax.Array) -> jax.Array:
        dist = policy(params, obs[None])
        return (dist.mode() if mode else dist.sample(key))[0]

    return jax.vmap(in_lane)(params, observations, jax.random.split(key, len(observations)))


def _adapt(inner: Inner, lane: InnerState, obs: jax.Array, action: jax.Array, *rest: jax.Array) -> InnerState:
    """The inner step of a lane on its episodes."""
    reward, terminated, truncated, valid = rest
    dist = inner.collect.policy(lane[0], obs)
    data = Trajectory(
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
    samples = inner.collect.judge(jax.lax.stop_gradient(data), inner.collect.discount, inner.collect.trace_decay)
    return adapt_once(inner, lane, samples)


def _episodes(steps: list[Any]) -> tuple[np.ndarray, ...]:
    """Observations, actions, rewards, ends and which steps count, of steps one after the other: `[num_envs, T, E]`."""
    names = ("observation", "action", "reward", "terminated", "truncated")
    obs, action, reward, terminated, truncated = (np.stack([getattr(step, name) for step in steps]) for name in names)
    truncated[-1] |= ~terminated[-1]
    ended = terminated | truncated
    now, lane = np.indices(ended.shape)
    episode = np.cumsum(ended, axis=0) - ended
    begins = np.concatenate([np.ones_like(ended[:1]), ended[:-1]])
    time = now - np.maximum.accumulate(np.where(begins, now, 0))
    shape = ended.shape[1], time.max() + 1, episode.max() + 1

    def place(x: np.ndarray) -> np.ndarray:
        placed = np.zeros((*shape, *x.shape[2:]), x.dtype)
        placed[lane, time, episode] = x
        return placed

    return tuple(place(x) for x in (obs, action, reward, terminated, truncated, np.ones_like(ended)))
