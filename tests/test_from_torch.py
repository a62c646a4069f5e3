"""Weights from PyTorch: the same outputs as learn2learn's and MetaOptNet's modules, rewritten by their structure."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import models

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch
nn = torch.nn
functional = torch.nn.functional

KEY = jax.random.key(0)


class Block(nn.Module):
    """learn2learn's ConvBlock."""

    def __init__(self, size_in, size, pool):
        super().__init__()
        self.pool = pool
        self.normalize = nn.BatchNorm2d(size)
        self.conv = nn.Conv2d(size_in, size, 3, stride=1 if pool else 2, padding=1)

    def forward(self, x):
        x = torch.relu(self.normalize(self.conv(x)))
        return functional.max_pool2d(x, 2) if self.pool else x


def blocks(channels, size, number, pool):
    return [Block(size if i else channels, size, pool) for i in range(number)]


class OmniglotCNN(nn.Module):
    """Its convolutions have two names, `base` and `features.1`, as in learn2learn."""

    def __init__(self):
        super().__init__()
        self.base = nn.Sequential(*blocks(1, 6, 4, pool=False))
        self.features = nn.Sequential(nn.Identity(), self.base)
        self.classifier = nn.Linear(6, 5)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class CNN4(nn.Module):
    def __init__(self, pool, size):
        super().__init__()
        self.features = nn.Sequential(*blocks(3, 6, 4, pool))
        self.classifier = nn.Linear(size, 5)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class Linear(nn.Module):
    """learn2learn's LinearBlock: without running statistics, with another epsilon."""

    def __init__(self, size_in, size):
        super().__init__()
        self.normalize = nn.BatchNorm1d(size, eps=1e-3, track_running_stats=False)
        self.linear = nn.Linear(size_in, size)

    def forward(self, x):
        return torch.relu(self.normalize(self.linear(x)))


class OmniglotFC(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Sequential(Linear(2 * 5 * 4, 7), Linear(7, 6)))
        self.classifier = nn.Linear(6, 5)

    def forward(self, x):
        return self.classifier(self.features(x))


class Residual(nn.Module):
    """MetaOptNet's BasicBlock, without dropout."""

    def __init__(self, size_in, size):
        super().__init__()
        for i, start in enumerate((size_in, size, size), 1):
            setattr(self, f"conv{i}", nn.Conv2d(start, size, 3, padding=1, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(size))
        self.downsample = nn.Sequential(nn.Conv2d(size_in, size, 1, bias=False), nn.BatchNorm2d(size))

    def forward(self, x):
        y = functional.leaky_relu(self.bn1(self.conv1(x)), 0.1)
        y = functional.leaky_relu(self.bn2(self.conv2(y)), 0.1)
        y = self.bn3(self.conv3(y)) + self.downsample(x)
        return functional.max_pool2d(functional.leaky_relu(y, 0.1), 2)


class Embedding(nn.Module):
    """MetaOptNet's ResNet; `mean` is its `avg_pool`."""

    def __init__(self, mean):
        super().__init__()
        self.mean = mean
        for i, (start, size) in enumerate(zip((3, 4, 6, 8), (4, 6, 8, 10), strict=True), 1):
            setattr(self, f"layer{i}", nn.Sequential(Residual(start, size)))

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3)) if self.mean else x.flatten(1)


class Wide(nn.Module):
    """learn2learn's wide_basic."""

    def __init__(self, size_in, size, stride):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(size_in), nn.BatchNorm2d(size)
        self.conv1 = nn.Conv2d(size_in, size, 3, padding=1)
        self.conv2 = nn.Conv2d(size, size, 3, padding=1, stride=stride)
        same = size_in == size and stride == 1
        self.shortcut = nn.Sequential(*([] if same else [nn.Conv2d(size_in, size, 1, stride=stride)]))

    def forward(self, x):
        y = self.conv1(torch.relu(self.bn1(x)))
        return self.conv2(torch.relu(self.bn2(y))) + self.shortcut(x)


class WideResNet(nn.Module):
    """learn2learn's WRN28Backbone with 2 blocks a stage in the place of 4."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        for i, (start, size) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            stage = nn.Sequential(Wide(start, size, 1 if i == 1 else 2), Wide(size, size, 1))
            setattr(self, f"layer{i}", stage)
        self.bn1 = nn.BatchNorm2d(64)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return torch.relu(self.bn1(x)).mean((2, 3))


class Classifier(nn.Module):
    def __init__(self, features, size):
        super().__init__()
        self.features = features
        self.classifier = nn.Linear(size, 5)

    def forward(self, x):
        return self.classifier(self.features(x))


CONVERTED: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "OmniglotCNN": (models.OmniglotCNN(hidden=6, padding=1), OmniglotCNN(), (28, 28, 1)),
    "CNN4": (models.CNN4(hidden=6), CNN4(True, 6 * 3 * 2), (50, 33, 3)),
    "CNN4 strided": (models.CNN4(hidden=6, max_pool=False, padding=1), CNN4(False, 6 * 4 * 3), (50, 33, 3)),
    "OmniglotFC": (models.OmniglotFC(sizes=(7, 6), epsilon=1e-3), OmniglotFC(), (5, 4, 2)),
    "ResNet12": (models.ResNet12(sizes=(4, 6, 8, 10)), Classifier(Embedding(True), 10), (40, 35, 3)),
    "WRN28": (models.WRN28(widen=1, blocks=2), Classifier(WideResNet(), 64), (18, 16, 3)),
}


def randomized(module, x):
    """Every parameter and running statistic random, the statistics by seeing data."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point() and "running" not in name:
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3 + ("bn" in name or "normalize" in name))
    module.train()(x + 1)
    return module


