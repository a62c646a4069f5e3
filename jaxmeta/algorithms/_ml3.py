"""ML3: meta-learning via learned loss (Bechtle et al. 2021, https://arxiv.org/abs/1906.05374).

It learns the loss function that the inner loop minimizes.
"""

from collections.abc import Callable

import jax
import optax

from jaxmeta._adapt import check_through_loss
from jaxmeta._types import LossFn, MetaLearner, MetaParams, PyTree
from jaxmeta.algorithms._inner_loop import InnerProblem, inner_loop, model_problem
from jaxmeta.algorithms._part import Part, as_part, others
from jaxmeta.display import described
from jaxmeta.losses import Loss
from jaxmeta.meta_gradients import MetaGradient


@described
def ml3(
    learned_loss: LossFn | Loss,
    loss_fn: LossFn | Loss,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    loss: str | Part = "loss",
    reset: Callable[[PyTree, jax.Array], PyTree] | None = None,
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """ML3, meta-learning via learned loss: the inner loop minimizes a loss that has parameters of its own.

    With the learned loss `M`, its parameters `phi`, the model's parameters `theta` and the inner rate `alpha`, an inner
    step is `theta_{i+1} = theta_i - alpha * grad_theta M_phi(theta_i, support)`. The outer loss is that of the task,
    `L(theta_steps, query)`. The inner loop leaves `phi` alone.

    Args:
        learned_loss: `(params, batch, key) -> (scalar, metrics)`, the loss of the inner loop. It takes its own
            parameters and those of the model from `params`. `jaxmeta.models.LossMLP` is the paper's network.
        loss_fn: `(params, batch, key) -> (scalar, metrics)`, the loss of the task.
        inner: inner optimizer of the model's parameters.
        steps: number of inner steps during meta-training (default: 1).
        loss: the parameters of the learned loss, a `Part`, or a name in the path of each of them (default: `"loss"`).
        reset: `(params, key) -> params` with a new model from which each task starts, as in the paper, where it is
            random. `None` (default) meta-learns the model to start from, too.
        test_steps: number of inner steps at test. `None` (default) takes `steps`.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner`. Its `adapt` returns all parameters.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if a number of steps is not an integer of at least 0, or with `first_order()` or `truncated(0)`, by
            which the learned loss would not learn.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmeta
        >>> def learned_loss(params, batch, key):  # a squared error with a weight that is learned
        ...     return params["loss"] * jnp.mean((params["model"] * batch.x - batch.y) ** 2), {}
        >>> learner = ml3(learned_loss, jaxmeta.regression(lambda p, x: p["model"] * x), optax.sgd(1.0))
        >>> meta = learner.init({"model": jnp.array(0.0), "loss": jnp.array(0.25)})
        >>> one = jaxmeta.Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
        >>> jax.tree.map(float, learner.adapt(meta, one, jax.random.key(0)))
        {'loss': 0.25, 'model': 0.5}

    References:
        Bechtle, Molchanov, Chebotar, Grefenstette, Righetti, Sukhatme & Meier, *Meta-Learning via Learned Loss*,
        ICPR 2020, https://arxiv.org/abs/1906.05374
    """
    check_through_loss(meta_gradient)
    part = others(as_part(loss, "loss"))
    problem = model_problem(learned_loss, part)
    if reset is not None:
        problem = problem._replace(start=_from_new_model(problem, reset))
    return inner_loop(problem, inner, steps, outer_loss=loss_fn, test_steps=test_steps, meta_gradient=meta_gradient)


def _from_new_model(problem: InnerProblem, reset: Callable[[PyTree, jax.Array], PyTree]) -> Callable[..., PyTree]:
    """Returns the start of an inner problem after a reset of the parameters."""

    def start(meta: MetaParams, support: object, key: jax.Array) -> PyTree:
        return problem.start(meta._replace(params=reset(meta.params, key)), support, key)

    return start
