"""The tasks of an update divided among the devices of a mesh."""

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmeta._types import PyTree

EVERYWHERE = PartitionSpec()
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container


def task_mesh(devices: int | None = None) -> Mesh:
    """A mesh with one axis, `"tasks"`, over the first devices of all processes.

    Args:
        devices: how many; all if None.

    Returns:
        What `meta_step`, `evaluate` and `train` take as `mesh`. Any other mesh will do too: tasks are
        divided over all of its axes.

    Raises:
        ValueError: if there are fewer devices.

    Example:
        >>> task_mesh(1).axis_names
        ('tasks',)
    """
    found = jax.devices()
    count = len(found) if devices is None else devices
    if not 1 <= count <= len(found):
        raise ValueError(f"devices must be from 1 to {len(found)}, the number that JAX finds, got {devices}")
    return auto(Mesh(np.array(found[:count]), ("tasks",)))


def available_cores() -> int:
    """Returns how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # there is no such file, or it says "max"
        quota, period = map(int, _CPU_QUOTA.read_text().split())
        cores = min(cores, quota // period)
    return max(1, cores)


def simulate_devices(number: int, threads: int | None = None) -> None:
    """Asks for so many devices on a CPU, in vain if JAX runs already.

    XLA has a thread for each core, and devices that wait for each other hold them. A factorization of large matrices
    then waits for a thread for ever, unless there are more `threads`, which cost up to a fifth of the speed.
    """
    if threads is not None:
        os.environ.setdefault("NPROC", str(threads))
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", number)


def auto(mesh: Mesh) -> Mesh:
    """Returns a mesh of the same devices with axes of type Auto: the compiler divides what `shard_map` does not."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Puts every array on all devices of the mesh, except those that are divided over several devices already.

    In a run of several processes each one gives the same values. Without a mesh everything stays where it is.
    """
    if mesh is None:
        return tree
    everywhere = NamedSharding(auto(mesh), EVERYWHERE)

    def place(x: Any) -> Any:
        if isinstance(x, jax.Array) and len(x.sharding.device_set) > 1:
            return x
        if jax.process_count() == 1:
            return jax.device_put(x, everywhere)
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        return jax.make_array_from_process_local_data(everywhere, np.asarray(x))

    return jax.tree.map(place, tree)


def divided(tree: PyTree, mesh: Mesh) -> PyTree:
    """Divides every array over the mesh along its longest axis that allows it."""

    def spec(x: jax.Array) -> PartitionSpec:
        axes = [axis for axis in range(x.ndim) if x.shape[axis] and x.shape[axis] % mesh.size == 0]
        longest = max(axes, key=lambda axis: x.shape[axis], default=None)
        return PartitionSpec(*(mesh.axis_names if axis == longest else None for axis in range(x.ndim)))

    return jax.tree.map(lambda x: constrain(x, mesh, spec(x)), tree)


def constrain(tree: PyTree, mesh: Mesh | None, spec: PartitionSpec = EVERYWHERE) -> PyTree:
    """Says where arrays that are on the mesh are to be, by default whole on every device; nothing without a mesh."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(auto(mesh), spec))


def over_tasks(tree: PyTree, mesh: Mesh | None, axis: int = 0) -> PyTree:
    """Says that arrays are divided over the mesh along their axis of tasks, whatever its length.

    The compiler then divides what is computed from them, task by task, and adds up what is summed over the tasks.
    """
    names = () if mesh is None else mesh.axis_names
    return constrain(tree, mesh, PartitionSpec(*[None] * axis, names))


def map_tasks(
    fn: Callable[[PyTree, jax.Array], PyTree],
    tasks: PyTree,
    key: jax.Array,
    mesh: Mesh | None,
    batch_size: int | None = None,
) -> PyTree:
    """`fn(task, key)` of every one of some stacked tasks, each with a key of its own, divided over the mesh.

    Without a mesh at most `batch_size` tasks are computed at once, all of them if it is `None`.
    """
    number = jax.tree.leaves(tasks)[0].shape[0]
    keys = jax.random.split(key, number)
    if mesh is None and batch_size is not None:
        return map_in_batches(lambda x: fn(*x), (tasks, keys), batch_size)
    return jax.vmap(fn)(*over_tasks((tasks, keys), mesh))


def map_in_batches(fn: Callable[[PyTree], PyTree], xs: PyTree, batch_size: int) -> PyTree:
    """`fn(x)` for every `x`, at most `batch_size` of them at once."""
    if batch_size >= jax.tree.leaves(xs)[0].shape[0]:
        return jax.vmap(fn)(xs)
    return jax.lax.map(fn, xs, batch_size=None if batch_size == 1 else batch_size)


