"""Weights of training examples, learned on clean data: Meta-Weight-Net and hyper-cleaning."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_function, check_takes
from jaxmeta._types import MetaParams, Metrics, PyTree
from jaxmeta.algorithms import InnerProblem
from jaxmeta.display import brief
from jaxmeta.losses import weighted_mean

Weigh = Callable[[PyTree, jax.Array, Any], jax.Array]
"""`(hyper, losses [n], batch) -> weights [n]`."""


def weighted_losses(
    losses: Callable[[PyTree, Any, jax.Array], jax.Array], weigh: Weigh, start: Callable[[jax.Array], PyTree]
) -> InnerProblem:
    """Returns the inner problem of a training whose examples have learned weights.

    With the losses `L_i` of a batch and their weights `w = weigh(hyper, L, batch)`, the inner loss is
    `sum_i w_i L_i / sum_i w_i`, as for the weights of a `jaxmeta.Batch`. The weights see the losses as constants, and
    larger weights for all examples change nothing. Without the division the weights would learn the rate too, and on
    real data soon do nothing else.

    Args:
        losses: `(params, batch, key) -> [n]`, the loss of each example.
        weigh: `(hyper, losses [n], batch) -> weights [n]`, such as `weight_by_example` or `weight_by_loss(net)`.
        start: `(key) -> params`, the first parameters of the model.

    Returns:
        An `InnerProblem` for `bilevel_step`, or for `jaxmeta.inner_loop`.

    Raises:
        TypeError: if an argument is not a function of so many arguments.
        ValueError: from the inner loss, if losses or weights do not have one number per example.

    Example:
        >>> import optax
        >>> from jaxmeta import Batch, bilevel
        >>> def losses(w, batch, key):
        ...     return (batch.x @ w - batch.y) ** 2
        >>> x = jax.random.normal(jax.random.key(0), (100, 3))
        >>> noisy = Batch(x, x.sum(1).at[:40].add(5.0))  # the first 40 targets are wrong
        >>> tasks = bilevel.TrainAndValidation(noisy, Batch(x[-10:], x[-10:].sum(1)), size=50, validation_size=10)
        >>> problem = weighted_losses(losses, weight_by_example, lambda key: jnp.zeros(3))
        >>> training = bilevel.bilevel_step(
        ...     problem, optax.sgd(0.1), optax.adam(0.1), outer_loss=lambda w, b, key: (losses(w, b, key).mean(), {}))
        >>> keys = jax.random.split(jax.random.key(1), 200)
        >>> run = jax.jit(lambda state: jax.lax.scan(lambda s, k: training.step(s, k, tasks), state, keys))
        >>> state, metrics = run(training.init(jnp.zeros(100), keys[0]))
        >>> bool(state.meta.params[:40].mean() < state.meta.params[40:].mean())
        True

    References:
        Franceschi, Frasconi, Salzo, Grazzi & Pontil, *Bilevel Programming for Hyperparameter Optimization and
        Meta-Learning*, ICML 2018, https://arxiv.org/abs/1806.04910
    """
    check_takes(3, " (params, batch, key)", losses=losses)
    check_takes(3, " (hyper, losses, batch)", weigh=weigh)
    check_takes(1, ", a random key", start=start)

    def loss(params: PyTree, meta: MetaParams, batch: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
        values = losses(params, batch, key)
        if jnp.ndim(values) != 1:
            raise ValueError(f"losses must return one loss per example, [n], got {brief(values)}")
        weights = weigh(meta.variables, jax.lax.stop_gradient(values), batch)
        if jnp.shape(weights) != values.shape:
            raise ValueError(f"weigh must return weights {values.shape}, one for each loss, got {brief(weights)}")
        return weighted_mean(values, weights), {}

    return InnerProblem(lambda meta, support, key: start(key), loss, lambda params, meta: params)


def weight_by_loss(net: Callable[[PyTree, jax.Array], jax.Array]) -> Weigh:
    """Meta-Weight-Net: weights that a small network finds from the loss of each example.

    The weight of a loss `L` is `sigmoid(net(hyper, L))`, so few hyper-parameters suffice for any number of examples.

    Args:
        net: `(hyper, losses [n, 1]) -> [n, 1]`, such as `models.MLP(sizes=(100,)).apply`, the network of the paper.

    Returns:
        `(hyper, losses [n], batch) -> weights [n]`, for `weighted_losses`.

    Raises:
        TypeError: if `net` is not a function.

    Example:
        >>> weigh = weight_by_loss(lambda slope, losses: slope * losses)
        >>> weigh(-1.0, jnp.array([0.0, 5.0]), None).round(2).tolist()
        [0.5, 0.009999999776482582]

    References:
        Shu, Xie, Yi, Zhao, Zhou, Xu & Meng, *Meta-Weight-Net: Learning an Explicit Mapping For Sample Weighting*,
        NeurIPS 2019, https://arxiv.org/abs/1902.07379
    """
    check_function(net=net)

    def weigh(hyper: PyTree, losses: jax.Array, batch: Any) -> jax.Array:
        del batch
        return jax.nn.sigmoid(net(hyper, losses[:, None])[:, 0])

    return weigh


def weight_by_example(hyper: jax.Array, losses: jax.Array, batch: Any) -> jax.Array:
    """Hyper-cleaning: one weight for each training example, the sigmoid of one hyper-parameter.

    Args:
        hyper: logit of the weight of each example, `[examples]`.
        losses: not used.
        batch: a batch with the rows of its examples in `index: [n]`, such as `Rows`.

    Returns:
        Weights `[n]`, for `weighted_losses`.

    Raises:
        TypeError: if the batch has no `index`.

    Example:
        >>> from jaxmeta import bilevel
        >>> batch = bilevel.Rows(jnp.zeros((2, 3)), jnp.zeros(2), jnp.array([4, 0]))
        >>> weight_by_example(jnp.array([0.0, 9.0, 9.0, 9.0, -50.0]), jnp.zeros(2), batch).round(2).tolist()
        [0.0, 0.5]

    References:
        Franceschi, Frasconi, Salzo, Grazzi & Pontil, *Bilevel Programming for Hyperparameter Optimization and
        Meta-Learning*, ICML 2018, https://arxiv.org/abs/1806.04910
    """
    del losses
    if not hasattr(batch, "shape") and callable(getattr(batch, "index", None)):  # the method of a plain tuple
        raise TypeError(f"batch must have the rows of its examples in index, such as bilevel.Rows, got {brief(batch)}")
    return jax.nn.sigmoid(hyper[batch.index])
