"""From a folder of gray PNG files of 28 x 28 to predictions, for one picture alone and for all together."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import jaxmeta
from jaxmeta import Experiment, data
from jaxmeta.__main__ import main

SHORT = {"iterations": 4, "validate_every": 2, "validation_tasks": 2, "test_tasks": 20, "num_tasks": 2, "hidden": 8}


def drawings():
    """Dark ink on paper: for each of twelve characters six drawings, in bytes."""
    task = data.Glyphs(ways=12, shots=6, queries=1, size=28)(jax.random.key(0))
    ink = np.round(255 * np.asarray(task.support.x)[..., 0]).astype(np.uint8)
    return (255 - ink).reshape(12, 6, 28, 28)


@pytest.mark.parametrize(("learner", "norm"), [("protonet", "batch"), ("maml", "group")])
@pytest.mark.slow
def test_from_files_to_predictions(learner, norm, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    pictures, root = drawings(), tmp_path / "drawings"
    for number, images in enumerate(pictures):
        (root / f"sign {number:02}").mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / f"sign {number:02}" / f"{i}.png")
    sizes = {"ways": 2, "shots": 2, "queries": 2, "test_queries": 2} | ({"train_ways": 3} if learner != "maml" else {})
    trained = Experiment("folder", learner, norm=norm, **sizes, **SHORT).run(  # pyright: ignore[reportArgumentType]
        tmp_path / "run", root=root, progress=False
    )
    assert jaxmeta.evaluate_run(tmp_path / "run", root=root)["accuracy"] == trained.test["accuracy"]

    run = jaxmeta.load_run(tmp_path / "run")
    assert run.inputs.shape == (28, 28, 1) and not run.inputs.invert
    name = run.record.data["classes"]["test"][:2]
    numbers = [int(of.split()[1]) for of in name]
    shots = {of: [root / of / f"{i}.png" for i in (0, 1)] for of in name}
    asked = [root / of / f"{i}.png" for of in name for i in (2, 3, 4, 5)]
    classifier = run.adapt(shots)
    together = classifier.predict(asked)
    for i, path in enumerate(asked):
        (alone,) = classifier.predict(path)
        assert alone.name == together[i].name
        np.testing.assert_allclose(
            list(alone.probabilities.values()), list(together[i].probabilities.values()), atol=1e-5
        )

    # The model by itself, on the numbers of the pictures in [0, 1]: each query beside the support set.
    x = np.concatenate([pictures[number] for number in numbers])[..., None].astype(np.float32) / 255
    first = np.array([0, 1, 6, 7])
    adapted = run.learner.adapt(run.meta, jaxmeta.Batch(x[first], np.array([0, 0, 1, 1])), jax.random.key(0))
    for i, row in enumerate([2, 3, 4, 5, 8, 9, 10, 11]):
        logits = run.learner.predict(adapted, np.concatenate([x[first], x[row : row + 1]]))[-1]
        expected = np.asarray(jax.nn.softmax(logits[:2]))
        np.testing.assert_allclose([together[i].probabilities[of] for of in name], expected, atol=1e-4)

    support = tmp_path / "shots"
    for of, paths in shots.items():
        (support / of).mkdir(parents=True)
        for path in paths:
            (support / of / path.name).write_bytes(path.read_bytes())
    capsys.readouterr()
    words = ["predict", str(tmp_path / "run"), "--support", str(support), "--json", *map(str, asked)]
    assert main(words) in (0, None)
    found = json.loads(capsys.readouterr().out)
    assert [row["class"] for row in found] == [prediction.name for prediction in together]
