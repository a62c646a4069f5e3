"""Features of a frozen network, computed once."""

import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np

from jaxmeta._checks import check_integer
from jaxmeta._types import PyTree, at_least_float32, is_key
from jaxmeta.data import Examples
from jaxmeta.data.containers import to_float
from jaxmeta.data.sources import cached
from jaxmeta.display import progress_bar
from jaxmeta.losses import forward


def embed(
    model: Any,
    variables: PyTree,
    examples: Examples,
    *,
    batch_size: int = 64,
    cache: bool = True,
    progress: bool = True,
) -> Examples:
    """Computes the features of examples by a frozen network, once.

    The result is what samplers, heads and `jaxmeta train --features` take: examples whose inputs are vectors. The
    features are kept in the folder that the environment variable `JAXMETA_CACHE` names, else in the user's cache
    folder, under a fingerprint of the examples, the variables and the compiled program. The same call finds them there,
    and another network, image size or normalization computes its own.

    Args:
        model: a Linen or NNX module, of which the method `features` is called, or the module itself if it has none. Or
            a JAX function `(variables, x) -> features [n, d]`. A network of another library returns NumPy arrays, which
            `data.Examples.of(features, names)` takes without this function.
        variables: what the model needs, such as the result of `models.from_torch`.
        examples: examples with inputs `[M, ...]`. Images in uint8 are scaled to [0, 1].
        batch_size: number of examples per call of the compiled program.
        cache: keep the features, and find those that were kept.
        progress: whether to show a progress bar.

    Returns:
        The examples with features `[M, d]` (float32) as inputs, and with the same labels, names and parts.

    Raises:
        ValueError: if the model does not return `[n, d]`, or the features of an example depend on the others in its
            batch.

    Example:
        >>> import jax.numpy as jnp, jaxmeta, numpy as np
        >>> from jaxmeta import data
        >>> images = data.Examples.of(np.zeros((4, 8, 8, 3), np.uint8), ["cat", "cat", "dog", "dog"])
        >>> found = jaxmeta.embed(lambda w, x: x.mean((1, 2)) @ w, jnp.ones((3, 5)), images, cache=False)
        >>> found.inputs.shape, found.names
        ((4, 5), ('cat', 'dog'))
    """
    check_integer(batch_size=batch_size)
    inputs = np.asarray(examples.inputs)
    size = min(batch_size, len(inputs))
    test = forward(model, method="features").test

    def features(variables: PyTree, x: jax.Array) -> jax.Array:
        return at_least_float32(test(variables, to_float(x)))

    lowered = jax.jit(features).lower(variables, jax.ShapeDtypeStruct((size, *inputs.shape[1:]), inputs.dtype))
    shape = lowered.out_info.shape
    if len(shape) != 2 or shape[0] != size:
        raise ValueError(f"model must return features [n, d], got shape {shape} for {size} examples")

    def compute() -> dict[str, np.ndarray]:
        run = lowered.compile()
        found = np.zeros((len(inputs), shape[1]), np.float32)
        with progress_bar("Computing features", len(inputs), "example", shown=progress) as bar:
            for start in range(0, len(inputs), size):
                batch = inputs[start : start + size]
                full = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), 0)])
                found[start : start + size] = np.asarray(run(variables, full))[: len(batch)]
                bar.update(len(batch))
        _check_alone(np.asarray(run(variables, np.repeat(inputs[:1], size, 0)))[0], found[0])
        return {"features": found}

    program = lowered.as_text()
    if not cache or "callback" in program:  # what the host computes is not in the program
        return dataclasses.replace(examples, inputs=compute()["features"])
    stored = cached(f"features-{_fingerprint(program, variables, inputs)}", ["features"], compute)
    return dataclasses.replace(examples, inputs=stored["features"])


def _check_alone(alone: np.ndarray, among_others: np.ndarray) -> None:
    """Raises ValueError if the features of an example depend on the others in its batch."""
    if not np.allclose(alone, among_others, rtol=1e-2, atol=1e-3 * np.abs(among_others).max(), equal_nan=True):
        raise ValueError(
            "the features of an example depend on the others in its batch, because the model normalizes by the batch. "
            "Give it statistics, see models.with_batch_stats, or another norm"
        )


def _fingerprint(program: str, variables: PyTree, inputs: np.ndarray) -> str:
    digest = hashlib.sha256(f"{jax.default_backend()}{program}".encode())
    leaves = [jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in jax.tree.leaves(variables)]
    for array in (*map(np.asarray, leaves), inputs):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:24]
