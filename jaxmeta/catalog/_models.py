"""The models that a run can name."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from jaxmeta import models
from jaxmeta.catalog._options import TASKS, Settings
from jaxmeta.catalog._registry import MODELS, Model, add, description


def register_model(
    name: str,
    build: Callable[[Settings, int], nn.Module],
    *,
    kinds: tuple[str, ...] = ("images",),
    options: dict[str, Any] | None = None,
    about: object = None,
    has_body: bool = True,
) -> None:
    """Adds a model, for `--model name` and `Experiment(model=name)`.

    Args:
        name: lower-case letters, digits and hyphens.
        build: `(settings, ways) -> network`, a Linen module with `ways` outputs and a `features` method. For a
            regression benchmark `ways` is the number of targets.
        kinds: the kinds of benchmark that it is for, of `"images"`, `"text"`, `"vectors"` and `"regression"`.
        options: the options that it has, with their defaults, such as `{"hidden": 64, "norm": "batch"}`. A default may
            be a mapping from the kind of benchmark to a value.
        about: object whose docstring describes the model, such as its class; `build` if `None`.
        has_body: whether it has layers before its head. Without them the inputs are the features.

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
    add(MODELS, "model", name, Model(build, kinds, options or {}, *description(about or build), has_body))


_DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}  # `None` is the type of the inputs and the parameters


def _mlp(s: Settings, ways: int) -> nn.Module:
    sizes = (s.hidden, s.hidden) if s.kind == "regression" else (s.hidden,)
    return models.MLP(sizes, ways, dtype=_DTYPES[s.dtype])


def _identity(s: Settings, ways: int) -> nn.Module:
    """The inputs themselves as features, with a linear classifier of them: for features of a frozen network."""
    return models.MLP((), ways, dtype=_DTYPES[s.dtype])


def _plain(make: Callable[..., nn.Module], *names: str) -> Callable[[Settings, int], nn.Module]:
    """A network whose arguments are called like the options."""
    return lambda s, ways: make(ways=ways, dtype=_DTYPES[s.dtype], **{n: s[n] for n in names if n in s})


_MLP = {"hidden": {"text": 64, "vectors": 64, "regression": 40}}
_CONV = {"hidden": 64, "norm": "batch"}
_DEEP = {"drop_rate": 0.1, "norm": "batch"}
_VIT = {"drop_rate": 0.0, "patch": 4}
_SKIP = {"hidden": 256, "drop_rate": 0.5}
register_model("cnn", _plain(models.OmniglotCNN, *_CONV), options=_CONV, about=models.OmniglotCNN)
register_model("cnn4", _plain(models.CNN4, *_CONV), options=_CONV, about=models.CNN4)
register_model("fc", _plain(models.OmniglotFC, "norm"), options={"norm": "batch"}, about=models.OmniglotFC)
register_model("mlp", _mlp, kinds=("text", "vectors", "regression"), options=_MLP, about=models.MLP)
register_model(
    "skip-linear", _plain(models.SkipLinear, *_SKIP), kinds=("text", "vectors"), options=_SKIP, about=models.SkipLinear
)
register_model("identity", _identity, kinds=("text", "vectors"), has_body=False)
register_model("r2d2-cnn", _plain(models.R2D2CNN, *_DEEP), options=_DEEP, about=models.R2D2CNN)
register_model("resnet12", _plain(models.ResNet12, *_DEEP), options=_DEEP, about=models.ResNet12)
register_model("wrn28", _plain(models.WRN28, *_DEEP), options=_DEEP, about=models.WRN28)
register_model("vit", _plain(models.ViT, *_VIT), options=_VIT, about=models.ViT)
