"""What `gpu.py` measures: all rows, in order of importance. JAX and PyTorch start when a row is measured."""

import functools
import importlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from workloads import Way, Workload, alternate, conv4, jax_way

import jaxmeta
from jaxmeta import data, envs, models, rl

OPTIONS = (
    "--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,COLLECTIVES,WHILE,CONDITIONAL",
    "--xla_gpu_enable_command_buffer=",
    "--xla_gpu_graph_min_graph_size=1",
    "--xla_gpu_autotune_level=0",
    "--xla_gpu_enable_triton_gemm=false",
)
"""XLA's, each in a process of its own."""
PRECISIONS = ("default", "tensorfloat32", "highest", "bfloat16")
"""Of matrix products."""


class Row(NamedTuple):
    """One result."""

    part: str
    name: str
    measure: Callable[[], dict[str, Any]]
    flags: str = ""
    """Added to `XLA_FLAGS`."""


class Sizes(NamedTuple):
    """Sizes of all rows."""

    tasks: int = 32
    more_tasks: tuple[int, ...] = (256, 1024)
    memory_tasks: tuple[int, ...] = (64, 128, 512)
    hidden: int = 64
    updates: int = 20
    image_tasks: int = 8
    images: tuple[int, ...] = (84, 32)
    resnet_tasks: int = 2
    resnet: tuple[int, ...] = (64, 160, 320, 640)
    sinusoid_tasks: tuple[int, ...] = (25, 2500)
    drawn: tuple[int, int] = (400_000, 20_000)
    particle_tasks: tuple[int, ...] = (40, 400, 2000)
    cheetah_tasks: tuple[int, ...] = (40, 400)
    episodes: int = 20
    horizon: int = 100


SMALL = Sizes(2, (3,), (3,), 4, 2, 2, (32,), 2, (4, 4, 4, 4), (2,), (20, 10), (2,), (2,), 2, 3)
"""For a test on a CPU."""


def rows(sizes: Sizes) -> list[Row]:
    """All rows."""
    found = [Row("machine", "versions", machine), *_conv4_rows(sizes), *_precision_rows(sizes)]
    found += [*_lowering_rows(sizes), *_option_rows(sizes)]
    for tasks in sizes.sinusoid_tasks:
        run = functools.partial(update, functools.partial(sinusoid, tasks), 50 * sizes.updates)
        found.append(Row("small tasks", f"sinusoid, {tasks} tasks", run))
    for what, number in zip(("indices", "images"), sizes.drawn, strict=True):
        found.append(Row("small tasks", f"drawing {what}", functools.partial(drawing, what, number)))
    for tasks in sizes.particle_tasks:
        run = functools.partial(meta_rl, "particles2d", "l2l", tasks, sizes.episodes, sizes.horizon)
        found.append(Row("meta-RL", f"ProMP, Particles2D, {tasks} tasks", run))
    for how in ("torch.func, vmap of grad", "torch.autograd, loop over tasks", "learn2learn"):
        run = functools.partial(torch_update, sizes, how)
        found.append(Row("PyTorch", f"MAML, 1 step, {how}, {sizes.tasks} tasks", run))
    for tasks in sizes.cheetah_tasks:
        run = functools.partial(
            meta_rl, "half-cheetah-forward-backward", "promp", tasks, sizes.episodes, 2 * sizes.horizon
        )
        found.append(Row("meta-RL", f"ProMP, half-cheetah (spring), {tasks} tasks", run))
    for tasks in sizes.memory_tasks:
        work = functools.partial(characters, "im2col", tasks, hidden=sizes.hidden)
        run = functools.partial(update, work, sizes.updates, rounds=0)
        found.append(Row("memory", f"MAML, 1 step, im2col, {tasks} tasks", run))
    return found


def _conv4_rows(sizes: Sizes) -> Iterator[Row]:
    """The ways to compute MAML and ProtoNets on Conv-4."""

    def row(name: str, how: str, tasks: int = sizes.tasks, mixed: bool = False, **options: Any) -> Row:
        work = functools.partial(characters, how, tasks, hidden=sizes.hidden, **options)
        run = functools.partial(update, work, sizes.updates, mixed=mixed)
        return Row("Conv-4", f"{name}, {how}{', mixed()' if mixed else ''}, {tasks} tasks", run)

    for steps in (1, 5):
        name = f"MAML, {steps} step{'s' if steps > 1 else ''}"
        yield row(name, "im2col", steps=steps)
        yield row(name, "conv", steps=steps)
        yield row(name, "im2col", mixed=True, steps=steps)
    for how in ("im2col", "conv"):
        yield row("ProtoNets, 15 queries", how, learner="protonet", queries=15)
    for tasks in sizes.more_tasks:
        yield row("MAML, 1 step", "im2col", tasks)
    for how in ("im2col", "conv"):
        yield row("MAML, 1 step, first order", how, first_order=True)


