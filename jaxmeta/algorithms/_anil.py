"""ANIL and BOIL: MAML that adapts only a part of the network.

ANIL, almost no inner loop (Raghu, Raghu, Bengio & Vinyals 2020, https://arxiv.org/abs/1909.09157), adapts the head.
BOIL, body only in the inner loop (Oh, Yoo, Kim & Yun 2021, https://arxiv.org/abs/2008.08882), adapts everything else.
"""

import optax

from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms._inner_loop import inner_loop, model_problem
from jaxmeta.algorithms._part import Part, as_part, others
from jaxmeta.display import described
from jaxmeta.losses import Loss
from jaxmeta.meta_gradients import MetaGradient


@described
def anil(
    loss_fn: LossFn | Loss,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    head: str | Part = "head",
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """ANIL, almost no inner loop: MAML that adapts only the head.

    The inner loop moves the head's parameters and leaves the body alone. The outer loop trains both. The features of
    the body are computed once per task, whatever the number of steps.

    Args:
        loss_fn: see `maml`.
        inner: inner optimizer of the head. Learned transformations then have state for the head only.
        steps: number of inner steps during meta-training (default: 1).
        head: the head, a `Part` of the parameters, or a name in the path of each of its parameters. The models of
            `jaxmeta.models` call it `"head"` (the default).
        test_steps: number of inner steps at test. `None` (default) takes `steps`.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner`. Its `init` raises a `ValueError` if no parameter has `head` in its path.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if `steps` or `test_steps` is not an integer of at least 0.

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
    problem = model_problem(loss_fn, as_part(head))
    return inner_loop(problem, inner, steps, outer_loss=loss_fn, test_steps=test_steps, meta_gradient=meta_gradient)


@described
def boil(
    loss_fn: LossFn | Loss,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    head: str | Part = "head",
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """BOIL, body only in the inner loop: MAML that adapts everything except the head.

    Args:
        loss_fn: see `maml`.
        inner: inner optimizer of the body. The paper's rate for 5-way CIFAR-FS is 0.5.
        steps: number of inner steps during meta-training (default: 1).
        head: see `anil`.
        test_steps: number of inner steps at test. `None` (default) takes `steps`.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner`. Its `init` raises a `ValueError` if no parameter has `head` in its path.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if `steps` or `test_steps` is not an integer of at least 0.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmeta
        >>> loss_fn = jaxmeta.regression(lambda p, x: x * p["body"] * p["head"])
        >>> learner = boil(loss_fn, optax.sgd(0.5))
        >>> meta = learner.init({"body": jnp.array(0.0), "head": jnp.array(1.0)})
        >>> one = jaxmeta.Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
        >>> jax.tree.map(float, learner.adapt(meta, one, jax.random.key(0)))
        {'body': 1.0, 'head': 1.0}

    References:
        Oh, Yoo, Kim & Yun, *BOIL: Towards Representation Change for Few-shot Learning*, ICLR 2021,
        https://arxiv.org/abs/2008.08882
    """
    problem = model_problem(loss_fn, others(as_part(head)))
    return inner_loop(problem, inner, steps, outer_loss=loss_fn, test_steps=test_steps, meta_gradient=meta_gradient)
