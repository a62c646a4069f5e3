"""Conversion of the weights of PyTorch models: torchvision's, timm's, learn2learn's and MetaOptNet's."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxmeta.models._cnn import CNN4
from jaxmeta.models._mlp import OmniglotFC
from jaxmeta.models._resnet12 import ResNet12
from jaxmeta.models._torch_names import SHARED, as_arrays, few, names_of

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
    | `ResNet(...)` | torchvision's and timm's `resnet18` to `resnet152`, `wide_resnet*` and `resnext*` |
    | `ViT(...)` | torchvision's and timm's `vit_*`, `deit_*`, `deit3_*`, and DINO's, with a class token |

    `recognize` makes a `ResNet` or a `ViT` from a state dict. Names may begin with `module.` (from `DataParallel` or
    learn2learn's wrappers) and `features.`. A state dict without a head (`classifier`, `fc`, `head`), such as that of a
    backbone, gives a head of zeros.

    Args:
        model: model with the same sizes.
        state_dict: map from names to tensors or NumPy arrays, such as the result of `state_dict()` or `torch.load`.
            PyTorch itself is not needed.
        example: input for the model, `[n, h, w, c]`. Its shape decides the order of flattened features, which differs
            between PyTorch and Flax, and the positions of a ViT.

    Returns:
        `{"params": ...}`, and `"batch_stats"` if the state dict holds running statistics. With statistics `model.apply`
        is the PyTorch model after `eval()`. Without them, as in learn2learn's MAML examples, it is the one after
        `train()`.

    Raises:
        TypeError: if there is no such PyTorch model, or `state_dict` holds something else than arrays.
        ValueError: if the model is another function than the PyTorch model, or names or shapes do not fit. The message
            lists them.

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
    arrays = as_arrays(model, state_dict)
    names = names_of(model, arrays)
    shapes: Any = jax.eval_shape(model.init, jax.random.key(0), example)
    wanted: dict[Any, Any] = flatten_dict(shapes)
    if any(name.endswith("running_mean") for name in arrays):
        norms = {path[1:-1]: leaf for path, leaf in wanted.items() if path[-1] == "scale"}
        wanted |= {("batch_stats", *path, leaf): x for path, x in norms.items() for leaf in ("mean", "var")}
    has_head = any(name.startswith(f"{names['head']}.") for name in arrays)
    maps = _map_shapes(model, shapes, example)

    values, found, missing, misfits = {}, {}, [], []
    for path, leaf in wanted.items():
        module = "/".join(path[1:-1])
        if module == "head" and not has_head:
            values[path] = jnp.zeros(leaf.shape, leaf.dtype)
            continue
        name = _name(names, path)
        found[name] = True
        if name not in arrays:
            missing.append(name)
            continue
        value = _layout(arrays[name], path, leaf.shape, maps.get(module))
        if value.shape != leaf.shape:
            misfits.append(f"{name} gives {value.shape} for {'/'.join(path[1:])} {leaf.shape}")
        else:
            values[path] = jnp.asarray(value, leaf.dtype)
    unknown = sorted(set(arrays) - set(found))
    if missing or unknown or misfits:
        wrong = {"missing": list(dict.fromkeys(missing)), "unknown": unknown, "of another shape": misfits}
        listed = "; ".join(f"{kind}: {few(which)}" for kind, which in wrong.items() if which)
        raise ValueError(f"state_dict does not fit {model.__class__.__name__}: {listed}")
    return unflatten_dict(values)


def _name(names: dict[str, str], path: tuple[str, ...]) -> str:
    """Returns PyTorch's name of a parameter or a statistic."""
    module, full = "/".join(path[1:-1]), "/".join(path[1:])
    if full in names:
        return names[full]
    name = f"{names.get(module, module)}.{_LEAVES.get(path[-1], path[-1])}"
    return name.replace(".in_proj.", ".in_proj_")


def _map_shapes(model: Any, shapes: Any, example: jax.Array) -> dict[str, tuple[int, ...]]:
    """Returns `(h, w, c)` of the flattened maps that enter dense layers, by the path of the layer."""
    if isinstance(model, OmniglotFC):
        return {"body/dense_0": example.shape[1:]} if example.ndim == 4 else {}
    if not isinstance(model, CNN4) and (not isinstance(model, ResNet12) or model.mean):
        return {}
    body: Any = jax.eval_shape(lambda v: model.apply(v, example, method=lambda m, x: m.body(x)), shapes)
    return {"head": body.shape[1:]}


def _layout(
    array: np.ndarray, path: tuple[str, ...], shape: tuple[int, ...], map_shape: tuple[int, ...] | None
) -> np.ndarray:
    """Returns an array of PyTorch in the order of axes that Flax has.

    Args:
        array: array of PyTorch.
        path: path of our parameter.
        shape: shape of our parameter.
        map_shape: `(h, w, c)` of the feature map that enters a dense layer flattened, if one does.
    """
    if path[-2] in SHARED and len(array) % 3 == 0:
        array = np.split(array, 3)[SHARED.index(path[-2])]
    if path[-1] == "kernel":
        array = _kernel(array, map_shape)
    if path[-1] == "position" and array.shape[1:2] == (shape[1] - 1,):
        array = np.pad(array, ((0, 0), (1, 0), (0, 0)))  # DeiT III adds no position to the class token
    if path[-2] in (*SHARED, "out") and array.size == np.prod(shape):
        array = array.reshape(shape)  # the heads have an axis here
    return array


def _kernel(kernel: np.ndarray, map_shape: tuple[int, ...] | None) -> np.ndarray:
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
