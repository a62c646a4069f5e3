"""Learned transformations that continue to learn while they are used: `adapt_transform` of learn2learn's `GBML`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_transformation
from jaxmeta._learned import combine, partition
from jaxmeta._types import PyTree
from jaxmeta.display import described, short_repr


class AdaptiveState(NamedTuple):
    """State of `adaptive`."""

    transform: optax.OptState
    """State of `transform`, with the current `Learned` values."""
    hyper: optax.OptState
    """State of `hyper_optimizer`, over the list of learned arrays."""
    started: jax.Array
    """Flag that is true after the first update."""
    grads: PyTree
    """Gradients given to the previous update."""
    params: PyTree
    """Parameters given to the previous update."""
    rest: PyTree
    """State of `transform` before the previous update, without the learned values."""

    __repr__ = short_repr


@described
def adaptive(
    transform: optax.GradientTransformation, hyper_optimizer: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Trains the learned values of a transformation online, on the loss after its own updates.

    Each update `u(g_t; phi)` of `transform` moves the parameters to `theta_{t+1} = theta_t + u(g_t; phi)`, where the
    next gradient `g_{t+1}` is taken. This also gives a gradient for `phi` before its next use,

        grad_phi L(theta_{t+1}) = (d u(g_t; phi) / d phi)ᵀ g_{t+1}

    and `hyper_optimizer` turns it into a step. Momentum and other memory of `transform` count as constants. This is
    hypergradient descent for any transformation. It works in plain training (learn2learn's `LearnableOptimizer`) and in
    an inner loop (`GBML(..., adapt_transform=True)`, Meta-KFO), where the initial `phi` is meta-learned.

    The transformation must make the whole step. So it ends a chain, and everything that scales the update belongs
    inside `transform`. The state holds one more copy of the gradients, the parameters and the state of `transform`.

    Args:
        transform: transformation with `Learned` values in its state (`phi`), which its own update leaves alone. It does
            not receive extra arguments of `update`, such as the loss.
        hyper_optimizer: optimizer for a list of arrays, such as `optax.sgd(1e-3)`. If it has `Learned` values of its
            own (`learn(optax.sgd, learning_rate=1e-3)`), then these are meta-learned too. It first runs in the second
            update.

    Returns:
        A transformation whose state holds the `Learned` values. Its `update` needs the parameters.

    Raises:
        TypeError: if an argument is not an optax transformation.
        ValueError: from `init`, if `transform` has no `Learned` value. From `update`, without parameters.

    Example:
        >>> from jaxmeta import optim
        >>> rate = optim.scale_by_learned_rate(0.1)
        >>> optimizer = adaptive(rate, optax.sgd(0.01))
        >>> w, state = jnp.array(1.0), optimizer.init(jnp.array(1.0))
        >>> for _ in range(2):  # the loss w^2 / 2
        ...     updates, state = optimizer.update(w, state, w)
        ...     w = optax.apply_updates(w, updates)
        >>> round(float(state.transform.rate.value), 4)  # 0.1 + 0.01 * 0.9 * 1.0
        0.109

    References:
        Baydin et al., *Online Learning Rate Adaptation with Hypergradient Descent*, ICLR 2018,
        https://arxiv.org/abs/1703.04782

        Arnold, Iqbal & Sha, *When MAML Can Adapt Fast and How to Assist When It Cannot*, AISTATS 2021,
        https://arxiv.org/abs/1910.13603
    """
    check_transformation(transform=transform, hyper_optimizer=hyper_optimizer)

    def init(params: PyTree) -> Any:
        state = transform.init(params)
        learned, rest = partition(state)
        leaves = jax.tree.leaves(learned)
        if not leaves:
            raise ValueError("transform must have jaxmeta.Learned values in its state, got none, so it could not adapt")
        # Ones instead of zeros, because the first update differentiates the update of this gradient before it drops the
        # result, and at zero a norm has no derivative.
        grads = jax.tree.map(jnp.ones_like, params)
        before = jax.tree.map(jnp.copy, (params, rest))  # a buffer twice in a state could not be donated
        return AdaptiveState(state, hyper_optimizer.init(leaves), jnp.asarray(False), grads, *before)

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        if params is None:
            raise ValueError("adaptive needs the parameters: call update(updates, state, params)")
        learned, rest = partition(state.transform)
        leaves, structure = jax.tree.flatten(learned)

        def previous_update(leaves: list[jax.Array]) -> PyTree:
            before = combine(structure.unflatten(leaves), state.rest)
            return transform.update(state.grads, before, state.params)[0]

        previous, pull_back = jax.vjp(previous_update, leaves)
        (hyper_grads,) = pull_back(jax.tree.map(lambda g, u: g.astype(u.dtype), updates, previous))
        hyper_steps, hyper = hyper_optimizer.update(hyper_grads, state.hyper, leaves)
        moved = optax.apply_updates(leaves, hyper_steps), hyper
        leaves, hyper = jax.tree.map(lambda new, old: jnp.where(state.started, new, old), moved, (leaves, state.hyper))

        now = combine(structure.unflatten(leaves), rest)
        new_updates, new_state = transform.update(updates, now, params)
        return new_updates, AdaptiveState(new_state, hyper, jnp.asarray(True), updates, params, rest)

    return optax.GradientTransformation(init, update)
