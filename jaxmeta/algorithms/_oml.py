"""OML: online-aware meta-learning (Javed & White 2019, https://arxiv.org/abs/1905.12588).

Learns a representation on which a head, trained online on one example at a time, learns fast and does not forget.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxmeta._adapt import unroll
from jaxmeta._types import Batch, LossFn, MetaLearner, MetaParams, Metrics, PyTree
from jaxmeta.algorithms._common import by_inner_loop, learned_state, part_only
from jaxmeta.meta_gradients import MetaGradient, reverse


def oml(
    features_fn: Callable[[PyTree, Any], Any],
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    *,
    head: str = "head",
    reset: Callable[[PyTree, jax.Array], PyTree] | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """OML: one inner step for each example of a stream, in the stream's order, on the head alone.

    The support set is the stream. The query set is what must be known at its end: a stream of classes one after the
    other, and held-out examples of all of them, make forgetting cost. As the inner loop leaves the representation
    alone, the whole stream is represented in one batch, and only the head goes through the loop; a norm that looks at
    the batch (`norm="batch"`) would therefore let the examples of a stream see each other.

    Meta-train with the labels of a stream drawn at random from the head's outputs: if labels follow the order of the
    stream, the head's initial value learns that order.

    Args:
        features_fn: `(params, x) -> features [n, ...]`, the representation; it must not use the head.
        loss_fn: `(params, batch, key) -> (scalar, metrics)` on a batch whose `x` are features; it uses the head only.
        inner: the head's inner optimizer; the paper's is `optax.sgd(0.03)`.
        head: see `anil`. All that it names adapts: the paper's head has two layers, its later code one.
        reset: `(params, key) -> params` with a new head, which each stream then starts from: the paper's algorithm
            draws it at random. `None` meta-learns the head to start from.
        meta_gradient: `reverse()` if `None`, with memory for a few copies of the head per example: `reverse(remat=n)`
            keeps every `n`-th, `truncated(n)` follows the last `n` examples. `implicit` makes no sense here: a stream
            that is seen once does not converge.

    Returns:
        A `MetaLearner`; `adapt` returns all parameters, with the head that the stream left. Learned values of `inner`
        are meta-learned.

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
    meta_gradient = reverse() if meta_gradient is None else meta_gradient
    online = part_only(inner, head)

    def init(params: PyTree) -> MetaParams:
        return MetaParams(params, learned_state(online, params))

    def represented(params: PyTree, batch: Batch) -> Batch:
        return batch._replace(x=features_fn(params, batch.x))

    def example_loss(params: PyTree, _: None, example_and_key: Any) -> tuple[jax.Array, Metrics]:
        example, key = example_and_key
        return loss_fn(params, jax.tree.map(lambda leaf: leaf[None], example), key)

    def run(meta: MetaParams, support: Batch, key: jax.Array, passes: int) -> PyTree:
        del passes  # one: every example is seen once
        reset_key, step_key = jax.random.split(key)
        params = meta.params if reset is None else reset(meta.params, reset_key)
        stream = represented(params, support)
        keys = jax.random.split(step_key, jax.tree.leaves(stream)[0].shape[0])
        xs = (stream, keys)
        end = unroll(example_loss, online, params, None, xs, learned=meta.learned, meta_gradient=meta_gradient)
        return end.params

    def loss(adapted: PyTree, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return loss_fn(adapted, represented(adapted, batch), key)

    return by_inner_loop(loss, init, run, 1, None, meta_gradient)
