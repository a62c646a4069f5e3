"""The predictions of a test as a file."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta._checks import check_choice
from jaxmeta._files import write_atomically
from jaxmeta._types import Details
from jaxmeta.reports._classes import counted_of, namer, probabilities_of
from jaxmeta.reports._words import encoded


def check_predictions_path(path: Path) -> None:
    """Raises ValueError unless the name of a file of predictions says how to write it."""
    check_choice("the ending of predictions", path.suffix, (".csv", ".npz"))


def write_predictions(path: Path, details: Details, sampler: Any) -> None:
    """Writes the predictions of a test: a table for people, or arrays.

    A table `.csv` has a line for each query, with the number of its task and in classification the class, the
    prediction and its probability, in regression the target and the prediction. A file `.npz` has the arrays `outputs`,
    `y`, `weight`, `class_ids` and `class_names`, those that there are. The outputs of a learner that predicts
    distributions are their means and standard deviations, `[2, num_tasks, ...]`.
    """
    content = io.BytesIO()
    if path.suffix == ".npz":
        given = {name: value for name, value in details._asdict().items() if value is not None and name != "steps"}
        if hasattr(given.get("outputs"), "quantile"):
            given["outputs"] = given["outputs"].mean, given["outputs"].std
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in given.items()}
        arrays["class_names"] = np.array(getattr(sampler, "class_names", ()), str)
        np.savez_compressed(content, **arrays)
    else:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(_rows(details, sampler))
        content.write(encoded(text.getvalue()))
    write_atomically(path, content.getvalue())


def _rows(details: Details, sampler: Any) -> Iterator[list[Any]]:
    found: Any = details.outputs
    if isinstance(found, tuple):  # a distribution
        found = getattr(found, "mean", found[0])
    y = np.asarray(details.y)
    if y.ndim > 2:
        outputs = np.asarray(found, np.float64)
        yield ["task", "query", "target", "prediction"]
        for task, query in np.ndindex(*y.shape[:2]):
            yield [task, query, *(" ".join(map(str, values[task, query].ravel())) for values in (y, outputs))]
        return
    ids = None if details.class_ids is None else np.asarray(details.class_ids)
    name = namer(sampler) or str
    probabilities = probabilities_of(found)
    yield ["task", "query", "label", "predicted_label", "class", "predicted_class", "probability"]
    for task, query in zip(*np.nonzero(counted_of(details)), strict=True):
        labels = int(y[task, query]), int(probabilities[task, query].argmax())
        names = ["" if ids is None else name(int(ids[task, label])) for label in labels]
        yield [task, query, *labels, *names, f"{probabilities[task, query].max():.6f}"]
