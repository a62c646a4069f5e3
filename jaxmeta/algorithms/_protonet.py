"""ProtoNets: prototypical networks (Snell, Swersky & Zemel 2017, https://arxiv.org/abs/1703.05175).

A class is the mean of its support features; a query belongs to the nearest one.
"""

from typing import Literal

from jaxmeta._checks import check_choice
from jaxmeta._types import MetaLearner
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, with_head
from jaxmeta.algorithms._heads import cosine_head, euclidean_head


def protonet(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    distance: Literal["euclidean", "cosine"] = "euclidean",
    temperature: float | None = None,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """ProtoNets: `with_head` of `euclidean_head` or of `cosine_head`.

    The paper trains with more ways than it tests with (60 for 5- and 20-way Omniglot), and with as many shots.

    Args:
        features_fn: see `with_head`.
        ways: classes of a task in meta-training.
        test_ways: classes of a task at test; `None` for the same.
        distance: `"euclidean"` (squared) or `"cosine"`.
        temperature: factor of minus the distances, 1 if `None`; or of the cosines, 10 if `None`. Not learned.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`; `adapt` returns a classifier, see `with_head`.

    Raises:
        ValueError: if `ways` or `test_ways` is less than 1, there is no such distance or `temperature` is not positive.

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
        head = euclidean_head(1.0 if temperature is None else temperature)
    else:
        head = cosine_head(10.0 if temperature is None else temperature, learn=False)
    return with_head(features_fn, head, ways, test_ways=test_ways, train_features=train_features)
