"""Time of MetaOptNet's quadratic program against closed forms: R2-D2's ridge regression, ProtoNets' means.

5-way tasks of 1, 5 and 15 shots with 15 queries per class, on features of 640 numbers (ResNet-12's); all tasks of a
batch at once by `vmap`. Forward is fitting and the logits of the queries, backward adds the derivative of their
cross-entropy with respect to all features. Two more ways to the same program: a dense interior-point method that is
differentiated through its iterations, the way one writes it first, and SciPy's solver on the CPU, one task at a time.
The rounds of all rows alternate in one process, and the fastest counts. OpenBLAS, of which JAX takes its linear algebra
on a CPU, gets one thread: more are slower for matrices this small.

    OPENBLAS_NUM_THREADS=1 python experiments/benchmarks/heads.py
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from scipy import optimize, sparse

import jaxmeta

WAYS, C, DAMPING = 5, 0.1, 1.0


@dataclass(frozen=True)
class Args:
    """Time the heads' forward and backward pass."""

    shots: tuple[int, ...] = (1, 5, 15)
    """Support examples per class."""
    queries: int = 15
    """Query examples per class."""
    features: int = 640
    """Numbers per example."""
    num_tasks: int = 8
    """Tasks at once."""
    rounds: int = 10
    """Alternating rounds; the fastest counts."""
    output: Path = Path("runs/benchmarks/heads.json")
    """Where the numbers go."""


def dense_head(iterations: int = 15) -> jaxmeta.Head:
    """The program of `jaxmeta.svm_head()` with one system of all variables per step, differentiated through all steps.

    A primal-dual interior-point method with a fixed centering of 0.1, for a general quadratic program with bounds.
    """

    def solve(gram: jax.Array, one_hot: jax.Array) -> jax.Array:
        n = one_hot.size
        hessian = jnp.kron(gram, jnp.eye(WAYS))
        sums = jnp.kron(jnp.eye(len(gram)), jnp.ones((1, WAYS)))
        bound = C * one_hot.reshape(-1)
        corner = jnp.zeros((len(gram), len(gram)))

        def step(carry: tuple[jax.Array, ...], _: None) -> tuple[tuple[jax.Array, ...], None]:
            dual, multiplier, equality = carry
            slack = bound - dual
            target = 0.1 * jnp.mean(slack * multiplier)
            residual = one_hot.reshape(-1) - hessian @ dual - sums.T @ equality - target / slack
            system = jnp.block([[hessian + jnp.diag(multiplier / slack), sums.T], [sums, corner]])
            move = jnp.linalg.solve(system, jnp.concatenate([residual, -sums @ dual]))
            change = (target + multiplier * move[:n]) / slack - multiplier
            moves = jnp.concatenate([-move[:n] / slack, change / multiplier])
            length = jnp.minimum(1.0, 0.95 / jnp.max(-moves))
            length = jnp.where(jnp.max(-moves) > 0, length, 1.0)
            return (dual + length * move[:n], multiplier + length * change, equality + length * move[n:]), None

        start = bound - 0.5 * C * (one_hot + (1 - one_hot) / (WAYS - 1)).reshape(-1)
        begin = start, jnp.ones(n), jnp.zeros(len(gram))
        return jax.lax.scan(step, begin, None, length=iterations)[0][0].reshape(one_hot.shape)

    def fit(learned: dict[str, jax.Array], features: jax.Array, one_hot: jax.Array) -> jax.Array:
        gram = features @ features.T + DAMPING * jnp.eye(len(features))
        return learned["scale"] * features.T @ solve(gram, one_hot)

    return jaxmeta.Head(fit, lambda weights, features: features @ weights, {"scale": 1.0})


HEADS = {
    "prototypes (ProtoNets)": jaxmeta.euclidean_head(),
    "ridge, closed form (R2-D2)": jaxmeta.ridge_head(),
    "logistic, 5 Newton steps (LR-D2)": jaxmeta.logistic_head(),
    "SVM, 15 iterations, implicit (MetaOptNet)": jaxmeta.svm_head(C, damping=DAMPING),
    "SVM, 3 iterations, implicit": jaxmeta.svm_head(C, damping=DAMPING, iterations=3),
    "SVM, dense, 15 iterations unrolled": dense_head(),
}


