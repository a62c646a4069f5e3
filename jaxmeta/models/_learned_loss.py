"""A network that is a loss function, and a model that has one beside it."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class LossMLP(nn.Module):
    """A loss function that is learned: an MLP of the outputs and the targets of each example.

    Its outputs are positive, because they go through a softplus. Its last layer has no bias, since a constant has no
    gradient.

    Attributes:
        sizes: widths of the hidden layers (default: 40 and 40, as in the paper).

    Raises:
        ValueError: if targets are neither class indices `[n]` nor of the outputs' shape.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> network = LossMLP()
        >>> logits, labels = jnp.zeros((3, 5)), jnp.array([0, 4, 2])
        >>> params = network.init(jax.random.key(0), logits, labels)
        >>> network.apply(params, logits, labels).shape
        (3,)

    References:
        Bechtle et al., "Meta-Learning via Learned Loss", 2020. https://arxiv.org/abs/1906.05374
    """

    sizes: tuple[int, ...] = (40, 40)

    @nn.compact
    def __call__(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Returns the loss of each example, `[n]`, of outputs `[n, d]` and class indices `[n]` or targets `[n, d]`."""
        if jnp.issubdtype(targets.dtype, jnp.integer) and targets.shape == outputs.shape[:1]:
            targets = jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
        if outputs.ndim != 2 or targets.shape != outputs.shape:
            raise ValueError(
                f"targets must be class indices [n] or have the outputs' shape [n, d], got {targets.shape} for "
                f"outputs {outputs.shape}"
            )
        x = jnp.concatenate([outputs, targets.astype(outputs.dtype)], axis=1)
        for size in self.sizes:
            x = nn.relu(nn.Dense(size)(x))
        return nn.softplus(nn.Dense(1, use_bias=False)(x))[:, 0]


class WithLoss(nn.Module):
    """A model and a loss that is learned beside it, such as `LossMLP`, for `jaxmeta.ml3`.

    Parameters are `{"model": ..., "loss": ...}`.

    Attributes:
        model: the model, of one input.
        loss: the network of the loss, of outputs and targets.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxmeta import models
        >>> model = WithLoss(models.MLP(), LossMLP())
        >>> params = model.init(jax.random.key(0), jnp.zeros((3, 1)))
        >>> model.apply(params, jnp.zeros((3, 1))).shape
        (3, 1)
        >>> model.apply(params, jnp.zeros((3, 1)), jnp.zeros((3, 1)), method="losses").shape
        (3,)
    """

    model: nn.Module
    loss: nn.Module

    def __call__(self, x: Any) -> jax.Array:
        """Returns the outputs of the model."""
        outputs = self.model(x)
        if self.is_initializing():
            self.loss(outputs, jnp.zeros_like(outputs))
        return outputs

    def losses(self, x: Any, targets: jax.Array) -> jax.Array:
        """Returns the learned loss of each example, `[n]`."""
        return self.loss(self.model(x), targets)
