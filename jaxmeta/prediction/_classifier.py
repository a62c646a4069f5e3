"""A classifier that knows the names of its classes and how its inputs are made, in memory and as one file.

The file holds its program and its arrays, to be called where its code is not.
"""

import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.tree_util import Partial

from jaxmeta._save import read_tree, write_tree
from jaxmeta._types import is_key
from jaxmeta.bounded import load_json
from jaxmeta.data.containers import to_float
from jaxmeta.display import short_repr
from jaxmeta.prediction._inputs import Inputs
from jaxmeta.prediction._program import check_program

_AT_ONCE = 64  # inputs per call
_PLATFORMS = ("cpu", "cuda", "tpu")
_DEPENDS = (
    "the predictions of this classifier depend on the other inputs of a batch, because its network normalizes by the "
    "batch, so one input alone may be classified by chance. Adapt with statistics (models.with_batch_stats) or with "
    "another norm, or let a run adapt (load_run), which puts each input beside the support set"
)


@jax.jit
def _run(classifier: Callable[[Any], Any], x: Any) -> Any:
    return classifier(x)


class Prediction(NamedTuple):
    """The class that a classifier gives to one input."""

    name: str
    """Name of the most probable class."""
    probability: float
    """Its probability, in [0, 1]."""
    probabilities: dict[str, float]
    """Probability of every class, the largest first."""

    __repr__ = short_repr


