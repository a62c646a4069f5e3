"""Backbones, batch norm with given statistics, dropout by key, heads, Kronecker layers, weights from elsewhere."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmeta import models

KEY = jax.random.key(0)


def random(*shape, seed=0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_params(model, x) -> Any:
    """Without compiling `init`."""
    return jax.tree.map(lambda p: 0.4 * random(*p.shape, seed=p.size), jax.eval_shape(model.init, KEY, x))


def features(model, variables, x, **options) -> Any:
    return model.apply(variables, x, method="features", **options)


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def resnet12(sizes, channels=3):
    """Three 3x3 convolutions and a 1x1 shortcut without biases, each with a norm of two vectors."""
    pairs = zip((channels, *sizes), sizes, strict=False)
    return sum(9 * i * o + 2 * 9 * o * o + i * o + 4 * 2 * o for i, o in pairs)


def conv4(sizes, channels=3):
    return sum(9 * i * o + o + 2 * o for i, o in zip((channels, *sizes), sizes, strict=False))


R2D2 = (96, 192, 384, 512)
RESNET50: dict[str, Any] = {"blocks": (3, 4, 6, 3), "bottleneck": True}
COUNTS = [
    # MetaOptNet's, measured in learn2learn (5 ways, 84x84): 12,427,525. "12.4M" in many papers.
    (models.ResNet12(), (84, 84, 3), 12_427_525, 640),
    (models.ResNet12(mean=False), (84, 84, 3), resnet12((64, 160, 320, 640)) + 16_000 * 5 + 5, 16_000),
    # TADAM's widths, learn2learn's `wider=False`. "8.0M".
    (models.ResNet12(sizes=(64, 128, 256, 512)), (84, 84, 3), resnet12((64, 128, 256, 512)) + 512 * 5 + 5, 512),
    (models.ResNet12(ways=64), (32, 32, 3), 12_427_525 + 59 * 641, 640),
    # WRN-28-10 with biases in its convolutions, measured in learn2learn (5 ways).
    (models.WRN28(), (84, 84, 3), 36_486_085, 640),
    # R2-D2's Conv-4; 51,200 features of 84x84 images are MetaOptNet's R2D2 embedding.
    (models.R2D2CNN(), (84, 84, 3), conv4(R2D2) + 51_200 * 5 + 5, 51_200),
    (models.R2D2CNN(joined=1), (32, 32, 3), conv4(R2D2) + 2048 * 5 + 5, 2048),
    # DeiT-Ti and DeiT-S: "5M" and "22M"; the sums of the layers are well known.
    (models.ViT(ways=1000), (224, 224, 3), 5_717_416, 192),
    (models.ViT(ways=1000, hidden=384, heads=6), (224, 224, 3), 22_050_664, 384),
    # torchvision's tables: resnet18, resnet50, wide_resnet50_2 and resnext50_32x4d.
    (models.ResNet(ways=1000), (224, 224, 3), 11_689_512, 512),
    (models.ResNet(ways=1000, **RESNET50), (224, 224, 3), 25_557_032, 2048),
    (models.ResNet(ways=1000, **RESNET50, inner=128), (224, 224, 3), 68_883_240, 2048),
    (models.ResNet(ways=1000, **RESNET50, inner=128, groups=32), (224, 224, 3), 25_028_904, 2048),
    (models.Classifier(models.CNN4(), models.CosineDense(64)), (84, 84, 3), 112_261 + 1152 - 325 + 1600 * 64 + 1, 1600),
]


@pytest.mark.parametrize(("model", "shape", "parameters", "width"), COUNTS)
@pytest.mark.quick("model[0-6]-*")
def test_parameters_and_shapes(model, shape, parameters, width):
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    params = jax.eval_shape(model.init, KEY, x)
    assert sum(p.size for p in jax.tree.leaves(params)) == parameters
    assert list(params) == ["params"] and set(params["params"]) == {"body", "head"}
    kernel = params["params"]["head"]["kernel"].shape
    assert kernel[0] == width
    assert jax.eval_shape(model.apply, params, x).shape == (2, kernel[1])
    assert jax.eval_shape(partial(features, model), params, x).shape == (2, width)


def test_r2d2_is_its_definition():
    """Written with Flax's own layers, in the paper's order or the other: pooling and a monotone function commute."""
    model, x = models.R2D2CNN(sizes=(4, 6, 5), norm="none"), random(2, 17, 16, 3)
    params = random_params(model, x)

    @jax.jit
    def both(params, x):
        y: Any = x
        outputs = []
        for i, size in enumerate(model.sizes):
            y = nn.Conv(size, (3, 3)).apply({"params": params["params"]["body"][f"conv_{i}"]}, y)
            y = nn.max_pool(nn.leaky_relu(y, 0.1), (2, 2), (2, 2))
            outputs.append(y.reshape(2, -1))
        return features(model, params, x), jnp.concatenate(outputs[1:], 1)

    close(*both(params, x), rtol=1e-5, atol=1e-5)


DROPPING = [  # and how many layers drop
    (models.ResNet12(sizes=(4, 4, 4), drop_rate=0.3), 3),
    (models.WRN28(widen=1, blocks=2, drop_rate=0.3), 6),
    (models.R2D2CNN(sizes=(4, 4, 4), drop_rate=0.3), 2),
    (models.ViT(patch=4, hidden=4, depth=2, heads=1, drop_rate=0.3), 4),
]


@pytest.mark.parametrize(("model", "layers"), DROPPING)
def test_dropout_is_on_when_a_key_is_given(model, layers, monkeypatch):
    draws, bernoulli = [], jax.random.bernoulli
    monkeypatch.setattr(jax.random, "bernoulli", lambda *args, **kw: draws.append(1) or bernoulli(*args, **kw))
    x = random(2, 16, 16, 1)
    params = random_params(model, x)
    plain, without = jax.jit(lambda *args: [features(m, *args) for m in (model, model.clone(drop_rate=0.0))])(params, x)
    np.testing.assert_array_equal(plain, without)
    assert not draws
    jax.eval_shape(lambda params, x: features(model, params, x, rngs={"dropout": KEY}), params, x)
    assert len(draws) == layers


def test_drop_block():
    rate, size, shape = 0.2, 3, (64, 8, 7, 32)
    layer, x = models.DropBlock(rate, size), 1 + np.abs(random(*shape))
    ones = np.ones((8, 2, 2, 16), np.float32)

    @jax.jit
    def run(x, ones):
        rngs = {"dropout": KEY}
        return layer.apply({}, x), layer.apply({}, x, rngs=rngs), models.DropBlock(0.5, 5).apply({}, ones, rngs=rngs)

    same, y, small = map(np.asarray, run(x, ones))
    close(same, x, rtol=0)
    keep = y != 0
    close(y, x * keep * (keep.size / keep.sum()), rtol=1e-5)

    # What is dropped is a union of whole blocks.
    starts = np.ones((64, 6, 5, 32), bool)
    for i in range(size):
        for j in range(size):
            starts &= ~keep[:, i : i + 6, j : j + 5]
    union = np.zeros(shape, bool)
    covering = np.zeros(shape[1:3])  # by how many possible blocks each place is covered
    for i in range(size):
        for j in range(size):
            union[:, i : i + 6, j : j + 5] |= starts
            covering[i : i + 6, j : j + 5] += 1
    assert np.array_equal(union, ~keep)
    start = rate / size**2 * (8 * 7) / (6 * 5)
    close((~keep).mean((0, 3)), 1 - (1 - start) ** covering, atol=5 * (0.25 / (64 * 32)) ** 0.5)

    maps = small.transpose(0, 3, 1, 2).reshape(-1, 4)  # a map smaller than a block: all of it, or nothing
    assert (maps == maps[:, :1]).all() and set((maps > 0).sum(1).tolist()) == {0, 4}


def test_batch_norm_with_statistics():
    x, other = random(6, 5, 5, 3), random(2, 5, 5, 3, seed=1)
    affine = {"scale": random(3, seed=2), "bias": random(3, seed=3)}
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2), ddof=1)
    variables = {"params": affine, "batch_stats": {"mean": mean + 1, "var": 2 * var}}
    apply: Any = models.BatchNorm().apply

    @jax.jit
    def run(variables, x, other):
        params = {"params": variables["params"]}
        collecting = [apply(v, x, mutable=["batch_stats"]) for v in (params, variables)]
        gradient = jax.grad(lambda v: jnp.sum(apply(v, other) ** 2))(variables)
        one = apply(params, x[:1, 0, 0], mutable=["batch_stats"])[1]
        return collecting, apply(params, x), apply(variables, other), apply(variables, other[:1]), gradient, one

    (first, again), y, given, alone, gradient, one = run(variables, x, other)
    close(first[0], y, rtol=1e-6, atol=1e-6)
    close(first[1], {"batch_stats": {"mean": mean, "var": var}}, rtol=1e-5, atol=1e-6)
    close(again[0], apply(variables, x), rtol=1e-6, atol=1e-6)  # given statistics stay
    close(again[1]["batch_stats"], variables["batch_stats"], rtol=0, atol=0)
    expected = (other - mean - 1) / np.sqrt(2 * var + 1e-5) * affine["scale"] + affine["bias"]
    close(given, expected, rtol=1e-4, atol=1e-5)
    close(alone, expected[:1], rtol=1e-4, atol=1e-5)
    assert all((g == 0).all() for g in gradient["batch_stats"].values())
    assert (gradient["params"]["scale"] != 0).all()
    close(one, {"batch_stats": {"mean": x[0, 0, 0], "var": np.zeros(3)}})
    assert list(jax.eval_shape(models.BatchNorm().init, KEY, x)) == ["params"]


def test_batch_norm_of_a_shifted_input():
    """The shift counts as if it had been added to the input, in each of the three ways to call it."""
    x, shift = random(6, 5, 5, 3), random(3, seed=1)
    apply: Any = models.BatchNorm().apply
    params = {"params": {"scale": random(3, seed=2), "bias": random(3, seed=3)}}
    variables = {**params, "batch_stats": {"mean": random(3, seed=4), "var": random(3, seed=5) ** 2}}

    @jax.jit
    def run(x, *shift):
        collecting = apply(params, x, *shift, mutable=["batch_stats"])
        return apply(params, x, *shift), apply(variables, x, *shift), collecting

    close(run(x, shift), run(x + shift), rtol=1e-4, atol=1e-5)
    gradient = jax.grad(lambda shift: jnp.sum(jnp.square(apply(params, x, shift))))(shift)
    assert (gradient == 0).all()  # without statistics of its own it depends on differences only


def test_with_batch_stats():
    model, batches = models.OmniglotFC(ways=3, sizes=(4, 2)), random(5, 8, 3, 3, 1)
    params = random_params(model, batches[0])

    @jax.jit
    def run(params, batches):
        variables = models.with_batch_stats(model, params, batches)
        logits = model.apply(variables, batches[0]), model.apply(variables, batches[0, :1])
        return variables, models.with_batch_stats(model, variables, batches), logits

    variables, again, logits = run(params, batches)
    dense = params["params"]["body"]["dense_0"]
    hidden = batches.reshape(5, 8, 9) @ dense["kernel"] + dense["bias"]
    expected = {"mean": hidden.mean((0, 1)), "var": hidden.var(1, ddof=1).mean(0)}
    close(variables["batch_stats"]["body"]["norm_0"], expected, rtol=1e-4, atol=1e-6)
    assert list(variables["batch_stats"]["body"]) == ["norm_0", "norm_1"]
    close(again, variables, rtol=1e-6)
    close(logits[0][:1], logits[1], rtol=1e-5, atol=1e-6)
    plain = model.clone(norm="layer")
    assert list(jax.eval_shape(partial(models.with_batch_stats, plain), params, batches)) == ["params"]


def test_cosine_dense():
    layer, x = models.CosineDense(4, scale=5.0), random(3, 7)
    apply: Any = layer.apply
    params = layer.init(KEY, x)

    @jax.jit
    def run(params, x):
        scale_gradient = jax.grad(lambda p: jnp.sum(apply(p, x)))(params)["params"]["scale"]
        of_zeros, vjp = jax.vjp(partial(apply, params), jnp.zeros_like(x))
        return apply(params, x), apply(params, 100 * x), scale_gradient, of_zeros, vjp(of_zeros + 1)[0]

    y, of_longer, scale_gradient, of_zeros, zeros_gradient = run(params, x)
    kernel = np.asarray(params["params"]["kernel"])
    cosine = x @ kernel / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(kernel, axis=0)[None]
    close(y, 5 * cosine, rtol=1e-5, atol=1e-6)
    close(of_longer, 5 * cosine, rtol=1e-5, atol=1e-6)
    close(scale_gradient, cosine.sum(), rtol=1e-4, atol=1e-5)
    close(of_zeros, np.zeros((3, 4)))
    assert np.isfinite(zeros_gradient).all()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("psd", [False, True])
def test_kronecker_dense(psd):
    layer, x = models.KroneckerDense(2, 3, psd=psd), random(4, 5, 6)
    y, start = layer.init_with_output(KEY, x)
    close(y, x, rtol=1e-6)
    params = jax.tree.map(lambda p: random(*p.shape), start)
    left, right, bias = (params["params"][name] for name in ("left", "right", "bias"))
    if psd:
        left, right = left.T @ left, right.T @ right
    close(layer.apply(params, x), x @ np.kron(left.T, right) + bias.reshape(-1), rtol=1e-4, atol=1e-5)
    without = models.KroneckerDense(2, 3, use_bias=False).init(KEY, x)
    assert sum(p.size for p in jax.tree.leaves(params)) == 4 + 9 + 6
    assert sorted(without["params"]) == ["left", "right"]


@pytest.mark.parametrize(
    ("cell", "matrices"), [(models.KroneckerRNNCell(2, 3), 3), (models.KroneckerLSTMCell(2, 3), 8)]
)
def test_kronecker_cells(cell, matrices):
    """As many parameters as learn2learn's, and the recurrences written out."""
    rnn, x = nn.RNN(cell), random(4, 5, 6)
    shapes = jax.eval_shape(rnn.init, KEY, x)
    assert sum(p.size for p in jax.tree.leaves(shapes)) == matrices * (4 + 9 + 6)
    params = jax.tree.map(lambda p: 0.5 * random(*p.shape, seed=p.size), shapes)

    def dense(name, x):
        p = params["params"]["cell"][name]
        return x @ np.kron(p["left"].T, p["right"]) + p["bias"].reshape(-1)

    h, c, outputs = np.zeros((4, 6)), np.zeros((4, 6)), []
    for t in range(5):
        if matrices == 3:
            h = np.tanh(dense("input", x[:, t]) + dense("hidden", h))
            outputs.append(dense("output", h))
        else:
            i, f, g, o = (dense(f"input_{gate}", x[:, t]) + dense(f"hidden_{gate}", h) for gate in "ifgo")
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
    close(rnn.apply(params, x), np.stack(outputs, 1), rtol=1e-4, atol=1e-5)


