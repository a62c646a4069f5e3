"""The names that PyTorch's models give to our parameters, and state dicts as arrays under these names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmeta.models._cnn import CNN4, OmniglotCNN
from jaxmeta.models._mlp import OmniglotFC
from jaxmeta.models._resnet import ResNet
from jaxmeta.models._resnet12 import ResNet12
from jaxmeta.models._vit import ViT
from jaxmeta.models._wrn import WRN28

Names = dict[str, str]

SHARED = ("query", "key", "value")
"""The parts of a layer of attention that PyTorch keeps in one array."""
_IGNORED = ("num_batches_tracked", "mask_token")  # a counter, and what DINOv2 puts in the place of hidden patches


def entries(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arrays of a state dict by their names, without the prefixes of wrappers.

    Raises:
        TypeError: if it is no state dict, such as a checkpoint that holds one.
    """
    if not isinstance(state_dict, Mapping):
        told = ". Pass module.state_dict()" if hasattr(state_dict, "state_dict") else ""
        raise TypeError(f"state_dict must be a mapping from names to arrays, got {type(state_dict).__name__}{told}")
    found = {}
    for name, value in state_dict.items():
        if not hasattr(value, "shape"):
            inside = isinstance(value, Mapping) and all(hasattr(part, "shape") for part in value.values())
            told = f". Pass the entry {name!r} alone" if inside else ""
            raise TypeError(f"state_dict must hold arrays, got {type(value).__name__} for {name!r}{told}")
        if not name.endswith(_IGNORED):
            found[name.removeprefix("module.").removeprefix("features.")] = value
    return found


