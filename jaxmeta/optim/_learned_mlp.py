"""A learned optimizer: a small MLP per parameter (Metz et al. 2019, https://arxiv.org/abs/1810.10180).

One small network, shared by all parameters, maps features of the past gradients of each one to its step.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_fraction, check_integers, check_number, check_transformation
from jaxmeta._learned import Learned
from jaxmeta._types import PyTree
from jaxmeta.display import described, short_repr
from jaxmeta.optim._networks import Weights, check_weights, column, dense, initial_dense, zero_dense

_TIMESCALES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
_SMALL = 1e-10  # added to mean squares, so that a gradient below 1e-5 counts as small


class LearnedMLPState(NamedTuple):
    """State of `learned_mlp`."""

    weights: Learned
    """Weights of the network, a nested dict of arrays."""
    step: jax.Array
    """Number of updates so far."""
    momenta: PyTree
    """Averages of the gradient, a tree like the parameters of arrays `[momenta, ...]`."""
    second_moment: PyTree
    """Average of the squared gradient, a tree like the parameters."""
    nominal: optax.OptState
    """State of `nominal`."""

    __repr__ = short_repr


@described
def learned_mlp(
    nominal: optax.GradientTransformation,
    *,
    key: jax.Array | None = None,
    weights: PyTree | None = None,
    sizes: Sequence[int] = (16, 16),
    momenta: Sequence[float | jax.Array] = (0.5, 0.9, 0.99),
    second_moment: float | jax.Array = 0.99,
    step_scale: float | jax.Array = 0.01,
) -> optax.GradientTransformationExtraArgs:
    """A learned optimizer: the step of a known optimizer plus that of a small network on features of each parameter.

    For each coordinate,

        direction, magnitude = MLP(features)
        step = nominal step - step_scale * direction * exp(magnitude)

    The features are:

    * the gradient, the parameter and momenta of several decays, each divided by its root mean square over the tensor
    * gradient and momenta divided by the root of the coordinate's second moment, as in Adam
    * the logarithm of that second moment relative to its mean over the tensor
    * the number of updates so far on several time scales

    None of them changes when the loss is multiplied by a number, down to gradients of about 1e-5. The last layer starts
    at zero, so the optimizer starts as `nominal`, as in Harrison et al. (2022). Metz et al. have only the network,
    `nominal=optax.set_to_zero()`. The optimizer must make the whole step, so it ends a chain. The state holds
    `len(momenta) + 1` numbers per parameter.

    Args:
        nominal: optax optimizer, such as `optax.sgd(0.1)`. Trained weights need the one they were trained with. To
            differentiate through `optax.adam` it needs `eps_root > 0`.
        key: random key of the initial weights. Give either this or `weights`.
        weights: trained weights, which are the `weights.value` of another state.
        sizes: widths of the hidden layers, at least one (default: two layers of 16).
        momenta: decays of the averages of the gradient, in [0, 1) (default: 0.5, 0.9 and 0.99).
        second_moment: decay of the average of the squared gradient, in [0, 1) (default: 0.99).
        step_scale: factor of the network's output (default: 0.01).

    Returns:
        An optax optimizer whose state holds the network as `Learned`, in float32 or wider. Its `update` needs the
        parameters.

    Raises:
        TypeError: if `nominal` is not an optax transformation.
        ValueError: if there is no hidden layer, a size is not an integer of at least 1, a decay is not in [0, 1),
            `step_scale` is not a finite number, both or none of `key` and `weights` are given, or `weights` have other
            sizes. From `update`, without parameters.

    Example:
        >>> optimizer = learned_mlp(optax.sgd(0.5), key=jax.random.key(0))
        >>> params = {"w": jnp.ones((2, 3))}
        >>> state = optimizer.init(params)
        >>> optimizer.update({"w": jnp.ones((2, 3))}, state, params)[0]["w"][0].tolist()
        [-0.5, -0.5, -0.5]
        >>> trained = learned_mlp(optax.sgd(0.5), weights=state.weights.value)

    References:
        Metz, Maheswaranathan, Nixon, Freeman & Sohl-Dickstein, *Understanding and Correcting Pathologies in the
        Training of Learned Optimizers*, ICML 2019, https://arxiv.org/abs/1810.10180

        Metz, Freeman, Harrison, Maheswaranathan & Sohl-Dickstein, *Practical Tradeoffs between Memory, Compute, and
        Performance in Learned Optimizers*, CoLLAs 2022, https://arxiv.org/abs/2203.11860

        Harrison, Metz & Sohl-Dickstein, *A Closer Look at Learned Optimization: Stability, Robustness, and Inductive
        Biases*, NeurIPS 2022, https://arxiv.org/abs/2209.11208
    """
    check_transformation(nominal=nominal)
    check_number(step_scale=step_scale)
    _check_network(sizes, momenta, second_moment)
    nominal_transform = optax.with_extra_args_support(nominal)
    decays = (*momenta, second_moment)

    def initial(key: jax.Array) -> Weights:
        keys = jax.random.split(key, len(sizes))
        inputs = (2 * len(momenta) + 4 + len(_TIMESCALES), *sizes)
        layers = {f"layer_{i}": initial_dense(keys[i], inputs[i], size) for i, size in enumerate(sizes)}
        return layers | {"out": zero_dense(sizes[-1], 2)}

    make_weights = check_weights(weights, key, initial)

    def init(params: PyTree) -> Any:
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        return LearnedMLPState(
            Learned(make_weights(dtype)),
            jnp.zeros([], jnp.int32),
            jax.tree.map(lambda p: jnp.zeros((len(momenta), *jnp.shape(p)), dtype), params),
            jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), dtype), params),
            nominal_transform.init(params),
        )

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any) -> tuple[PyTree, Any]:
        if params is None:
            raise ValueError("learned_mlp needs the parameters: call update(updates, state, params)")
        known, nominal_state = nominal_transform.update(updates, state.nominal, params, **extra_args)
        network = state.weights.value
        dtype = network["out"]["bias"].dtype
        grads = jax.tree.map(lambda g: g.astype(dtype), updates)
        count: Any = optax.safe_increment(state.step)

        rates = jnp.asarray(decays, dtype)
        first = jax.tree.map(lambda g, m: _average(g[None], m, column(rates[:-1], m.ndim)), grads, state.momenta)
        second = jax.tree.map(lambda g, v: _average(g * g, v, rates[-1]), grads, state.second_moment)
        # Averages that began at zero are too small by this factor.
        weight = 1 - rates ** count.astype(dtype)
        time = jnp.tanh(state.step / jnp.asarray(_TIMESCALES, dtype) - 1)

        def step(known: jax.Array, g: jax.Array, p: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
            x = _features(g, p.astype(dtype), m / column(weight[:-1], m.ndim), v / weight[-1])
            direction, magnitude = _network(network, x, time)
            return (known - step_scale * direction * jnp.exp(magnitude)).astype(known.dtype)

        steps = jax.tree.map(step, known, grads, params, first, second)
        return steps, LearnedMLPState(state.weights, count, first, second, nominal_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _average(new: jax.Array, old: jax.Array, decay: jax.Array) -> jax.Array:
    """Returns the next exponential moving average."""
    return decay * old + (1 - decay) * new


def _features(grad: jax.Array, param: jax.Array, momenta: jax.Array, second_moment: jax.Array) -> jax.Array:
    """Returns the features of one tensor, `[2 * momenta + 4, ...]`, finite with finite derivatives also at zero."""
    axes = tuple(range(1, momenta.ndim))
    slopes = jnp.concatenate([grad[None], momenta])
    plain = jnp.concatenate([slopes, param[None]])
    plain = plain * jax.lax.rsqrt(jnp.mean(plain * plain, axes, keepdims=True) + _SMALL)
    second_moment = second_moment[None] + _SMALL
    log = jnp.log(second_moment / jnp.mean(second_moment, axes, keepdims=True))
    return jnp.concatenate([plain, slopes * jax.lax.rsqrt(second_moment), 0.1 * log])


def _network(weights: Weights, x: jax.Array, time: jax.Array) -> jax.Array:
    """Maps `x: [features, ...]` and `time: [scales]`, the same for all coordinates, to `[2, ...]`."""
    kernel, bias = weights["layer_0"]["kernel"], weights["layer_0"]["bias"]
    own, shared = kernel[: x.shape[0]], kernel[x.shape[0] :]
    x = jax.nn.relu(dense({"kernel": own, "bias": bias + time @ shared}, x))
    for i in range(1, len(weights) - 1):
        x = jax.nn.relu(dense(weights[f"layer_{i}"], x))
    return dense(weights["out"], x)


def _check_network(sizes: Sequence[int], momenta: Sequence[Any], second_moment: Any) -> None:
    """Raises ValueError unless there is a hidden layer, all sizes are integers and all decays are in [0, 1)."""
    if len(sizes) == 0:
        raise ValueError("sizes must have at least one hidden layer, got none")
    check_integers(sizes=sizes)
    check_fraction(below_one=True, **{f"momenta[{i}]": decay for i, decay in enumerate(momenta)})
    check_fraction(below_one=True, second_moment=second_moment)