def problem(shots: int, args: Args) -> tuple[jax.Array, ...]:
    """Support features, labels, query features, labels; each with a leading axis of tasks."""
    keys = jax.random.split(jax.random.key(shots), 3)
    centers = 0.15 * jax.random.normal(keys[0], (args.num_tasks, 1, WAYS, args.features))

    def examples(key: jax.Array, repeats: int) -> tuple[jax.Array, jax.Array]:
        noise = jax.random.normal(key, (args.num_tasks, repeats, WAYS, args.features))
        x = (centers + 0.3 * noise).reshape(args.num_tasks, repeats * WAYS, args.features)
        return x, jnp.tile(jnp.arange(WAYS), (args.num_tasks, repeats))

    return *examples(keys[1], shots), *examples(keys[2], args.queries)


def passes(head: jaxmeta.Head) -> dict[str, Callable[..., jax.Array]]:
    """The compiled forward and backward pass over a batch of tasks."""
    learned = jax.tree.map(jnp.asarray, head.learned)

    def logits(support: jax.Array, labels: jax.Array, queries: jax.Array) -> jax.Array:
        return head.logits(head.fit(learned, support, jax.nn.one_hot(labels, WAYS)), queries)

    def loss(support: jax.Array, queries: jax.Array, labels: jax.Array, truth: jax.Array) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits(support, labels, queries), truth)
        return jnp.mean(losses)

    gradient = jax.grad(loss, (0, 1))
    return {
        "forward": jax.jit(jax.vmap(lambda x, y, q, t: logits(x, y, q))),
        "forward and backward": jax.jit(jax.vmap(lambda x, y, q, t: gradient(x, q, y, t))),
    }


def scipy_logits(support: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """One task by SciPy's interior-point method."""
    one_hot, n = np.eye(WAYS)[labels].ravel(), len(labels)
    hessian = np.kron(support @ support.T + DAMPING * np.eye(n), np.eye(WAYS))
    found = optimize.minimize(
        lambda a: 0.5 * a @ hessian @ a - a @ one_hot,
        np.full(one_hot.shape, -1e-3),
        jac=lambda a: hessian @ a - one_hot,
        hess=lambda a: hessian,
        bounds=[(None, C * label) for label in one_hot],
        constraints=optimize.LinearConstraint(sparse.kron(sparse.eye(n), np.ones((1, WAYS))), 0, 0),
        method="trust-constr",
        options={"gtol": 1e-8, "barrier_tol": 1e-8},
    )
    return queries @ support.T @ found.x.reshape(n, WAYS)


def measure(shots: int, args: Args) -> list[dict]:
    """All rows of one number of shots: milliseconds per task, and the largest difference of logits from SciPy's."""
    task = problem(shots, args)
    runs = {(name, part): run for name, head in HEADS.items() for part, run in passes(head).items()}
    best = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        jax.block_until_ready(run(*task))
    for _ in range(args.rounds):
        for key, run in runs.items():
            begin = time.perf_counter()
            jax.block_until_ready(run(*task))
            best[key] = min(best[key], time.perf_counter() - begin)
    begin = time.perf_counter()
    reference = scipy_logits(*(np.asarray(part[0], np.float64 if i != 1 else int) for i, part in enumerate(task[:3])))
    rows = [{"shots": shots, "head": "SVM, SciPy, one task", "forward_ms": 1e3 * (time.perf_counter() - begin)}]
    for name in HEADS:
        forward, backward = (1e3 * best[name, part] / args.num_tasks for part in ("forward", "forward and backward"))
        row = {"shots": shots, "head": name, "forward_ms": forward, "backward_ms": backward}
        if name.startswith("SVM"):
            row["difference"] = float(np.abs(runs[name, "forward"](*task)[0] - reference).max())
        rows.append(row)
    return [*rows[1:], rows[0]]


def main(args: Args) -> None:
    """Measure, print a table."""
    print(f"{args.num_tasks} tasks at once, {jax.devices()[0].device_kind}, {args.rounds} rounds, ms per task\n")
    print("| shots | head | forward | forward and backward | logits differ from SciPy's by |")
    print("| --- | --- | --- | --- | --- |")
    results = []
    for shots in args.shots:
        for row in measure(shots, args):
            results.append(row)
            backward = f"{row['backward_ms']:.3f}" if "backward_ms" in row else "-"
            difference = f"{row['difference']:.0e}" if "difference" in row else "-"
            print(f"| {shots} | {row['head']} | {row['forward_ms']:.3f} | {backward} | {difference} |", flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Args))