def inputs(shape):
    x = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    return x, torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("name", CONVERTED)
def test_outputs_are_pytorchs(name):
    """After `eval()` with running statistics, after `train()` with those of the batch."""
    model, module, shape = CONVERTED[name]
    x, there = inputs(shape)
    with torch.no_grad():
        state_dict = {name: value.clone() for name, value in randomized(module, there).state_dict().items()}
        of_eval, of_train = module.eval()(there).numpy(), module.train()(there).numpy()
    variables = models.from_torch(model, state_dict, jnp.asarray(x))
    assert set(variables) == ({"params"} if name == "OmniglotFC" else {"params", "batch_stats"})

    @jax.jit
    def run(variables, x):
        return model.apply(variables, x), model.apply({"params": variables["params"]}, x)

    with_statistics, with_batch = run(variables, jnp.asarray(x))
    np.testing.assert_allclose(with_statistics, of_eval, rtol=1e-5, atol=1e-5 * np.abs(of_eval).max())
    np.testing.assert_allclose(with_batch, of_train, rtol=1e-5, atol=1e-5 * np.abs(of_train).max())
    if name != "OmniglotFC":
        assert np.abs(of_eval - of_train).max() > 0.01  # so the two are told apart


@pytest.mark.parametrize("prefix", ["", "features.", "module.features."])
def test_backbone_alone(prefix):
    """MetaOptNet's embedding and learn2learn's backbones come without a classifier; features are flat here."""
    model, module = models.ResNet12(sizes=(4, 6, 8, 10), mean=False), Embedding(False)
    x, there = inputs((40, 33, 3))
    with torch.no_grad():
        state_dict = {prefix + name: value.clone() for name, value in randomized(module, there).state_dict().items()}
        expected = module.eval()(there).reshape(6, 10, 2, 2).permute(0, 2, 3, 1).reshape(6, -1).numpy()
    variables = models.from_torch(model, state_dict, jnp.asarray(x))
    features = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, x)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert not variables["params"]["head"]["kernel"].any()


def test_vit_is_pytorchs_transformer():
    """No converter for it: the same numbers are put into torch's own layers."""
    model = models.ViT(patch=4, hidden=8, depth=2, heads=2)
    x, there = inputs((12, 8, 1))
    shapes = jax.eval_shape(model.init, KEY, x)
    rng = np.random.default_rng(1)
    params: Any = jax.tree.map(lambda p: (0.3 * rng.normal(size=p.shape)).astype(np.float32), shapes)
    body, head = (jax.tree.map(torch.from_numpy, params["params"][part]) for part in ("body", "head"))

    y = functional.conv2d(there, body["embed"]["kernel"].permute(3, 2, 0, 1), body["embed"]["bias"], stride=4)
    y = torch.cat([body["token"].expand(6, 1, 8), y.flatten(2).transpose(1, 2)], 1) + body["position"]
    for i in range(2):
        layer = nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True)
        attention = body[f"attention_{i}"]
        projections = [attention[name] for name in ("query", "key", "value")]
        state = {
            "self_attn.in_proj_weight": torch.cat([p["kernel"].reshape(8, 8).T for p in projections]),
            "self_attn.in_proj_bias": torch.cat([p["bias"].reshape(8) for p in projections]),
            "self_attn.out_proj.weight": attention["out"]["kernel"].reshape(8, 8).T,
            "self_attn.out_proj.bias": attention["out"]["bias"],
        }
        for j in range(2):
            dense, norm = body[f"dense_{i}_{j}"], body[f"norm_{i}_{j}"]
            state |= {f"linear{j + 1}.weight": dense["kernel"].T, f"linear{j + 1}.bias": dense["bias"]}
            state |= {f"norm{j + 1}.weight": norm["scale"], f"norm{j + 1}.bias": norm["bias"]}
        layer.load_state_dict(state)
        with torch.no_grad():
            y = layer.train()(y)
    y = functional.layer_norm(y[:, 0], (8,), body["norm"]["scale"], body["norm"]["bias"], 1e-6)
    expected = (y @ head["kernel"] + head["bias"]).numpy()
    np.testing.assert_allclose(jax.jit(model.apply)(params, x), expected, rtol=1e-5, atol=1e-5)
