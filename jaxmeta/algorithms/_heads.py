"""Classifier heads, and the two heads that compare features with prototypes, the means of each class."""

import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_positive
from jaxmeta._types import PyTree, at_least_float32
from jaxmeta.display import described, short_repr


class Head(NamedTuple):
    """A classifier that is fitted to features, as two pure differentiable functions. See `with_head`.

    The heads of this package compute in float32 or wider, and give a class without examples the logit -inf.
    """

    fit: Callable[[PyTree, jax.Array, jax.Array], PyTree]
    """Fit to a support set: `(learned, features [n, d], one_hot [n, ways]) -> fitted`, any pytree.

    Each row of `one_hot` is multiplied by the weight of the example, so the rows of padding are zero.
    """
    logits: Callable[[PyTree, jax.Array], jax.Array]
    """Prediction: `(fitted, features [m, d]) -> logits [m, ways]`."""
    learned: PyTree = ()
    """Initial values of the numbers that are meta-learned together with the features, such as a scale."""

    __repr__ = short_repr


@described
def euclidean_head(
    scale: float | jax.Array = 1.0, *, learn: bool = False, center: jax.Array | None = None, normalize: bool = False
) -> Head:
    """A head of prototypes and squared Euclidean distances.

    With the mean `c_k` of the features of class `k`, the logits of a query `x` are `-scale * |x - c_k|^2`.

    Args:
        scale: factor of the distances, positive (default: 1), or its initial value if it is learned.
        learn: meta-learn the scale (default: false).
        center: vector `[d]` that is subtracted from all features, such as their mean over the meta-training classes.
            `None` (default) subtracts nothing.
        normalize: scale the features to length 1, after `center` is subtracted (default: false).

    Returns:
        A `Head`.

    Raises:
        ValueError: if `scale` is not a positive number.

    Example:
        >>> head = euclidean_head()
        >>> fitted = head.fit((), jnp.array([[0.0], [2.0], [7.0]]), jnp.eye(2)[jnp.array([0, 0, 1])])
        >>> head.logits(fitted, jnp.array([[2.0]])).tolist()
        [[-1.0, -25.0]]

    References:
        Snell, Swersky & Zemel, *Prototypical Networks for Few-shot Learning*, NeurIPS 2017,
        https://arxiv.org/abs/1703.05175
    """
    check_positive(scale=scale)

    def transform(features: jax.Array) -> jax.Array:
        if center is not None:
            features = features - jnp.asarray(center, features.dtype)[None]
        return unit_length(features) if normalize else features

    def fit(learned: PyTree, features: jax.Array, one_hot: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        factor = learned["scale"] if learn else jnp.asarray(scale, features.dtype)
        features = transform(features)
        # The distances do not depend on the origin. Far from it, the squares below would cancel.
        origin = jax.lax.stop_gradient(class_means(features, jnp.sum(one_hot, 1, keepdims=True)))
        return class_means(features - origin, one_hot), origin, factor

    def logits(fitted: tuple[jax.Array, jax.Array, jax.Array], features: jax.Array) -> jax.Array:
        prototypes, origin, factor = fitted
        features = transform(features) - origin
        # -|x - c|^2 = 2 x c - (|x|^2 + |c|^2)
        squares = jnp.sum(features**2, 1)[:, None] + jnp.sum(prototypes**2, 1)[None]
        return factor * (2 * features @ prototypes.T - squares)

    return masked_head(fit, logits, {"scale": scale} if learn else ())


@described
def cosine_head(scale: float | jax.Array = 10.0, *, learn: bool = True) -> Head:
    """A head of prototypes and cosine similarities.

    With the mean `c_k` of the features of class `k`, the logits of a query `x` are `scale * cos(x, c_k)`.

    Args:
        scale: factor of the cosines, positive (default: 10), or its initial value if it is learned.
        learn: meta-learn the scale (default: true).

    Returns:
        A `Head`.

    Raises:
        ValueError: if `scale` is not a positive number.

    Example:
        >>> head = cosine_head(10.0)
        >>> fitted = head.fit(head.learned, jnp.array([[0.0, 2.0], [3.0, 0.0]]), jnp.eye(2))
        >>> head.logits(fitted, jnp.array([[0.0, 5.0]])).tolist()
        [[10.0, 0.0]]

    References:
        Chen et al., *Meta-Baseline: Exploring Simple Meta-Learning for Few-Shot Learning*, ICCV 2021,
        https://arxiv.org/abs/2003.04390
    """
    check_positive(scale=scale)

    def fit(learned: PyTree, features: jax.Array, one_hot: jax.Array) -> jax.Array:
        factor = learned["scale"] if learn else jnp.asarray(scale, features.dtype)
        return factor * unit_length(class_means(features, one_hot))

    def logits(weights: jax.Array, features: jax.Array) -> jax.Array:
        return unit_length(features) @ weights.T

    return masked_head(fit, logits, {"scale": scale} if learn else ())


def masked_head(
    fit: Callable[[PyTree, jax.Array, jax.Array], Any], logits: Callable[[Any, jax.Array], jax.Array], learned: PyTree
) -> Head:
    """Builds a `Head` from functions that need not know about half precision, padding and absent classes.

    They get float32 or wider, with zeros as the features of padding. The logits of a class without examples become
    -inf, with derivatives of zero.
    """

    def fit_present(learned: PyTree, features: jax.Array, one_hot: jax.Array) -> tuple[Any, jax.Array]:
        features, one_hot = at_least_float32((features, one_hot))
        learned = jax.tree.map(lambda value: jnp.asarray(value, features.dtype), learned)
        features = jnp.where(example_weights(one_hot)[:, None] != 0, features, 0)
        return fit(learned, features, one_hot), present_classes(one_hot)

    def logits_of_present(fitted: tuple[Any, jax.Array], features: jax.Array) -> jax.Array:
        inner, present = fitted
        return mask_absent(logits(inner, at_least_float32(features)), present)

    return Head(fit_present, logits_of_present, learned)


def example_weights(one_hot: jax.Array) -> jax.Array:
    """Returns the weights `[n]` of examples with weighted labels `[n, ways]`."""
    return jnp.sum(one_hot, 1)


def present_classes(one_hot: jax.Array) -> jax.Array:
    """Returns which of the classes have examples, `[ways]`, for weighted labels `[n, ways]`. NaN counts as an example.

    So invalid labels, which are NaN, give NaN everywhere and not -inf.
    """
    return jnp.sum(one_hot, 0) != 0


def mask_absent(logits: jax.Array, present: jax.Array) -> jax.Array:
    """Returns logits `[m, ways]` that are -inf for the classes that are not `present: [ways]`."""
    return jnp.where(present[None], logits, -jnp.inf)


def class_means(features: jax.Array, one_hot: jax.Array) -> jax.Array:
    """Returns the prototypes `[ways, d]` of `features: [n, d]`, zero for a class without examples."""
    totals = jnp.sum(one_hot, 0)
    return (one_hot.T @ features) / jnp.where(totals == 0, 1, totals)[:, None]


def unit_length(features: jax.Array) -> jax.Array:
    """Scales the rows of `features: [n, d]` to length 1, differentiably at zero, which stays zero."""
    return features * jax.lax.rsqrt(jnp.sum(features**2, 1, keepdims=True) + 1e-8)


def logarithm(value: Any) -> Any:
    """Returns the logarithm of a number, an array or a tracer, that of a number in double precision."""
    return math.log(value) if isinstance(value, numbers.Real) else jnp.log(value)