def _precision_rows(sizes: Sizes) -> Iterator[Row]:
    """Precision of matrix products, and a model that computes in half precision: speed and rounding."""
    choices = {f"precision={name}": (None, name) for name in PRECISIONS} | {"dtype=bfloat16": (jnp.bfloat16, "default")}
    for steps in (1, 5):
        make = functools.partial(characters, "im2col", sizes.tasks, hidden=sizes.hidden, steps=steps)
        for name, (dtype, precision) in choices.items():
            run = functools.partial(rounding, make, sizes.updates, dtype, precision)
            yield Row("precision", f"{name}, {steps} step{'s' if steps > 1 else ''}", run)


def _lowering_rows(sizes: Sizes) -> Iterator[Row]:
    """Kernels of each task (MAML) and kernels that all tasks share (ProtoNets), by network and size of the image."""
    networks: dict[str, tuple[Any, int]] = {
        "CNN4": (models.CNN4(hidden=sizes.hidden), sizes.image_tasks),
        "ResNet-12": (models.ResNet12(sizes=sizes.resnet), sizes.resnet_tasks),
    }
    for name, (model, tasks) in networks.items():
        for learner, queries, kernels in (("maml", 1, "adapted"), ("protonet", 15, "shared")):
            for size in sizes.images:
                for how in ("im2col", "conv"):
                    work = functools.partial(images, learner, model.copy(lowering=how), size, queries, tasks)
                    run = functools.partial(update, work, max(1, sizes.updates // 5))
                    yield Row("lowering", f"{name}, {size}x{size}x3, {kernels} kernels, {how}, {tasks} tasks", run)


def _option_rows(sizes: Sizes) -> Iterator[Row]:
    """Options for speed."""
    make = functools.partial(characters, "im2col", sizes.tasks, hidden=sizes.hidden)
    makers = {steps: functools.partial(make, steps=steps) for steps in (1, 5)}

    def row(steps: int, name: str, flags: str = "", **options: Any) -> Row:
        run = functools.partial(update, makers[steps], sizes.updates, **options)
        return Row("options", f"{name}, {steps} step{'s' if steps > 1 else ''}", run, flags)

    for option in OPTIONS[:2]:
        for steps in (1, 5):
            yield row(steps, option, option)
    for steps in (1, 5):
        if steps == 5:
            for option in OPTIONS[2:]:
                for other in (1, 5):
                    yield row(other, option, option)
        yield row(steps, "unroll=4", unroll=4)


def machine() -> dict[str, Any]:
    """Versions and the card."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        card = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        card = "none"
    return {
        "device": jax.devices()[0].device_kind,
        "card": card,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def update(
    make: Callable[[], Workload],
    updates: int,
    *,
    rounds: int = 3,
    mixed: bool = False,
    unroll: int = 1,
    precision: str = "default",
) -> dict[str, Any]:
    """Time of a meta-update, with so many of them in one program; without rounds the program is only compiled."""
    work = make()
    with jax.default_matmul_precision(precision):
        way = jax_way(work, updates=updates, unroll=unroll, meta_gradient=jaxmeta.mixed() if mixed else None)
    compiled = {"tasks": work.num_tasks, "compile_s": way.compile_wall_s, "temporary_MiB": way.memory}
    return compiled | (_timed(way, work.num_tasks, rounds) if rounds else {})


def _timed(way: Way, tasks: int, rounds: int = 3) -> dict[str, float]:
    """Its median time and its rates."""
    ms = alternate({"": way}, rounds)[""]["ms"]
    return {"ms": ms, "updates_per_s": 1e3 / ms, "tasks_per_s": 1e3 * tasks / ms}


def images(learner: Any, model: Any, size: int, queries: int, tasks: int) -> Workload:
    """5-way 1-shot tasks of photos of random pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1 + queries, size, size, 3), np.uint8)
    return Workload(learner, model, data.FewShot.from_classes(pixels, queries=queries), tasks, rate=0.01)


def characters(how: str, tasks: int, **options: Any) -> Workload:
    """`conv4` with one lowering."""
    work = conv4(tasks, **options)
    return work._replace(model=work.model.copy(lowering=how))


def sinusoid(tasks: int) -> Workload:
    """A 40-40 network, 10 shots."""
    return Workload("maml", models.MLP(), data.Sinusoid(), num_tasks=tasks, rate=0.01)


