"""A memory that attends to its last inputs."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer

Cache = dict[str, jax.Array]
"""Keys and values of the last inputs, and the number of inputs so far."""


class CausalTransformer(nn.Module):
    """Causal transformer: each layer attends to the last `context` inputs, this one included.

    The input is projected to `size` values `u`, and a layer is `u <- u + attention(norm(u))` and then
    `u <- u + mlp(norm(u))`. Positions enter by ALiBi: a head adds its slope times minus the age of an input to the
    logits. Inputs older than `context` are forgotten, so `context` should be the length of a trial, whose square is the
    cost of `unroll`.

    Attributes:
        size: number of features, a multiple of `heads`.
        layers: number of layers.
        heads: number of heads of attention.
        context: number of inputs that are remembered.

    Raises:
        ValueError: if a number is less than 1, or `size` is not a multiple of `heads`.

    Example:
        >>> memory = CausalTransformer(size=8, heads=2, context=16)
        >>> xs = jnp.zeros((20, 3, 5))
        >>> params = memory.init(jax.random.key(0), memory.empty(3), xs[0])
        >>> memory.apply(params, xs, method="unroll").shape
        (20, 3, 8)

    References:
        Vaswani et al., *Attention Is All You Need*, NeurIPS 2017, https://arxiv.org/abs/1706.03762

        Press, Smith & Lewis, *Train Short, Test Long: Attention with Linear Biases Enables Input Length
        Extrapolation*, ICLR 2022, https://arxiv.org/abs/2108.12409
    """

    size: int = 64
    layers: int = 1
    heads: int = 4
    context: int = 128

    def __post_init__(self) -> None:
        check_integer(size=self.size, layers=self.layers, heads=self.heads, context=self.context)
        if self.size % self.heads:
            raise ValueError(f"size must be a multiple of heads ({self.heads}), got {self.size}")
        super().__post_init__()

    def setup(self) -> None:
        """Makes the layers."""
        # Where a norm meets zeros its derivative is a thousand, and the first observation of a trial is often zero.
        self.input = nn.Dense(self.size, bias_init=nn.initializers.normal(1.0))
        self.layer = [_Layer(self.size, self.heads, self.context) for _ in range(self.layers)]
        self.norm = nn.LayerNorm()

    def empty(self, *batch: int) -> Cache:
        """Returns the memory before the first input, without keys and values."""
        cache = jnp.zeros((*batch, self.layers, self.context, self.size))
        return {"key": cache, "value": cache.copy(), "seen": jnp.zeros(batch, int)}

    def __call__(self, memory: Cache, x: jax.Array) -> tuple[Cache, jax.Array]:
        """Reads one input `[*batch, n]`, and returns the next memory and features `[*batch, size]`."""
        u, keys, values = self.input(x), [], []
        for i, layer in enumerate(self.layer):
            cached = memory["key"][..., i, :, :], memory["value"][..., i, :, :]
            u, (key, value) = layer(u, cached, memory["seen"])
            keys.append(key)
            values.append(value)
        cache = {"key": jnp.stack(keys, axis=-3), "value": jnp.stack(values, axis=-3), "seen": memory["seen"] + 1}
        return cache, self.norm(u)

    def unroll(self, xs: jax.Array) -> jax.Array:
        """Reads the inputs `[T, *batch, n]` from an empty memory on, and returns features `[T, *batch, size]`."""
        u = jnp.moveaxis(self.input(xs), 0, -2)  # [*batch, T, size]
        for layer in self.layer:
            u = layer.unroll(u)
        return jnp.moveaxis(self.norm(u), -2, 0)


class _Layer(nn.Module):
    """Layer of a transformer, see `CausalTransformer`."""

    size: int
    heads: int
    context: int

    def setup(self) -> None:
        self.attention_norm, self.mlp_norm = nn.LayerNorm(), nn.LayerNorm()
        self.project, self.merge = nn.Dense(3 * self.size), nn.Dense(self.size)
        self.wide, self.narrow = nn.Dense(2 * self.size), nn.Dense(self.size)

    def __call__(self, u: jax.Array, cached: tuple[jax.Array, jax.Array], seen: jax.Array) -> Any:
        """Takes one step for `u: [*batch, size]`, and returns the features with the next keys and values."""
        query, *new = jnp.split(self.project(self.attention_norm(u)), 3, axis=-1)
        slot = seen % self.context
        place = jnp.broadcast_to(slot[..., None, None], (*slot.shape, 1, self.size))
        key, value = (
            jnp.put_along_axis(old, place, one[..., None, :].astype(old.dtype), axis=-2, inplace=False)
            for old, one in zip(cached, new, strict=True)
        )
        slots = jnp.broadcast_to(jnp.arange(self.context), key.shape[:-1])
        age = (slot[..., None] - slots) % self.context  # [*batch, context]
        mixed = self._attend(query[..., None, :], key, value, age[..., None, :], (age <= seen[..., None])[..., None, :])
        return self._finish(u, mixed[..., 0, :]), (key, value)

    def unroll(self, u: jax.Array) -> jax.Array:
        """Takes all steps for `u: [*batch, T, size]`."""
        time = jnp.arange(u.shape[-2])
        age = jnp.broadcast_to(time[:, None] - time[None], (*u.shape[:-1], len(time)))
        query, key, value = jnp.split(self.project(self.attention_norm(u)), 3, axis=-1)
        return self._finish(u, self._attend(query, key, value, age, (age >= 0) & (age < self.context)))

    def _attend(self, query: jax.Array, key: jax.Array, value: jax.Array, age: jax.Array, seen: jax.Array) -> jax.Array:
        """Attends from the queries `[*batch, q, size]` to those of the `[*batch, k, size]` keys that are `seen`."""
        query, key, value = (x.reshape(*x.shape[:-1], self.heads, -1) for x in (query, key, value))
        slopes = 2.0 ** (-8 * (jnp.arange(self.heads) + 1) / self.heads)
        logits = jnp.einsum("...qhd,...khd->...hqk", query, key) / math.sqrt(query.shape[-1])
        logits -= jnp.einsum("h,...qk->...hqk", slopes, age).astype(logits.dtype)
        weights = jax.nn.softmax(logits, axis=-1, where=seen[..., None, :, :])
        mixed = jnp.einsum("...hqk,...khd->...qhd", weights, value)
        return mixed.reshape(*mixed.shape[:-2], self.size)

    def _finish(self, u: jax.Array, mixed: jax.Array) -> jax.Array:
        u = u + self.merge(mixed)
        return u + self.narrow(nn.gelu(self.wide(self.mlp_norm(u))))
