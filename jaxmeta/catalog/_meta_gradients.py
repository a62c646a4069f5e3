"""The meta-gradients that a run can name, and its outer optimizer."""

from collections.abc import Callable
from typing import Any

import optax

from jaxmeta.catalog._options import Settings
from jaxmeta.catalog._registry import META_GRADIENTS, NamedMetaGradient, add, description
from jaxmeta.meta_gradients import MetaGradient, cg, evolution, first_order, implicit, mixed, reverse, truncated

ALL = ("reverse", "mixed", "first-order", "truncated", "implicit", "evolution")
UNROLLED = ("reverse", "mixed", "first-order", "truncated")
"""Meta-gradients that are defined for every inner loop, also for one that learns values of its optimizer."""
AT_THE_END = (*UNROLLED, "implicit")
"""Those of an inner loop that may converge, and whose optimizer learns no values."""

_SCHEDULES = {
    "constant": lambda rate, steps: optax.constant_schedule(rate),
    "linear": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
    "cosine": optax.cosine_decay_schedule,
}


def _register(name: str, build: Callable[[Settings], MetaGradient], about: object, **options: Any) -> None:
    add(META_GRADIENTS, "meta-gradient", name, NamedMetaGradient(build, options, *description(about)))


def build_optimizer(settings: Settings, steps_per_update: int = 1) -> optax.GradientTransformation:
    """Returns the outer optimizer of a run: Adam with the run's rate, schedule and clipping."""
    return clipped(settings, optax.adam(outer_schedule(settings, steps_per_update)))


def outer_schedule(settings: Settings, steps_per_update: int = 1) -> optax.Schedule:
    """Returns the outer rate as a function of the optimizer's steps."""
    steps = settings.iterations * steps_per_update
    return _SCHEDULES[settings.outer_schedule](settings.outer_rate, steps)


def clipped(settings: Settings, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the optimizer behind the run's clipping, if it has any."""
    return optax.chain(optax.clip_by_global_norm(settings.clip), optimizer) if settings.clip else optimizer


_register("reverse", lambda s: reverse(remat=s.remat), reverse, remat=False)
_register("mixed", lambda s: mixed(remat=s.remat), mixed, remat=False)
_register("first-order", lambda s: first_order(), first_order)
_register("truncated", lambda s: truncated(s.last_steps, remat=s.remat), truncated, last_steps=1, remat=False)
_register(
    "implicit", lambda s: implicit(cg(s.solver_steps), proximal=s.proximal), implicit, solver_steps=5, proximal=2.0
)
_register("evolution", lambda s: evolution(s.samples, scale=s.noise), evolution, samples=16, noise=0.01)
