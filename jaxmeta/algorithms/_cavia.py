"""CAVIA: fast context adaptation via meta-learning (Zintgraf et al. 2019, https://arxiv.org/abs/1810.03642).

The inner loop adapts a small vector of context parameters from zero; the network's parameters are shared by all tasks.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._adapt import adapt
from jaxmeta._checks import check_integer, check_transformation
from jaxmeta._types import LossFn, MetaLearner, MetaParams, Metrics, PyTree
from jaxmeta.algorithms._common import by_inner_loop, learned_state
from jaxmeta.meta_gradients import MetaGradient, reverse


class Contextual(NamedTuple):
    """A network and a task's context: what `cavia`'s loss function takes for parameters."""

    params: PyTree
    """The shared parameters."""
    context: jax.Array
    """The task's context parameters, `[context_size]`; zero before adaptation."""


def cavia(
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    context_size: int,
    steps: int = 1,
    *,
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """CAVIA: adapts `context_size` numbers per task, and nothing else.

    How the context enters the network is the loss function's affair: beside the input (regression, reinforcement
    learning) or as a modulation of feature maps (images).

    Args:
        loss_fn: `(Contextual(params, context), batch, key) -> (scalar, metrics)`.
        inner: the context's inner optimizer; the paper's is `optax.sgd(1.0)`.
        context_size: number of context parameters.
        steps: inner steps in meta-training.
        test_steps: inner steps at test; `None` for the same.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner`; `adapt` returns a `Contextual`.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if `context_size` or a number of steps is less than 1.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmeta
        >>> loss_fn = jaxmeta.regression(lambda p, x: p.params * x + p.context[0])
        >>> learner = cavia(loss_fn, optax.sgd(0.5), context_size=1)
        >>> meta = learner.init(jnp.array(0.0))
        >>> one = jaxmeta.Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
        >>> learner.adapt(meta, one, jax.random.key(0)).context.tolist()
        [1.0]

    References:
        Zintgraf, Shiarlis, Kurin, Hofmann & Whiteson, *Fast Context Adaptation via Meta-Learning*, ICML 2019,
        https://arxiv.org/abs/1810.03642
    """
    check_transformation(inner=inner)
    check_integer(context_size=context_size)
    meta_gradient = reverse() if meta_gradient is None else meta_gradient

    def unadapted(params: PyTree) -> jax.Array:
        return jnp.zeros(context_size, jnp.result_type(*jax.tree.leaves(params)))

    def init(params: PyTree) -> MetaParams:
        return MetaParams(params, learned_state(inner, unadapted(params)))

    def run(meta: MetaParams, support: Any, key: jax.Array, steps: int) -> Contextual:
        def context_loss(context: jax.Array, batch: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
            return loss_fn(Contextual(meta.params, context), batch, key)

        context = adapt(
            context_loss,
            inner,
            unadapted(meta.params),
            support,
            key,
            steps=steps,
            learned=meta.learned,
            meta_gradient=meta_gradient,
        )
        return Contextual(meta.params, context)

    return by_inner_loop(loss_fn, init, run, steps, test_steps, meta_gradient)
