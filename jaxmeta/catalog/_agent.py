"""A policy with its meta-training and its test, as runs take it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxmeta import rl
from jaxmeta._types import MetaParams, PyTree, Training
from jaxmeta.display import short_repr


class Agent(NamedTuple):
    """A policy, its meta-training, and its test."""

    init: Callable[[jax.Array], PyTree]
    """Maps a key to initial parameters of the policy."""
    training: Training
    test: Callable[[MetaParams, PyTree, jax.Array], rl.ReturnCurve]
    """`(meta, tasks, key) -> curve`, the returns by episodes seen, as `rl.trial_curve` and others measure them."""
    play: Callable[[MetaParams, PyTree, jax.Array], PyTree] | None = None
    """`(meta, tasks, key) -> states`, leading axes `[num_tasks, n, T]`: the environment's states in `n` episodes of
    each task, in the course of adaptation. `None` if there is no film of a run."""

    __repr__ = short_repr


def encoder_of(env: Any) -> rl.ObservationEncoder | None:
    """Returns the encoder of observations that are no vectors."""
    return None if isinstance(env.observation_size, int) else rl.ObservationEncoder(env.observation_size)


def test_and_play(curve: Callable[..., Callable[..., rl.ReturnCurve]]) -> tuple[Any, Any]:
    """Returns the `test` and the `play` of an agent whose adaptation is measured by a curve."""
    film = curve(states=True)
    return curve(), lambda meta, tasks, key: film(meta, tasks, key).states
