"""MAML: model-agnostic meta-learning (Finn, Abbeel & Levine 2017, https://arxiv.org/abs/1703.03400).

It learns initial parameters from which a few gradient steps on the support set of a task give a low loss on its query
set.
"""

import optax

from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms._inner_loop import inner_loop, model_problem
from jaxmeta.display import described
from jaxmeta.losses import Loss
from jaxmeta.meta_gradients import MetaGradient, first_order


@described
def maml(
    loss_fn: LossFn | Loss,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """MAML, model-agnostic meta-learning, with any optax transformation as its inner optimizer.

    With initial parameters `theta`, an inner step is `theta_{i+1} = theta_i - alpha * grad L_support(theta_i)` for SGD
    of rate `alpha`, and the outer loss is `L_query(theta_steps)`.

    If the state of `inner` holds `jaxmeta.Learned` values, then their initial values are meta-learned together with the
    parameters. Meta-SGD, Meta-Curvature and similar algorithms are MAML with another `inner`.

    Args:
        loss_fn: `(params, batch, key) -> (scalar, metrics)`, used on the support set (inner loop) and the query set
            (outer loop). It may be a `Loss`, which tells training from test. The state of the model moves with the pass
            on the query set.
        inner: inner optimizer, such as `optax.sgd(0.4)` for the paper's `alpha = 0.4`.
        steps: number of inner steps during meta-training (default: 1).
        test_steps: number of inner steps of `MetaLearner.adapt`, at test. `None` (default) takes `steps`. With 0 the
            learner is that before adaptation.
        meta_gradient: method that computes the meta-gradient: `reverse()` (default), `mixed()`, `first_order()` or
            another one of `jaxmeta.meta_gradients`.

    Returns:
        A `MetaLearner`. Its `adapt` returns the variables of the model for the task.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if `steps` or `test_steps` is not an integer of at least 0.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmeta
        >>> loss_fn = jaxmeta.regression(lambda w, x: x * w)
        >>> learner = maml(loss_fn, optax.sgd(0.5), steps=1)
        >>> meta = learner.init(jnp.array(0.0))
        >>> one = jaxmeta.Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
        >>> float(learner.adapt(meta, one, jax.random.key(0)))
        1.0

    References:
        Finn, Abbeel & Levine, *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks*, ICML 2017,
        https://arxiv.org/abs/1703.03400
    """
    problem = model_problem(loss_fn)
    return inner_loop(problem, inner, steps, outer_loss=loss_fn, test_steps=test_steps, meta_gradient=meta_gradient)


@described
def fomaml(
    loss_fn: LossFn | Loss,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    test_steps: int | None = None,
) -> MetaLearner:
    """First-order MAML: `maml` with `meta_gradient=first_order()`.

    The meta-gradient is `grad L_query(theta_steps)`, without the derivatives of the inner steps.

    Args:
        loss_fn: see `maml`.
        inner: see `maml`.
        steps: see `maml`.
        test_steps: see `maml`.

    Returns:
        A `MetaLearner`.

    Example:
        >>> import jaxmeta
        >>> learner = fomaml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(0.5))
    """
    return maml(loss_fn, inner, steps, test_steps=test_steps, meta_gradient=first_order())
