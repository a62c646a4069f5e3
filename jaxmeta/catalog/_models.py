"""The models that a run can name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta import models
from jaxmeta._losses import at_least_float32, classification, regression
from jaxmeta._types import LossFn, PyTree
from jaxmeta.algorithms import Contextual
from jaxmeta.catalog._options import TASKS, Settings
from jaxmeta.catalog._registry import MODELS, Model, Network, add, description


def register_model(
    name: str,
    build: Callable[[Settings, int], nn.Module],
    *,
    kinds: tuple[str, ...] = ("images",),
    options: dict[str, Any] | None = None,
    about: object = None,
) -> None:
    """Adds a model, for `--model name` and `Experiment(model=name)`.

    Args:
        name: lower-case letters, digits and hyphens.
        build: `(settings, ways) -> network`, a Linen module with `ways` outputs and a `features` method. For a
            regression benchmark `ways` is the number of targets.
        kinds: the kinds of benchmark that it is for, of `"images"`, `"text"` and `"regression"`.
        options: the options that it has, with their defaults, such as `{"hidden": 64, "norm": "batch"}`. A default may
            be a mapping from the kind of benchmark to a value.
        about: object whose docstring describes the model, such as its class; `build` if `None`.

    Raises:
        ValueError: if the name is taken or malformed, or a kind is unknown.

    Example:
        >>> from jaxmeta import models, register
        >>> register.model("wide", lambda settings, ways: models.OmniglotCNN(ways, settings.hidden),
        ...                options={"hidden": 256}, about=models.OmniglotCNN)
    """
    for kind in kinds:
        if kind not in TASKS:
            raise ValueError(f"kinds must be among {', '.join(TASKS)}, got {kind!r}")
    add(MODELS, "model", name, Model(build, kinds, options or {}, *description(about or build)))


def build_network(settings: Settings, ways: int) -> nn.Module:
    """Returns the network that the options name."""
    return MODELS[settings.model].build(settings, ways)


def network_of(s: Settings, model: nn.Module) -> Network:
    """Returns what a learner needs of the model."""
    make_loss: Callable[..., LossFn] = regression if s.kind == "regression" else classification

    def forward(params: PyTree, x: jax.Array) -> Any:
        if isinstance(params, Contextual):
            return model.apply(params.params, x, params.context)
        return model.apply(params, x)

    def method(name: str) -> Any:
        return lambda *args, **options: at_least_float32(model.apply(*args, method=name, **options))

    def head(params: PyTree, features: jax.Array) -> Any:
        return model.apply(params, features, method=lambda module, x: module.head(x))

    def train_features(params: PyTree, x: jax.Array, key: jax.Array) -> Any:
        return method("features")(params, x, rngs={"dropout": key})

    dropped = train_features if s.get("drop_rate") else None
    return Network(model, make_loss(forward), make_loss(head), dropped, method)


def number_type(settings: Settings) -> Any:
    """Returns the type in which a model computes; `None` for that of its inputs and parameters."""
    return jnp.bfloat16 if settings.dtype == "bfloat16" else None


def _cnn(s: Settings, ways: int) -> nn.Module:
    return models.OmniglotCNN(ways=ways, hidden=s.hidden, norm=s.norm, dtype=number_type(s))


def _cnn4(s: Settings, ways: int) -> nn.Module:
    return models.CNN4(ways=ways, hidden=s.hidden, norm=s.norm, dtype=number_type(s))


def _fc(s: Settings, ways: int) -> nn.Module:
    return models.OmniglotFC(ways=ways, norm=s.norm, dtype=number_type(s))


def _mlp(s: Settings, ways: int) -> nn.Module:
    sizes = (s.hidden, s.hidden) if s.kind == "regression" else (s.hidden,)
    return models.MLP(sizes, ways, dtype=number_type(s))


def _r2d2_cnn(s: Settings, ways: int) -> nn.Module:
    return models.R2D2CNN(ways=ways, drop_rate=s.get("drop_rate", 0.0), norm=s.norm, dtype=number_type(s))


def _resnet12(s: Settings, ways: int) -> nn.Module:
    return models.ResNet12(ways=ways, drop_rate=s.get("drop_rate", 0.0), norm=s.norm, dtype=number_type(s))


def _wrn28(s: Settings, ways: int) -> nn.Module:
    return models.WRN28(ways=ways, drop_rate=s.get("drop_rate", 0.0), norm=s.norm, dtype=number_type(s))


def _vit(s: Settings, ways: int) -> nn.Module:
    return models.ViT(ways=ways, drop_rate=s.get("drop_rate", 0.0), patch=s.patch, dtype=number_type(s))


_MLP = {"hidden": {"text": 64, "regression": 40}}
_CONV = {"hidden": 64, "norm": "batch"}
_DEEP = {"drop_rate": 0.1, "norm": "batch"}
register_model("cnn", _cnn, options=_CONV, about=models.OmniglotCNN)
register_model("cnn4", _cnn4, options=_CONV, about=models.CNN4)
register_model("fc", _fc, options={"norm": "batch"}, about=models.OmniglotFC)
register_model("mlp", _mlp, kinds=("text", "regression"), options=_MLP, about=models.MLP)
register_model("r2d2-cnn", _r2d2_cnn, options=_DEEP, about=models.R2D2CNN)
register_model("resnet12", _resnet12, options=_DEEP, about=models.ResNet12)
register_model("wrn28", _wrn28, options=_DEEP, about=models.WRN28)
register_model("vit", _vit, options={"drop_rate": 0.0, "patch": 7}, about=models.ViT)