class Classifier:
    """A classifier of pictures, sentences or arrays, adapted to some classes.

    `Run.adapt` and `load_classifier` make one. Each prediction depends on its own input alone.

    Attributes:
        names: names of the classes, in the order of the logits. Empty if they are not known.
        inputs: how inputs are made, see `Inputs`.
        alone: whether the logits of an input do not depend on the others of its batch. If they do, `probabilities` and
            `predict` refuse.
    """

    def __init__(self, apply: Partial, names: Sequence[str], inputs: Inputs | None, alone: bool = True):
        """See the class. `apply` is a pytree that maps arrays `[n, ...]` to logits `[n, classes]`."""
        self.apply, self.names, self.inputs, self.alone = apply, tuple(names), inputs, alone

    def __call__(self, x: Any) -> jax.Array:
        """Returns the logits `[n, classes]` of inputs as the model takes them: `[n, ...]`, any `n`.

        Raises:
            ValueError: if the inputs have another shape.
        """
        if self.inputs is not None:
            shape, dtype = self.inputs.shape, jnp.result_type(x)
            if np.shape(x)[1:] != shape or not np.can_cast(dtype, self.inputs.dtype, "same_kind"):
                wanted = f"{self.inputs.dtype}[n, {', '.join(map(str, shape))}]"
                told = f"inputs must be {wanted}, got {dtype}{list(np.shape(x))}"
                raise ValueError(f"{told}. `probabilities` and `predict` take one input or many, and scale pictures")
            x = jnp.asarray(to_float(x) if self.inputs.kind == "images" else x, self.inputs.dtype)
        return _run(self.apply, x)

    def probabilities(self, items: Any) -> np.ndarray:
        """Returns the probability of each class, `[n, classes]`.

        Args:
            items: files, pictures, sentences or arrays, see `Inputs`.

        Raises:
            ValueError: if an item cannot be read, or the predictions depend on the batch.
            TypeError: if an item is something else.
        """
        if self.inputs is None:
            raise ValueError("the classifier does not know its inputs. Call it with the arrays that the model takes")
        if not self.alone:
            raise ValueError(f"{_DEPENDS}. Calling it with a whole batch gives logits")
        items = self.inputs.items(items)
        chunks = [self._chunk(self.inputs(items[i : i + _AT_ONCE])) for i in range(0, len(items), _AT_ONCE)]
        return np.concatenate(chunks) if chunks else np.zeros((0, len(self.names)), np.float32)

    def predict(self, items: Any) -> list[Prediction]:
        """Returns the most probable class of each item, by name.

        Args:
            items: see `probabilities`.

        Raises:
            ValueError: see `probabilities`. Also if the classifier does not know the names of its classes.
            TypeError: if an item is something else.
        """
        if not self.names:
            raise ValueError("the classifier does not know the names of its classes. `probabilities` gives numbers")
        found = []
        for row in self.probabilities(items):
            best = {self.names[i]: float(row[i]) for i in np.argsort(-row, kind="stable")}
            name = next(iter(best))
            found.append(Prediction(name, best[name], best))
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves the classifier as one file for `load_classifier`, see `save_classifier`."""
        if self.inputs is None:
            raise ValueError("the classifier does not know its inputs. Use save_classifier(path, classifier, example)")
        example = np.zeros((1, *self.inputs.shape), self.inputs.dtype)
        _save(path, self.apply, example, self.names, self.inputs, self.alone)

    def __repr__(self) -> str:
        """Tells the classes and the inputs."""
        return f"Classifier(names={list(self.names)}, inputs={self.inputs})"

    def _chunk(self, x: np.ndarray) -> np.ndarray:
        """Returns probabilities of some inputs, padded to a power of two so that few sizes are compiled."""
        size = 1 << max(len(x) - 1, 0).bit_length()
        padded = np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)])
        return np.asarray(jax.nn.softmax(_run(self.apply, padded)))[: len(x)]


def save_classifier(
    path: str | os.PathLike[str], classifier: Callable[[Any], Any], example: Any, *, names: Sequence[str] = ()
) -> None:
    """Saves a classifier, or any other predictor, as a compiled program and the arrays that it works on.

    The program is StableHLO, which JAX keeps readable for years (`jax.export`), for CPUs, CUDA GPUs and TPUs alike. It
    takes any number of inputs. Reading the file runs no code, and needs neither the model's nor the learner's. The
    program can only compute: calls of Python and of other native code, and loops that may not end, are refused by
    `save_classifier` and by `load_classifier`.

    Args:
        path: path of the file. Its folder must exist.
        classifier: what `MetaLearner.adapt` of a learner such as `protonet` returned. For parameters that `maml` and
            its relatives adapted it is `jax.tree_util.Partial(learner.predict, adapted)`. A `Classifier` saves itself.
        example: inputs such as it will be called with: an array `[n, ...]` or a pytree of these, for any `n`. Floats
            `[n, size, size, 1 or 3]` are images in [0, 1], so that the loaded classifier takes files and pictures.
        names: names of the classes, in the order of the logits.

    Warns:
        UserWarning: if the logits of an input depend on the other inputs of a batch, as with `norm="batch"` without
            statistics. `Classifier.predict` then refuses, and a call with a whole batch works.

    Raises:
        TypeError: if `classifier` is no pytree of arrays that can be called.
        ValueError: if its program has an operation that is not allowed in a file, which the message names.
        ModuleNotFoundError: without the package `flatbuffers`, with which `jax.export` writes its programs.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "classifier.msgpack")
        >>> save_classifier(path, jax.tree_util.Partial(lambda w, x: x @ w, jnp.eye(2)), jnp.zeros((1, 2)))
        >>> load_classifier(path)(jnp.ones((3, 2))).shape
        (3, 2)
    """
    inputs = None
    if hasattr(example, "shape"):
        shape, dtype = tuple(np.shape(example)[1:]), jnp.result_type(example)
        square = len(shape) == 3 and shape[0] == shape[1] and shape[2] in (1, 3)
        images = square and jnp.issubdtype(dtype, jnp.floating)
        inputs = Inputs("images" if images else "arrays", shape, dtype=dtype.name)
    _save(path, classifier, example, tuple(names), inputs)


def _save(
    path: Any,
    classifier: Any,
    example: Any,
    names: tuple[str, ...],
    inputs: Inputs | None,
    alone: bool | None = None,
) -> None:
    """Saves a classifier. `None` finds out whether it looks at one input alone."""
    leaves, structure = jax.tree.flatten(classifier)
    if not callable(classifier) or not all(isinstance(leaf, jax.Array | np.ndarray | float | int) for leaf in leaves):
        kinds = sorted({type(leaf).__name__ for leaf in leaves})
        raise TypeError(
            f"classifier must be a pytree of arrays that can be called, got {type(classifier).__name__} of {kinds}"
        )
    kinds = [jax.random.key_impl(leaf) if is_key(leaf) else None for leaf in leaves]  # files hold the data of keys
    leaves = [jax.random.key_data(leaf) if is_key(leaf) else jnp.asarray(leaf) for leaf in leaves]

    def call(leaves: list[jax.Array], x: Any) -> Any:
        pairs = zip(leaves, kinds, strict=True)
        leaves = [leaf if kind is None else jax.random.wrap_key_data(leaf, impl=kind) for leaf, kind in pairs]
        return structure.unflatten(leaves)(x)

    count = export.symbolic_shape("n")[0]
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *jnp.shape(x)[1:]), jnp.result_type(x)), example)
    exported = export.export(jax.jit(call), platforms=_PLATFORMS)(leaves, shapes)
    try:
        check_program(exported)
    except ValueError as error:
        raise ValueError(f"classifier cannot be saved, because {error}") from error
    program = np.frombuffer(exported.serialize(), np.uint8)
    if alone is None:
        alone = inputs is None or _looks_at_one(jax.jit(call), leaves, inputs)
        if not alone:
            warnings.warn(_DEPENDS, stacklevel=3)
    facts = {"names": names, "inputs": None if inputs is None else dataclasses.asdict(inputs), "alone": alone}
    about = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    write_tree(Path(path), {"program": program, "about": about, "arrays": leaves}, "classifier")


def _looks_at_one(call: Callable[..., Any], leaves: list[jax.Array], inputs: Inputs) -> bool:
    """Tells whether the logits of an input are the same beside another one."""
    drawn = np.random.default_rng(0).uniform(0, 2, (2, *inputs.shape)).astype(inputs.dtype)  # 0 and 1, if integers
    alone, together = np.asarray(call(leaves, drawn[:1])), np.asarray(call(leaves, drawn))
    return np.allclose(alone[0], together[0], rtol=1e-2, atol=1e-3, equal_nan=True)


def load_classifier(path: str | os.PathLike[str]) -> Classifier:
    """Loads what `save_classifier` or `Classifier.save` saved.

    Args:
        path: path of the file.

    Returns:
        A `Classifier`, a compiled function of inputs `[n, ...]` for any `n`. A new `n` compiles once. One that
        `Classifier.save` saved knows its classes and takes files, pictures or sentences.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a byte of the file has changed, it was not made by `save_classifier` of this version, or its
            program has an operation that is not allowed in a file.
        ModuleNotFoundError: see `save_classifier`.
    """
    path = Path(path)
    stored = read_tree(path, "classifier", "jaxmeta.save_classifier")
    try:
        program, about = stored["program"], stored["about"]
        arrays = [stored["arrays"][str(i)] for i in range(len(stored["arrays"]))]
        exported = export.deserialize(bytearray(program.tobytes()))
        facts = load_json(about.tobytes())
        names, alone, known = facts["names"], facts["alone"], facts["inputs"]
        inputs = None if known is None else Inputs(**known | {"shape": tuple(known["shape"])})
    except ModuleNotFoundError:
        raise
    except Exception as error:  # whatever comes of content that is not its own
        raise ValueError(f"{path} is damaged, or of a version of JAX that this one cannot read ({error})") from error
    try:
        check_program(exported)
    except ValueError as error:
        raise ValueError(f"{path} is refused, because {error}") from error

    def call(leaves: list[jax.Array], x: Any) -> Any:
        return exported.call(leaves, x)

    arrays = [jnp.asarray(array) for array in arrays]
    return Classifier(Partial(call, arrays), names, inputs, alone)
