"""What a head is, and the two heads that compare features with prototypes, the means of each class."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta._types import PyTree


class Head(NamedTuple):
    """How a classifier is fitted to features, as two pure differentiable functions; see `with_head`."""

    fit: Callable[[PyTree, jax.Array, jax.Array], PyTree]
    """`(learned, features [n, d], one_hot [n, ways]) -> fitted`, any pytree."""
    logits: Callable[[PyTree, jax.Array], jax.Array]
    """`(fitted, features [m, d]) -> logits [m, ways]`."""
    learned: PyTree = ()
    """Numbers that are meta-learned with the features, such as a temperature: where they start."""


def euclidean_head(
    temperature: float = 1.0, *, learn: bool = False, center: jax.Array | None = None, normalize: bool = False
) -> Head:
    """Prototypes and squared Euclidean distance: logits are `-temperature` times that to each class's mean.

    Args:
        temperature: factor of the distances, or where it starts.
        learn: meta-learn the temperature.
        center: subtracted from all features, `[d]`; such as their mean over the classes of the meta-training set.
        normalize: scale features to length 1, after `center` is subtracted.

    Returns:
        A `Head`.

    Raises:
        ValueError: if `temperature` is not a positive number.

    Example:
        >>> head = euclidean_head()
        >>> fitted = head.fit((), jnp.array([[0.0], [2.0], [9.0]]), jnp.eye(2)[jnp.array([0, 0, 1])])
        >>> head.logits(fitted, jnp.array([[2.0]])).tolist()
        [[-1.0, -49.0]]

    References:
        Snell, Swersky & Zemel, *Prototypical Networks for Few-shot Learning*, NeurIPS 2017,
        https://arxiv.org/abs/1703.05175
    """
    check_positive(temperature=temperature)

    def transform(features: jax.Array) -> jax.Array:
        if center is not None:
            features = features - jnp.asarray(center, features.dtype)[None]
        return unit_length(features) if normalize else features

    def fit(learned: PyTree, features: jax.Array, one_hot: jax.Array) -> tuple[jax.Array, Any]:
        return class_means(transform(features), one_hot), learned["temperature"] if learn else temperature

    def logits(fitted: tuple[jax.Array, Any], features: jax.Array) -> jax.Array:
        prototypes, factor = fitted
        features = transform(features)
        squares = jnp.sum(features**2, 1)[:, None] + jnp.sum(prototypes**2, 1)[None]
        return factor * (2 * features @ prototypes.T - squares)

    return Head(fit, logits, {"temperature": temperature} if learn else ())


def cosine_head(temperature: float = 10.0, *, learn: bool = True) -> Head:
    """Prototypes and cosine similarity: logits are `temperature` times the cosine to each class's mean.

    Args:
        temperature: factor of the cosines, or where it starts.
        learn: meta-learn the temperature.

    Returns:
        A `Head`.

    Raises:
        ValueError: if `temperature` is not a positive number.

    Example:
        >>> head = cosine_head(10.0)
        >>> fitted = head.fit(head.learned, jnp.array([[0.0, 2.0], [3.0, 0.0]]), jnp.eye(2))
        >>> head.logits(fitted, jnp.array([[0.0, 5.0]])).tolist()
        [[10.0, 0.0]]

    References:
        Chen et al., *Meta-Baseline: Exploring Simple Meta-Learning for Few-Shot Learning*, ICCV 2021,
        https://arxiv.org/abs/2003.04390
    """
    check_positive(temperature=temperature)

    def fit(learned: PyTree, features: jax.Array, one_hot: jax.Array) -> jax.Array:
        factor = learned["temperature"] if learn else temperature
        return factor * unit_length(class_means(features, one_hot))

    def logits(weights: jax.Array, features: jax.Array) -> jax.Array:
        return unit_length(features) @ weights.T

    return Head(fit, logits, {"temperature": temperature} if learn else ())


def class_means(features: jax.Array, one_hot: jax.Array) -> jax.Array:
    """The prototypes `[ways, d]` of `features: [n, d]`."""
    return (one_hot.T @ features) / jnp.sum(one_hot, 0)[:, None]


def unit_length(features: jax.Array) -> jax.Array:
    """Rows of `features: [n, d]` scaled to length 1; differentiable at zero, which stays zero."""
    return features * jax.lax.rsqrt(jnp.sum(features**2, 1, keepdims=True) + 1e-8)


def check_positive(**values: float) -> None:
    """Raises ValueError unless every value is a positive finite number."""
    for name, value in values.items():
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number, got {value!r}")
