"""Ring buffers of transitions on the device, one for each task."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.rl._rollout import Trajectory


class Transition(NamedTuple):
    """Steps of an environment, in no order."""

    obs: jax.Array
    """Before the step, `[..., observation_size]`."""
    action: jax.Array
    """`[..., action_size]`."""
    reward: jax.Array
    """`[...]`."""
    next_obs: jax.Array
    """After the step, `[..., observation_size]`."""
    terminated: jax.Array
    """Whether the episode ended by itself in this step, bool `[...]`. One that was cut off goes on unseen."""


def transitions(data: Trajectory) -> Transition:
    """The steps of episodes, valid ones and others."""
    return Transition(data.obs, data.action, data.reward, data.next_obs, data.terminated)


class Replay(NamedTuple):
    """Ring buffers: what is newest takes the place of what is oldest."""

    data: Transition
    """`[tasks, capacity, ...]`."""
    end: jax.Array
    """The slot of the next transition, integers `[tasks]`."""
    size: jax.Array
    """How many there are, integers `[tasks]`."""


def empty_replay(example: Transition, tasks: int, capacity: int) -> Replay:
    """Buffers for transitions such as `example`, one without leading axes."""
    data = jax.tree.map(lambda x: jnp.zeros((tasks, capacity, *x.shape), x.dtype), example)
    return Replay(data, jnp.zeros(tasks, int), jnp.zeros(tasks, int))


def add(replay: Replay, tasks: jax.Array, data: Transition, valid: jax.Array) -> Replay:
    """Adds the valid ones of `data: [n, steps, ...]`, oldest first, to the buffers of `n` different tasks."""
    capacity = replay.data.reward.shape[1]
    rank = jnp.cumsum(valid, axis=1)
    count = rank[:, -1]
    # Of more than fit only the last are written: no slot is written twice.
    kept = valid & (rank > count[:, None] - capacity)
    slot = jnp.where(kept, (replay.end[tasks][:, None] + rank - 1) % capacity, capacity)
    new = jax.tree.map(lambda old, x: old.at[tasks[:, None], slot].set(x, mode="drop"), replay.data, data)
    end = replay.end.at[tasks].set((replay.end[tasks] + count) % capacity)
    size = replay.size.at[tasks].set(jnp.minimum(replay.size[tasks] + count, capacity))
    return Replay(new, end, size)


def draw(replay: Replay, tasks: jax.Array, key: jax.Array, n: int, *, newest: int) -> Transition:
    """Draws `n` transitions of each task, with replacement, among its `newest`: `[len(tasks), n, ...]`."""
    window = jnp.minimum(replay.size[tasks], newest)
    age = jax.random.randint(key, (len(tasks), n), 1, 1 + window[:, None])
    slot = (replay.end[tasks][:, None] - age) % replay.data.reward.shape[1]
    return jax.tree.map(lambda x: x[tasks[:, None], slot], replay.data)
