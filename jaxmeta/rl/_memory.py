"""Memories of recurrent policies: their protocol, and the two gated ones."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer
from jaxmeta._types import PyTree
from jaxmeta.display import brief


class Memory(Protocol):
    """Memory of a recurrent policy: a Flax module that reads a sequence in two ways, with equal results.

    `__call__` reads one input after the other, to play. `unroll` reads a whole sequence at once, to learn, in parallel
    over time where the memory allows it. Your own module with these three methods works in `RecurrentPolicy` too.
    """

    def empty(self, *batch: int) -> PyTree:
        """Returns the memory before the first input, a pytree with leading axes `[*batch]`."""
        ...

    def __call__(self, memory: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        """Reads one input `[*batch, n]`, and returns the next memory and features `[*batch, size]`."""
        ...

    def unroll(self, xs: jax.Array) -> jax.Array:
        """Reads the inputs `[T, *batch, n]` from an empty memory on, and returns features `[T, *batch, size]`."""
        ...


def check_memory(memory: Any) -> None:
    """Raises TypeError unless a value is a memory."""
    if isinstance(memory, type) or not (hasattr(memory, "unroll") and hasattr(memory, "empty")):
        raise TypeError(f"memory must be a memory, such as rl.GRU(64), got {brief(memory)}")


class GRU(nn.Module):
    """Gated recurrent unit.

    With the input `x` and the memory `h` this is::

        r = sigmoid(W_r x + b_r + U_r h)
        z = sigmoid(W_z x + b_z + U_z h)
        n = tanh(W_n x + b_n + r * (U_n h + c))
        h <- (1 - z) * n + z * h

    The features are the new memory. `unroll` multiplies all inputs at once, and then goes through time.

    Attributes:
        size: number of values in the memory.

    Raises:
        ValueError: if `size` is less than 1.

    Example:
        >>> memory = GRU(size=8)
        >>> xs = jnp.zeros((20, 3, 5))
        >>> params = memory.init(jax.random.key(0), memory.empty(3), xs[0])
        >>> memory.apply(params, xs, method="unroll").shape
        (20, 3, 8)

    References:
        Cho et al., *Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation*,
        EMNLP 2014, https://arxiv.org/abs/1406.1078
    """

    size: int = 64

    def __post_init__(self) -> None:
        check_integer(size=self.size)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the weights of the three gates."""
        self.input = nn.Dense(3 * self.size)
        self.recurrent = self.param("recurrent", _orthogonal, (3, self.size, self.size))
        self.bias = self.param("bias", nn.initializers.zeros, (self.size,))

    def empty(self, *batch: int) -> jax.Array:
        """Returns the memory before the first input, `[*batch, size]`."""
        return jnp.zeros((*batch, self.size))

    def __call__(self, memory: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Reads one input `[*batch, n]`, and returns the next memory and the features, both `[*batch, size]`."""
        memory = _gru(self.recurrent, self.bias, memory, self.input(x))
        return memory, memory

    def unroll(self, xs: jax.Array) -> jax.Array:
        """Reads the inputs `[T, *batch, n]` from an empty memory on, and returns features `[T, *batch, size]`."""
        return _through_time(lambda h, gates: _gru(self.recurrent, self.bias, h, gates), self.empty, self.input(xs))


class LSTM(nn.Module):
    """Long short-term memory.

    With the input `x`, the cell `c` and the last features `h`, for each of the gates `i`, `f`, `g` and `o` with
    `a = W x + b + U h`, this is::

        c <- sigmoid(a_f + 1) * c + sigmoid(a_i) * tanh(a_g)
        h <- sigmoid(a_o) * tanh(c)

    The 1 lets the cell remember at the start of training.

    Attributes:
        size: number of values in the cell, and of features.

    Raises:
        ValueError: if `size` is less than 1.

    Example:
        >>> memory = LSTM(size=8)
        >>> xs = jnp.zeros((20, 3, 5))
        >>> params = memory.init(jax.random.key(0), memory.empty(3), xs[0])
        >>> memory.apply(params, xs, method="unroll").shape
        (20, 3, 8)

    References:
        Hochreiter & Schmidhuber, *Long Short-Term Memory*, Neural Computation 1997,
        https://doi.org/10.1162/neco.1997.9.8.1735
    """

    size: int = 64

    def __post_init__(self) -> None:
        check_integer(size=self.size)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the weights of the four gates."""
        self.input = nn.Dense(4 * self.size)
        self.recurrent = self.param("recurrent", _orthogonal, (4, self.size, self.size))

    def empty(self, *batch: int) -> tuple[jax.Array, jax.Array]:
        """Returns the cell and the features before the first input, both `[*batch, size]`."""
        return jnp.zeros((*batch, self.size)), jnp.zeros((*batch, self.size))

    def __call__(
        self, memory: tuple[jax.Array, jax.Array], x: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        """Reads one input `[*batch, n]`, and returns the next memory and features `[*batch, size]`."""
        memory = _lstm(self.recurrent, memory, self.input(x))
        return memory, memory[1]

    def unroll(self, xs: jax.Array) -> jax.Array:
        """Reads the inputs `[T, *batch, n]` from an empty memory on, and returns features `[T, *batch, size]`."""
        return _through_time(lambda memory, gates: _lstm(self.recurrent, memory, gates), self.empty, self.input(xs))[1]


def _orthogonal(key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Draws an orthogonal matrix for each gate, `[gates, size, size]`."""
    return jax.vmap(lambda key: nn.initializers.orthogonal()(key, shape[1:]))(jax.random.split(key, shape[0]))


def _recur(recurrent: jax.Array, h: jax.Array) -> list[jax.Array]:
    """Multiplies the features with the matrices of all gates `[gates, size, size]` at once."""
    gates, size, _ = recurrent.shape
    return jnp.split(h @ jnp.swapaxes(recurrent, 0, 1).reshape(size, gates * size), gates, axis=-1)


def _gru(recurrent: jax.Array, bias: jax.Array, h: jax.Array, inputs: jax.Array) -> jax.Array:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = jnp.split(inputs, 3, axis=-1), _recur(recurrent, h)
    z = jax.nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + jax.nn.sigmoid(x_r + h_r) * (h_n + jnp.broadcast_to(bias, h_n.shape)))
    return ((1 - z) * n + z * h).astype(h.dtype)


def _lstm(recurrent: jax.Array, memory: tuple[jax.Array, jax.Array], inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    cell, h = memory
    i, f, g, o = (x + y for x, y in zip(jnp.split(inputs, 4, axis=-1), _recur(recurrent, h), strict=True))
    cell = (jax.nn.sigmoid(f + 1) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)).astype(cell.dtype)
    return cell, (jax.nn.sigmoid(o) * jnp.tanh(cell)).astype(h.dtype)


def _through_time(step: Callable[[Any, jax.Array], Any], empty: Callable[..., Any], inputs: jax.Array) -> Any:
    """Returns the memories `[T, ...]` after each of the gates' inputs `[T, *batch, n]`."""
    start = jax.tree.map(lambda x: x.astype(inputs.dtype), empty(*inputs.shape[1:-1]))

    def advance(memory: Any, x: jax.Array) -> tuple[Any, Any]:
        memory = step(memory, x)
        return memory, memory

    return jax.lax.scan(advance, start, inputs)[1]
