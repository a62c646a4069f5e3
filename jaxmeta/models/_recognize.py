"""The model that a state dict of torchvision or timm belongs to."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxmeta.models._resnet import ResNet
from jaxmeta.models._torch_names import entries, few
from jaxmeta.models._vit import ViT

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_HEADS = {hidden: hidden // 64 for hidden in (192, 256, 320, 384, 512, 640, 768, 1024)} | {1280: 16}
_VITS = {"patch_embed.proj.weight": "blocks.", "conv_proj.weight": "encoder.layers.encoder_layer_"}
_RESNET = ("layer1.0.conv1.weight", "layer1.0.conv2.weight", "conv1.weight")


def recognize(
    state_dict: Mapping[str, Any],
    *,
    mean: float | Sequence[float] = IMAGENET_MEAN,
    std: float | Sequence[float] = IMAGENET_STD,
) -> ResNet | ViT:
    """Makes the model that a state dict of torchvision or timm belongs to, for `from_torch`.

    Names and shapes tell a ResNet from a ViT, and the attributes of both. They do not tell what has no parameters: the
    activation, the kind of pooling, and how images were normalized. So compare the outputs for one image with those of
    PyTorch once, if the network is not one of the tables of `from_torch`.

    The model takes images in [0, 1] and normalizes them itself. Most networks want the mean and standard deviation of
    ImageNet, which are the default. Those of timm with `augreg` in their name want 0.5 and 0.5. In timm
    `model.default_cfg["mean"]` tells, in torchvision `weights.transforms().mean`.

    Args:
        state_dict: see `from_torch`.
        mean: mean of each channel, or of all, of images in [0, 1].
        std: standard deviation of each channel, or of all.

    Returns:
        A `ResNet` or a `ViT` with as many ways as the state dict has outputs. `model.clone(...)` changes attributes.

    Raises:
        TypeError: if `state_dict` holds something else than arrays.
        ValueError: if it is of another network, or a ViT has a width from which its number of heads does not follow.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np
        >>> state_dict = torch.load("resnet50.pth")  # doctest: +SKIP
        >>> model = recognize(state_dict)  # doctest: +SKIP
        >>> variables = from_torch(model, state_dict, jnp.zeros((1, 224, 224, 3)))  # doctest: +SKIP
        >>> features = model.apply(variables, images, method="features")  # doctest: +SKIP
    """
    shapes = {name: tuple(value.shape) for name, value in entries(state_dict).items()}
    if "layer1.0.conv1.weight" in shapes:
        return _resnet(shapes, mean, std)
    for embed, blocks in _VITS.items():
        if len(shapes.get(embed, ())) == 4 and any(name.startswith(blocks) for name in shapes):
            return _vit(shapes, embed, blocks, mean, std)
    raise ValueError(
        "state_dict must be of a ResNet (with layer1.0.conv1.weight) or a ViT (with patch_embed.proj.weight or "
        f"conv_proj.weight) of torchvision or timm, got {few(list(shapes))}"
    )


def _resnet(shapes: Mapping[str, tuple[int, ...]], mean: Any, std: Any) -> ResNet:
    missing = [name for name in _RESNET if len(shapes.get(name, ())) != 4]
    if missing:
        raise ValueError(
            f"state_dict is of a ResNet with other layers: {missing[0]} is missing, got {few(list(shapes))}"
        )
    inner, group = shapes["layer1.0.conv1.weight"][0], shapes["layer1.0.conv2.weight"][1]
    bottleneck = "layer1.0.conv3.weight" in shapes
    stages: dict[str, set[str]] = {}
    for name in shapes:
        stage, _, rest = name.partition(".")
        if stage.startswith("layer"):
            stages.setdefault(stage, set()).add(rest.partition(".")[0])
    return ResNet(
        ways=_ways(shapes, "fc.weight"),
        blocks=tuple(len(stages[stage]) for stage in sorted(stages)),
        bottleneck=bottleneck,
        hidden=shapes["conv1.weight"][0],
        inner=inner if bottleneck else None,
        groups=inner // group if bottleneck else 1,
        mean=mean,
        std=std,
    )


def _vit(shapes: Mapping[str, tuple[int, ...]], embed: str, blocks: str, mean: Any, std: Any) -> ViT:
    hidden, _, patch, _ = shapes[embed]
    if hidden not in _HEADS:
        raise ValueError(
            f"state_dict is of a ViT of width {hidden}, which does not tell the number of heads (widths that do are "
            f"{', '.join(map(str, _HEADS))}). Make the model yourself: models.ViT(hidden={hidden}, heads=..., ...)"
        )
    depth = {name.removeprefix(blocks).partition(".")[0] for name in shapes if name.startswith(blocks)}
    head = "head.weight" if blocks == "blocks." else "heads.head.weight"
    ways, heads = _ways(shapes, head), _HEADS[hidden]
    return ViT(ways=ways, patch=patch, hidden=hidden, depth=len(depth), heads=heads, mean=mean, std=std)


def _ways(shapes: Mapping[str, tuple[int, ...]], head: str) -> int:
    return shapes[head][0] if head in shapes else ViT.ways
