"""Task transforms that read and change the examples of a task."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._checks import check_function, check_takes
from jaxmeta._types import Batch, Task
from jaxmeta.data.containers import stack, to_array, to_float, warn_of_inputs
from jaxmeta.data.samplers import check_inputs
from jaxmeta.data.tasks._description import TaskDescription, TaskTransform
from jaxmeta.data.tasks._meta_dataset import MetaDataset
from jaxmeta.data.tasks._threefry import fold_in, wrap_key
from jaxmeta.display import short_repr

_AUGMENT = 1 << 30
_HOST = 1 << 31
_CHUNK = 1 << 24  # largest count of numbers on the device at once
_PROCESS = os.getpid()
_WRAPPED = "A transform of the image alone is AugmentOnHost(lambda rng, x: transform(x))"


@dataclasses.dataclass(frozen=True)
class LoadData(TaskTransform):
    """Loads the examples of a task. Without it a task contains their indices in the data set."""

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Marks the task as loaded."""
        return description._replace(loaded=True)


@dataclasses.dataclass(frozen=True)
class Map:
    """Applies a function `(x) -> x` to each example of the data set.

    It may be any deterministic function, of JAX or not. A task on the host applies it to its own examples.
    `Taskset.to_device` applies it once to all examples of the data set: under `jax.vmap` if it is a JAX function, else
    one by one on the host.
    """

    fn: Callable[[Any], Any]
    """Function of one example's input."""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_takes(1, ", the input of an example", fn=self.fn)

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Adds the function to the task."""
        return description._replace(maps=(*description.maps, self.fn))


@dataclasses.dataclass(frozen=True)
class Augment:
    """Augments the inputs of a task with a random JAX function `(key, x) -> x`, where `x: [n, ...]`.

    Images in uint8 are converted to floats in [0, 1] first. Support and query get different keys, which depend on the
    task's key and on the position among the task's augmentations. On the host, JAX runs the function on its default
    device, so worker processes must be spawned and not forked.

    Example:
        >>> from functools import partial
        >>> from jaxmeta.data import random_crop
        >>> augment = Augment(partial(random_crop, padding=4), query=False)
    """

    fn: Callable[[jax.Array, Any], Any]
    """Function of a random key and of the inputs of the support or the query set."""
    support: bool = True
    """True if it applies to the support set, or to a task without queries."""
    query: bool = True
    """True if it applies to the query set."""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_takes(2, " (key, x), with AugmentOnHost (rng, x)", fn=self.fn)

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Adds the augmentation to the task."""
        return description._replace(augments=(*description.augments, self))


@dataclasses.dataclass(frozen=True)
class AugmentOnHost:
    """Augments each example of a task at random on the host, with a function `(rng, x) -> x`.

    The function may use Pillow, NumPy or torch, such as a transform of torchvision. It gets an example as it is after
    every `Map`, and a `numpy.random.Generator` that depends on the task only, so that a task is the same in every
    process. Draw all randomness from it, or seed that of the transform with it, as in
    `torch.manual_seed(int(rng.integers(2**31)))`. It comes before every `Augment`, and `to_device` cannot run it.

    Example:
        >>> import numpy as np
        >>> def shift(rng, x):
        ...     return np.roll(x, rng.integers(-2, 3), axis=1)
        >>> augment = AugmentOnHost(shift, query=False)
    """

    fn: Callable[[np.random.Generator, Any], Any]
    """Function of a random generator and of one example's input."""
    support: bool = True
    """True if it applies to the support set, or to a task without queries."""
    query: bool = True
    """True if it applies to the query set."""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_function(fn=self.fn)
        try:
            check_takes(2, " (rng, x)", fn=self.fn)
        except TypeError as error:
            raise TypeError(f"{error}. {_WRAPPED}") from None

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Adds the augmentation to the task."""
        return description._replace(host_augments=(*description.host_augments, self))


def augmentation_number(position: int, part: int) -> int:
    """Returns the number that is folded into a task's key for an augmentation of the support (0) or query (1) part."""
    return _AUGMENT + 2 * position + part


def load(
    description: TaskDescription,
    dataset: MetaDataset,
    collate: Callable[[list[Any]], Any] | None,
    scale: Callable[[Any], Any] = to_float,
) -> Any:
    """Reads the examples of a task.

    Args:
        description: description of the task.
        dataset: data set of the task.
        collate: function from a list of pairs `(x, y)` to a task or a part of a task. `None` stacks the arrays to a
            `Batch`.
        scale: function that converts stacked inputs.

    Returns:
        A `Task` of support and query if the description has queries, else the whole task as one part.
    """
    if description.query is None:
        return _load_part(description, dataset, collate, scale, 0)
    parts = description.take(~description.query), description.take(description.query)
    return Task(*(_load_part(part, dataset, collate, scale, i) for i, part in enumerate(parts)))


