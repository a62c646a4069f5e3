"""Models: results, derivatives of first and second order, parameter counts, errors."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmeta import models
from jaxmeta.models._cnn import max_pool


def count(params):
    return sum(p.size for p in jax.tree.leaves(params))


def apply(model: nn.Module, params: Any, x: Any, method: str = "__call__") -> jax.Array:
    y = model.apply(params, x, method=method)
    assert isinstance(y, jax.Array)
    return y


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


CONVS = [
    # kernel_size, strides, padding, use_bias, shape
    ((3, 3), 2, "SAME", True, (2, 9, 8, 1)),
    ((3, 3), 1, "SAME", True, (2, 6, 5, 3)),
    ((3, 3), (1, 2), "VALID", False, (2, 6, 7, 3)),
    ((5, 2), (2, 3), "SAME", True, (1, 9, 11, 2)),
    ((1, 1), 2, "VALID", True, (2, 5, 6, 4)),
    ((3, 2), 1, 2, True, (1, 4, 5, 2)),
    ((3, 3), 2, (1, 0), True, (1, 6, 7, 2)),
    ((4, 4), 2, ((2, 1), (0, 3)), False, (1, 6, 7, 2)),
    ((3, 3), 1, "SAME", True, (6, 5, 3)),  # no batch axis
    ((3, 3), 2, "SAME", True, (2, 2, 6, 5, 3)),  # two of them
]


@pytest.mark.parametrize(("size", "strides", "padding", "use_bias", "shape"), CONVS)
def test_conv_is_flax_conv(size, strides, padding, use_bias, shape):
    x = jax.random.normal(jax.random.key(0), shape)
    theirs = nn.Conv(4, size, strides, padding, use_bias=use_bias)
    lowerings: tuple[models.Lowering, ...] = ("im2col", "conv")
    ours = [models.Conv(4, size, strides, padding, use_bias=use_bias, lowering=lowering) for lowering in lowerings]

    def result(module, params, x):
        def loss(params, x):
            y = apply(module, params, x)
            return jnp.sum(jnp.sin(y)), y

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    @jax.jit
    def results(x):
        params = theirs.init(jax.random.key(1), x)
        starts = params, ours[0].init(jax.random.key(1), x)
        return starts, [result(module, params, x) for module in [theirs, *ours]]

    starts, [(gradient, y), *others] = results(x)
    close(*starts, rtol=0, atol=0)
    for other_gradient, other_y in others:
        close(other_y, y, rtol=1e-6, atol=1e-6)
        close(other_gradient, gradient, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("dtype", "param_dtype", "input_dtype", "tolerance"),
    [
        (None, jnp.bfloat16, jnp.bfloat16, 2e-2),
        (jnp.bfloat16, jnp.float32, jnp.float32, 2e-2),
        (None, jnp.float32, jnp.bfloat16, 1e-6),
        (None, jnp.float16, jnp.float16, 5e-3),
    ],
)
@pytest.mark.quick("None-bfloat16-bfloat16-0.02")
def test_conv_dtypes(dtype, param_dtype, input_dtype, tolerance):
    x = jax.random.normal(jax.random.key(0), (2, 7, 7, 3), input_dtype)
    theirs = nn.Conv(4, (3, 3), 2, dtype=dtype, param_dtype=param_dtype)
    params = theirs.init(jax.random.key(1), x)
    expected = apply(theirs, params, x)
    for lowering in ("im2col", "conv"):
        ours = models.Conv(4, (3, 3), 2, dtype=dtype, param_dtype=param_dtype, lowering=lowering)
        chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(ours.init, jax.random.key(1), x), params)
        y = apply(ours, params, x)
        assert y.dtype == expected.dtype
        close(y.astype(jnp.float32), expected.astype(jnp.float32), rtol=tolerance, atol=tolerance)


def test_conv_is_flax_conv_in_float64():
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, 7, 7, 3), jnp.float64)
        ours, theirs = (m(4, (3, 3), 2, param_dtype=jnp.float64) for m in (models.Conv, nn.Conv))
        params = ours.init(jax.random.key(1), x)
        close(apply(ours, params, x), apply(theirs, params, x), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("lowering", "calls"), [("im2col", 0), ("conv", 1)])
def test_no_grouped_convolution_under_vmap_over_kernels(lowering, calls, monkeypatch):
    """With a kernel for each example a convolution is a grouped one, which is slow."""
    found = []
    convolve = jax.lax.conv_general_dilated
    monkeypatch.setattr(jax.lax, "conv_general_dilated", lambda *args, **kw: found.append(1) or convolve(*args, **kw))
    layer = models.Conv(4, (3, 3), lowering=lowering)
    x, kernel, bias = jnp.zeros((3, 2, 6, 6, 2)), jnp.zeros((3, 3, 3, 2, 4)), jnp.zeros((3, 4))
    jax.eval_shape(jax.vmap(partial(apply, layer)), {"params": {"kernel": kernel, "bias": bias}}, x)
    assert len(found) == calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(features=0, kernel_size=(3, 3)), "features"),
        (dict(features=1, kernel_size=3), "kernel_size"),
        (dict(features=1, kernel_size=(3,)), "kernel_size"),
        (dict(features=1, kernel_size=(3, 3), strides=0), "strides"),
        (dict(features=1, kernel_size=(3, 3), padding="same"), "padding"),
        (dict(features=1, kernel_size=(3, 3), padding=(1, 1, 1)), "padding"),
        (
            dict(features=1, kernel_size=(3, 3), padding=((1, 1), -1)),
            "padding must be an integer of at least 0",
        ),
        (dict(features=1, kernel_size=(3, 3), lowering="gemm"), "lowering"),
    ],
)
def test_conv_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.Conv(**arguments)


@pytest.mark.parametrize("shape", [(5, 5), (1, 2, 5, 1)])
def test_conv_input_errors(shape):
    with pytest.raises(ValueError, match=r"shape|does not fit"):
        models.Conv(1, (3, 3), padding="VALID").init(jax.random.key(0), jnp.zeros(shape))


COUNTS = [
    (models.OmniglotCNN(ways=5), (28, 28, 1), 112_261, 64),
    (models.OmniglotCNN(ways=5, norm="none"), (28, 28, 1), 112_261 - 512, 64),
    (models.OmniglotCNN(ways=20, hidden=32, layers=3), (14, 14, 3), 896 + 2 * 9248 + 3 * 64 + 660, 32),
    (models.CNN4(ways=5), (84, 84, 3), 121_093, 1600),
    (models.CNN4(ways=5, hidden=32), (84, 84, 3), 32_901, 800),
    (models.CNN4(ways=5), (28, 28, 1), 112_261, 64),
    (models.CNN4(ways=5), (32, 32, 3), 1792 + 110_784 + 512 + 256 * 5 + 5, 256),
    (models.CNN4(ways=5, max_pool=False, norm="layer"), (28, 28, 1), 112_261 + 3 * 64 * 5, 256),
    (models.CNN4(ways=5, blocks=2, norm="group"), (9, 9, 1), 640 + 36_928 + 256 + 256 * 5 + 5, 256),
    (models.OmniglotFC(ways=5), (28, 28, 1), 247_621, 64),
    (models.OmniglotFC(ways=5, norm="group"), (784,), 247_621, 64),
    (models.OmniglotFC(ways=5, sizes=[8], norm="none"), (4, 4), 17 * 8 + 9 * 5, 8),
    (models.MLP(), (1,), 1761, 40),
    (models.MLP(sizes=(), out=3), (4,), 15, 4),
    (models.SkipLinear(ways=5, hidden=3), (7,), 7 * 3 + 10 * 5 + 5, 10),
]


@pytest.mark.parametrize(("model", "shape", "parameters", "width"), COUNTS)
def test_parameters_and_shapes(model, shape, parameters, width):
    x = jnp.zeros((10, *shape))
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    assert count(params) == parameters
    assert set(params["params"]) <= {"body", "head"}
    outputs = model.out if isinstance(model, models.MLP) else model.ways
    assert params["params"]["head"]["kernel"].shape == (width, outputs)
    assert jax.eval_shape(partial(apply, model), params, x).shape == (10, outputs)
    assert jax.eval_shape(lambda p: apply(model, p, x, "features"), params).shape == (10, width)


def test_the_inputs_stay_among_the_features():
    model, x = models.SkipLinear(ways=2, hidden=3, drop_rate=0.5), jax.random.normal(jax.random.key(1), (400, 5))
    params: Any = model.init(jax.random.key(0), x)
    found: Any = model.apply(params, x, method="features")
    np.testing.assert_allclose(found[:, :5], 8 * x, rtol=1e-6)
    np.testing.assert_allclose(found[:, 5:], 8 * x @ params["params"]["body"]["kernel"], rtol=1e-4, atol=1e-5)
    dropped: Any = model.apply(params, x, method="features", rngs={"dropout": jax.random.key(2)})
    kept = dropped[:, :5] != 0
    np.testing.assert_allclose(dropped[:, :5][kept], 16 * x[kept], rtol=1e-6)
    assert abs(float(kept.mean()) - 0.5) < 0.05


SMALL = [
    models.OmniglotCNN(ways=3, hidden=8, layers=2),
    models.OmniglotCNN(ways=3, hidden=8, layers=2, norm="group"),
    models.CNN4(ways=3, hidden=8, blocks=2),
    models.CNN4(ways=3, hidden=8, blocks=2, max_pool=False, norm="layer"),
    models.OmniglotFC(ways=3, sizes=(16, 8)),
    models.OmniglotFC(ways=3, sizes=(16, 8), norm="none"),
    models.MLP(sizes=(8, 8), out=3),
    models.CNN4(ways=3, hidden=8, blocks=2, warp=True),
    models.MLP(sizes=(8, 8), out=3, warp=True),
    models.ResNet12(ways=3, sizes=(8, 16)),
    models.WRN28(ways=3, widen=1, blocks=1, norm="group"),
    models.R2D2CNN(ways=3, sizes=(8, 8)),
    models.ViT(ways=3, patch=3, hidden=8, depth=1, heads=2),
]


@pytest.mark.parametrize("model", SMALL)
def test_logits_are_the_head_of_the_features(model):
    x = np.float32(np.random.default_rng(0).normal(size=(6, 9, 9, 1)))
    params = jax.tree.map(np.float32, random_params(model, x))
    with jax.numpy_rank_promotion("raise"):
        logits, features = jax.jit(lambda p, x: (apply(model, p, x), apply(model, p, x, "features")))(params, x)
    head = params["params"]["head"]
    close(logits, np.asarray(features) @ head["kernel"] + np.asarray(head["bias"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_keeps_dtype(model, dtype):
    x = jnp.zeros((6, 9, 9, 1), dtype)
    params = jax.eval_shape(model.init, jax.random.key(1), x)
    params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, dtype), params)
    assert jax.eval_shape(partial(apply, model), params, x).dtype == dtype
    grads = jax.eval_shape(jax.grad(lambda p, x: apply(model, p, x).sum()), params, x)
    assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype(dtype)}
    mixed = model.clone(dtype=dtype)
    params = jax.eval_shape(mixed.init, jax.random.key(1), x)
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert jax.eval_shape(partial(apply, mixed), params, x).dtype == dtype


def bad(**arguments: Any) -> dict[str, Any]:
    """Arguments that the type checker would refuse."""
    return arguments


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.OmniglotCNN(ways=0), "ways"),
        (lambda: models.OmniglotCNN(**bad(norm="instance")), "norm must be one of .*'instance'"),
        (
            lambda: models.OmniglotCNN(**bad(lowering="gemm")).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1))),
            "lowering",
        ),
        (lambda: models.CNN4(blocks=0), "blocks"),
        (lambda: models.CNN4(hidden=12, norm="group").init(jax.random.key(0), jnp.zeros((1, 28, 28, 1))), "groups"),
        (lambda: models.OmniglotFC(sizes=(8, 0)), "sizes"),
        (lambda: models.MLP(out=0), "out"),
        (lambda: models.SkipLinear(ways=2, drop_rate=1.0), "drop_rate"),
        (lambda: models.SkipLinear(ways=2, scale=0.0), "scale"),
        (lambda: models.SkipLinear(ways=2).init(jax.random.key(0), jnp.zeros(())), r"\(\)"),
        (lambda: models.OmniglotCNN().init(jax.random.key(0), jnp.zeros((28, 28, 1))), r"\(28, 28, 1\)"),
        (lambda: models.OmniglotCNN().init(jax.random.key(0), jnp.zeros((1, 7, 9, 1))), r"8x8.*\(1, 7, 9, 1\)"),
        (lambda: models.CNN4().init(jax.random.key(0), jnp.zeros((1, 28, 28))), r"\(1, 28, 28\)"),
        (lambda: models.CNN4().init(jax.random.key(0), jnp.zeros((1, 15, 28, 1))), r"16x16.*\(1, 15, 28, 1\)"),
        (lambda: models.OmniglotFC().init(jax.random.key(0), jnp.zeros(784)), r"\(784,\)"),
        (lambda: models.MLP().init(jax.random.key(0), jnp.zeros(())), r"\(\)"),
        (lambda: models.BatchNorm().init(jax.random.key(0), jnp.zeros(3)), r"\(3,\)"),
        (lambda: models.GroupNorm(3).init(jax.random.key(0), jnp.zeros((2, 4))), "groups"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_norms_standardize():
    x = np.float32(5 + 3 * np.random.default_rng(0).normal(size=(16, 6, 6, 8)))
    bias = np.arange(8, dtype=np.float32)
    params = {"params": {"scale": np.full(8, 2, np.float32), "bias": bias}}
    y = (np.asarray(apply(models.BatchNorm(epsilon=0.0), params, x)) - bias) / 2
    close(y.mean((0, 1, 2)), np.zeros(8), atol=1e-5)
    close(y.std((0, 1, 2)), np.ones(8), atol=1e-5)
    y = (np.asarray(apply(models.GroupNorm(groups=4, epsilon=0.0), params, x)) - bias) / 2
    y = y.reshape(16, 36, 4, 2)
    close(y.mean((1, 3)), np.zeros((16, 4)), atol=1e-5)
    close(y.std((1, 3)), np.ones((16, 4)), atol=1e-5)
    theirs = nn.GroupNorm(4, epsilon=1e-5, use_fast_variance=False)
    close(apply(models.GroupNorm(groups=4), params, x), apply(theirs, params, x), atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "groups", "axes"),
    [(models.BatchNorm(0.1), (120, 1, 4), (0,)), (models.GroupNorm(2, 0.1), (6, 20, 2, 2), (1, 3))],
)
def test_derivatives_of_norms(norm, groups, axes):
    """Value, gradient, its derivative along a tangent and the gradient of that, as JAX derives them of the formula."""

    def formula(params, x):
        grouped = x.reshape(groups)
        centered = grouped - jnp.mean(grouped, axes, keepdims=True)
        y = centered / jnp.sqrt(jnp.mean(jnp.square(centered), axes, keepdims=True) + 0.1)
        scale, bias = (params["params"][name].reshape(1, 1, 1, 4) for name in ("scale", "bias"))
        return y.reshape(x.shape) * scale + bias

    def draw(seed):
        rng = np.random.default_rng(seed)
        return {"params": {"scale": rng.normal(size=4), "bias": rng.normal(size=4)}}, rng.normal(size=(6, 4, 5, 4))

    def dot(a, b):
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)))

    @partial(jax.jit, static_argnums=0)
    def derivatives(apply, point, tangents):
        first = jax.grad(lambda point: jnp.sum(tangents[0][1] * jnp.tanh(apply(*point))))
        second = lambda point: jax.jvp(first, (point,), (tangents[1],))[1]  # noqa: E731
        return apply(*point), first(point), second(point), jax.grad(lambda p: dot(second(p), tangents[2]))(point)

    with jax.enable_x64(True):
        point, *tangents = (draw(seed) for seed in range(4))
        ours, theirs = (derivatives(f, point, tangents) for f in (norm.apply, formula))
        close(ours, theirs, rtol=1e-9, atol=1e-9)
        assert all(np.abs(x).max() > 0.1 for x in jax.tree.leaves(theirs))


def test_batch_norm_is_transductive_and_group_norm_is_not():
    x = np.float32(np.random.default_rng(0).normal(size=(4, 8, 8, 1)))
    table: list[tuple[models.Norm, bool]] = [("batch", False), ("group", True), ("layer", True), ("none", True)]
    for norm, same in table:
        model = models.OmniglotCNN(ways=2, hidden=8, layers=1, norm=norm)
        params = jax.tree.map(np.float32, random_params(model, x))
        y, first = jax.jit(lambda p, x, model=model: (apply(model, p, x), apply(model, p, x[:2])))(params, x)
        assert np.allclose(y[:2], first, atol=1e-5) is same


@pytest.mark.parametrize(
    ("model", "warps"),
    [
        (models.OmniglotCNN(ways=3, hidden=8, layers=2), 2),
        (models.CNN4(ways=3, hidden=8, blocks=3), 3),
        (models.OmniglotFC(ways=3, sizes=(5, 4)), 2),
        (models.MLP(sizes=(5,), out=3), 1),
    ],
)
def test_warp_layers_start_as_the_identity(model, warps):
    """A warped model has the parameters and outputs of the plain one, and a matrix per layer, which counts."""
    x = np.float32(np.random.default_rng(0).normal(size=(6, 9, 9, 1)))
    warped = model.clone(warp=True)
    params, plain = jax.jit(lambda x: [module.init(jax.random.key(0), x) for module in (warped, model)])(x)
    matrices = {path: leaf for path, leaf in jax.tree.leaves_with_path(params) if path[-1].key == "warp"}
    assert len(matrices) == warps
    for matrix in matrices.values():
        close(matrix, np.eye(len(matrix)))
    others = [leaf for path, leaf in jax.tree.leaves_with_path(params) if path not in matrices]
    close(others, jax.tree.leaves(plain), rtol=0)
    moved = jax.tree.map_with_path(lambda path, a: a[:, ::-1] if path in matrices else a, params)

    @jax.jit
    def outputs(plain, params, moved, x):
        return apply(model, plain, x), apply(warped, params, x), apply(warped, moved, x)

    expected, y, other = outputs(plain, params, moved, x)
    close(y, expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(other, y, atol=1e-3)


def test_max_pool():
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    close(max_pool(x), nn.max_pool(x, (2, 2), (2, 2)), rtol=0)


# Derivatives of a MAML objective, written out by hand.


def objective(model, steps=1, rate=0.3):
    def loss(params, x, y):
        return jnp.mean((apply(model, params, x) - y) ** 2)

    def meta_loss(params, task):
        (x, y), query = task
        for _ in range(steps):
            params = jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params, x, y))
        return loss(params, *query)

    return loss, meta_loss


def random_task(seed: int, ways: int = 3) -> Any:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(2, 6, 8, 8, 1)), random.normal(size=(2, 6, ways))
    return (x[0], y[0]), (x[1], y[1])


def random_like(tree: Any, seed: int) -> Any:
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda a: random.normal(size=a.shape), tree)


def random_params(model: nn.Module, x: Any) -> Any:
    """Near 1 for scales and near 0 for the rest, but on no dead point of the initialization."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    noise = random_like(shapes, 7)
    return jax.tree_util.tree_map_with_path(lambda path, a: 0.4 * a + ("scale" in str(path)), noise)


