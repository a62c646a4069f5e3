"""Makes the page about optax's optimizers, in about five minutes: `python docs/optimizers.py`.

Each optimizer takes two inner steps in float64, and the meta-gradient is compared with finite differences. Slow tests
hold that a sample of the rows is current.
"""

import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

import jaxmeta
from jaxmeta import Batch, Task

PAGE = Path(__file__).parent / "pages" / "optimizers.md"
REGION = re.compile(r"(<!-- generated: optimizers -->\n)[^<]*(<!-- end -->)", re.S)
RATE, STEPS, KEY = 0.05, 2, jax.random.key(0)


def _sophia() -> optax.GradientTransformationExtraArgs:
    """Sophia, which has its own name for the function of the loss."""
    sophia: Any = contrib.sophia(RATE)

    def update(grads: Any, state: Any, params: Any, *, value_fn: Any, **_: Any) -> Any:
        return sophia.update(grads, state, params, obj_fn=value_fn)

    return optax.GradientTransformationExtraArgs(sophia.init, update)


# Transformations that need arguments, as they are tried.
ARGUMENTS: dict[str, Callable[[], Any]] = {
    "adaptive_grad_clip": lambda: optax.adaptive_grad_clip(0.1),
    "add_noise": lambda: optax.add_noise(0.1, 0.55, KEY),
    "apply_every": lambda: optax.apply_every(2),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.sgd(RATE), 3),
    "clip": lambda: optax.clip(0.1),
    "clip_by_block_rms": lambda: optax.clip_by_block_rms(0.1),
    "clip_by_global_norm": lambda: optax.clip_by_global_norm(0.1),
    "ema": lambda: optax.ema(0.9),
    "noisy_sgd": lambda: optax.noisy_sgd(RATE, key=KEY),
    "scale": lambda: optax.scale(0.5),
    "scale_by_polyak": lambda: optax.scale_by_polyak(),
    "trace": lambda: optax.trace(0.9),
    "normalize_by_update_norm": lambda: optax.normalize_by_update_norm(),
    "lbfgs": optax.lbfgs,
    "contrib.reduce_on_plateau": lambda: contrib.reduce_on_plateau(),
    "contrib.sam": lambda: contrib.sam(optax.sgd(RATE), optax.sgd(0.01), opaque_mode=False),
    "contrib.sophia": _sophia,
    "contrib.schedule_free": lambda: contrib.schedule_free(optax.sgd(RATE), RATE),
}
OTHERS = (
    "add_decayed_weights",
    "centralize",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_belief",
    "scale_by_distance_over_gradients",
    "scale_by_lion",
    "scale_by_novograd",
    "scale_by_optimistic_gradient",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_sign",
    "scale_by_sm3",
    "scale_by_stddev",
    "scale_by_trust_ratio",
    "scale_by_yogi",
    "zero_nans",
)


def optimizers() -> Iterator[tuple[str, Callable[[], optax.GradientTransformation]]]:
    """Yields optax's and contrib's optimizers and transformations, by name."""
    for module, prefix in ((optax, ""), (contrib, "contrib.")):
        for name, value in sorted(vars(module).items()):
            whole = prefix + name
            if name.startswith("_") or whole == "contrib.dpsgd":  # which takes the gradient of each example
                continue
            if whole in ARGUMENTS:
                yield whole, ARGUMENTS[whole]
            elif inspect.isfunction(value) and next(iter(inspect.signature(value).parameters), "") == "learning_rate":
                yield whole, lambda value=value: value(RATE)
            elif whole in OTHERS:
                yield whole, lambda value=value: optax.chain(value(), optax.sgd(RATE))


def _batch(seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(jnp.asarray(rng.normal(size=(6, 3))), jnp.asarray(rng.normal(size=(6, 2))))


def _learner(make: Callable[[], Any], meta_gradient: Any = None) -> jaxmeta.MetaLearner:
    loss = jaxmeta.regression(lambda p, x: jnp.tanh(x @ p["kernel"] + p["bias"][None]))
    return jaxmeta.maml(loss, make(), STEPS, meta_gradient=meta_gradient)


def _attempt(run: Callable[[], str]) -> str:
    """Returns what comes of an attempt, in a word."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run()
    except (TypeError, ValueError, NotImplementedError) as error:
        if "line search" in str(error) or "other parameters" in str(error):
            return "refused"
        return f"error ({type(error).__name__})"


def _second_order(make: Callable[[], Any], params: Any, task: Task) -> str:
    learner = _learner(make)
    meta = learner.init(params)
    _, gradient = jax.jit(learner.grad)(meta, task, KEY)
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(gradient.params)):
        return "NaN"
    direction = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size) + 1.0).reshape(x.shape), params)
    slope = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (gradient.params, direction)), strict=True))
    loss = jax.jit(lambda p: learner.grad(meta._replace(params=p), task, KEY)[0]["loss"])
    size = 1e-5
    ahead, behind = (
        loss(jax.tree.map(lambda p, d, sign=sign: p + sign * size * d, params, direction)) for sign in (1, -1)
    )
    difference = (ahead - behind) / (2 * size)
    return "exact" if abs(slope - difference) <= 1e-5 * max(1.0, abs(difference)) else "approximate"


def _runs(make: Callable[[], Any], params: Any, task: Task) -> str:
    learner = _learner(make, jaxmeta.first_order())
    _, gradient = jax.jit(learner.grad)(learner.init(params), task, KEY)
    return "works" if all(np.isfinite(x).all() for x in jax.tree.leaves(gradient)) else "NaN"


def _outside(make: Callable[[], Any], params: Any, task: Task) -> str:
    learner = _learner(lambda: optax.sgd(RATE))
    optimizer = make()
    training = jaxmeta.meta_step(learner, optimizer, num_tasks=2)
    state, step = training.init(learner.init(params)), jax.jit(training.step)
    for key in jax.random.split(KEY, 3):
        state, _ = step(state, key, jax.tree_util.Partial(lambda key: task))
    return "works" if all(np.isfinite(x).all() for x in jax.tree.leaves(state.meta)) else "NaN"


def row(name: str, make: Callable[[], Any]) -> str:
    """Returns the line of an optimizer in the table."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        params = {"kernel": jnp.asarray(rng.normal(size=(3, 2))), "bias": jnp.asarray(rng.normal(size=2))}
        task = Task(_batch(1), _batch(2))
        found = [_attempt(lambda f=f: f(make, params, task)) for f in (_second_order, _runs, _outside)]
    return f"| `{name}` | " + " | ".join(found) + " |"


def generated(page: str) -> str:
    """Returns the text of the page with its table made anew."""
    head = ["| optimizer | inside, `reverse()` | inside, `first_order()` | outside |", "| --- | --- | --- | --- |"]
    return REGION.sub(lambda m: "\n".join([m[1], *head, *(row(*each) for each in optimizers()), "", m[2]]), page)


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
