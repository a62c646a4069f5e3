"""A small TabPFN: a transformer that is trained on random tables and classifies real ones without training.

The prior is `data.TablePrior` (Hollmann et al. 2023, https://arxiv.org/abs/2207.01848): up to 10 classes, 32 columns
and 100 labeled rows. Tables are drawn on the device inside the program that trains, so no table is seen twice. The
trained network is saved as `tables.classifier` in the folder, and `jaxmeta.PriorFittedClassifier.load` reads it. It is
then compared on the tables that scikit-learn ships with logistic regression, gradient-boosted trees, random forests and
5 nearest neighbors, each with scikit-learn's settings (columns standardized for the first and the last): 20 stratified
splits with 10, 30 and 100 training rows, up to 500 other rows for the test. The digits have 64 columns: the network
gets the 32 whose variance in the training rows is largest, the others get all columns.

TabPFN itself has 12 layers of width 512 and trained for 20 hours on 8 GPUs. Here it is minutes on two CPU cores, so do
not expect its numbers. What to expect is on the page of results.

    python experiments/prior_fitted_tables.py                       # trains for 15 minutes
    python experiments/prior_fitted_tables.py --minutes 5
    python experiments/prior_fitted_tables.py --classifier runs/prior_fitted_tables/tables.classifier
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxmeta
from jaxmeta import data

NETWORK = "prior-fitted network"
TABLES = ("iris", "wine", "breast_cancer", "digits")
METHODS = (NETWORK, "logistic regression", "boosted trees", "random forest", "5 nearest neighbors")
METRICS = ("accuracy", "log_loss", "auc")
WAYS, FEATURES, ROWS = 10, 32, 100  # the most that the network can read
TIMED = 20  # updates that tell how many fit into the time


@dataclass(frozen=True)
class Args:
    """Train on random tables, save the classifier, and compare it on real tables."""

    minutes: float = 15.0
    """Time for training: the number of updates is what fits into it."""
    iterations: int | None = None
    """Number of updates, instead of the time."""
    width: int = 96
    """Width of the transformer."""
    layers: int = 4
    """Layers of the transformer."""
    num_tasks: int = 16
    """Tables per update."""
    rate: float = 1e-3
    """Largest rate of Adam, after a warm-up of a twentieth of the updates, before a cosine decay to 0."""
    devices: int = 2
    """Devices that share the tables of an update: on a CPU its cores."""
    seed: int = 0
    """Seed of the parameters and of all random tables."""
    classifier: Path | None = None
    """A classifier that is saved, instead of training."""
    tables: tuple[str, ...] = TABLES
    """Tables of scikit-learn."""
    methods: tuple[str, ...] = METHODS
    """What to compare."""
    rows: tuple[int, ...] = (10, 30, 100)
    """Numbers of training rows."""
    splits: int = 20
    """Splits for each number."""
    ensemble: int = 8
    """Members of the classifier's ensemble."""
    folder: Path = Path("runs/prior_fitted_tables")
    """Folder for the classifier, its checkpoints, the result and the plot."""


