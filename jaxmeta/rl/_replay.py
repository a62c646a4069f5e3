"""Ring buffers of transitions on the device, one for each task."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.display import short_repr
from jaxmeta.rl._rollout import Trajectory


class Transition(NamedTuple):
    """Independent steps of an environment."""

    obs: jax.Array
    """Observation before the step, `[..., observation_size]`."""
    action: jax.Array
    """Action, `[..., action_size]`."""
    reward: jax.Array
    """Reward of the step, `[...]`."""
    next_obs: jax.Array
    """Observation after the step, `[..., observation_size]`."""
    terminated: jax.Array
    """Flag of a step that ended the episode, bool `[...]`. It is False for an episode that was only cut off."""

    __repr__ = short_repr


def transitions(data: Trajectory) -> Transition:
    """Returns all steps of a trajectory, whether they are valid or not."""
    return Transition(data.obs, data.action, data.reward, data.next_obs, data.terminated)


class Replay(NamedTuple):
    """Replay buffer: one ring buffer per task, in which new transitions replace the oldest ones."""

    data: Transition
    """Stored transitions, `[tasks, capacity, ...]`."""
    end: jax.Array
    """Slot of the next transition, integers `[tasks]`."""
    size: jax.Array
    """Number of stored transitions, integers `[tasks]`."""

    __repr__ = short_repr


def empty_replay(example: Transition, tasks: int, capacity: int) -> Replay:
    """Returns empty buffers for transitions like `example`, which has no leading axes."""
    data = jax.tree.map(lambda x: jnp.zeros((tasks, capacity, *x.shape), x.dtype), example)
    return Replay(data, jnp.zeros(tasks, int), jnp.zeros(tasks, int))


def add(replay: Replay, tasks: jax.Array, data: Transition, valid: jax.Array) -> Replay:
    """Adds valid transitions to the buffers of `n` different tasks.

    Args:
        replay: the buffers.
        tasks: indices of the tasks, `[n]`, all different.
        data: transitions, `[n, steps, ...]`, the oldest first.
        valid: which transitions to add, bool `[n, steps]`.
    """
    capacity = replay.data.reward.shape[1]
    rank = jnp.cumsum(valid, axis=1)
    count = rank[:, -1]
    # If more transitions come than fit, only the last ones are written, so that no slot is written twice.
    written = valid & (rank > count[:, None] - capacity)
    slot = jnp.where(written, (replay.end[tasks][:, None] + rank - 1) % capacity, capacity)
    new = jax.tree.map(lambda old, x: old.at[tasks[:, None], slot].set(x, mode="drop"), replay.data, data)
    end = replay.end.at[tasks].set((replay.end[tasks] + count) % capacity)
    size = replay.size.at[tasks].set(jnp.minimum(replay.size[tasks] + count, capacity))
    return Replay(new, end, size)


def draw(replay: Replay, tasks: jax.Array, key: jax.Array, n: int, *, newest: int) -> Transition:
    """Draws transitions of some tasks with replacement.

    Args:
        replay: the buffers.
        tasks: indices of the tasks, `[k]`.
        key: a random key.
        n: number of transitions per task.
        newest: number of transitions to choose from, the newest ones of each task.

    Returns:
        Transitions, `[k, n, ...]`.
    """
    window = jnp.minimum(replay.size[tasks], newest)
    age = jax.random.randint(key, (len(tasks), n), 1, 1 + window[:, None])
    slot = (replay.end[tasks][:, None] - age) % replay.data.reward.shape[1]
    return jax.tree.map(lambda x: x[tasks[:, None], slot], replay.data)
