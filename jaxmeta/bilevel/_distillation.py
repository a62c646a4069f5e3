"""Dataset distillation (Wang et al. 2018, https://arxiv.org/abs/1811.10959)."""

from collections.abc import Callable
from typing import Any

import jax

from jaxmeta._checks import check_takes
from jaxmeta._types import Batch, LossFn, MetaParams, Metrics, PyTree
from jaxmeta.algorithms import InnerProblem
from jaxmeta.losses import Loss, as_loss


def distilled_data(loss_fn: LossFn | Loss, y: jax.Array, start: Callable[[jax.Array], PyTree]) -> InnerProblem:
    """Returns the inner problem of a training on few learned examples: dataset distillation.

    The inputs of the examples are the hyper-parameters. A new network is trained on them in a few steps, and the loss
    of the trained network on real data is the outer loss. With `jaxmeta.inner_loop` each update starts with another
    network, so that the examples fit any start. An inner optimizer with learned rates learns these too, as in the
    paper.

    Args:
        loss_fn: `(params, batch, key) -> (loss, metrics)`.
        y: labels of the learned examples, `[n]`, which stay.
        start: `(key) -> params`, a random network.

    Returns:
        An `InnerProblem`, whose hyper-parameters `meta.params` are the inputs `[n, ...]`.

    Raises:
        TypeError: if `start` is not a function of a key.

    Example:
        >>> import jax.numpy as jnp, jaxmeta, optax
        >>> from jaxmeta import bilevel
        >>> loss_fn = jaxmeta.classification(lambda w, x: x @ w)
        >>> problem = distilled_data(loss_fn, jnp.arange(2), lambda key: jax.random.normal(key, (2, 2)))
        >>> learner = jaxmeta.inner_loop(problem, optax.sgd(1.0), steps=2, outer_loss=loss_fn)
        >>> real = Batch(jnp.eye(2), jnp.arange(2))
        >>> tasks = bilevel.TrainAndValidation(real, real)
        >>> training = jaxmeta.meta_step(learner, optax.adam(0.1), num_tasks=4)
        >>> state = training.init(learner.init(jnp.zeros((2, 2))))
        >>> keys = jax.random.split(jax.random.key(0), 200)
        >>> state, metrics = jax.jit(lambda s: jax.lax.scan(lambda s, k: training.step(s, k, tasks), s, keys))(state)
        >>> bool(metrics["accuracy"][-20:].mean() > 0.9)
        True

    References:
        Wang, Zhu, Torralba & Efros, *Dataset Distillation*, 2018, https://arxiv.org/abs/1811.10959
    """
    check_takes(1, ", a random key", start=start)
    inner_loss = as_loss(loss_fn)

    def loss(params: PyTree, meta: MetaParams, support: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
        del support
        return inner_loss(params, Batch(meta.params, y), key)

    return InnerProblem(lambda meta, support, key: start(key), loss, lambda params, meta: params)
