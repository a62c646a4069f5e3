"""A linear recurrent memory, which reads a sequence in parallel over time."""

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer

Complex: TypeAlias = tuple[jax.Array, jax.Array]
"""Real and imaginary parts."""


class LinearRecurrent(nn.Module):
    """Linear recurrent memory: layers of linear recurrent units (LRU), a diagonal state space model as S5 is.

    The input is projected to `size` values `u`. With complex numbers `lambda` of modulus below 1, a layer is::

        x <- lambda * x + gamma * (B norm(u))
        u <- u + gate(gelu(Re(C x) + d * norm(u)))

    Here `gate` is a linear layer times the sigmoid of another one, and `gamma = sqrt(1 - |lambda|^2)` at the start. The
    recurrence has no matrix, and everything else is computed for all steps at once. On an accelerator the recurrence
    too takes a number of operations in sequence that is the logarithm of the number of steps.

    Attributes:
        size: number of complex values in the memory of a layer, and of features.
        layers: number of layers.

    Raises:
        ValueError: if a number is less than 1.

    Example:
        >>> memory = LinearRecurrent(size=8)
        >>> xs = jnp.zeros((20, 3, 5))
        >>> params = memory.init(jax.random.key(0), memory.empty(3), xs[0])
        >>> memory.apply(params, xs, method="unroll").shape
        (20, 3, 8)

    References:
        Orvieto et al., *Resurrecting Recurrent Neural Networks for Long Sequences*, ICML 2023,
        https://arxiv.org/abs/2303.06349

        Lu et al., *Structured State Space Models for In-Context Reinforcement Learning*, NeurIPS 2023,
        https://arxiv.org/abs/2303.03982
    """

    size: int = 64
    layers: int = 1

    def __post_init__(self) -> None:
        check_integer(size=self.size, layers=self.layers)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the layers."""
        # Where a norm meets zeros its derivative is a thousand, and the first observation of a trial is often zero.
        self.input = nn.Dense(self.size, bias_init=nn.initializers.normal(1.0))
        self.layer = [_Layer(self.size) for _ in range(self.layers)]

    def empty(self, *batch: int) -> jax.Array:
        """Returns the memory before the first input, real and imaginary parts, `[*batch, layers, 2 * size]`."""
        return jnp.zeros((*batch, self.layers, 2 * self.size))

    def __call__(self, memory: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Reads one input `[*batch, n]`, and returns the next memory and features `[*batch, size]`."""
        u, states = self.input(x), []
        for i, layer in enumerate(self.layer):
            state, u = layer(memory[..., i, :], u)
            states.append(state)
        return jnp.stack(states, axis=-2).astype(memory.dtype), u

    def unroll(self, xs: jax.Array) -> jax.Array:
        """Reads the inputs `[T, *batch, n]` from an empty memory on, and returns features `[T, *batch, size]`."""
        u = self.input(xs)
        for layer in self.layer:
            u = layer.unroll(u)
        return u


class _Layer(nn.Module):
    """Layer of linear recurrent units, see `LinearRecurrent`. Complex numbers are kept as real and imaginary parts."""

    size: int

    def setup(self) -> None:
        n = self.size
        self.log_decay = self.param("log_decay", _decays, (n,))  # log(-log |lambda|)
        self.log_phase = self.param("log_phase", _phases, (n,))
        self.log_gamma = self.param("log_gamma", lambda _: 0.5 * jnp.log1p(-jnp.exp(-2 * jnp.exp(self.log_decay))))
        scaled = nn.initializers.normal(1 / math.sqrt(2 * n))
        self.into = self.param("into", scaled, (n, 2 * n))
        self.out = self.param("out", scaled, (2 * n, n))
        self.skip = self.param("skip", nn.initializers.normal(1.0), (n,))
        self.norm, self.gated = nn.LayerNorm(), nn.Dense(2 * n)

    def __call__(self, state: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Takes one step."""
        normed = self.norm(u)
        state = _join(*_times(_like(self._multiplier(), u), _parts(state), _parts(self._drive(normed))))
        return state, self._read(state, u, normed)

    def unroll(self, u: jax.Array) -> jax.Array:
        """Takes all steps `[T, ...]`, from a state of zero."""
        normed = self.norm(u)
        return self._read(_recurrence(self._multiplier(), self._drive(normed)), u, normed)

    def _multiplier(self) -> Complex:
        modulus, phase = jnp.exp(-jnp.exp(self.log_decay)), jnp.exp(self.log_phase)
        return modulus * jnp.cos(phase), modulus * jnp.sin(phase)

    def _drive(self, u: jax.Array) -> jax.Array:
        return u @ (self.into * jnp.tile(jnp.exp(self.log_gamma), 2)[None])

    def _read(self, state: jax.Array, u: jax.Array, normed: jax.Array) -> jax.Array:
        value, gate = jnp.split(
            self.gated(nn.gelu(state @ self.out + jnp.broadcast_to(self.skip, normed.shape) * normed)), 2, axis=-1
        )
        return u + value * nn.sigmoid(gate)


def _decays(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws `log(-log |lambda|)`: memories that last 1 to 1,000 steps, as many short ones as long ones."""
    return jax.random.uniform(key, shape, minval=-math.log(1000), maxval=0)


def _phases(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws logarithms of small angles, which make for slow oscillations."""
    return jax.random.uniform(key, shape, minval=math.log(1e-3), maxval=math.log(math.pi / 10))


def _parts(x: jax.Array) -> Complex:
    """Splits the last axis into real and imaginary parts."""
    real, imag = jnp.split(x, 2, axis=-1)
    return real, imag


def _join(real: jax.Array, imag: jax.Array) -> jax.Array:
    return jnp.concatenate([real, imag], axis=-1)


def _like(a: Complex, x: jax.Array) -> Complex:
    """Repeats numbers `[n]` to the shape of `x`, `[..., n]`."""
    return jnp.broadcast_to(a[0], x.shape), jnp.broadcast_to(a[1], x.shape)


def _times(a: Complex, b: Complex, plus: Complex) -> Complex:
    """Returns `a * b + plus`."""
    return a[0] * b[0] - a[1] * b[1] + plus[0], a[0] * b[1] + a[1] * b[0] + plus[1]


def _recurrence(multiplier: Complex, drive: jax.Array) -> jax.Array:
    """Returns `x_t = multiplier * x_{t-1} + drive_t` for all steps `[T, ..., 2 * size]`, from `x_0 = 0`."""
    return jax.lax.platform_dependent(multiplier, drive, cpu=_one_by_one, default=_in_parallel)


def _one_by_one(multiplier: Complex, drive: jax.Array) -> jax.Array:
    def step(x: Complex, now: jax.Array) -> tuple[Complex, jax.Array]:
        x = _times(_like(multiplier, x[0]), x, _parts(now))
        return x, _join(*x)

    return jax.lax.scan(step, _parts(jnp.zeros_like(drive[0])), drive)[1]


def _in_parallel(multiplier: Complex, drive: jax.Array) -> jax.Array:
    def after(a: tuple[Complex, Complex], b: tuple[Complex, Complex]) -> tuple[Complex, Complex]:
        zero = jnp.zeros_like(a[0][0])
        return _times(b[0], a[0], (zero, zero)), _times(_like(b[0], a[1][0]), a[1], b[1])

    factors = _like(multiplier, jnp.zeros((len(drive), *[1] * (drive.ndim - 2), multiplier[0].shape[-1])))
    return _join(*jax.lax.associative_scan(after, (factors, _parts(drive)))[1])
