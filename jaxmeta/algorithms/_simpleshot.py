"""SimpleShot and Meta-Baseline: nearest centroids on the features of a network that was trained to classify.

SimpleShot (Wang, Chao, Weinberger & van der Maaten 2019, https://arxiv.org/abs/1911.04623) centers and normalizes the
features. Meta-Baseline (Chen et al. 2021, https://arxiv.org/abs/2003.04390) continues to train them in tasks, with the
cosine.
"""

import jax

from jaxmeta._types import MetaLearner
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, with_head
from jaxmeta.algorithms._heads import cosine_head, euclidean_head
from jaxmeta.display import described


@described
def simpleshot(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    center: jax.Array | None = None,
    normalize: bool = True,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """SimpleShot: the nearest centroid of simply transformed features, `with_head` of `euclidean_head`.

    A feature vector `x` becomes `z = (x - center) / |x - center|`, and a query belongs to the class with the nearest
    mean of `z`. In the paper's names this is CL2N. Without `center` it is L2N, and with `normalize=False` UN.

    The paper trains the network as a classifier of all base classes (see `jaxmeta.pretrain`), and this learner only
    adapts it. Its `grad` would train in tasks, as `protonet` does.

    Args:
        features_fn: see `with_head`.
        ways: number of classes of a task during meta-training.
        test_ways: number of classes of a task at test. `None` (default) takes `ways`.
        center: mean of the features of the base classes, `[d]`, which is subtracted. `None` (default) subtracts
            nothing.
        normalize: scale the features to length 1 (default).
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`. Its `adapt` returns a classifier, see `with_head`.

    Raises:
        ValueError: if `ways` or `test_ways` is not an integer of at least 1.

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


@described
def meta_baseline(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    scale: float | jax.Array = 10.0,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """Meta-Baseline: nearest centroids by the cosine with a learned scale, `with_head` of `cosine_head`.

    The paper starts from a network that was trained as a classifier of all base classes (see `jaxmeta.pretrain`).

    Args:
        features_fn: see `with_head`.
        ways: number of classes of a task during meta-training.
        test_ways: number of classes of a task at test. `None` (default) takes `ways`.
        scale: initial value of the learned factor of the cosines, the paper's temperature `tau`, positive
            (default: 10).
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`. Its `adapt` returns a classifier, see `with_head`.

    Raises:
        ValueError: if `ways` or `test_ways` is not an integer of at least 1, or `scale` is not positive.

    Example:
        >>> learner = meta_baseline(lambda w, x: x @ w, ways=5)

    References:
        Chen, Liu, Xu, Darrell & Wang, *Meta-Baseline: Exploring Simple Meta-Learning for Few-Shot Learning*, ICCV 2021,
        https://arxiv.org/abs/2003.04390
    """
    head = cosine_head(scale)
    return with_head(features_fn, head, ways, test_ways=test_ways, train_features=train_features)
