"""Labeled examples with the names of their classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmeta.data.containers._columns import as_array
from jaxmeta.data.containers._labels import as_labels
from jaxmeta.display import short_repr


@dataclass(frozen=True, eq=False)
class Examples:
    """Labeled examples with the names of their classes.

    Example:
        >>> import numpy as np
        >>> examples = Examples.of(np.zeros((6, 8, 8, 3), np.uint8), ["cat", "dog", "cat", "cow", "dog", "cow"])
        >>> examples.names, examples.labels.tolist()
        (('cat', 'cow', 'dog'), [0, 2, 0, 1, 2, 1])
        >>> examples.select(["dog", "cow"]).names
        ('cow', 'dog')
    """

    inputs: np.ndarray
    """Images `[M, H, W, C]` (uint8), sentences `[M]` (str) or features `[M, d]` (float32)."""
    labels: np.ndarray
    """Class of each example, an index into `names`: `[M]`, int."""
    names: tuple[str, ...]
    """Sorted names of the classes."""
    parts: tuple[str, ...] | None = None
    """Part of each class, `"train"`, `"validation"` or `"test"`, if the files divide the classes."""

    __repr__ = short_repr

    @classmethod
    def of(cls, inputs: Any, names: Any, parts: Mapping[str, str] | None = None) -> "Examples":
        """Builds examples from arrays.

        Args:
            inputs: examples: `[M, ...]`, or any other container of examples that have one shape.
            names: class name of each example, strings or integers, in any container: `[M]`.
            parts: part of each class, if the classes are divided.

        Returns:
            The examples.

        Raises:
            TypeError: if one of them is no container, or the names are neither strings nor integers.
            ValueError: if there are no examples, they differ in shape, or the numbers of inputs and names differ.
        """
        inputs = np.asarray(as_array(inputs, "inputs"))
        found, labels = np.unique(as_labels(names, "names").astype(str), return_inverse=True)
        if inputs.ndim < 1 or len(inputs) == 0 or len(inputs) != len(labels):
            raise ValueError(f"names must match inputs: got {len(labels)} names for inputs of shape {inputs.shape}")
        order = tuple(found.tolist())
        return cls(inputs, labels, order, None if parts is None else tuple(parts[name] for name in order))

    def select(self, names: Sequence[str]) -> "Examples":
        """Returns the examples of some of the classes.

        Args:
            names: names of the classes.

        Returns:
            The examples in their order, with new labels.

        Raises:
            ValueError: if there is no such class.
        """
        missing = sorted(set(names) - set(self.names))
        if missing:
            raise ValueError(f"names must be among the {len(self.names)} classes, got {missing[:5]!r}")
        place = np.full(len(self.names), -1)
        kept = np.flatnonzero(np.isin(self.names, list(names)))
        place[kept] = np.arange(len(kept))
        labels = place[self.labels]
        rows = labels >= 0
        parts = None if self.parts is None else tuple(self.parts[i] for i in kept)
        return Examples(self.inputs[rows], labels[rows], tuple(self.names[i] for i in kept), parts)
