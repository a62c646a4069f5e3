"""Densities of constant bars with half-normal tails (Müller et al. 2022, https://arxiv.org/abs/2112.10510)."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import ndtr, ndtri

from jaxmeta._checks import check_integer
from jaxmeta._types import at_least_float32
from jaxmeta.display import brief, short_repr

_MEDIAN = 0.6744897501960817  # of the half-normal distribution with sigma = 1
_TAIL_MEAN = math.sqrt(2 / math.pi)  # its mean


class BarDistribution(NamedTuple):
    """Distributions of single numbers whose densities are bars, with a probability of its own for each.

    For edges `e_0 < e_1 < ... < e_B` and probabilities `p = softmax(logits)`, the density is `p_i / (e_i+1 - e_i)`
    between `e_i` and `e_i+1`. The first and the last bar are half-normal tails instead, which begin at `e_1` and
    `e_B-1`, go on forever, and have half of their probability within the width of the bar. A softmax thus describes
    any shape, with one or many peaks, and no target is impossible.

    Arrays of distributions are possible: with logits `[..., B]` the methods take and return arrays `[...]`.

    Example:
        >>> bars = BarDistribution(jnp.array([0.0, 0.0, 0.0, 0.0]), jnp.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
        >>> round(float(jnp.exp(bars.log_prob(0.5))), 6), float(bars.mean), float(bars.quantile(0.625))
        (0.25, 0.0, 0.5)

    References:
        Müller, Hollmann, Pineda Arango, Grabocka & Hutter, *Transformers Can Do Bayesian Inference*, ICLR 2022,
        https://arxiv.org/abs/2112.10510
    """

    logits: jax.Array
    """Logarithms of the probabilities of the bars, up to a constant: `[..., B]`."""
    edges: jax.Array
    """Edges of the bars in ascending order, which `bar_edges` makes.

    They are `[B + 1]`, or `[..., B + 1]` if distributions have edges of their own."""

    __repr__ = short_repr

    def log_prob(self, y: Any) -> jax.Array:
        """Returns the logarithm of the density at `y`: `[...]`."""
        edges, sigma = self._edges, self._sigma
        y = self._values(y)
        bar = self._bar_of(y)
        # log p_i - log(e_i+1 - e_i) in a bar, and log p_i + log(2 N(d | 0, sigma^2)) at a distance d from a tail's edge
        flat = -jnp.log(jnp.diff(edges))
        distance = jnp.where(bar == 0, edges[..., 1] - y, y - edges[..., -2])
        spread = jnp.where(bar == 0, *sigma)
        tail = math.log(2) + jax.scipy.stats.norm.logpdf(distance, scale=spread)
        inside = (bar > 0) & (bar < self.logits.shape[-1] - 1)
        return _at(self._log_p, bar) + jnp.where(inside, _at(flat, bar), tail)

    def cdf(self, y: Any) -> jax.Array:
        """Returns the probability of a number of at most `y`: `[...]`."""
        edges, (left, right) = self._edges, self._sigma
        y = self._values(y)
        shares = jnp.clip((y[..., None] - edges[..., :-1]) / jnp.diff(edges), 0, 1)
        below = jnp.minimum(2 * ndtr((y - edges[..., 1]) / left), 1)
        above = jnp.maximum(1 - 2 * ndtr((edges[..., -2] - y) / right), 0)
        shares = jnp.concatenate([below[..., None], shares[..., 1:-1], above[..., None]], -1)
        return jnp.sum(jnp.exp(self._log_p) * shares, -1)

    def quantile(self, q: Any) -> jax.Array:
        """Returns the numbers below which a share `q` of the probability is: `[...]`.

        Args:
            q: shares from 0 to 1: a number, or `[...]`. Of 0 and 1 the quantiles are infinite.
        """
        edges, (left, right) = self._edges, self._sigma
        p, q = jnp.exp(self._log_p), self._values(q)
        after = jnp.cumsum(p, -1)
        last = p.shape[-1] - 1
        bar = jnp.sum(q[..., None] >= after[..., :-1], -1)
        mass = _at(p, bar)
        mass = jnp.where(mass > 0, mass, 1)
        share = jnp.clip((q - _at(after, bar) + mass) / mass, 0, 1)
        beyond = jnp.clip((1 - q) / mass, 0, 1)
        flat = _at(edges, bar) + share * _at(jnp.diff(edges), bar)
        low, high = edges[..., 1] + left * ndtri(share / 2), edges[..., -2] - right * ndtri(beyond / 2)
        return jnp.where(bar == 0, low, jnp.where(bar == last, high, flat))

    @property
    def mean(self) -> jax.Array:
        """Means: `[...]`."""
        return jnp.sum(jnp.exp(self._log_p) * self._centers, -1)

    @property
    def std(self) -> jax.Array:
        """Standard deviations: `[...]`."""
        centers, (left, right) = self._centers, self._sigma
        flat = jnp.square(jnp.diff(self._edges)) / 12
        tails = (jnp.square(sigma)[..., None] * (1 - 2 / math.pi) for sigma in (left, right))
        low, high = tails
        within = jnp.concatenate([low, flat[..., 1:-1], high], -1)
        return jnp.sqrt(jnp.sum(jnp.exp(self._log_p) * (within + jnp.square(centers - self.mean[..., None])), -1))

    @property
    def _log_p(self) -> jax.Array:
        """Logarithms of the probabilities of the bars."""
        return jax.nn.log_softmax(at_least_float32(self.logits))

    @property
    def _edges(self) -> jax.Array:
        """The edges with as many axes as the logits."""
        edges = at_least_float32(jnp.asarray(self.edges))
        if edges.shape[-1] != self.logits.shape[-1] + 1 or edges.shape[-1] < 3:
            raise ValueError(
                f"edges must be one more than the logits' bars, of which there are 2 or more, got shapes "
                f"{edges.shape} and {self.logits.shape}"
            )
        return jnp.reshape(edges, (1,) * (self.logits.ndim - edges.ndim) + edges.shape)

    @property
    def _sigma(self) -> tuple[jax.Array, jax.Array]:
        """Scales of the two half-normal tails."""
        widths = jnp.diff(self._edges)
        return widths[..., 0] / _MEDIAN, widths[..., -1] / _MEDIAN

    @property
    def _centers(self) -> jax.Array:
        """Mean of each bar."""
        edges, (left, right) = self._edges, self._sigma
        low, high = edges[..., 1] - _TAIL_MEAN * left, edges[..., -2] + _TAIL_MEAN * right
        middle = (edges[..., 1:] + edges[..., :-1])[..., 1:-1] / 2
        return jnp.concatenate([low[..., None], middle, high[..., None]], -1)

    def _values(self, y: Any) -> jax.Array:
        """Returns numbers with one entry for each distribution."""
        dtype = jnp.result_type(self._edges, self._log_p)
        return jnp.broadcast_to(jnp.asarray(y, dtype), self.logits.shape[:-1])

    def _bar_of(self, y: jax.Array) -> jax.Array:
        """Returns the number of the bar of each value, int32."""
        return jnp.sum(y[..., None] >= self._edges[..., 1:-1], -1, dtype=jnp.int32)


def bar_edges(targets: Any, bars: int) -> jax.Array:
    """Returns the edges of bars that are equally probable under a prior, for `BarDistribution`.

    Args:
        targets: many draws from the prior, any shape. A few hundred for each bar make the bars even.
        bars: number of bars, at least 2.

    Returns:
        The edges: `[bars + 1]`. The inner ones are quantiles `1 / bars, 2 / bars, ...` of the draws. The first and the
        last are the medians of what is beyond, so that the tails have the right scale.

    Raises:
        ValueError: if `bars` is out of range, or so many draws are equal that two edges coincide.

    Example:
        >>> bar_edges(jnp.linspace(-1.0, 1.0, 9), bars=4).tolist()
        [-0.75, -0.5, 0.0, 0.5, 0.75]
    """
    check_integer(least=2, bars=bars)
    targets = jnp.ravel(at_least_float32(jnp.asarray(targets)))
    shares = jnp.asarray([0.5, *range(1, bars), bars - 0.5], targets.dtype) / bars
    edges = jnp.quantile(targets, shares)
    if not isinstance(edges, Tracer) and not np.all(np.diff(edges) > 0):
        raise ValueError(f"targets must have at least as many different values as bars={bars}, got {brief(targets)}")
    return edges


def _at(values: jax.Array, index: jax.Array) -> jax.Array:
    """Returns the entry of the last axis of `values: [..., n]` for each `index: [...]`."""
    values = jnp.broadcast_to(values, (*index.shape, values.shape[-1]))
    return jnp.take_along_axis(values, index[..., None], -1, mode="clip")[..., 0]  # other modes fill with NaN