def torch_names(model, **shapes):
    """A state dict of learn2learn's CNN4 in NumPy, without running statistics."""
    arrays = {}
    for i in range(model.blocks):
        arrays[f"features.{i}.conv.weight"] = random(4, 4 if i else 3, 3, 3)
        arrays |= {f"features.{i}.{name}": random(4) for name in ("conv.bias", "normalize.weight", "normalize.bias")}
    return arrays | {"classifier.weight": random(5, 16), "classifier.bias": random(5)} | shapes


def test_from_torch_takes_numpy():
    """The names and layouts of learn2learn; outputs are compared with PyTorch's in test_from_torch.py."""
    model, x = models.CNN4(hidden=4, blocks=3), jnp.zeros((1, 16, 16, 3))
    state_dict = torch_names(model)
    params = models.from_torch(model, state_dict, x)["params"]
    close(params["body"]["conv_1"]["kernel"][2, 0, 1, 3], state_dict["features.1.conv.weight"][3, 1, 2, 0])
    close(params["head"]["kernel"].reshape(2, 2, 4, 5)[1, 0, 2, 3], state_dict["classifier.weight"][3, 2 * 4 + 1 * 2])
    backbone = {name: value for name, value in state_dict.items() if name.startswith("features.")}
    again = models.from_torch(model, {"module." + name: value for name, value in backbone.items()}, x)["params"]
    close(again["body"], params["body"], rtol=0)
    assert not again["head"]["kernel"].any() and again["head"]["kernel"].shape == (16, 5)


