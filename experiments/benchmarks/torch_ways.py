"""The same meta-updates in PyTorch, on the same parameters and tasks: `torch.func`, a loop over tasks, learn2learn.

Tasks are drawn beforehand and cost these ways nothing. Batch norm has no running statistics. `vmap` stands outside of
`grad`: the other order is silently wrong through `batch_norm` in torch 2.13, by 11 % of the meta-gradient.
"""

import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # noqa: N812  # pyright: ignore[reportMissingImports]
from workloads import Way, Workload

from jaxmeta import models

Params = dict[str, Any]  # name to tensor, names as in Flax


def torch_ways(work: Workload, *, threads: int, compiled: bool) -> dict[str, Way]:
    """All ways by name; `compiled` adds `torch.compile`."""
    torch.set_num_threads(threads)
    per_task = torch.func.vmap(_task_gradient(work), in_dims=(None, None, 0, 0))
    found = {"torch.func, vmap of grad": _way(work, _batched(per_task))}
    if compiled:
        found["torch.func, compiled"] = _way(work, _batched(torch.compile(per_task)), compiled=True)
    found["torch.autograd, loop over tasks"] = _way(work, _looped(work))
    if work.learner == "maml" and importlib.util.find_spec("learn2learn"):
        found["learn2learn"] = _way(work, _learn2learn(work))
    return found


def _way(work: Workload, set_gradients: Callable[..., None], *, compiled: bool = False) -> Way:
    """One update: gradients, then Adam."""
    meta = work.init()
    leaves = {_name(path): _parameter(x) for path, x in jax.tree_util.tree_leaves_with_path(meta.params)}
    learned = [_parameter(x) for x in jax.tree.leaves(meta.learned)]
    each = len(learned) // len(leaves)  # rates: one per parameter, factors: two
    factors = {name: learned[i * each : (i + 1) * each] for i, name in enumerate(leaves)}
    tensors = [*leaves.values(), *learned]
    dtype = tensors[0].dtype
    tasks = [(_images(batch.x).to(dtype), _targets(batch.y, dtype)) for batch in work.tasks()]
    optimizer = torch.optim.Adam(tensors, lr=0.0)  # every call does the same update, as in JAX's rows

    def run() -> list[Any]:
        optimizer.zero_grad()
        set_gradients(leaves, factors, *tasks)
        optimizer.step()
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in leaves.values()]

    begin = time.process_time()
    run()
    compile_s = time.process_time() - begin if compiled else float("nan")
    return Way(run, lambda grads: [_to_flax(grad) for grad in grads], 1, compile_s, memory=_peak_memory(run))


def _peak_memory(run: Callable[[], Any]) -> float:
    """MiB: the highest sum of a call's allocations, by PyTorch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = [event for event in json.loads(path.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    return float(np.cumsum([event["args"]["Bytes"] for event in events]).max()) / 2**20


def _batched(per_task: Callable[..., Any]) -> Callable[..., None]:
    """The mean of all tasks' gradients at once."""

    def set_gradients(params: Params, factors: dict[str, list[Any]], support: Any, query: Any) -> None:
        with torch.no_grad():
            grads, learned_grads = per_task(params, factors, support, query)
            for name, tensor in params.items():
                tensor.grad = grads[name].mean(0)
                for factor, grad in zip(factors[name], learned_grads[name], strict=True):
                    factor.grad = grad.mean(0)

    return set_gradients


def _looped(work: Workload) -> Callable[..., None]:
    """One task after the other; their gradients add up."""
    loss = _loss(work)

    def inner_gradient(params: Params, x: Any, y: Any) -> Params:
        grads = torch.autograd.grad(loss(params, x, y), list(params.values()), create_graph=not work.first_order)
        return dict(zip(params, grads, strict=True))

    def set_gradients(params: Params, factors: dict[str, list[Any]], support: Any, query: Any) -> None:
        for task in zip(*support, *query, strict=True):
            (_objective(work, inner_gradient, params, factors, task[:2], task[2:]) / work.num_tasks).backward()

    return set_gradients


class _Loss(torch.nn.Module):
    """A loss and what it is a function of, as learn2learn wants it."""

    def __init__(self, loss: Callable[[Params, Any, Any], Any], params: Params):
        super().__init__()
        self.loss = loss
        for name, value in params.items():
            self.register_parameter(name, value)

    def forward(self, x: Any, y: Any) -> Any:
        return self.loss(self._parameters, x, y)


def _learn2learn(work: Workload) -> Callable[..., None]:
    """Its `MAML`, one task after the other."""
    from learn2learn.algorithms import MAML  # pyright: ignore[reportMissingImports]

    def set_gradients(params: Params, factors: dict[str, list[Any]], support: Any, query: Any) -> None:
        learner = MAML(_Loss(_loss(work), params), work.rate, first_order=work.first_order)
        for task in zip(*support, *query, strict=True):
            clone = learner.clone()
            for _ in range(work.steps):
                clone.adapt(clone(*task[:2]))
            (clone(*task[2:]) / work.num_tasks).backward()

    return set_gradients