def over_devices(
    fn: Callable[[PyTree, PyTree, jax.Array], PyTree],
    draw: Callable[[jax.Array], PyTree],
    common: PyTree,
    keys: jax.Array,
    mesh: Mesh,
    *,
    summed: bool,
) -> PyTree:
    """`fn(common, drawn, counts)` on every device for its share of the keys.

    The compiler divides the drawing, so that a data set may be divided over the devices; `fn` runs under `shard_map`,
    on what was drawn for its device's keys. If the keys cannot be divided evenly, some are used twice.

    Args:
        fn: gets what `draw` made, stacked, and a vector that tells which of them count.
        draw: of one key.
        common: what every device gets whole.
        keys: `[n]`.
        mesh: the devices.
        summed: whether the devices' results are added up; else they are joined on their first axis, without those
            that do not count.

    Returns:
        The same on every device.
    """
    number = keys.shape[0]
    size = math.ceil(number / mesh.size) * mesh.size
    split = PartitionSpec(mesh.axis_names)

    def local(common: PyTree, drawn: PyTree, counts: jax.Array) -> PyTree:
        result = fn(common, drawn, counts)
        return jax.lax.psum(result, mesh.axis_names) if summed else result

    everyone = np.arange(size)
    drawn = jax.vmap(draw)(constrain(keys[everyone % number], mesh, split))
    # With its check `shard_map` would sum derivatives with respect to `common` over the devices, in the inner loop too.
    mapped = jax.shard_map(
        local,
        mesh=auto(mesh),
        in_specs=(EVERYWHERE, split, split),
        out_specs=EVERYWHERE if summed else split,
        check_vma=False,
    )
    result = mapped(common, drawn, jnp.asarray(everyone < number))
    return result if summed else jax.tree.map(lambda x: x[:number], constrain(result, mesh))


def each_of(
    fn: Callable[[PyTree, Any], Any],
    draw: Callable[[jax.Array], Any],
    meta: PyTree,
    keys: jax.Array,
    batch_size: int,
    mesh: Mesh | None,
) -> Any:
    """Results `[n, ...]` of `fn(meta, draw(key))` for each of the keys."""

    def each(fn: Callable[[Any], Any], xs: Any) -> Any:
        return jax.lax.map(fn, xs, batch_size=None if batch_size == 1 else batch_size)

    if mesh is None:
        return each(lambda key: fn(meta, draw(key)), keys)

    def local(meta: PyTree, drawn: Any, _: jax.Array) -> Any:
        return each(lambda drawn: fn(meta, drawn), drawn)

    return over_devices(local, draw, meta, keys, mesh, summed=False)


def mean_of(
    fn: Callable[[PyTree, Any], Any],
    draw: Callable[[jax.Array], Any],
    meta: PyTree,
    keys: jax.Array,
    batch_size: int,
    mesh: Mesh | None,
) -> Any:
    """Mean of `fn(meta, draw(key))` over the keys, in float32 for integers and booleans."""
    fn = jax.jit(fn, inline=True)  # traced once for the shapes, the types and each place where it is used
    if mesh is None:
        sums = _sum(lambda key: fn(meta, draw(key)), keys, batch_size)
    else:

        def local(meta: PyTree, drawn: Any, counts: jax.Array) -> Any:
            def counted(x: tuple[Any, jax.Array]) -> Any:
                return jax.tree.map(lambda value: jnp.where(x[1], value, jnp.zeros_like(value)), fn(meta, x[0]))

            return _sum(counted, (drawn, counts), batch_size)

        sums = over_devices(local, draw, meta, keys, mesh, summed=True)
    shapes = jax.eval_shape(lambda: fn(meta, draw(keys[0])))

    def mean(total: jax.Array, one: jax.ShapeDtypeStruct) -> jax.Array:
        return (total / len(keys)).astype(one.dtype if jnp.issubdtype(one.dtype, jnp.inexact) else total.dtype)

    return jax.tree.map(mean, sums, shapes)


def _sum(fn: Callable[[Any], Any], xs: Any, batch_size: int) -> Any:
    """Sum of `fn(x)` over the first axis, in batches of at most `batch_size`, without holding all results at once."""
    number = jax.tree.leaves(xs)[0].shape[0]
    batches, rest = divmod(number, min(batch_size, number))

    def total(xs: Any) -> Any:
        if jax.tree.leaves(xs)[0].shape[0] == 1:
            return jax.tree.map(widen, fn(jax.tree.map(lambda x: x[0], xs)))
        return jax.tree.map(lambda x: jnp.sum(widen(x), axis=0), jax.vmap(fn)(xs))

    def part(start: int, end: int) -> Any:
        return jax.tree.map(lambda x: x[start:end], xs)

    if batches == 1:
        sums = total(part(0, number - rest))
    else:
        shapes = jax.eval_shape(total, part(0, batch_size))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        groups = jax.tree.map(lambda x: x.reshape(batches, batch_size, *x.shape[1:]), part(0, number - rest))
        sums, _ = jax.lax.scan(lambda acc, group: (jax.tree.map(jnp.add, acc, total(group)), None), zeros, groups)
    if rest:
        sums = jax.tree.map(jnp.add, sums, total(part(number - rest, number)))
    return sums


def widen(x: jax.Array) -> jax.Array:
    """At least float32: a sum over many tasks loses too much in half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, at most 200 characters."""
    return "".join(str(error).splitlines()[:1])[:200]


def device_complaint(error: BaseException) -> str | None:
    """Returns in one line that there is no device to compute on, or too little memory, or `None` for another error."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        ways_out = "Fewer tasks at once (--batch-size), or fewer tasks of an update (--num-tasks), need less"
        return f"the memory does not suffice ({first_line(error) or 'MemoryError'}). {ways_out}"
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        wanted = getattr(jax.config, "jax_platforms", None)
        found = first_line(error)
        told = f"JAX finds no device for JAX_PLATFORMS={wanted or ''}" + (f" ({found})" if found else "")
        return f"{told}. Unset the variable, or set it to cpu"
    return None
