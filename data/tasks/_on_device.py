"""A data set that is one array on a device."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmeta.data.samplers import Placement, place
from jaxmeta.data.tasks._loading import apply_map, one_array
from jaxmeta.data.tasks._meta_dataset import MetaDataset, as_meta_dataset


class OnDeviceDataset(MetaDataset):
    """All examples of a data set as one array on a device.

    Several `Taskset`s over it share the array, because `Taskset.to_device` makes no copy.

    Example:
        >>> import jax, numpy as np
        >>> pairs = np.array([[0.0, 1.0], [2.0, 3.0]]), ["a", "b"]
        >>> dataset = OnDeviceDataset(pairs, jax.devices()[0], lambda x: x.sum())
        >>> dataset.inputs.tolist(), dataset[1]
        ([1.0, 5.0], (Array(5., dtype=float32), 'b'))
    """

    def __init__(
        self,
        dataset: Any,
        device: Placement | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        """Reads all examples and puts them on the device.

        Args:
            dataset: a `MetaDataset`, or data for one. Its examples are numbers of the same shape.
            device: a device, or a `NamedSharding` that divides the examples among the devices of a mesh. By default
                JAX's default device.
            transform: function of one example's input, applied once to each, see `Map`.

        Raises:
            ValueError: if the examples are not numbers, or differ in shape.
        """
        base = as_meta_dataset(dataset)
        inputs = base.take_all()
        if transform is not None:
            inputs = apply_map(transform, inputs)
        inputs = one_array(inputs)
        self.inputs: jax.Array = place(inputs, (), device)[0]
        super().__init__(range(len(base)), base.targets)
        self._names = base._names
        self._inputs = self.inputs

    inputs: jax.Array
    """Inputs of all examples: `[M, ...]`, padded with zeros if they do not divide evenly among devices."""

    def __getitem__(self, index: int) -> tuple[jax.Array, Any]:
        """Returns the input of example `index`, on the device, and its label."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} examples")
        return self.inputs[int(index) % len(self)], self.targets[index].item()

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state for a worker process, with the examples on the host."""
        host = np.asarray(self.inputs)
        return self.__dict__ | {"inputs": host, "_inputs": host}
