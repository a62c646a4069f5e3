"""OML: online-aware meta-learning (Javed & White 2019, https://arxiv.org/abs/1905.12588).

It learns a representation on which a head, trained online on one example at a time, learns fast and does not forget.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxmeta._adapt import unroll
from jaxmeta._checks import check_transformation
from jaxmeta._types import Batch, LossFn, MetaLearner, MetaParams, Metrics, PyTree, call_adapted
from jaxmeta._variables import merge
from jaxmeta.algorithms._inner_loop import by_inner_loop, learned_state, whole_loop
from jaxmeta.algorithms._part import Part, as_part
from jaxmeta.losses import Loss, as_loss
from jaxmeta.meta_gradients import MetaGradient


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
    check_transformation(inner=inner)
    meta_gradient = whole_loop(meta_gradient)
    loss, part = as_loss(loss_fn), as_part(head)

    def init(variables: PyTree) -> MetaParams:
        meta = MetaParams.of(variables)
        return meta._replace(learned=learned_state(inner, part.take(meta.params)))

    def represented(variables: PyTree, batch: Batch) -> Batch:
        return batch._replace(x=features_fn(variables, batch.x))

    def run(meta: MetaParams, support: Batch, key: jax.Array, passes: int, training: bool) -> PyTree:
        del passes  # one: every example is seen once
        reset_key, step_key = jax.random.split(key)
        params = meta.params if reset is None else reset(meta.params, reset_key)

        def with_head(adapted: PyTree) -> PyTree:
            return merge(part.put(adapted, params), meta.state)

        def example_loss(adapted: PyTree, _: None, example_and_key: Any) -> tuple[jax.Array, Metrics]:
            example, key = example_and_key
            return loss.in_mode(training)(with_head(adapted), jax.tree.map(lambda leaf: leaf[None], example), key)

        start = part.take(params)
        stream = represented(with_head(start), support)
        xs = (stream, jax.random.split(step_key, jax.tree.leaves(stream)[0].shape[0]))
        end = unroll(example_loss, inner, start, None, xs, learned=meta.learned, meta_gradient=meta_gradient)
        return with_head(end.params)

    def of_inputs(loss_fn: Callable[..., Any]) -> Callable[..., Any]:
        return lambda variables, batch, key: loss_fn(variables, represented(variables, batch), key)

    def predict(variables: PyTree, x: Any) -> Any:
        return (loss.predict or call_adapted)(variables, features_fn(variables, x))

    return by_inner_loop(Loss(of_inputs(loss), of_inputs(loss.test), predict), init, run, 1, None, meta_gradient)
