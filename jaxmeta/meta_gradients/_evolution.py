"""Meta-gradients by evolution strategies: ES-MAML (Song et al. 2020, https://arxiv.org/abs/1910.01215)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer, check_positive
from jaxmeta._noise import noise_like, perturbed
from jaxmeta._types import PyTree
from jaxmeta.display import described
from jaxmeta.meta_gradients._reverse import reverse
from jaxmeta.meta_gradients._unrolling import MetaGradient, Objective


@described
def evolution(samples: int = 16, *, scale: float = 0.01, antithetic: bool = True) -> MetaGradient:
    """Evolution strategies: the gradient of a smoothed objective, from values alone.

    Perturbs all meta-parameters by Gaussian noise of standard deviation `scale` and correlates the noise with the query
    loss after adaptation. Nothing is differentiated through the inner loop, so its length does not matter, and the
    query loss may have no derivative. The inner loop itself takes gradients of the support loss. The variance grows
    with the number of meta-parameters.

    Args:
        samples: perturbations per task.
        scale: standard deviation of the noise, the paper's `sigma`.
        antithetic: evaluate each perturbation with both signs (twice the work, much less variance); otherwise the
            unperturbed loss is the baseline.

    Returns:
        A `MetaGradient`: unbiased for the smoothed objective, whose bias against the true one is of order `scale^2`.

    Raises:
        ValueError: if `samples` is less than 1 or `scale` is not positive.

    Example:
        >>> import optax, jaxmeta
        >>> loss_fn = jaxmeta.regression(lambda w, x: x * w)
        >>> learner = jaxmeta.maml(loss_fn, optax.sgd(0.01), meta_gradient=evolution(64))

    References:
        Song, Gao, Yang, Choromanski, Pacchiano & Tang, *ES-MAML: Simple Hessian-Free Meta Learning*, ICLR 2020,
        https://arxiv.org/abs/1910.01215
    """
    check_integer(samples=samples)
    check_positive(scale=scale)

    def value_and_grad(
        objective: Objective,
    ) -> Callable[[PyTree, jax.Array], tuple[tuple[jax.Array, Any], PyTree]]:
        def estimate(meta: PyTree, key: jax.Array) -> tuple[tuple[jax.Array, Any], PyTree]:
            noise_key, key = jax.random.split(key)
            value, auxiliary = objective(meta, key)

            def moved(noise: PyTree, sign: float) -> jax.Array:
                return objective(perturbed(meta, noise, sign * scale), key)[0]

            def add_sample(total: PyTree, noise_key: jax.Array) -> tuple[PyTree, None]:
                noise = noise_like(noise_key, meta)
                if antithetic:
                    slope = (moved(noise, 1.0) - moved(noise, -1.0)) / (2 * scale)
                else:
                    slope = (moved(noise, 1.0) - value) / scale
                return jax.tree.map(lambda t, n: t + (slope * n).astype(t.dtype) / samples, total, noise), None

            zeros = jax.tree.map(jnp.zeros_like, meta)
            gradient, _ = jax.lax.scan(add_sample, zeros, jax.random.split(noise_key, samples))
            return (value, auxiliary), gradient

        return estimate

    return MetaGradient(reverse().unroll, value_and_grad, values_only=True)
