# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""Backbones of torchvision and timm: the same outputs from the same weights, and what is refused by name."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import models


def resnet(hidden=4, inner=4, outer=8, ways=3) -> dict[str, Any]:
    """The arrays of a ResNet of two stages of one bottleneck, as torchvision names them."""
    shapes = {"conv1.weight": (hidden, 3, 7, 7), "fc.weight": (ways, 2 * outer), "fc.bias": (ways,)}
    norms = {"bn1": hidden}
    for stage in (1, 2):
        block, times, start = f"layer{stage}.0.", stage, hidden if stage == 1 else outer
        shapes |= {f"{block}conv1.weight": (times * inner, start, 1, 1)}
        shapes |= {f"{block}conv2.weight": (times * inner, times * inner, 3, 3)}
        shapes |= {f"{block}conv3.weight": (times * outer, times * inner, 1, 1)}
        shapes |= {f"{block}downsample.0.weight": (times * outer, start, 1, 1)}
        norms |= {f"{block}bn{j}": times * (outer if j == 3 else inner) for j in (1, 2, 3)}
        norms |= {f"{block}downsample.1": times * outer}
    for name, size in norms.items():
        shapes |= {f"{name}.{leaf}": (size,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def vit(hidden=192, depth=1, patch=4, tokens=5, ways=3) -> dict[str, Any]:
    """The arrays of a vision transformer, as timm names them."""
    shapes = {"cls_token": (1, 1, hidden), "pos_embed": (1, tokens, hidden), "norm.weight": (hidden,)}
    shapes |= {"norm.bias": (hidden,), "head.weight": (ways, hidden), "head.bias": (ways,)}
    shapes |= {"patch_embed.proj.weight": (hidden, 3, patch, patch), "patch_embed.proj.bias": (hidden,)}
    sizes = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for i in range(depth):
        for name, (out, start) in sizes.items():
            shapes |= {f"blocks.{i}.{name}.weight": (out * hidden, start * hidden)}
            shapes |= {f"blocks.{i}.{name}.bias": (out * hidden,)}
        shapes |= {f"blocks.{i}.norm{j}.{leaf}": (hidden,) for j in (1, 2) for leaf in ("weight", "bias")}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def test_attributes_follow_from_the_shapes():
    found = models.recognize(resnet(hidden=4, inner=4, outer=16, ways=7), mean=0.5, std=0.25)
    assert found == models.ResNet(7, blocks=(1, 1), bottleneck=True, hidden=4, inner=4, groups=1, mean=0.5, std=0.25)
    without_head = {name: x for name, x in vit(depth=2).items() if not name.startswith("head.")}
    found = models.recognize(without_head, mean=0.0, std=1.0)
    assert found == models.ViT(patch=4, hidden=192, depth=2, heads=3)
    variables = models.from_torch(found, without_head, jnp.zeros((1, 8, 8, 3)))
    assert not variables["params"]["head"]["kernel"].any()


def change(arrays, **changes):
    """Some arrays with others in their place, `None` for none."""
    changed = arrays | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in changed.items() if value is not None}


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "checkpoint": ({"epoch": 3, "model": {}}, TypeError, "must hold arrays, got int for 'epoch'"),
    "entry": ({"model": resnet()}, TypeError, "got dict for 'model'. Pass the entry 'model' alone"),
    "list": ([1], TypeError, "must be a mapping from names to arrays, got list"),
    "other": ({"a.b": np.ones(1)}, ValueError, "must be of a ResNet .* or a ViT .* got a.b"),
    "deep stem": (
        change(resnet(), conv1__weight=None, conv1__0__weight=np.ones((4, 3, 3, 3))),
        ValueError,
        "of a ResNet with other layers: conv1.weight is missing",
    ),
    "width": (vit(hidden=96), ValueError, "a ViT of width 96, which does not tell the number of heads"),
    "squeeze": (
        change(resnet(hidden=4, outer=16), layer1__0__se__fc1__weight=np.ones(4)),
        ValueError,
        "unknown: layer1.0.se.fc1.weight",
    ),
    "distilled": (change(vit(), head_dist__weight=np.ones((3, 192))), ValueError, "unknown: head_dist.weight"),
    "no bias": (change(vit(), blocks__0__attn__qkv__bias=None), ValueError, "missing: blocks.0.attn.qkv.bias$"),
    "size": (vit(tokens=17), ValueError, r"pos_embed gives \(1, 17, 192\) for body/position \(1, 5, 192\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_by_name(name):
    state_dict, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        models.from_torch(models.recognize(state_dict), state_dict, jnp.zeros((1, 8, 8, 3)))


def test_images_are_normalized_by_the_model():
    """Once for each channel; whole numbers cannot be in [0, 1]."""
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
    mean, std = np.array([0.1, 0.2, 0.3], np.float32), np.array([0.5, 1.0, 2.0], np.float32)
    plain = models.ViT(patch=4, hidden=8, depth=1, heads=2)
    normalizing = plain.clone(mean=tuple(mean.tolist()), std=tuple(std.tolist()))
    shapes = jax.eval_shape(plain.init, jax.random.key(1), x)
    params = jax.tree.map(lambda p: np.random.default_rng(p.size).normal(size=p.shape).astype(np.float32), shapes)
    expected = jax.jit(plain.apply)(params, (x - mean[None, None, None]) / std[None, None, None])
    np.testing.assert_allclose(jax.jit(normalizing.apply)(params, x), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"needs images in \[0, 1\], got uint8: divide them by 255"):
        normalizing.apply(params, np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="mean must be a number or have one for each channel"):
        plain.clone(mean=(0.1, 0.2)).apply(params, x)


OPERATORS = []


def torchvision():
    """The module, whose C operators are of no use here and cannot be loaded beside a torch of another build."""
    torch = pytest.importorskip("torch")
    try:
        return pytest.importorskip("torchvision")
    except RuntimeError:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        OPERATORS.append(operators)  # or they would go away
        return pytest.importorskip("torchvision")


def of_torchvision(make):
    return lambda: make(torchvision().models)


def of_timm(name, **options):
    def make():
        torchvision()
        return pytest.importorskip("timm").create_model(name, **options)

    return make


def small_resnext(tv):
    bottleneck = tv.resnet.Bottleneck
    return tv.ResNet(bottleneck, [1, 2, 1, 1], num_classes=5, groups=8, width_per_group=16)


BACKBONES: dict[str, tuple[Any, int]] = {
    "torchvision resnet18": (of_torchvision(lambda tv: tv.resnet18(num_classes=5)), 40),
    "torchvision resnet50": (of_torchvision(lambda tv: tv.resnet50(num_classes=5)), 33),
    "torchvision resnext": (of_torchvision(small_resnext), 37),
    "torchvision vit": (of_torchvision(lambda tv: tv.VisionTransformer(24, 8, 2, 3, 192, 768, num_classes=5)), 24),
    "timm resnet18": (of_timm("resnet18", num_classes=0), 32),
    "timm vit_tiny": (of_timm("vit_tiny_patch16_224", depth=2, img_size=48, num_classes=5), 48),
    "timm deit3": (of_timm("deit3_small_patch16_224", depth=1, img_size=32, num_classes=5), 32),
    "timm dinov2": (of_timm("vit_small_patch14_dinov2", depth=1, img_size=28), 28),
}


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_outputs_are_pytorchs(name):
    """All weights and running statistics random, against the module in float64, from images in [0, 1]."""
    make, size = BACKBONES[name]
    module = make().eval().double()
    import torch

    generator = torch.Generator().manual_seed(0)
    for key, value in module.state_dict().items():
        if value.is_floating_point():
            scale = 0.3 if value.ndim == 1 else value[0].numel() ** -0.5
            value.copy_(scale * torch.randn(value.shape, generator=generator, dtype=torch.float64))
            if value.ndim == 1 and key.endswith(("weight", "running_var", "gamma")):
                value.copy_(1 + value.abs())
    x = np.random.default_rng(0).uniform(size=(3, size, size, 3))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = module(torch.from_numpy(((x - mean) / std).transpose(0, 3, 1, 2).copy())).numpy()

    state_dict = {f"module.{key}": value for key, value in module.float().state_dict().items()}
    model = models.recognize(state_dict)
    variables = models.from_torch(model, state_dict, jnp.asarray(x, jnp.float32))
    method = "features" if expected.shape[1] > 5 else "__call__"
    found = jax.jit(lambda variables, x: model.apply(variables, x, method=method))(variables, jnp.float32(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    alone = jax.jit(lambda variables, x: model.apply(variables, x, method=method))(variables, jnp.float32(x[:1]))
    np.testing.assert_allclose(alone, found[:1], rtol=1e-4, atol=1e-4 * np.abs(expected).max())