def meta_train(args: Args) -> tuple[jaxmeta.PriorFittedClassifier, dict[str, float]]:
    """Returns the trained classifier, and facts about its training."""
    prior = data.TablePrior(ways=(2, WAYS), features=(2, FEATURES), shots=(5, ROWS))
    network = jaxmeta.ContextTransformer(out=WAYS, width=args.width, layers=args.layers)
    encode, decode = (partial(network.apply, method=name) for name in ("encode", "decode"))
    learner = jaxmeta.in_context(encode, decode)
    init_key, train_key, time_key = jax.random.split(jax.random.key(args.seed), 3)
    meta = learner.init(jax.jit(network.init)(init_key, prior.example))

    def fit(iterations: int, key: jax.Array, **options: Any) -> jaxmeta.Trained:
        schedule = optax.warmup_cosine_decay_schedule(0.0, args.rate, max(1, iterations // 20), iterations)
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
        options |= {"num_tasks": args.num_tasks, "iterations": iterations, "mesh": jaxmeta.task_mesh(args.devices)}
        every = min(TIMED, iterations)
        return jaxmeta.train(learner, optimizer, meta, prior, key, log_every=every, validate_every=every, **options)

    plan = args.folder / "updates.json"  # a training that was cut goes on to the number that was measured then
    iterations = json.loads(plan.read_text()) if args.iterations is None and plan.is_file() else args.iterations
    if iterations is None:
        seconds = fit(4 * TIMED, time_key, progress=False).history
        pace = (seconds[-1]["seconds"] - seconds[0]["seconds"]) / (3 * TIMED)  # the first has compiled
        iterations = max(TIMED, round(60 * args.minutes / pace) // TIMED * TIMED)
        print(f"{1000 * pace / args.num_tasks:.1f} ms a table: {iterations} updates in {args.minutes:g} minutes")
        plan.write_text(json.dumps(iterations))
    begin = time.process_time()
    trained = fit(iterations, train_key, folder=args.folder / "training")
    last = trained.history[-10:]
    facts = {
        "iterations": iterations,
        "tables": iterations * args.num_tasks,
        "seconds": trained.history[-1]["seconds"],
        "cpu_seconds": time.process_time() - begin,
        "loss": float(np.mean([record["train/loss"] for record in last])),
        "accuracy": float(np.mean([record["train/accuracy"] for record in last])),
    }
    classifier = jaxmeta.PriorFittedClassifier(network, trained.meta.params, features=FEATURES, rows=ROWS)
    return classifier, facts


def load_table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and classes of a table of scikit-learn."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise SystemExit("this experiment needs scikit-learn: pip install scikit-learn") from error
    return getattr(datasets, f"load_{name}")(return_X_y=True)


def make_method(name: str, classifier: Any, x: np.ndarray) -> Any:
    """Returns an unfitted method for training rows `x`."""
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.feature_selection import SelectKBest
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    widest = SelectKBest(lambda rows, _: rows.var(0), k=min(classifier.features, x.shape[1]))
    makers: dict[str, Callable[[], Any]] = {
        NETWORK: lambda: make_pipeline(widest, classifier),
        "logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "boosted trees": lambda: GradientBoostingClassifier(random_state=0),
        "random forest": lambda: RandomForestClassifier(random_state=0),
        "5 nearest neighbors": lambda: make_pipeline(StandardScaler(), KNeighborsClassifier(5)),
    }
    return makers[name]()


def scores(method: Any, train: tuple[Any, Any], test: tuple[Any, Any]) -> tuple[float, ...]:
    """Returns accuracy, log loss and area under the ROC curve (one against the rest) of a method."""
    from sklearn.metrics import log_loss, roc_auc_score

    method.fit(*train)
    p = method.predict_proba(test[0]).astype(np.float64)
    p /= p.sum(1, keepdims=True)
    accuracy = float(np.mean(method.classes_[p.argmax(1)] == test[1]))
    auc = roc_auc_score(test[1], p[:, 1] if p.shape[1] == 2 else p, multi_class="ovr")
    return accuracy, float(log_loss(test[1], p, labels=method.classes_)), float(auc)


def compare(args: Args, classifier: Any, facts: dict[str, float]) -> list[dict[str, Any]]:
    """Returns a record for each table, number of rows and method, and prints it. Finished baselines are read back."""
    from sklearn.model_selection import StratifiedShuffleSplit

    path = args.folder / "result.json"
    kept = json.loads(path.read_text())["records"] if path.is_file() else []
    kept = {
        (r["table"], r["rows"], r["method"]): r for r in kept if r["splits"] == args.splits and r["method"] != NETWORK
    }
    print("| table | rows | method | accuracy | log loss | AUC |\n| --- | --- | --- | --- | --- | --- |")
    records = []
    for table in args.tables:
        x, y = load_table(table)
        for rows in args.rows:
            splitter = StratifiedShuffleSplit(
                args.splits, train_size=rows, test_size=min(500, len(x) - rows), random_state=0
            )
            for name in args.methods:
                record = kept.get((table, rows, name))
                if record is None:
                    found = [
                        scores(make_method(name, classifier, x[train]), (x[train], y[train]), (x[test], y[test]))
                        for train, test in splitter.split(x, y)
                    ]
                    record = {"table": table, "rows": rows, "method": name, "splits": args.splits}
                    summaries = jaxmeta.summarize(dict(zip(METRICS, np.transpose(found), strict=True)))
                    record |= {m: {"mean": s.mean, "interval": s.interval} for m, s in summaries.items()}
                records.append(record)
                path.write_text(json.dumps({"training": facts, "records": records}, indent=2))
                shown = " | ".join(f"{record[m]['mean']:.3f} ± {record[m]['interval']:.3f}" for m in METRICS)
                print(f"| {table} | {rows} | {name} | {shown} |", flush=True)
    return records


def plot(args: Args, records: list[dict[str, Any]], path: Path) -> None:
    """Plots the accuracy by number of training rows, a panel for each table."""
    figure = Figure(figsize=(3.2 * len(args.tables), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, table in zip(np.ravel(figure.subplots(1, len(args.tables), squeeze=False)), args.tables, strict=True):
        for name in args.methods:
            line = [r for r in records if r["table"] == table and r["method"] == name]
            axes.errorbar(
                [r["rows"] for r in line],
                [r["accuracy"]["mean"] for r in line],
                [r["accuracy"]["interval"] for r in line],
                marker="o",
                capsize=2,
                linewidth=2.5 if name == NETWORK else 1.2,
                label=name,
            )
        axes.set(title=table, xlabel="training rows", xscale="log")
        axes.set_xticks(args.rows, [str(rows) for rows in args.rows])
        axes.grid(alpha=0.3)
    figure.axes[0].set(ylabel="accuracy")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def main(args: Args) -> None:
    """Train or load, save, compare."""
    jax.config.update("jax_num_cpu_devices", args.devices)
    args.folder.mkdir(parents=True, exist_ok=True)
    path, facts = args.folder / "tables.classifier", {}
    if args.classifier is None:
        classifier, facts = meta_train(args)
        classifier.save(path)
        print("trained:", ", ".join(f"{name} {value:.4g}" for name, value in facts.items()), f"; saved as {path}")
    classifier = jaxmeta.PriorFittedClassifier.load(args.classifier or path, ensemble=args.ensemble)
    records = compare(args, classifier, facts)
    plot(args, records, args.folder / "accuracy.png")
    print(f"\n{args.splits} splits per row; saved to {args.folder}")


if __name__ == "__main__":
    main(tyro.cli(Args))