def _task_gradient(work: Workload) -> Callable[..., Any]:
    """Of one task: the gradients of parameters and learned factors."""
    loss = _loss(work)

    def objective(params: Params, factors: Any, support: Any, query: Any) -> Any:
        return _objective(work, torch.func.grad(loss), params, factors, support, query)

    def first_order(params: Params, factors: Any, support: Any, query: Any) -> Any:
        adapted = _adapt(work, torch.func.grad(loss), params, factors, support)
        return torch.func.grad(loss)(adapted, *query), {name: [] for name in params}

    return first_order if work.first_order else torch.func.grad(objective, argnums=(0, 1))


def _objective(work: Workload, gradient: Callable[..., Any], params: Params, factors: Any, support: Any, query: Any):
    """The loss on the query set after adaptation to the support set."""
    if work.learner == "protonet":
        ways = work.model.ways  # pyright: ignore[reportAttributeAccessIssue]
        one_hot = (support[1][:, None] == torch.arange(ways)).to(params["head/bias"].dtype)
        features, queries = _features(params, support[0]), _features(params, query[0])
        prototypes = one_hot.T @ features / one_hot.sum(0)[:, None]
        return F.cross_entropy(-((queries[:, None] - prototypes[None]) ** 2).sum(-1), query[1])
    return _loss(work)(_adapt(work, gradient, params, factors, support), *query)


def _adapt(work: Workload, gradient: Callable[..., Params], params: Params, factors: Any, support: Any) -> Params:
    """The inner loop."""
    for _ in range(work.steps):
        grads = gradient(params, *support)
        params = {name: p - _direction(work, grads[name], factors[name]) for name, p in params.items()}
    return params


def _direction(work: Workload, grad: Any, factors: list[Any]) -> Any:
    """One inner step of one tensor."""
    if work.learner == "meta-sgd":
        return factors[0] * grad
    if work.learner == "meta-kfo":  # weights are transposed here, and so are the factors
        left, right = factors
        matrix = grad.flatten(2) if grad.ndim == 4 else grad.reshape(-1, grad.shape[-1])
        return work.rate * (right.T @ matrix @ left).reshape(grad.shape)
    return work.rate * grad


def _loss(work: Workload) -> Callable[[Params, Any, Any], Any]:
    """`(params, x, y)` to the mean loss."""
    if isinstance(work.model, models.MLP):
        return lambda params, x, y: F.mse_loss(_mlp(params, x), y)
    return lambda params, x, y: F.cross_entropy(_linear(params, "head", _features(params, x)), y)


def _features(params: Params, x: Any) -> Any:
    """`OmniglotCNN.features` of images `x: [n, c, h, w]`."""
    for i in range(4):
        x = F.conv2d(x, params[f"body/conv_{i}/kernel"], params[f"body/conv_{i}/bias"], stride=2, padding=1)
        scale, bias = params[f"body/norm_{i}/scale"], params[f"body/norm_{i}/bias"]
        x = F.relu(F.batch_norm(x, None, None, scale, bias, training=True))
    return x.mean((2, 3))


def _mlp(params: Params, x: Any) -> Any:
    """`MLP` with two hidden layers."""
    for layer in ("body/dense_0", "body/dense_1"):
        x = F.relu(_linear(params, layer, x))
    return _linear(params, "head", x)


def _linear(params: Params, layer: str, x: Any) -> Any:
    return F.linear(x, params[f"{layer}/kernel"], params[f"{layer}/bias"])


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/").removeprefix("params/")


def _parameter(x: Any) -> torch.nn.Parameter:
    """Kernels `[kh, kw, cin, cout]` to `[cout, cin, kh, kw]`, matrices transposed."""
    tensor = torch.tensor(np.asarray(x))
    return torch.nn.Parameter(tensor.permute({4: (3, 2, 0, 1), 2: (1, 0)}.get(tensor.ndim, (0,))).contiguous())


def _to_flax(tensor: Any) -> np.ndarray:
    """The way back."""
    return tensor.permute({4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.ndim, (0,))).numpy()


def _images(x: Any) -> Any:
    """Images `[tasks, n, h, w, c]` to `[tasks, n, c, h, w]`."""
    tensor = torch.tensor(np.asarray(x))
    return tensor.permute(0, 1, 4, 2, 3).contiguous() if tensor.ndim == 5 else tensor


def _targets(y: Any, dtype: Any) -> Any:
    """Labels as torch wants them, or targets in the type of the parameters."""
    tensor = torch.tensor(np.asarray(y))
    return tensor.to(dtype) if tensor.is_floating_point() else tensor.long()