SMOOTH = [
    models.OmniglotFC(ways=3, sizes=(5, 4), param_dtype=jnp.float64),
    models.OmniglotCNN(ways=3, hidden=4, layers=2, param_dtype=jnp.float64, lowering="im2col"),
    models.OmniglotCNN(ways=3, hidden=4, layers=1, norm="layer", param_dtype=jnp.float64, lowering="conv"),
    models.CNN4(ways=3, hidden=4, blocks=1, param_dtype=jnp.float64),
    pytest.param(models.ResNet12(ways=3, sizes=(4,), param_dtype=jnp.float64), marks=pytest.mark.slow),
    pytest.param(
        models.ViT(ways=3, patch=4, hidden=4, depth=1, heads=2, param_dtype=jnp.float64), marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize("model", SMOOTH)
@pytest.mark.quick("model[13]")
def test_second_derivatives(model):
    """The meta-gradient equals finite differences; forward over reverse equals reverse over reverse."""
    width = 1e-7  # smaller than the way to the next ReLU's kink, where the adapted parameters jump
    with jax.enable_x64(True):
        task = random_task(0)
        params = random_params(model, task[0][0])
        loss, meta_loss = objective(model)
        value = jax.jit(meta_loss)

        @jax.jit
        def derivatives(params, direction):
            def gradient(params):
                return jax.grad(loss)(params, *task[0])

            forward = jax.jvp(gradient, (params,), (direction,))[1]
            reverse = jax.vjp(gradient, params)[1](direction)[0]
            return jax.grad(meta_loss)(params, task), forward, reverse

        for seed in range(3):
            direction = random_like(params, seed)
            gradient, forward, reverse = derivatives(params, direction)
            close(forward, reverse, rtol=1e-9, atol=1e-11)
            plus, minus = (jax.tree.map(lambda p, d, h=h: p + h * d, params, direction) for h in (width, -width))
            numeric = (value(plus, task) - value(minus, task)) / (2 * width)
            exact = sum(np.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
            np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-8)


def test_vmap_over_tasks_is_a_loop():
    model = models.OmniglotCNN(ways=3, hidden=4, layers=2, lowering="im2col", norm="none")
    tasks = jax.tree.map(lambda *leaves: np.float32(np.stack(leaves)), *map(random_task, range(3)))
    params = jax.tree.map(np.float32, random_params(model, tasks[0][0][0]))
    gradient = jax.grad(objective(model)[1])
    together = jax.jit(jax.vmap(gradient, (None, 0)))(params, tasks)
    loop = jax.jit(lambda p, t: jax.lax.map(lambda task: gradient(p, task), t))(params, tasks)
    close(together, loop, rtol=1e-4, atol=1e-5)
