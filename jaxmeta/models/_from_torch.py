"""Conversion of the weights of learn2learn's and MetaOptNet's PyTorch models."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxmeta.models._cnn import CNN4, OmniglotCNN
from jaxmeta.models._mlp import OmniglotFC
from jaxmeta.models._resnet import ResNet12
from jaxmeta.models._wrn import WRN28

Names = dict[str, str]

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def from_torch(model: nn.Module, state_dict: Mapping[str, Any], example: jax.Array) -> dict[str, Any]:
    """Converts a PyTorch state dict to variables of the same model here, which then gives the same outputs.

    | model | state dict |
    | --- | --- |
    | `OmniglotFC(epsilon=1e-3)` | learn2learn's `OmniglotFC` |
    | `OmniglotCNN(padding=1)` | learn2learn's `OmniglotCNN` |
    | `CNN4()` | learn2learn's `CNN4` (`MiniImagenetCNN`). With `max_pool=False` take `padding=1` |
    | `ResNet12()` | learn2learn's `ResNet12`. For MetaOptNet's embedding take `mean=False`, which is its default |
    | `WRN28()` | learn2learn's `WRN28` |

    Names may begin with `module.` (from `DataParallel` or learn2learn's wrappers) and `features.`. A state dict without
    `classifier`, such as that of a learn2learn backbone, gives a head of zeros.

    Args:
        model: model with the same sizes.
        state_dict: map from names to tensors or NumPy arrays, such as the result of `state_dict()` or `torch.load`.
            PyTorch itself is not needed.
        example: input for the model, `[n, h, w, c]`. Its shape decides the order of flattened features, which differs
            between PyTorch and Flax.

    Returns:
        `{"params": ...}`, and `"batch_stats"` if the state dict holds running statistics. With statistics `model.apply`
        is the PyTorch model after `eval()`. Without them, as in learn2learn's MAML examples, it is the one after
        `train()`.

    Raises:
        TypeError: if there is no such PyTorch model.
        ValueError: if the model is another function than the PyTorch model, or names or shapes do not fit. The message
            lists all of them.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> model = OmniglotFC(ways=2, sizes=(3,), epsilon=1e-3)
        >>> state_dict = {
        ...     "features.1.0.linear.weight": np.ones((3, 4)), "features.1.0.linear.bias": np.zeros(3),
        ...     "features.1.0.normalize.weight": np.ones(3), "features.1.0.normalize.bias": np.zeros(3),
        ...     "classifier.weight": np.ones((2, 3)), "classifier.bias": np.zeros(2),
        ... }
        >>> params = from_torch(model, state_dict, jnp.zeros((1, 2, 2, 1)))
        >>> params["params"]["head"]["kernel"].shape
        (3, 2)
    """
    names = _check_model(model)
    arrays = _arrays(model, state_dict)
    shapes: Any = jax.eval_shape(model.init, jax.random.key(0), example)
    wanted: dict[Any, Any] = flatten_dict(shapes)
    if any(name.endswith("running_mean") for name in arrays):
        norms = {path[1:-1]: leaf for path, leaf in wanted.items() if path[-1] == "scale"}
        wanted |= {("batch_stats", *path, leaf): x for path, x in norms.items() for leaf in ("mean", "var")}
    has_head = any(name.startswith("classifier.") for name in arrays)
    maps = _map_shapes(model, shapes, example)

    values, found, missing, misfits = {}, set(), [], []
    for path, leaf in wanted.items():
        module = "/".join(path[1:-1])
        if module == "head" and not has_head:
            values[path] = jnp.zeros(leaf.shape, leaf.dtype)
            continue
        name = f"{names.get(module, module)}.{_LEAVES.get(path[-1], path[-1])}"
        found.add(name)
        if name not in arrays:
            missing.append(name)
            continue
        value = _layout(arrays[name], maps.get(module)) if path[-1] == "kernel" else arrays[name]
        if value.shape != leaf.shape:
            misfits.append(f"{name} gives {value.shape} for {'/'.join(path[1:])} {leaf.shape}")
        else:
            values[path] = jnp.asarray(value, leaf.dtype)
    unknown = sorted(set(arrays) - found)
    if missing or unknown or misfits:
        wrong = {"missing": missing, "unknown": unknown, "of another shape": misfits}
        listed = "; ".join(f"{kind}: {', '.join(which)}" for kind, which in wrong.items() if which)
        raise ValueError(f"state_dict does not fit {model.__class__.__name__}: {listed}")
    return unflatten_dict(values)


def _check_model(model: Any) -> Names:
    """Returns PyTorch's names of our modules, and raises if outputs would differ."""
    kind = type(model).__name__
    if type(model) not in _NAMES:
        known = ", ".join(sorted(known.__name__ for known in _NAMES))
        raise TypeError(f"model must be one of {known}, got {kind}")
    needed: dict[str, Any] = {"norm": "batch"}
    if isinstance(model, OmniglotFC):
        needed["epsilon"] = 1e-3
    if isinstance(model, OmniglotCNN) or (isinstance(model, CNN4) and not model.max_pool):
        needed["padding"] = 1
    for name, value in needed.items():
        if getattr(model, name) != value:
            raise ValueError(f"{name} of {kind} must be {value!r}, as in PyTorch, got {getattr(model, name)!r}")
    if isinstance(model, CNN4) and model.blocks < 3:
        raise ValueError(f"blocks must be 3 or more, because learn2learn pools more with fewer, got {model.blocks}")
    return _NAMES[type(model)](model) | {"head": "classifier"}


def _arrays(model: nn.Module, state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the state dict as NumPy arrays, without prefixes and counters."""
    arrays = {}
    for name, value in state_dict.items():
        name = name.removeprefix("module.").removeprefix("features.")
        if isinstance(model, OmniglotCNN) and name.startswith("1."):
            name = "base." + name.removeprefix("1.")  # the same module under its second name
        if not name.endswith("num_batches_tracked"):
            arrays[name] = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    return arrays


def _map_shapes(model: Any, shapes: Any, example: jax.Array) -> dict[str, tuple[int, ...]]:
    """Returns `(h, w, c)` of the flattened maps that enter dense layers, by the path of the layer."""
    if isinstance(model, OmniglotFC):
        return {"body/dense_0": example.shape[1:]} if example.ndim == 4 else {}
    if isinstance(model, OmniglotCNN | WRN28) or (isinstance(model, ResNet12) and model.mean):
        return {}
    body: Any = jax.eval_shape(lambda v: model.apply(v, example, method=lambda m, x: m.body(x)), shapes)
    return {"head": body.shape[1:]}


def _layout(kernel: np.ndarray, map_shape: tuple[int, ...] | None) -> np.ndarray:
    """Transposes a kernel `[out, in]` to `[in, out]` or `[out, in, h, w]` to `[h, w, in, out]`.

    The inputs of a dense kernel after a feature map of shape `map_shape` change from channels first to channels last.
    """
    if kernel.ndim == 4:
        return kernel.transpose(2, 3, 1, 0)
    kernel = kernel.T
    if map_shape is not None and kernel.shape[0] == np.prod(map_shape):
        height, width, channels = map_shape
        kernel = kernel.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
    return kernel


def _omniglot_fc(model: OmniglotFC) -> Names:
    """Returns PyTorch's names of the modules of `OmniglotFC`."""
    layers = range(len(model.sizes))
    return {f"body/dense_{i}": f"1.{i}.linear" for i in layers} | {f"body/norm_{i}": f"1.{i}.normalize" for i in layers}


def _conv_blocks(prefix: str, blocks: int) -> Names:
    """Returns PyTorch's names of the modules of a number of convolutional blocks."""
    convs = {f"body/conv_{i}": f"{prefix}{i}.conv" for i in range(blocks)}
    return convs | {f"body/norm_{i}": f"{prefix}{i}.normalize" for i in range(blocks)}


def _resnet12(model: ResNet12) -> Names:
    """Returns PyTorch's names of the modules of `ResNet12`."""
    names = {}
    for i in range(len(model.sizes)):
        block = f"layer{i + 1}.0"
        names |= {f"body/conv_{i}": f"{block}.downsample.0", f"body/norm_{i}": f"{block}.downsample.1"}
        names |= {f"body/conv_{i}_{j}": f"{block}.conv{j + 1}" for j in range(3)}
        names |= {f"body/norm_{i}_{j}": f"{block}.bn{j + 1}" for j in range(3)}
    return names


def _wrn28(model: WRN28) -> Names:
    """Returns PyTorch's names of the modules of `WRN28`."""
    names = {"body/conv": "conv1", "body/norm": "bn1"}
    for i in range(3 * model.blocks):
        block = f"layer{i // model.blocks + 1}.{i % model.blocks}"
        names |= {f"body/conv_{i}": f"{block}.shortcut.0"}
        names |= {f"body/conv_{i}_{j}": f"{block}.conv{j + 1}" for j in range(2)}
        names |= {f"body/norm_{i}_{j}": f"{block}.bn{j + 1}" for j in range(2)}
    return names


_NAMES: dict[type, Callable[[Any], Names]] = {
    OmniglotFC: _omniglot_fc,
    OmniglotCNN: lambda model: _conv_blocks("base.", model.layers),
    CNN4: lambda model: _conv_blocks("", model.blocks),
    ResNet12: _resnet12,
    WRN28: _wrn28,
}
