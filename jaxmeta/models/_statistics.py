"""Statistics for batch norm, which are measured after training."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def with_batch_stats(model: nn.Module, params: Any, batches: jax.Array) -> dict[str, Any]:
    """Adds batch statistics to the parameters of a trained model, so that it is no longer transductive.

    With these statistics batch norm looks at one example at a time. They are the means of the statistics of many
    minibatches, each of which is normalized by its own as in training. Training needs no running average, and the
    result does not lag behind the parameters.

    Args:
        model: model with batch norm.
        params: variables of the model, `{"params": ...}`. Statistics among them are replaced.
        batches: inputs `[k, n, ...]`, which are `k` minibatches of `n` examples. Take `n` as in training, and `k` of 20
            or more.

    Returns:
        Variables for `model.apply`, `{"params": ..., "batch_stats": ...}`. The second entry is missing if the model has
        no batch norm.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxmeta.models import OmniglotFC
        >>> model = OmniglotFC(sizes=(8,))
        >>> x = jax.random.uniform(jax.random.key(0), (3, 16, 4, 4, 1))
        >>> variables = with_batch_stats(model, model.init(jax.random.key(1), x[0]), x)
        >>> y = model.apply(variables, x[0])
        >>> bool(jnp.allclose(model.apply(variables, x[0, :1]), y[:1], atol=1e-5))
        True

    References:
        Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021. https://arxiv.org/abs/2105.07576
    """
    params = {"params": params["params"]}

    def statistics(x: jax.Array) -> Any:
        return model.apply(params, x, mutable=["batch_stats"])[1]

    means = jax.tree.map(lambda values: jnp.mean(values, 0), jax.lax.map(statistics, batches))
    return {**params, **means}
