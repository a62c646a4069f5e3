"""Inputs that are named on the command line, and predictions as text."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmeta.data.containers import read_arrays
from jaxmeta.display import one_line
from jaxmeta.prediction._classifier import Classifier, Prediction
from jaxmeta.prediction._inputs import image_files


def named_inputs(paths: Sequence[Path], classifier: Classifier) -> list[tuple[str, Any]]:
    """Returns the inputs of a classifier that are in some files, each with a name.

    Args:
        paths: images, folders of images, files `.npz` with an array `x`, or text files with a sentence in each
            line.
        classifier: the classifier.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is of another form, or has the classes of its sentences.
    """
    kind = "arrays" if classifier.inputs is None else classifier.inputs.kind
    found: list[tuple[str, Any]] = []
    for path in paths:
        if not path.exists():
            hint = ": a sentence to classify is a line of a text file" if kind == "text" else ""
            raise FileNotFoundError(f"{path} does not exist{hint}")
        if path.suffix == ".npz":
            rows = classifier.inputs.items(read_arrays(path, "x")["x"]) if classifier.inputs else []
            found += [(f"{path}[{number}]", row) for number, row in enumerate(rows)]
        elif kind == "images":
            found += [(str(file), file) for file in image_files(path)]
        elif kind == "text" and path.is_file():
            found += [(line, line) for line in _sentences(path, classifier.names)]
        else:
            raise ValueError(f"{path} must be a file .npz with an array x" + (" or of sentences" * (kind == "text")))
    return found


def _sentences(path: Path, names: Sequence[str]) -> list[str]:
    """Returns the lines of a file with sentences, without empty ones.

    Raises:
        ValueError: if a line begins with its class, which would be taken for a part of the sentence.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for line in lines:
        of, tab, _ = line.partition("\t")
        if tab and of.strip() in names:
            told = f"{path} has lines `class<TAB>sentence`, as the examples of classes have, got {line!r:.100}"
            raise ValueError(f"{told}. Sentences to classify are alone in their lines")
    return lines


def predictions_as(form: str, inputs: Sequence[str], predictions: Sequence[Prediction]) -> str:
    """Returns predictions as a table, as JSON, or as comma-separated values.

    Args:
        form: `"table"`, `"json"` or `"csv"`.
        inputs: name of each input.
        predictions: prediction for each input.
    """
    pairs = list(zip(inputs, predictions, strict=True))
    if form == "json":
        rows = [{"input": name, "class": p.name, "probabilities": p.probabilities} for name, p in pairs]
        return json.dumps(rows, indent=2, ensure_ascii=False)
    if form == "csv":
        names = sorted(predictions[0].probabilities) if predictions else []
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["input", "class", *names])
        writer.writerows([name, p.name, *(f"{p.probabilities[n]:.6f}" for n in names)] for name, p in pairs)
        return text.getvalue().rstrip("\n")
    names, found = [one_line(name) for name in inputs], [one_line(p.name) for p in predictions]
    width, longest = (max(map(len, texts), default=0) for texts in (names, found))
    rows = zip(names, found, predictions, strict=True)
    return "\n".join(f"{name:{width}}  {text:{longest}}  {100 * p.probability:5.1f} %" for name, text, p in rows)
