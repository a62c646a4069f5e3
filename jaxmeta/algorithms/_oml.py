"""OML: online-aware meta-learning (Javed & White 2019, https://arxiv.org/abs/1905.12588).

It learns a representation on which a head, trained online on one example at a time, learns fast and does not forget.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxmeta._types import Batch, LossFn, MetaLearner, MetaParams, PyTree
from jaxmeta.algorithms._inner_loop import InnerLoss, inner_loop, model_problem, with_losses
from jaxmeta.algorithms._objective import check_labels_of
from jaxmeta.algorithms._part import Part, as_part
from jaxmeta.display import described
from jaxmeta.losses import Loss, as_loss
from jaxmeta.meta_gradients import MetaGradient


@described
def oml(
    features_fn: Callable[[PyTree, Any], Any],
    loss_fn: LossFn | Loss,
    inner: optax.GradientTransformation,
    *,
    head: str | Part = "head",
    reset: Callable[[PyTree, jax.Array], PyTree] | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """OML, online-aware meta-learning: one inner step of the head for each example of a stream, in order.

    With the representation `f(x, theta)`, head parameters `w` and inner rate `alpha`, the example `(x_t, y_t)` of the
    stream gives the step `w_{t+1} = w_t - alpha * grad_w L(w_t, f(x_t, theta), y_t)`, and the outer loss is that of the
    last `w` on the query set.

    The support set is the stream. The query set holds what should be known at its end. If the stream shows one class
    after the other and the query set has held-out examples of all of them, forgetting has a cost. The inner loop leaves
    the representation alone, so the whole stream is represented in one batch, and only the head goes through the loop.
    A norm that looks at the batch (`norm="batch"`) would therefore let the examples of a stream see each other.

    Meta-train with labels that are drawn at random from the outputs of the head. If the labels follow the order of the
    stream, then the initial head learns that order.

    Args:
        features_fn: `(params, x) -> features [n, ...]`, the representation. It must not use the head.
        loss_fn: `(params, batch, key) -> (scalar, metrics)` on a batch whose `x` are features. It uses only the head.
        inner: inner optimizer of the head. The paper's is `optax.sgd(0.03)`.
        head: see `anil`. Everything with this name adapts. The paper's head has two layers, that of its later code one.
        reset: `(params, key) -> params` with a new head from which each stream starts. The paper's algorithm draws it
            at random. `None` (default) meta-learns the head to start from.
        meta_gradient: see `maml`. `reverse()` (default) needs memory for a few copies of the head per example.
            `reverse(remat=n)` keeps every `n`-th, and `truncated(n)` follows the last `n` examples. `implicit()` is
            refused, because a stream that is seen once does not converge.

    Returns:
        A `MetaLearner`. Its `adapt` returns all parameters, with the head at the end of the stream. The learned values
        of `inner` are meta-learned.

    Raises:
        TypeError: if `inner` is not an optax transformation.

    Example:
        >>> import jax.numpy as jnp, jaxmeta
        >>> loss_fn = jaxmeta.regression(lambda p, features: features * p["head"])
        >>> learner = oml(lambda p, x: x * p["body"], loss_fn, optax.sgd(0.5))
        >>> meta = learner.init({"body": jnp.array(1.0), "head": jnp.array(0.0)})
        >>> stream = jaxmeta.Batch(jnp.ones((2, 1)), jnp.array([[1.0], [3.0]]))
        >>> jax.tree.map(float, learner.adapt(meta, stream, jax.random.key(0)))  # 0 -> 1 -> 3
        {'body': 1.0, 'head': 3.0}

    References:
        Javed & White, *Meta-Learning Representations for Continual Learning*, NeurIPS 2019,
        https://arxiv.org/abs/1905.12588
    """
    loss, part = as_loss(loss_fn), as_part(head)

    def represented(variables: PyTree, batch: Batch) -> Batch:
        return batch._replace(x=features_fn(variables, batch.x))

    def start(meta: MetaParams, support: Any, key: jax.Array) -> PyTree:
        return part.take(meta.params if reset is None else reset(meta.params, key))

    def stream(meta: MetaParams, support: Batch, key: jax.Array, steps: int) -> Batch:
        del steps  # as many as there are examples, in their order
        check_labels_of(of_inputs(loss.test), meta.variables, support, key)
        return jax.tree.map(lambda leaf: leaf[:, None], represented(meta.variables, support))

    def of_example(loss_fn: InnerLoss) -> InnerLoss:
        return lambda adapted, meta, batch, key: loss_fn(adapted, meta, batch[1], key)

    def of_inputs(loss_fn: Callable[..., Any]) -> Callable[..., Any]:
        return lambda variables, batch, key: loss_fn(variables, represented(variables, batch), key)

    def predict(variables: PyTree, x: Any) -> Any:
        assert loss.predict is not None
        return loss.predict(variables, features_fn(variables, x))

    problem = with_losses(model_problem(loss, part), of_example)._replace(start=start, stream=stream)
    outer = Loss(of_inputs(loss), of_inputs(loss.test), None if loss.predict is None else predict)
    return inner_loop(problem, inner, outer_loss=outer, meta_gradient=meta_gradient)
