"""CAVIA: fast context adaptation via meta-learning (Zintgraf et al. 2019, https://arxiv.org/abs/1810.03642).

The inner loop adapts a small vector of context parameters, which starts at zero. All tasks share the network's
parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_integer
from jaxmeta._types import LossFn, MetaLearner, MetaParams, Metrics, PyTree
from jaxmeta.algorithms._inner_loop import InnerProblem, inner_loop
from jaxmeta.display import described, short_repr
from jaxmeta.losses import Loss, as_loss
from jaxmeta.meta_gradients import MetaGradient


class Contextual(NamedTuple):
    """A network together with the context of one task: the parameters of the loss function of `cavia`."""

    params: PyTree
    """Shared parameters, the paper's `theta`."""
    context: jax.Array
    """Context parameters of the task, `[context_size]`, the paper's `phi`. They are zero before adaptation."""

    __repr__ = short_repr


@described
def cavia(
    loss_fn: LossFn | Loss,
    inner: optax.GradientTransformation,
    context_size: int,
    steps: int = 1,
    *,
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """CAVIA, fast context adaptation: adapts `context_size` numbers per task, and nothing else.

    With context parameters `phi`, shared parameters `theta` and the inner rate `alpha`, a task starts at `phi_0 = 0`,
    an inner step is `phi_{i+1} = phi_i - alpha * d L(phi_i, theta) / d phi`, and the outer loss is
    `L(phi_steps, theta)` on the query set, differentiated with respect to `theta`.

    The loss function decides how the context enters the network: next to the input (regression, reinforcement
    learning) or as a modulation of feature maps (images). The networks of `jaxmeta.models` modulate them by
    `x * (1 + scale) + shift`, before they pool. The authors' code has `x * scale + shift`, after it pools.

    Args:
        loss_fn: `(Contextual(params, context), batch, key) -> (scalar, metrics)`.
        inner: inner optimizer of the context. The paper's is `optax.sgd(1.0)`.
        context_size: number of context parameters.
        steps: number of inner steps during meta-training (default: 1).
        test_steps: number of inner steps at test. `None` (default) takes `steps`.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner`. Its `adapt` returns a `Contextual`.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if `context_size` or a number of steps is not an integer of at least 1.

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
    (context_size,) = check_integer(context_size=context_size)
    loss = as_loss(loss_fn)

    def start(meta: MetaParams, support: Any, key: jax.Array) -> jax.Array:
        return jnp.zeros(context_size, jnp.result_type(*jax.tree.leaves(meta.params)))  # phi_0 = 0

    def finish(context: jax.Array, meta: MetaParams) -> Contextual:
        return Contextual(meta.variables, context)

    def in_mode(loss_fn: LossFn) -> Callable[..., tuple[jax.Array, Metrics]]:
        return lambda context, meta, batch, key: loss_fn(finish(context, meta), batch, key)

    problem = InnerProblem(start, in_mode(loss), finish, in_mode(loss.test))
    return inner_loop(problem, inner, steps, outer_loss=loss, test_steps=test_steps, meta_gradient=meta_gradient)
