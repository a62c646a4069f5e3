"""SimpleShot and Meta-Baseline: nearest centroids on the features of a network that was trained to classify.

SimpleShot (Wang, Chao, Weinberger & van der Maaten 2019, https://arxiv.org/abs/1911.04623) centers and normalizes the
features; Meta-Baseline (Chen et al. 2021, https://arxiv.org/abs/2003.04390) trains them on, in tasks, by the cosine.
"""

import jax

from jaxmeta._types import MetaLearner
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, with_head
from jaxmeta.algorithms._heads import cosine_head, euclidean_head


def simpleshot(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    center: jax.Array | None = None,
    normalize: bool = True,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """SimpleShot: the nearest centroid after a simple transformation; `with_head` of `euclidean_head`.

    The paper trains the network as a classifier of all base classes (`jaxmeta.pretrain`), and this learner only adapts;
    its `grad` would train in tasks, as `protonet`. In the paper's names: UN (`normalize=False`), L2N, CL2N (`center`).

    Args:
        features_fn: see `with_head`.
        ways: classes of a task in meta-training.
        test_ways: classes of a task at test; `None` for the same.
        center: the mean of the features of the base classes, `[d]`; none is subtracted if `None`.
        normalize: scale features to length 1.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`; `adapt` returns a classifier, see `with_head`.

    Raises:
        ValueError: if `ways` or `test_ways` is less than 1.

    Example:
        >>> import jax.numpy as jnp, jaxmeta
        >>> learner = simpleshot(lambda w, x: x @ w, ways=2, center=jnp.array([1.0, 1.0]))
        >>> support = jaxmeta.Batch(jnp.array([[1.0, 2.0], [4.0, 1.0]]), jnp.array([0, 1]))
        >>> classifier = learner.adapt(learner.init(jnp.eye(2)), support, jax.random.key(0))
        >>> classifier(jnp.array([[1.0, 3.0]])).round(3).tolist()
        [[0.0, -2.0]]

    References:
        Wang, Chao, Weinberger & van der Maaten, *SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot
        Learning*, 2019, https://arxiv.org/abs/1911.04623
    """
    head = euclidean_head(center=center, normalize=normalize)
    return with_head(features_fn, head, ways, test_ways=test_ways, train_features=train_features)


def meta_baseline(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    temperature: float = 10.0,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """Meta-Baseline: nearest centroids by the cosine, with a learned temperature; `with_head` of `cosine_head`.

    The paper starts from a network that was trained as a classifier of all base classes (`jaxmeta.pretrain`).

    Args:
        features_fn: see `with_head`.
        ways: classes of a task in meta-training.
        test_ways: classes of a task at test; `None` for the same.
        temperature: where it starts; positive.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`; `adapt` returns a classifier, see `with_head`.

    Raises:
        ValueError: if `ways` or `test_ways` is less than 1, or `temperature` is not positive.

    Example:
        >>> learner = meta_baseline(lambda w, x: x @ w, ways=5)

    References:
        Chen, Liu, Xu, Darrell & Wang, *Meta-Baseline: Exploring Simple Meta-Learning for Few-Shot Learning*, ICCV 2021,
        https://arxiv.org/abs/2003.04390
    """
    head = cosine_head(temperature)
    return with_head(features_fn, head, ways, test_ways=test_ways, train_features=train_features)
