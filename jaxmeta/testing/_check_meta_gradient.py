"""Check of a meta-gradient."""

import jax
import jax.numpy as jnp
import optax

from jaxmeta._noise import noise_like
from jaxmeta._types import MetaLearner, MetaParams, PyTree, Task
from jaxmeta.testing._compare import check_close


def check_meta_gradient(learner: MetaLearner, params: PyTree, task: Task) -> None:
    """Checks in float64 that `learner.grad` is the derivative of the loss that it reports.

    Compares its component along a random direction with a central difference, to 1e-6. Not for learners whose
    meta-gradient is no such derivative: first-order ones, Reptile.

    Args:
        learner: the learner.
        params: initial model parameters, of any float type.
        task: a task, in any float type.

    Raises:
        AssertionError: if they differ.

    Example:
        >>> import jaxmeta
        >>> learner = jaxmeta.maml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(0.01), steps=2)
        >>> check_meta_gradient(learner, jnp.array([1.0]), jaxmeta.data.Sinusoid()(jax.random.key(0)))
    """
    h = 1e-6  # small: the loss after adaptation jumps where a ReLU of the inner loop flips
    with jax.enable_x64(True):

        @jax.jit
        def along_a_direction(meta: MetaParams, task: Task, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            """Returns the loss at three points of a line, and the components of the gradients there along it."""
            trained = meta._replace(state=())
            direction = noise_like(key, trained)

            def at(step: jax.Array) -> tuple[jax.Array, jax.Array]:
                moved = jax.tree.map(lambda m, d: m + step * d, trained, direction)._replace(state=meta.state)
                metrics, gradient = learner.grad(moved, task, key)
                return metrics["loss"], jnp.asarray(optax.tree.vdot(gradient._replace(state=()), direction))

            return jax.lax.map(at, jnp.array([h, 0.0, -h]))

        params, task = (jax.tree.map(_as_float64, tree) for tree in (params, task))
        losses, derivatives = along_a_direction(learner.init(params), task, jax.random.key(2))
        difference = (losses[0] - losses[2]) / (2 * h)
        check_close(derivatives[1], difference, "the meta-gradient differs from finite differences", 1e-6)


def _as_float64(x: jax.Array) -> jax.Array:
    return jnp.asarray(x, jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
