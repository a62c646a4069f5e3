"""The meta-updates that `suite.py` and `scaling.py` time, how they run in JAX, and the clock."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import jaxmeta
from jaxmeta import data, models

Name = TypeVar("Name")
Learner = Literal["maml", "meta-sgd", "meta-kfo", "protonet"]
KEY = 1  # every way does its first update on the same tasks


class Workload(NamedTuple):
    """One meta-update; Adam outside."""

    learner: Learner
    model: nn.Module
    sampler: Any
    num_tasks: int
    """Tasks per update."""
    steps: int = 1
    """Inner steps."""
    first_order: bool = False
    """Leave second derivatives out; for MAML."""
    rate: float = 0.4
    """Of the inner steps."""

    def optimizer(self) -> optax.GradientTransformation:
        """The outer optimizer."""
        return optax.adam(1e-3)

    def make(self, meta_gradient: jaxmeta.MetaGradient | None = None) -> jaxmeta.MetaLearner:
        """The learner; `meta_gradient` in place of `reverse()` or `first_order()`."""
        if self.learner == "protonet":
            model: Any = self.model
            return jaxmeta.protonet(lambda p, x: model.apply(p, x, method="features"), model.ways)
        loss = jaxmeta.regression if isinstance(self.model, models.MLP) else jaxmeta.classification
        loss_fn = loss(self.model.apply)
        if meta_gradient is None:
            meta_gradient = jaxmeta.first_order() if self.first_order else jaxmeta.reverse()
        if self.learner == "meta-sgd":
            return jaxmeta.meta_sgd(loss_fn, self.rate, self.steps, meta_gradient=meta_gradient)
        if self.learner == "meta-kfo":
            return jaxmeta.meta_kfo(loss_fn, self.rate, self.steps, meta_gradient=meta_gradient)
        return jaxmeta.maml(loss_fn, optax.sgd(self.rate), self.steps, meta_gradient=meta_gradient)

    def init(self) -> jaxmeta.MetaParams:
        """The same initial meta-parameters for every way."""
        params = jax.jit(self.model.init)(jax.random.key(0), self.sampler.example)
        return self.make().init(jax.tree.map(lambda p: p.astype(jnp.result_type(float)), params))

    def tasks(self) -> jaxmeta.Task:
        """The tasks of the first update, as `meta_step` draws them; arrays with an axis of tasks in front."""
        return _draw(self.sampler, jax.random.split(jax.random.split(jax.random.key(KEY), 1)[0], self.num_tasks))


@jax.jit
def _draw(sampler: Any, keys: jax.Array) -> jaxmeta.Task:
    return jax.vmap(lambda key: sampler(jax.random.split(key)[0]))(keys)


class Way(NamedTuple):
    """A way to do a meta-update."""

    run: Callable[[], Any]
    """One call; waits for its result."""
    gradient: Callable[[Any], list[Any]] | None = None
    """From the result of the first call to the meta-gradient of the parameters, in the order and layout of Flax."""
    updates: int = 1
    """Meta-updates of a call."""
    compile_s: float = float("nan")
    """CPU time to trace and to compile."""
    compile_wall_s: float = float("nan")
    """Wall time of the same."""
    memory: float = float("nan")
    """Peak memory for intermediate values, MiB."""


def conv4(num_tasks: int, *, learner: Learner = "maml", hidden: int = 64, queries: int = 1, **options: Any) -> Workload:
    """5-way 1-shot tasks of 28x28 random pixels, 4 convolutions of stride 2 with batch norm."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 20, 28, 28, 1), np.uint8)
    sampler = data.FewShot.from_classes(pixels, queries=queries)
    return Workload(learner, models.OmniglotCNN(hidden=hidden, padding=1), sampler, num_tasks, **options)


def naive(work: Workload) -> Workload:
    """The same with XLA's own convolution: what `flax.linen.Conv` gives, and what one writes first."""
    return work._replace(model=work.model.copy(lowering="conv"))


def jax_way(
    work: Workload,
    *,
    updates: int = 1,
    unroll: int = 1,
    batch_size: int | None = None,
    meta_gradient: jaxmeta.MetaGradient | None = None,
    mesh: Any = None,
) -> Way:
    """Compiles `jaxmeta.meta_step`, with `updates` of them in one program, `unroll` in each pass of its loop."""
    optimizer, meta = work.optimizer(), work.init()
    training = jaxmeta.meta_step(work.make(meta_gradient), optimizer, work.num_tasks, batch_size=batch_size, mesh=mesh)

    def train(state: jaxmeta.TrainingState, sampler: Any, key: jax.Array) -> Any:
        def update(state: Any, key: jax.Array) -> tuple[Any, None]:
            return training.step(state, key, sampler)[0], None

        return jax.lax.scan(update, state, jax.random.split(key, updates), unroll=unroll)[0]

    arguments = (training.init(meta), work.sampler, jax.random.key(KEY))
    wall, cpu = time.perf_counter(), time.process_time()
    compiled = jax.jit(train).lower(*arguments).compile()
    compile_wall_s, compile_s = time.perf_counter() - wall, time.process_time() - cpu
    memory = compiled.memory_analysis()

    def gradient(result: Any) -> list[Any]:
        # Adam's first moment after its first update is the gradient times 1 - b1.
        return [moment / 0.1 for moment in jax.tree.leaves(result.opt_state[0].mu.params)]

    return Way(
        lambda: jax.block_until_ready(compiled(*arguments)),
        gradient if updates == 1 else None,
        updates,
        compile_s,
        compile_wall_s,
        memory.temp_size_in_bytes / 2**20 if memory else float("nan"),
    )


def alternate(ways: dict[Name, Way], rounds: int) -> dict[Name, dict[str, float]]:
    """Medians per meta-update of rounds in which each way has its turn, after a first call that does not count."""
    times: dict[Name, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way.run()
            if turn:
                spent = time.perf_counter() - wall, time.process_time() - cpu
                times[name].append((spent[0] / way.updates, spent[1] / way.updates))
    return {
        name: {
            "ms": 1e3 * statistics.median(wall for wall, _ in times[name]),
            "cpu_ms": 1e3 * statistics.median(cpu for _, cpu in times[name]),
            "temporary_MiB": way.memory,
            "compile_s": way.compile_s,
        }
        for name, way in ways.items()
    }


def machine() -> dict[str, Any]:
    """What the numbers were measured on, and how busy it was."""
    return {
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "float": str(jnp.result_type(float)),
        "load": [round(load, 1) for load in os.getloadavg()],
    }
