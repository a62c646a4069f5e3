"""Layers whose matrices are Kronecker products of two small ones (`KroneckerLinear`, `RNN`, `LSTM` of learn2learn)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jaxmeta._checks import check_integer


class KroneckerDense(nn.Module):
    """A square linear layer whose matrix is a Kronecker product, and which starts as the identity.

    The input, as a matrix `X: [rows, columns]`, is mapped to `L X R + B`. The dense kernel would be `kron(L.T, R)`, of
    `(rows * columns)**2` entries. The two factors have `rows**2 + columns**2`. For gradients use
    `jaxmeta.optim.scale_by_kronecker`.

    Parameters are `left: [rows, rows]`, `right: [columns, columns]` and `bias: [rows, columns]`.

    Attributes:
        rows: size of the left factor.
        columns: size of the right factor.
        use_bias: add a learned bias (default).
        psd: take `L.T L` and `R.T R` for the factors, so that the map is positive semi-definite (default: false).
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).

    Raises:
        ValueError: if a size is not an integer of at least 1, or the input is not `[..., rows * columns]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> layer = KroneckerDense(2, 3)
        >>> y, params = layer.init_with_output(jax.random.key(0), jnp.arange(6.0))
        >>> y.tolist(), sum(p.size for p in jax.tree.leaves(params))
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 19)

    References:
        Jose, Cisse and Fleuret, "Kronecker Recurrent Units", 2018. https://arxiv.org/abs/1705.10142
        Arnold, Iqbal and Sha, "When MAML Can Adapt Fast and How to Assist When It Cannot", 2021.
        https://arxiv.org/abs/1910.13603
    """

    rows: int
    columns: int
    use_bias: bool = True
    psd: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_integer(rows=self.rows, columns=self.columns)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `x: [..., rows * columns]` to an array of the same shape."""
        shape = (self.rows, self.columns)
        if x.ndim < 1 or x.shape[-1] != self.rows * self.columns:
            raise ValueError(f"KroneckerDense needs an input [..., {self.rows} * {self.columns}], got shape {x.shape}")
        left = self.param("left", _identity, self.rows, self.param_dtype)
        right = self.param("right", _identity, self.columns, self.param_dtype)
        zeros = nn.initializers.zeros_init()
        bias = self.param("bias", zeros, shape, self.param_dtype) if self.use_bias else None
        x, left, right, bias = promote_dtype(x, left, right, bias, dtype=self.dtype)
        if self.psd:
            left, right = left.T @ left, right.T @ right
        y = jnp.einsum("ij,njk,kl->nil", left, x.reshape(-1, *shape), right)
        if bias is not None:
            y = y + bias[None]
        return y.reshape(x.shape)


class KroneckerRNNCell(nn.RNNCellBase):
    """A recurrent cell of Kronecker-factored matrices, for `flax.linen.RNN`.

    The next state is `h = tanh(W x + U h)`, and the output is `V h`. Parameters are those of three `KroneckerDense`:
    `input`, `hidden` and `output`.

    Attributes:
        rows: see `KroneckerDense`. Inputs, states and outputs are `[..., rows * columns]`.
        columns: see `KroneckerDense`.
        use_bias: add learned biases (default).
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import linen as nn
        >>> rnn = nn.RNN(KroneckerRNNCell(2, 3))
        >>> x = jnp.ones((4, 7, 6))
        >>> rnn.init_with_output(jax.random.key(0), x)[0].shape
        (4, 7, 6)

    References:
        Jose, Cisse and Fleuret, "Kronecker Recurrent Units", 2018. https://arxiv.org/abs/1705.10142
    """

    rows: int
    columns: int
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Takes one step, `(h, x) -> (h, y)`."""
        hidden = jnp.tanh(_dense(self, "input")(inputs) + _dense(self, "hidden")(carry))
        return hidden, _dense(self, "output")(hidden)

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> jax.Array:
        """Returns zeros, for inputs of shape `[..., rows * columns]`."""
        del rng
        return jnp.zeros(input_shape, self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        """Number of feature axes, which is the last one alone."""
        return 1


class KroneckerLSTMCell(nn.RNNCellBase):
    """A long short-term memory cell of Kronecker-factored matrices, for `flax.linen.RNN`.

    With the gates `i`, `f`, `g` and `o`, each a sum of two `KroneckerDense` of input and state, the next cell is
    `c = sigmoid(f) c + sigmoid(i) tanh(g)` and the next state is `h = sigmoid(o) tanh(c)`. Parameters are those of the
    eight layers: `input_i`, `hidden_i`, and so on for the other gates.

    Attributes:
        rows: see `KroneckerDense`. Inputs, states and outputs are `[..., rows * columns]`.
        columns: see `KroneckerDense`.
        use_bias: add learned biases, two per gate as in PyTorch (default).
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import linen as nn
        >>> rnn = nn.RNN(KroneckerLSTMCell(2, 3))
        >>> x = jnp.ones((4, 7, 6))
        >>> rnn.init_with_output(jax.random.key(0), x)[0].shape
        (4, 7, 6)

    References:
        Jose, Cisse and Fleuret, "Kronecker Recurrent Units", 2018. https://arxiv.org/abs/1705.10142
    """

    rows: int
    columns: int
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, carry: tuple[jax.Array, jax.Array], inputs: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        """Takes one step, `((h, c), x) -> ((h, c), h)`."""
        hidden, cell = carry

        def gate(name: str) -> jax.Array:
            return _dense(self, f"input_{name}")(inputs) + _dense(self, f"hidden_{name}")(hidden)

        cell = nn.sigmoid(gate("f")) * cell + nn.sigmoid(gate("i")) * jnp.tanh(gate("g"))
        hidden = nn.sigmoid(gate("o")) * jnp.tanh(cell)
        return (hidden, cell), hidden

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Returns zeros, for inputs of shape `[..., rows * columns]`."""
        del rng
        zeros = jnp.zeros(input_shape, self.param_dtype)
        return zeros, zeros

    @property
    def num_feature_axes(self) -> int:
        """Number of feature axes, which is the last one alone."""
        return 1


def _identity(key: jax.Array, size: int, dtype: Any) -> jax.Array:
    """Returns the identity matrix, as an initializer."""
    del key
    return jnp.eye(size, dtype=dtype)


def _dense(cell: Any, name: str) -> KroneckerDense:
    """Builds a layer with the attributes of the cell."""
    return KroneckerDense(
        cell.rows, cell.columns, cell.use_bias, dtype=cell.dtype, param_dtype=cell.param_dtype, name=name
    )
