"""ProtoNets: prototypical networks (Snell, Swersky & Zemel 2017, https://arxiv.org/abs/1703.05175).

The mean of its support features represents a class, and a query belongs to the nearest mean.
"""

from typing import Literal

import jax

from jaxmeta._checks import check_choice
from jaxmeta._types import MetaLearner
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, with_head
from jaxmeta.algorithms._heads import cosine_head, euclidean_head
from jaxmeta.display import described


@described
def protonet(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    distance: Literal["euclidean", "cosine"] = "euclidean",
    scale: float | jax.Array | None = None,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """ProtoNets, prototypical networks: `with_head` of `euclidean_head` or of `cosine_head`.

    The paper trains with as many shots as it tests with and with more ways: 60 for 5- and 20-way Omniglot.

    Args:
        features_fn: see `with_head`.
        ways: number of classes of a task during meta-training.
        test_ways: number of classes of a task at test. `None` (default) takes `ways`.
        distance: `"euclidean"` (squared, the default) or `"cosine"`.
        scale: factor of minus the distances or of the cosines, which is not learned, positive. `None` (default) takes 1
            for distances and 10 for cosines.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`. Its `adapt` returns a classifier, see `with_head`.

    Raises:
        ValueError: if `ways` or `test_ways` is not an integer of at least 1, `distance` is unknown or `scale` is not
            positive.

    Example:
        >>> import functools, jax, jaxmeta
        >>> from jaxmeta import data, models
        >>> model = models.OmniglotFC(sizes=(8,))
        >>> train, test = data.Glyphs(ways=20, size=8), data.Glyphs(ways=5, size=8, split="test")
        >>> learner = protonet(functools.partial(model.apply, method="features"), ways=20, test_ways=5)
        >>> meta = learner.init(model.init(jax.random.key(0), train.example))
        >>> task = test(jax.random.key(1))
        >>> classifier = learner.adapt(meta, task.support, jax.random.key(2))
        >>> classifier(task.query.x).shape
        (75, 5)

    References:
        Snell, Swersky & Zemel, *Prototypical Networks for Few-shot Learning*, NeurIPS 2017,
        https://arxiv.org/abs/1703.05175
    """
    check_choice("distance", distance, ("euclidean", "cosine"))
    if distance == "euclidean":
        head = euclidean_head(1.0 if scale is None else scale)
    else:
        head = cosine_head(10.0 if scale is None else scale, learn=False)
    return with_head(features_fn, head, ways, test_ways=test_ways, train_features=train_features)