def rounding(make: Callable[[], Workload], updates: int, dtype: Any, precision: str) -> dict[str, Any]:
    """Time, and the relative error of the first meta-gradient against float64 on the CPU."""
    work = make()
    chosen = work._replace(model=work.model.copy(dtype=dtype))
    arrays = work.init(), work.tasks()
    with jax.default_matmul_precision(precision):
        found = _flat(jax.jit(functools.partial(_gradient, chosen))(*arrays))
    exact = _exact_gradient(make)
    error = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    measured = update(lambda: chosen, updates, precision=precision)
    return {**measured, "gradient_error": error, "backend": jax.default_backend()}


def _gradient(work: Workload, meta: jaxmeta.MetaParams, tasks: jaxmeta.Task) -> Any:
    """The mean meta-gradient of the parameters."""
    learner = work.make()
    grads = jax.vmap(lambda task: learner.grad(meta, task, jax.random.key(0))[1].params)(tasks)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), grads)


@functools.cache
def _exact_gradient(make: Callable[[], Workload]) -> np.ndarray:
    """The same in float64."""
    work = make()
    arrays = jax.tree.map(np.asarray, (work.init(), work.tasks()))
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        wide = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, arrays)
        return _flat(jax.jit(functools.partial(_gradient, work))(*wide))


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree)])


def drawing(what: str, number: int) -> dict[str, Any]:
    """Tasks per second, 5-way 1-shot of as many images as Omniglot has."""
    pixels = np.random.default_rng(0).integers(0, 256, (1623, 20, 28, 28, 1), np.uint8)
    sampler = data.FewShot.from_classes(pixels, queries=1)

    @jax.jit
    def draw(sampler: data.FewShot, key: jax.Array) -> Any:
        return jax.vmap(sampler if what == "images" else sampler.indices)(jax.random.split(key, number))

    way = Way(lambda: jax.block_until_ready(draw(sampler, jax.random.key(1))))
    ms = alternate({"": way}, 5)[""]["ms"]
    return {"tasks": number, "ms": ms, "tasks_per_s": 1e3 * number / ms}


def meta_rl(env: str, variant: str, tasks: int, episodes: int, horizon: int) -> dict[str, Any]:
    """Whole meta-iterations of ProMP: playing, one inner step, playing again, five outer steps."""
    world = envs.make(env, horizon=horizon, variant=variant)
    policy = rl.GaussianPolicy(action_size=world.action_size)
    collect = rl.Collector(env=world, policy=policy.apply, episodes=episodes)
    training = rl.promp(collect, optax.sgd(0.1), num_tasks=tasks, optimizer=optax.adam(1e-3))
    state = training.init(policy.init(jax.random.key(0), jnp.zeros((1, world.observation_size))))
    begin = time.perf_counter()
    step = jax.jit(training.step).lower(state, jax.random.key(1)).compile()
    compile_s = time.perf_counter() - begin
    memory: Any = step.memory_analysis()
    ms = alternate({"": Way(lambda: jax.block_until_ready(step(state, jax.random.key(1))))}, 3)[""]["ms"]
    steps = 2 * tasks * episodes * horizon
    return {
        "tasks": tasks,
        "ms": ms,
        "steps_per_s": 1e3 * steps / ms,
        "compile_s": compile_s,
        "temporary_MiB": memory.temp_size_in_bytes / 2**20,
    }


def torch_update(sizes: Sizes, how: str) -> dict[str, Any]:
    """The same update in PyTorch with TF32; learn2learn's sources are looked for in the folder LEARN2LEARN."""
    torch: Any = importlib.import_module("torch")
    if how not in (ways := _torch_ways(sizes)):
        raise ModuleNotFoundError(f"{how} is not installed")
    if not torch.cuda.is_available():
        return {"tasks": sizes.tasks, **_timed(ways[how], sizes.tasks)}

    def run() -> None:
        ways[how].run()
        torch.cuda.synchronize()

    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    found = _timed(Way(run), sizes.tasks)
    memory = (torch.cuda.max_memory_allocated() - before) / 2**20
    return {"tasks": sizes.tasks, **found, "temporary_MiB": memory, "torch": torch.__version__}


@functools.cache
def _torch_ways(sizes: Sizes) -> dict[str, Way]:
    """On the card if there is one."""
    torch: Any = importlib.import_module("torch")
    sys.path += filter(None, [os.environ.get("LEARN2LEARN")])
    if torch.cuda.is_available():
        torch.set_default_device("cuda")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    work = conv4(sizes.tasks, hidden=sizes.hidden)
    return importlib.import_module("torch_ways").torch_ways(work, threads=os.cpu_count(), compiled=False)