def as_arrays(model: Any, state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns a state dict as NumPy arrays, with the names and the content that `names_of` expects."""
    arrays = {}
    for name, value in entries(state_dict).items():
        if isinstance(model, OmniglotCNN) and name.startswith("1."):
            name = "base." + name.removeprefix("1.")  # the same module under its second name
        arrays[name] = _as_array(value)
    return _without_scales(arrays) if isinstance(model, ViT) else arrays


def _as_array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value  # which NumPy does not have
    return np.asarray(value)


def _without_scales(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Multiplies the layer scales of a ViT into the layers before them, which gives the same function."""
    found = dict(arrays)
    for number, layer in ((1, "attn.proj"), (2, "mlp.fc2")):
        for name in [name for name in arrays if name.endswith(f".ls{number}.gamma")]:
            scale, block = found.pop(name), name.removesuffix(f"ls{number}.gamma")
            for leaf in (f"{block}{layer}.weight", f"{block}{layer}.bias"):
                if leaf in found:
                    found[leaf] = found[leaf] * scale.reshape(-1, *[1] * (found[leaf].ndim - 1))
    return found


def names_of(model: Any, arrays: Mapping[str, Any]) -> Names:
    """Returns PyTorch's names of the modules of a model and, where they follow no rule, of its parameters.

    Raises:
        TypeError: if there is no such PyTorch model.
        ValueError: if the model is another function than the PyTorch model.
    """
    kind = type(model).__name__
    if type(model) not in _NAMES:
        known = ", ".join(sorted(known.__name__ for known in _NAMES))
        raise TypeError(f"model must be one of {known}, got {kind}")
    needed: dict[str, Any] = {} if isinstance(model, ViT) else {"norm": "batch"}
    if isinstance(model, OmniglotFC):
        needed["epsilon"] = 1e-3
    if isinstance(model, OmniglotCNN) or (isinstance(model, CNN4) and not model.max_pool):
        needed["padding"] = 1
    for name, value in needed.items():
        if getattr(model, name) != value:
            raise ValueError(f"{name} of {kind} must be {value!r}, as in PyTorch, got {getattr(model, name)!r}")
    if isinstance(model, CNN4) and model.blocks < 3:
        raise ValueError(f"blocks must be 3 or more, because learn2learn pools more with fewer, got {model.blocks}")
    return {"head": "classifier"} | _NAMES[type(model)](model, arrays)


def few(names: Sequence[str]) -> str:
    """Returns the first names as text, with the number of all."""
    return ", ".join(names[:24]) + (f" ... ({len(names)} in all)" if len(names) > 24 else "")


def _omniglot_fc(model: OmniglotFC, arrays: Any) -> Names:
    layers = range(len(model.sizes))
    return {f"body/dense_{i}": f"1.{i}.linear" for i in layers} | {f"body/norm_{i}": f"1.{i}.normalize" for i in layers}


def _conv_blocks(prefix: str, blocks: int) -> Names:
    convs = {f"body/conv_{i}": f"{prefix}{i}.conv" for i in range(blocks)}
    return convs | {f"body/norm_{i}": f"{prefix}{i}.normalize" for i in range(blocks)}


def _resnet12(model: ResNet12, arrays: Any) -> Names:
    names = {}
    for i in range(len(model.sizes)):
        names |= _residual(i, f"layer{i + 1}.0", 3, "downsample.0", "downsample.1")
    return names


def _wrn28(model: WRN28, arrays: Any) -> Names:
    names = {"body/conv": "conv1", "body/norm": "bn1"}
    for i in range(3 * model.blocks):
        names |= _residual(i, f"layer{i // model.blocks + 1}.{i % model.blocks}", 2, "shortcut.0", "")
    return names


def _resnet(model: ResNet, arrays: Any) -> Names:
    names = {"body/conv": "conv1", "body/norm": "bn1", "head": "fc"}
    blocks = [f"layer{stage + 1}.{place}" for stage, count in enumerate(model.blocks) for place in range(count)]
    for i, block in enumerate(blocks):
        names |= _residual(i, block, 3 if model.bottleneck else 2, "downsample.0", "downsample.1")
    return names


def _residual(i: int, block: str, layers: int, conv: str, norm: str) -> Names:
    """Returns the names in block `i`: its layers, and the convolution and the norm of its shortcut."""
    names = {f"body/conv_{i}": f"{block}.{conv}", f"body/norm_{i}": f"{block}.{norm}"}
    names |= {f"body/conv_{i}_{j}": f"{block}.conv{j + 1}" for j in range(layers)}
    return names | {f"body/norm_{i}_{j}": f"{block}.bn{j + 1}" for j in range(layers)}


def _vit(model: ViT, arrays: Mapping[str, Any]) -> Names:
    """Returns the names of torchvision, or those of timm, which DeiT and DINO have too."""
    if "conv_proj.weight" in arrays:
        top = {"token": "class_token", "position": "encoder.pos_embedding", "embed": "conv_proj", "norm": "encoder.ln"}
        block, qkv = "encoder.layers.encoder_layer_{}.", "self_attention.in_proj"
        parts = {"norm_{}_0": "ln_1", "attention_{}/out": "self_attention.out_proj", "norm_{}_1": "ln_2"}
        parts |= {"dense_{}_0": "mlp.0", "dense_{}_1": "mlp.3"}
    else:
        top = {"token": "cls_token", "position": "pos_embed", "embed": "patch_embed.proj", "norm": "norm"}
        block, qkv = "blocks.{}.", "attn.qkv"
        parts = {"norm_{}_0": "norm1", "attention_{}/out": "attn.proj", "norm_{}_1": "norm2"}
        parts |= {"dense_{}_0": "mlp.fc1", "dense_{}_1": "mlp.fc2"}
    parts |= {f"attention_{{}}/{name}": qkv for name in SHARED}
    names = {"head": "heads.head" if "conv_proj.weight" in arrays else "head"}
    names |= {f"body/{ours}": name for ours, name in top.items()}
    for i in range(model.depth):
        names |= {f"body/{ours.format(i)}": block.format(i) + name for ours, name in parts.items()}
    return names


_NAMES: dict[type, Callable[[Any, Mapping[str, Any]], Names]] = {
    OmniglotFC: _omniglot_fc,
    OmniglotCNN: lambda model, arrays: _conv_blocks("base.", model.layers),
    CNN4: lambda model, arrays: _conv_blocks("", model.blocks),
    ResNet: _resnet,
    ResNet12: _resnet12,
    ViT: _vit,
    WRN28: _wrn28,
}
