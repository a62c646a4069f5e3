"""A learned optimizer: the coordinate-wise LSTM (Andrychowicz et al. 2016, https://arxiv.org/abs/1606.04474).

One small LSTM, shared by all coordinates, reads the gradient of each coordinate and writes its step.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_integer, check_number, check_transformation
from jaxmeta._learned import Learned
from jaxmeta._types import PyTree
from jaxmeta.display import described, short_repr
from jaxmeta.optim._networks import Weights, check_weights, dense, initial_dense, zero_dense

_RANGE = 10.0  # the paper's p: gradients below e^-p have no logarithm as their feature


class LearnedLSTMState(NamedTuple):
    """State of `learned_lstm`."""

    weights: Learned
    """Weights of the network, a nested dict of arrays."""
    memory: PyTree
    """Outputs and cells of the LSTM's layers, a tree like the parameters of arrays `[layers, 2, hidden, ...]`."""
    nominal: optax.OptState
    """State of `nominal`."""

    __repr__ = short_repr


@described
def learned_lstm(
    nominal: optax.GradientTransformation,
    *,
    key: jax.Array | None = None,
    weights: PyTree | None = None,
    hidden: int = 20,
    layers: int = 2,
    step_scale: float | jax.Array = 0.1,
) -> optax.GradientTransformationExtraArgs:
    """A learned optimizer: the step of a known optimizer plus that of a small, meta-learned LSTM.

    For each coordinate, with gradient `g` and the memory `h` of the LSTM for that coordinate,

        out, h = LSTM(log |g| and sign of g, h)
        step = nominal step - step_scale * out

    The last layer starts at zero, so the optimizer starts as `nominal`. The paper has only the LSTM, which is
    `nominal=optax.set_to_zero()`. The optimizer must make the whole step, so it ends a chain. The state holds
    `2 * layers * hidden` numbers per parameter.

    Args:
        nominal: optax optimizer, such as `optax.sgd(0.1)`. Trained weights need the one they were trained with. To
            differentiate through `optax.adam` it needs `eps_root > 0`.
        key: random key of the initial weights. Give either this or `weights`.
        weights: trained weights, which are the `weights.value` of another state.
        hidden: number of units of a layer (default: 20).
        layers: number of layers (default: 2).
        step_scale: factor of the network's output (default: 0.1).

    Returns:
        An optax optimizer whose state holds the network as `Learned`, in float32 or wider.

    Raises:
        TypeError: if `nominal` is not an optax transformation.
        ValueError: if a size is not an integer of at least 1, `step_scale` is not a finite number, both or none of
            `key` and `weights` are given, or `weights` have other sizes.

    Example:
        >>> optimizer = learned_lstm(optax.sgd(0.5), key=jax.random.key(0))
        >>> params = {"w": jnp.ones((2, 3))}
        >>> state = optimizer.init(params)
        >>> optimizer.update({"w": jnp.ones((2, 3))}, state)[0]["w"][0].tolist()
        [-0.5, -0.5, -0.5]
        >>> trained = learned_lstm(optax.sgd(0.5), weights=state.weights.value)

    References:
        Andrychowicz et al., *Learning to Learn by Gradient Descent by Gradient Descent*, NeurIPS 2016,
        https://arxiv.org/abs/1606.04474
    """
    check_transformation(nominal=nominal)
    check_integer(hidden=hidden, layers=layers)
    check_number(step_scale=step_scale)
    nominal_transform = optax.with_extra_args_support(nominal)

    def initial(key: jax.Array) -> Weights:
        cells = {
            f"cell_{i}": initial_dense(k, (hidden if i else 2) + hidden, 4 * hidden)
            for i, k in enumerate(jax.random.split(key, layers))
        }
        return cells | {"out": zero_dense(hidden, 1)}

    make_weights = check_weights(weights, key, initial)

    def init(params: PyTree) -> Any:
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        memory = jax.tree.map(lambda p: jnp.zeros((layers, 2, hidden, *jnp.shape(p)), dtype), params)
        return LearnedLSTMState(Learned(make_weights(dtype)), memory, nominal_transform.init(params))

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any) -> tuple[PyTree, Any]:
        known, nominal_state = nominal_transform.update(updates, state.nominal, params, **extra_args)
        network = state.weights.value

        def run(grad: jax.Array, memory: jax.Array) -> jax.Array:
            x, kept = _log_and_sign(grad.astype(memory.dtype)), []
            for i in range(layers):
                x, cell = _cell(network[f"cell_{i}"], x, *memory[i])
                kept.append(jnp.stack([x, cell]))
            return jnp.stack(kept)

        def step(known: jax.Array, memory: jax.Array) -> jax.Array:
            return (known - step_scale * dense(network["out"], memory[-1, 0])[0]).astype(known.dtype)

        memory = jax.tree.map(run, updates, state.memory)
        return jax.tree.map(step, known, memory), LearnedLSTMState(state.weights, memory, nominal_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _log_and_sign(grad: jax.Array) -> jax.Array:
    """Returns the paper's two features of a gradient, `[2, ...]`, both of order 1 for gradients of any size.

    They are `log |g| / p` and `sign g` if `|g| >= e^-p`, otherwise `-1` and `e^p g`.
    """
    size = jnp.abs(grad)
    large = size >= math.exp(-_RANGE)
    log = jnp.log(jnp.where(large, size, 1.0)) / _RANGE
    return jnp.stack([jnp.where(large, log, -1.0), jnp.where(large, jnp.sign(grad), math.exp(_RANGE) * grad)])


def _cell(layer: dict[str, jax.Array], x: jax.Array, hidden: jax.Array, cell: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns output and cell of one layer of the LSTM, `[hidden, ...]`. Its forget gate starts with a bias of 1."""
    into, forget, new, out = jnp.split(dense(layer, jnp.concatenate([x, hidden])), 4)
    cell = jax.nn.sigmoid(forget + 1.0) * cell + jax.nn.sigmoid(into) * jnp.tanh(new)
    return jax.nn.sigmoid(out) * jnp.tanh(cell), cell