def apply_map(fn: Callable[[Any], Any], examples: Any) -> Any:
    """Applies a function to many examples at once if it is a JAX function, else one by one on the host.

    Args:
        fn: function of one example.
        examples: array `[n, ...]`, or a list.

    Returns:
        The results: an array, or a list.
    """
    if not hasattr(examples, "shape") and len({getattr(example, "shape", None) for example in examples} - {None}) == 1:
        examples = stack(examples)
    if not hasattr(examples, "shape") or not _is_traceable(fn, examples[0]):
        return [fn(example) for example in examples]
    size = max(1, _CHUNK // max(1, examples[0].size))
    run = jax.jit(jax.vmap(fn))
    return np.concatenate([np.asarray(run(examples[i : i + size])) for i in range(0, len(examples), size)])


def one_array(inputs: Any) -> Any:
    """Returns the inputs of all examples as one array for a device.

    Raises:
        ValueError: if an example has several parts, or they are not numbers of one shape.
    """
    stacked = inputs if hasattr(inputs, "shape") else stack(inputs)
    if not hasattr(stacked, "shape"):
        told = f"the device needs one array for each example, got {type(stacked).__name__} with several"
        raise ValueError(f"{told}: a Taskset is a sampler itself and takes them on the host, see also prefetch")
    return check_inputs(stacked)


def _load_part(
    description: TaskDescription,
    dataset: MetaDataset,
    collate: Callable[[list[Any]], Any] | None,
    scale: Callable[[Any], Any],
    part: int,
) -> Any:
    if len(description.example) == 0:
        raise ValueError("a transform left no examples" + (f" for {('support', 'query')[part]}" * (part > 0)))
    x: Any = description.example.copy()
    if description.loaded:
        x = dataset.take(x)
        for fn in description.maps:
            x = [fn(example) for example in x]
        x = _turn(x, description.turns, description.axes)
    for position, augment in enumerate(description.host_augments):
        if augment.query if part else augment.support:
            rng = np.random.default_rng([*description.key.tolist(), _HOST + 2 * position + part])
            x = [_changed(augment.fn, rng, example) for example in x]
    for position, augment in enumerate(description.augments):
        if augment.query if part else augment.support:
            x = _augment(augment.fn, fold_in(description.key, augmentation_number(position, part)), stack(x))
    if collate is not None:
        return collate(list(zip(x, description.label.tolist(), strict=True)))
    x = stack(x)
    if isinstance(x, np.ndarray) and description.loaded:
        warn_of_inputs(x)
    return Batch(jax.tree.map(scale, x), description.label.copy())


def _changed(fn: Callable[[np.random.Generator, Any], Any], rng: np.random.Generator, example: Any) -> Any:
    """Returns one example, augmented on the host.

    Raises:
        TypeError: if the function takes or returns something else.
    """
    try:
        found = fn(rng, example)
    except TypeError as error:  # torchvision's transforms take any arguments at first
        if "argument" not in str(error):
            raise
        raise TypeError(f"fn of AugmentOnHost failed with (rng, x): {error}. {_WRAPPED}") from error
    if found is None or (isinstance(found, tuple) and not isinstance(example, tuple)):
        raise TypeError(f"fn of AugmentOnHost must return the changed x, got {type(found).__name__}. {_WRAPPED}")
    return found


def _turn(examples: Any, turns: np.ndarray, axes: tuple[int, int]) -> Any:
    if not turns.any():
        return examples
    if not isinstance(examples, np.ndarray):
        return [np.rot90(to_array(example), turn, axes) for example, turn in zip(examples, turns, strict=True)]
    height, width = (axis + 1 for axis in axes)
    if examples.shape[height] != examples.shape[width]:
        raise ValueError(f"RandomClassRotation needs square images, got {examples.shape[1:]} with axes={axes}")
    for turn in (1, 2, 3):
        which = turns == turn
        examples[which] = np.rot90(examples[which], turn, (height, width))
    return examples


def _augment(fn: Callable[[jax.Array, Any], Any], words: np.ndarray, x: Any) -> Any:
    if os.getpid() != _PROCESS:
        raise RuntimeError(
            "Augment runs JAX, which must not run in a forked process: give the DataLoader "
            'multiprocessing_context="spawn", or augment the tasks on the device'
        )
    return jax.tree.map(np.asarray, fn(wrap_key(words), jax.tree.map(lambda a: to_float(jnp.asarray(a)), x)))


def _is_traceable(fn: Callable[[Any], Any], example: Any) -> bool:
    """Returns whether JAX can trace a function of one example."""
    try:
        jax.eval_shape(fn, jax.ShapeDtypeStruct(example.shape, jnp.asarray(example).dtype))
    except (TypeError, AttributeError, ValueError, IndexError, NotImplementedError):  # of code that is not JAX
        return False
    return True
