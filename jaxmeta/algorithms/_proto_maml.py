"""ProtoMAML (Triantafillou et al. 2020, https://arxiv.org/abs/1903.03096).

MAML that starts each task at a prototypical network.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta._types import Batch, LossFn, MetaLearner, MetaParams, PyTree, at_least_float32
from jaxmeta.algorithms._embedding import FeaturesFn, one_hot_labels
from jaxmeta.algorithms._heads import class_means, present_classes
from jaxmeta.algorithms._inner_loop import inner_loop, model_problem
from jaxmeta.algorithms._part import Part, as_part
from jaxmeta.display import described
from jaxmeta.losses import Loss, forward
from jaxmeta.meta_gradients import MetaGradient


@described
def proto_maml(
    features_fn: FeaturesFn,
    loss_fn: LossFn | Loss,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    head: str | Part = "head",
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """ProtoMAML: MAML whose linear head starts at the prototypes of the support set.

    With the mean `c_k` of the features of class `k`, the inner loop starts at the weights `2 c_k` and the bias
    `-|c_k|^2` of each class. These logits are the ones of a prototypical network, up to a number that all classes
    share. Then body and head adapt together, as in MAML. The meta-gradient goes through the prototypes too.

    The values that the head has in the meta-parameters are not used, so its meta-gradient is zero. A class without
    support examples starts, and stays, at the bias -inf. Tasks with fewer ways than the head therefore need no other
    learner.

    Args:
        features_fn: `(params, x) -> features [n, d]`, the input of the head, or a Linen or NNX module, of which the
            method `features` is called. The prototypes are those of the pass at test, without dropout.
        loss_fn: see `maml`. It is the loss of the whole model.
        inner: inner optimizer of all parameters.
        steps: number of inner steps during meta-training (default: 1). With 0 this is a prototypical network.
        head: the linear head, see `anil`. It has one matrix, `[d, ways]` or `[ways, d]`, and one bias `[ways]`.
        test_steps: number of inner steps at test. `None` (default) takes `steps`.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner`. Its `adapt` returns the variables of the model for the task.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if a number of steps is not an integer of at least 0. When called, if the head is not linear.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmeta
        >>> loss_fn = jaxmeta.classification(lambda p, x: x @ p["head"]["kernel"] + p["head"]["bias"])
        >>> learner = proto_maml(lambda p, x: p["body"] * x, loss_fn, optax.sgd(0.1), steps=0)
        >>> head = {"kernel": jnp.zeros((1, 2)), "bias": jnp.zeros(2)}
        >>> support = jaxmeta.Batch(jnp.array([[0.0], [2.0], [7.0]]), jnp.array([0, 0, 1]))
        >>> meta = learner.init({"body": jnp.array(1.0), "head": head})
        >>> adapted = learner.adapt(meta, support, jax.random.key(0))
        >>> learner.predict(adapted, jnp.array([[2.0]])).tolist()  # |x|^2 = 4 more than minus the squared distances
        [[3.0, -21.0]]

    References:
        Triantafillou, Zhu, Dumoulin, Lamblin, Evci, Xu, Goroshin, Gelada, Swersky, Manzagol & Larochelle,
        *Meta-Dataset: A Dataset of Datasets for Learning to Learn from Few Examples*, ICLR 2020,
        https://arxiv.org/abs/1903.03096
    """
    features = forward(features_fn, method="features", argument="features_fn").test
    part = as_part(head)

    def start(meta: MetaParams, support: Batch | None, key: jax.Array) -> PyTree:
        del key
        if support is None:  # only the shapes are asked for
            return meta.params
        return part.put(_prototypes(part.take(meta.params), features(meta.variables, support.x), support), meta.params)

    problem = model_problem(loss_fn)._replace(start=start)
    return inner_loop(problem, inner, steps, outer_loss=loss_fn, test_steps=test_steps, meta_gradient=meta_gradient)


def _prototypes(head: PyTree, features: jax.Array, support: Batch) -> PyTree:
    """Returns a linear head with the prototypes in the place of its matrix and its bias."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(head)]
    ways, width = min(shapes, key=len, default=(0,))[0], features.shape[-1]
    known: list[Any] = [(ways,), (width, ways), (ways, width)]
    if sorted(map(len, shapes)) != [1, 2] or any(shape not in known for shape in shapes):
        raise ValueError(
            f"head must have one matrix [{width}, ways] or [ways, {width}], for features of that length, and one bias "
            f"[ways], got leaves of shapes {shapes}"
        )
    features = at_least_float32(features)
    one_hot = one_hot_labels(support, ways, features)
    means = class_means(features, one_hot)
    bias = jnp.where(present_classes(one_hot), -jnp.sum(means**2, axis=1), -jnp.inf)

    def of(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        if leaf.ndim == 1:
            return bias.astype(leaf.dtype)
        by_row = leaf.shape == means.shape and (
            ways != width or "weight" in jax.tree_util.keystr(path)
        )  # as PyTorch and equinox have it
        return (2 * (means if by_row else means.T)).astype(leaf.dtype)

    return jax.tree.map_with_path(of, head)