def bad_state_dict(change):
    model = models.CNN4(hidden=4, blocks=3)
    state_dict = torch_names(model)
    change(state_dict)
    return lambda: models.from_torch(model, state_dict, jnp.zeros((1, 16, 16, 3)))


def bad_model(model):
    return lambda: models.from_torch(model, {}, jnp.zeros((1, 16, 16, 3)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (bad_state_dict(lambda d: d.pop("features.1.conv.bias")), ValueError, r"CNN4: missing: 1\.conv\.bias$"),
        (bad_state_dict(lambda d: d.update({"gamma": random(1)})), ValueError, "unknown: gamma$"),
        (
            bad_state_dict(lambda d: d.update({"classifier.bias": random(4)})),
            ValueError,
            r"classifier.bias gives \(4,\)",
        ),
        (
            bad_state_dict(lambda d: d.update({"features.0.normalize.running_mean": random(4)})),
            ValueError,
            "missing: .*0.normalize.running_var",
        ),
        (bad_model(models.CNN4(norm="group")), ValueError, "norm of CNN4 must be 'batch'"),
        (bad_model(models.CNN4(blocks=2)), ValueError, "blocks must be 3 or more"),
        (bad_model(models.CNN4(max_pool=False)), ValueError, "padding of CNN4 must be 1"),
        (bad_model(models.OmniglotCNN()), ValueError, "padding of OmniglotCNN must be 1"),
        (bad_model(models.OmniglotFC()), ValueError, "epsilon of OmniglotFC must be 0.001"),
        (bad_model(models.CNN4(warp=True)), ValueError, "missing: .*body/warp_0"),
        (bad_model(models.MLP()), TypeError, "CNN4, OmniglotCNN, OmniglotFC, ResNet, ResNet12, ViT, WRN28, got MLP"),
    ],
)
def test_from_torch_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def init(model, *shape):
    return lambda: jax.eval_shape(model.init, KEY, jnp.zeros(shape))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.ResNet12(sizes=()), "sizes"),
        (lambda: models.ResNet12(drop_rate=1.0), "drop_rate must be a number of at least 0 and less than 1"),
        (lambda: models.ResNet12(block_size=0), "block_size"),
        (lambda: models.ResNet12(ways=0), "ways"),
        (init(models.ResNet12(), 1, 15, 84, 3), "16x16"),
        (lambda: models.WRN28(widen=0), "widen"),
        (lambda: models.WRN28(blocks=0), "blocks"),
        (init(models.WRN28(widen=1), 84, 84, 3), r"\(84, 84, 3\)"),
        (lambda: models.R2D2CNN(joined=5), "joined must be at most the number of blocks, 4"),
        (lambda: models.R2D2CNN(joined=0), "joined"),
        (init(models.R2D2CNN(), 1, 28, 15, 1), "16x16"),
        (lambda: models.ViT(hidden=100), "heads must divide hidden"),
        (lambda: models.ViT(depth=0), "depth"),
        (init(models.ViT(patch=5), 1, 28, 28, 1), "patches of 5 tile"),
        (lambda: models.DropBlock(-0.1), "rate"),
        (lambda: models.DropBlock(0.1, 0), "size"),
        (init(models.DropBlock(0.1), 3, 3, 1), r"\(3, 3, 1\)"),
        (lambda: models.CosineDense(0), "features"),
        (lambda: models.CosineDense(1, scale=0.0), "scale"),
        (lambda: models.KroneckerDense(2, 0), "columns"),
        (init(models.KroneckerDense(2, 3), 5), r"2 \* 3"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
