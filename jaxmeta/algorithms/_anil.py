"""ANIL: almost no inner loop (Raghu, Raghu, Bengio & Vinyals 2020, https://arxiv.org/abs/1909.09157).

MAML whose inner loop adapts the head of the network only; the body is meta-learned and left as it is at test.
"""

import jax
import optax

from jaxmeta._meta_gradient import MetaGradient
from jaxmeta._types import LossFn, MetaLearner, PyTree
from jaxmeta.algorithms._checks import check_inner
from jaxmeta.algorithms._maml import maml


def anil(
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    head: str = "head",
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """ANIL: MAML with an inner optimizer that leaves everything but the head alone.

    Args:
        loss_fn: see `maml`.
        inner: the head's inner optimizer; learned transformations then have state for the head only.
        steps: inner steps in meta-training.
        head: name of the head: a key that appears in the path of each of its parameters. The models of `jaxmeta.models`
            call it `"head"`.
        test_steps: inner steps at test; `None` for the same.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner`; its `init` raises a `ValueError` if no parameter has `head` in its path.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if `steps` or `test_steps` is less than 1.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmeta
        >>> loss_fn = jaxmeta.regression(lambda p, x: x * p["body"] * p["head"])
        >>> learner = anil(loss_fn, optax.sgd(0.5))
        >>> meta = learner.init({"body": jnp.array(1.0), "head": jnp.array(0.0)})
        >>> one = jaxmeta.Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
        >>> jax.tree.map(float, learner.adapt(meta, one, jax.random.key(0)))
        {'body': 1.0, 'head': 1.0}

    References:
        Raghu, Raghu, Bengio & Vinyals, *Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of
        MAML*, ICLR 2020, https://arxiv.org/abs/1909.09157
    """
    check_inner(inner)

    def label(path: tuple, _: jax.Array) -> str:
        return (
            "head"
            if any(str(getattr(entry, "key", getattr(entry, "name", entry))) == head for entry in path)
            else "body"
        )

    def labels(params: PyTree) -> PyTree:
        tree = jax.tree.map_with_path(label, params)
        if "head" not in jax.tree.leaves(tree):
            names = sorted({jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)})
            raise ValueError(f"head must name a part of the parameters, got {head!r}; the parameters are {names}")
        return tree

    head_only = optax.partition({"head": inner, "body": optax.set_to_zero()}, labels)
    return maml(loss_fn, head_only, steps, test_steps=test_steps, meta_gradient=meta_gradient)
