"""A fitted classifier as one file: its program and its arrays, to be called where its code is not."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from jaxmeta._files import checksum
from jaxmeta._save import load, save

_PLATFORMS = ("cpu", "cuda", "tpu")


def save_classifier(path: str | os.PathLike[str], classifier: Callable[[Any], Any], example: Any) -> None:
    """Saves a classifier, or any other predictor, as a compiled program and the arrays that it works on.

    The program is StableHLO, which JAX keeps readable for years (`jax.export`), for CPUs, CUDA GPUs and TPUs alike. It
    takes any number of inputs. The file is data: reading it runs no code, and needs neither the model's nor the
    learner's.

    Args:
        path: of the file; its folder must exist.
        classifier: what `MetaLearner.adapt` of a learner such as `protonet` returned; for parameters that `maml` and
            its relatives adapted, `jax.tree_util.Partial(model.apply, adapted)`.
        example: inputs such as it will be called with: an array `[n, ...]` or a pytree of these, for any `n`.

    Raises:
        TypeError: if `classifier` is no pytree of arrays that can be called.
        ModuleNotFoundError: without the package `flatbuffers`, with which `jax.export` writes its programs.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "classifier.msgpack")
        >>> save_classifier(path, jax.tree_util.Partial(lambda w, x: x @ w, jnp.eye(2)), jnp.zeros((1, 2)))
        >>> load_classifier(path)(jnp.ones((3, 2))).shape
        (3, 2)
    """
    leaves, structure = jax.tree.flatten(classifier)
    if not callable(classifier) or not all(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves):
        raise TypeError(f"classifier must be a pytree of arrays that can be called, got {classifier!r}")

    def call(leaves: list[jax.Array], x: Any) -> Any:
        return structure.unflatten(leaves)(x)

    count = export.symbolic_shape("n")[0]
    inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *jnp.shape(x)[1:]), jnp.result_type(x)), example)
    exported = export.export(jax.jit(call), platforms=_PLATFORMS)(leaves, inputs)
    program = np.frombuffer(exported.serialize(), np.uint8)
    save(path, {"program": program, "arrays": leaves, "checksum": checksum([program, *leaves])})


def load_classifier(path: str | os.PathLike[str]) -> Callable[[Any], Any]:
    """Loads what `save_classifier` saved.

    Args:
        path: of the file.

    Returns:
        A compiled function of inputs `[n, ...]`, for any `n`; a new `n` compiles once.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or was not made by `save_classifier`.
        ModuleNotFoundError: see `save_classifier`.
    """
    path = Path(path)
    stored = load(path)
    if not isinstance(stored, dict) or stored.keys() != {"program", "arrays", "checksum"}:
        raise ValueError(f"{path} was not made by jaxmeta.save_classifier")
    try:
        program, arrays = stored["program"], [stored["arrays"][str(i)] for i in range(len(stored["arrays"]))]
        if checksum([program, *arrays]) != stored["checksum"]:
            raise ValueError("its checksum is another")
        exported = export.deserialize(bytearray(program.tobytes()))
    except ModuleNotFoundError:
        raise
    except Exception as error:  # whatever comes of content that is not its own
        raise ValueError(f"{path} is damaged, or of a version of JAX that this one cannot read ({error})") from error
    leaves = [jnp.asarray(array) for array in arrays]
    run = jax.jit(exported.call)
    return lambda x: run(leaves, x)
