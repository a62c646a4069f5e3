# pyright: reportArgumentType=false
"""A folder, arrays or sentences of one's own: how the classes are divided, and what is said where they do not fit."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import jaxmeta
from jaxmeta import Experiment, data
from jaxmeta.catalog import LEARNERS
from jaxmeta.data import BenchmarkTasksets, get_tasksets, load_examples
from jaxmeta.data.sources import SOURCES, standard_splits
from jaxmeta.runs import evaluate_run
from jaxmeta.runs._data import changed_data, load_tasksets


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))


def vectors(classes, each=8):
    """So many classes of so many vectors each."""
    names = [f"kind {i:03}" for i in range(classes) for _ in range(each)]
    return np.arange(len(names) * 2, dtype=np.float32).reshape(-1, 2), names


def put_images(root: Path, counts: dict[str, int], size=(6, 6)):
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", size, (i, len(name), 7)).save(root / name / f"{i}.png")


def sizes_of(tasksets: BenchmarkTasksets):
    return tuple(len(names) for names in tasksets.classes.values())


# How the classes are divided.


@pytest.mark.parametrize("classes", [30, 100])
@pytest.mark.parametrize("ways", [1, 5])
def test_another_class_moves_none(classes, ways):
    """Nor does one less: a class is placed by its own name, the seed and nothing else."""
    x, names = vectors(classes + 1, 2)

    def part_of_class(count, seed):
        chosen = x[: 2 * count], names[: 2 * count]
        division = load_examples("folder", examples=chosen, ways=ways, seed=seed)
        return {name: part for part, found in zip(division._fields, division, strict=True) for name in found.names}

    for seed in (0, 1):
        before, after = part_of_class(classes, seed), part_of_class(classes + 1, seed)
        moved = [name for name in before if before[name] != after[name]]
        assert len(before) == classes and (moved == [] if classes == 100 else len(moved) <= 2)
    assert part_of_class(classes, 0) != part_of_class(classes, 1)


def test_shares_hold_approximately():
    x, names = vectors(3000, 1)
    counts = [len(part.names) for part in load_examples("folder", examples=(x, names))]
    assert np.abs(np.array(counts) / 3000 - [0.64, 0.16, 0.2]).max() < 0.03


@pytest.mark.parametrize(
    ("classes", "ways", "test_ways", "least"),
    [(14, 3, 3, (3, 3, 3)), (24, 5, 5, (5, 5, 5)), (16, 10, 3, (10, 3, 3)), (16, 3, (2, 6), (3, 6, 6))],
)
def test_a_division_has_the_classes_of_its_tasks(classes, ways, test_ways, least):
    for seed in range(5):
        tasksets = get_tasksets(
            "folder", ways, 1, 2, test_ways=test_ways, split="random", seed=seed, examples=vectors(classes)
        )
        assert all(np.array(sizes_of(tasksets)) >= least) and sum(sizes_of(tasksets)) == classes
        names = [name for part in tasksets.classes.values() for name in part]
        assert len(set(names)) == classes
        for sampler in tasksets:
            assert jax.eval_shape(sampler, jax.random.key(0)).query.x.shape[1:] == (2,)


def test_too_few_classes_for_validation_are_said():
    for classes, ways in ((10, 5), (13, 6), (2, 1)):
        with pytest.warns(UserWarning, match="no classes are left for validation, so validation tasks are drawn from"):
            tasksets = get_tasksets("folder", ways, 1, 2, examples=vectors(classes))
        train, validation, test = sizes_of(tasksets)
        assert validation == 0 and train >= ways and test >= ways and train + test == classes
        np.testing.assert_array_equal(tasksets.validation.inputs, tasksets.train.inputs)  # pyright: ignore
        assert load_examples("folder", examples=vectors(classes), ways=ways).validation.names == ()


@pytest.mark.parametrize(("classes", "ways"), [(9, 5), (2, 2), (1, 1)])
def test_a_division_that_cannot_be_says_what_can(classes, ways):
    x, names = vectors(classes)
    message = rf"needs {ways} training classes and {ways} others for test tasks, got {classes}: kind 000.*"
    with pytest.raises(ValueError, match=message + "--train-ways, --ways.* split='all'"):
        get_tasksets("folder", ways, 1, 2, examples=(x, names))
    tasksets = get_tasksets("folder", min(ways, classes), 1, 2, examples=(x, names), split="all")
    assert tasksets.classes["train"] == tasksets.classes["test"] == tuple(sorted(set(names)))


def test_the_classes_of_a_division_are_another_ones_split():
    x, names = vectors(40)
    first = get_tasksets("folder", 5, 1, 2, examples=(x, names))
    more = np.concatenate([x, np.zeros((8, 2), np.float32)]), [*names, *["new"] * 8]
    again = get_tasksets("folder", 9, 2, 3, test_ways=4, examples=more, split=first.classes)
    assert again.classes == first.classes and again.stamp == first.stamp
    changed = np.where(np.arange(len(x))[:, None] == 17, 0, x)
    assert get_tasksets("folder", 5, 1, 2, examples=(changed, names), split=first.classes).stamp != first.stamp
    with pytest.raises(ValueError, match="split must name each class once, but kind 000 occur twice"):
        get_tasksets("folder", 1, split={"train": ["kind 000"], "test": ["kind 000"]}, examples=(x, names))
    with pytest.raises(ValueError, match=r"must have the classes of train, validation and test, got parts \['val'\]"):
        get_tasksets("folder", 1, split={"val": ["kind 000"]}, examples=(x, names))
    with pytest.raises(ValueError, match="the data is not complete: 1 of 2 classes are missing, unknown"):
        get_tasksets("folder", 1, split={"train": ["kind 000"], "test": ["unknown"]}, examples=(x, names))


# Folders.


def test_train_and_test_without_validation(tmp_path):
    root = tmp_path / "mine"
    put_images(root / "train", dict.fromkeys(["a", "b", "c", "d"], 4))
    put_images(root / "test", dict.fromkeys(["e", "f"], 4))
    with pytest.warns(UserWarning, match="no classes are left for validation"):
        tasksets = get_tasksets("folder", 2, 1, 2, root=root)
    assert tasksets.classes == {"train": ("a", "b", "c", "d"), "validation": (), "test": ("e", "f")}


def test_small_classes_are_named_and_can_be_left_out(tmp_path):
    put_images(tmp_path / "mine", {"iris": 5, "rose": 3, "tulip": 5, "daisy": 2, "lily": 5, "peony": 5})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"got 1 \+ 4, but class daisy has 2 examples, class rose has .*--min-p"):
            get_tasksets("folder", 2, 1, 4, root=tmp_path / "mine", split="all")
        tasksets = get_tasksets("folder", 2, 1, 4, root=tmp_path / "mine", min_per_class=5)
    assert {name for part in tasksets.classes.values() for name in part} == {"iris", "tulip", "lily", "peony"}
    with pytest.raises(ValueError, match="min_per_class=9, but the largest class has 5 examples"):
        load_examples("folder", tmp_path / "mine", min_per_class=9, progress=False)


def test_hidden_folders_and_files_are_left_alone(tmp_path):
    root = tmp_path / ".hidden" / "mine"  # what is above the root does not matter
    put_images(root, {"a": 2, "b": 2, "c": 2, ".ipynb_checkpoints": 3, "a/.ipynb_checkpoints": 1, "b/.cache/x": 1})
    (root / "c" / ".trash").mkdir()
    (root / ".git" / "objects").mkdir(parents=True)
    division = load_examples("folder", root, progress=False)
    assert sorted((n, int((part.labels == i).sum())) for part in division for i, n in enumerate(part.names)) == [
        ("a", 2),
        ("b", 2),
        ("c", 2),
    ]
    hidden = root.rename(root.parent / ".mine")
    assert len(load_examples("folder", hidden, split="all", progress=False).train.names) == 3


# Published benchmarks and runs.


def test_ways_that_do_not_fit_name_the_option():
    names = [name for name in _classes("dtd") for _ in range(3)]
    x = np.zeros((len(names), 2), np.float32)
    with pytest.raises(ValueError, match=r"train tasks of 'dtd': .* for 33 classes\. The train part .*--train-ways"):
        get_tasksets("dtd", 40, 1, 2, test_ways=5, examples=(x, names))
    with pytest.raises(ValueError, match=r"validation tasks of 'dtd': .* for 7 classes\. .*\(test_ways, .* --w"):
        get_tasksets("dtd", 8, 1, 2, examples=(x, names))


def _classes(name):
    return sorted(of for part in next(iter(standard_splits(name).values())).values() for of in part)


@pytest.mark.parametrize("learner", [name for name, e in LEARNERS.items() if "train_ways" in e.recipes[0].values])
def test_training_ways_are_fitted_to_the_data(learner, tmp_path):
    """The default of these learners is 60 training classes in a task."""
    root = tmp_path / "mine"
    put_images(root, {f"c{i:02}": 6 for i in range(14)}, size=(4, 4))
    settings = Experiment("folder", learner, ways=3, queries=2, test_queries=2, size=4).resolve()
    tasksets = load_tasksets(settings, root, False)
    train: Any = tasksets.train
    assert settings.train_ways == 60 and train.ways == len(tasksets.classes["train"]) < 14
    assert train(jax.random.key(0)).query.y.shape == (2 * train.ways,)


def test_options_of_the_data_reach_it(tmp_path):
    root = tmp_path / "mine"
    put_images(root, {f"c{i:02}": 3 + i % 4 for i in range(20)}, size=(4, 4))
    options = {"ways": 2, "queries": 2, "size": 5, "per_class": 4, "min_per_class": 4, "split_seed": 3}
    settings = Experiment("folder", "maml", **options, split="random").resolve()
    found = load_tasksets(settings, root, False)
    again = get_tasksets("folder", 2, 1, 2, size=5, per_class=4, min_per_class=4, seed=3, split="random", root=root)
    assert found.stamp == again.stamp and found.train.example.shape == (1, 5, 5, 3) and sum(sizes_of(found)) == 15
    for option in ("split_seed", "size", "per_class"):
        with pytest.raises(ValueError, match=f"{option} does not apply to maml on glyphs"):
            Experiment("glyphs", "maml", **{option: 1}).resolve()
    with pytest.raises(ValueError, match="split_seed does not apply to maml on cub200"):
        Experiment("cub200", "maml", split_seed=1).resolve()


def test_every_benchmark_of_files_has_the_options():
    for name in SOURCES:
        info = data.describe_tasksets(name)
        resolved = Experiment(name).resolve()
        assert {"per_class", "min_per_class"} <= set(resolved) and ("size" in resolved) == ("size" in info.arguments)


@pytest.mark.parametrize("augment", ["crop", "flip", "color"])
@pytest.mark.slow
def test_training_tasks_are_augmented(augment, tmp_path):
    root = tmp_path / "mine"
    put_images(root, {f"c{i}": 3 for i in range(8)}, size=(8, 8))

    def parts(augment):
        experiment = Experiment("folder", "protonet", ways=2, queries=2, test_queries=2, model="fc", augment=augment)
        return experiment.build(root)

    plain, changed = parts("none"), parts(augment)
    assert plain.tasksets.classes == changed.tasksets.classes != {}  # pyright: ignore
    assert plain.tasksets.stamp == changed.tasksets.stamp  # pyright: ignore
    streams = data.Streams(data.FixedTasks(plain.tasksets.train, jax.random.key(0), 3), 9)  # pyright: ignore
    assert streams.class_names == plain.tasksets.classes["train"] != ()  # pyright: ignore
    for name in ("train", "validation", "test"):
        tasks = [getattr(found.tasksets, name)(jax.random.key(4)) for found in (plain, changed)]  # pyright: ignore
        np.testing.assert_array_equal(tasks[0].query.y, tasks[1].query.y)
        assert np.array_equal(tasks[0].query.x, tasks[1].query.x) == (name != "train")
    for benchmark, learner in (("glyphs", "baseline"), ("sinusoid", "maml")):
        with pytest.raises(ValueError, match="augment does not apply"):
            Experiment(benchmark, learner, augment="crop").resolve()


# One place scales images.

BYTES = np.random.default_rng(0).integers(0, 256, (30, 5, 5, 3)).astype(np.uint8)
TRANSFORMS = [data.NWays(3), data.KShots(1, queries=2), data.LoadData(), data.RemapLabels()]


def test_images_in_bytes_are_the_same_numbers_everywhere():
    tasks = data.Taskset((BYTES, np.arange(30) % 5), TRANSFORMS, num_tasks=6)
    by_number = tasks[4].query.x
    assert by_number.dtype == np.float32 and 0.9 < by_number.max() <= 1 and by_number.min() >= 0
    batch = next(iter(data.prefetch(tasks, 6)))
    sampler = tasks.to_device()
    for other in (list(tasks)[4], tasks.__getitems__([4])[0]):
        np.testing.assert_array_equal(by_number, other.query.x)
    np.testing.assert_array_equal(by_number, batch.query.x[4])
    endless = data.Taskset((BYTES, np.arange(30) % 5), TRANSFORMS)
    drawn = jax.jit(lambda sampler, key: sampler(key))(endless.to_device(), endless.key(4))
    np.testing.assert_array_equal(by_number, drawn.query.x)
    assert sampler.example.dtype == np.float32
    halves = data.Taskset((BYTES, np.arange(30) % 5), [*TRANSFORMS[:3], data.Map(lambda x: x // 2), *TRANSFORMS[3:]])
    assert abs(halves[4].query.x.max() - by_number.max() / 2) < 0.01  # a Map sees the bytes
    raw = data.Taskset((BYTES, np.arange(30) % 5), TRANSFORMS, task_collate=lambda pairs: pairs)
    assert raw[4].query[0][0].dtype == np.uint8


@pytest.mark.parametrize(
    ("inputs", "warned"),
    [
        (BYTES.astype(np.float32), True),
        (BYTES.astype(np.int32), True),
        (BYTES.astype(np.uint16)[..., :1], True),
        (BYTES, False),
        (BYTES / 255, False),
        (BYTES / 64 - 2, False),
        (BYTES.astype(float) - 100, False),
        (BYTES.reshape(30, -1).astype(float), False),
    ],
)
def test_values_that_cannot_be_meant_are_warned_of(inputs, warned):
    labels = np.arange(30) % 5
    makers = [
        lambda: data.FewShot.create(inputs, labels, ways=2, queries=2),
        lambda: data.FewShot.from_classes(inputs.reshape(5, 6, *inputs.shape[1:]), ways=2, queries=2),
        lambda: data.MetaDatasetSampler.create(inputs, labels, ways=(2, 3)),
        lambda: data.Taskset((inputs, labels), TRANSFORMS)[0],
        lambda: data.Taskset((list(inputs), labels), TRANSFORMS)[0],
    ]
    for make in makers:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            make()
        found = [str(warning.message) for warning in caught]
        assert bool(found) == warned and all("from 0 to 255" in text and "pass uint8" in text for text in found)


def test_examples_of_omniglot_are_those_of_its_tasks():
    names = [f"Alphabet{i // 40:02}/character{i % 40 + 1:02}" for i in range(1623)]
    images = np.zeros((1623, 20, 28, 28), np.uint8)
    images[..., 3, 4] = np.arange(1623)[:, None] % 251
    arguments = {"examples": (images, names), "split": "random", "seed": 4}
    division = load_examples("omniglot", **arguments)
    tasksets = get_tasksets("omniglot", 5, 1, 1, **arguments)
    for part, found in division._asdict().items():
        assert found.names == tuple(sorted(tasksets.classes[part])) and len(found.labels) == 20 * len(found.names)
        numbers = [names.index(found.names[label]) % 251 for label in found.labels[::7]]
        np.testing.assert_array_equal(found.inputs[::7, 3, 4, 0], numbers)
    few = load_examples("omniglot", **arguments, per_class=2, channels=3, invert=True).test
    assert few.inputs.shape == (2 * 423, 28, 28, 3) and few.inputs[0, 0, 0, 0] == 255
    again = get_tasksets("omniglot", 5, 1, 1, examples=(images, names), split=tasksets.classes)
    assert again.classes == tasksets.classes and again.stamp == tasksets.stamp
    for wrong in ({"size": 28}, {"seed": 1, "split": "vinyals"}, {"root": "/data"}):
        with pytest.raises(ValueError, match="appl"):
            load_examples("omniglot", **{"examples": (images, names), **wrong})


@pytest.fixture(scope="module")
def run_on_a_folder(tmp_path_factory):
    """A finished run and the folder of its 14 classes."""
    root, run = tmp_path_factory.mktemp("data") / "mine", tmp_path_factory.mktemp("runs") / "run"
    put_images(root, {f"c{i:02}": 6 for i in range(14)}, size=(4, 4))
    tiny = {"iterations": 2, "validate_every": 1, "validation_tasks": 2, "test_tasks": 2, "model": "fc", "size": 8}
    experiment = Experiment("folder", "protonet", ways=3, queries=2, test_queries=2, train_ways=3, num_tasks=1, **tiny)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        experiment.run(run, root=root, progress=False)
    return experiment, run, root


@pytest.mark.slow
def test_a_test_with_other_ways_never_sees_trained_classes(run_on_a_folder):
    """More ways than the test part has classes would move the border between the parts."""
    _, run, root = run_on_a_folder
    with pytest.raises(ValueError, match="ways must be at most|Take fewer ways"):
        evaluate_run(run, ways=6, root=root)
    assert evaluate_run(run, ways=2, root=root)["accuracy"].num_tasks == 2


@pytest.mark.slow
def test_a_changed_folder_is_told(run_on_a_folder, tmp_path):
    """One more class is left out, a picture that changed is told, a class that is gone is refused."""
    experiment, run, root = run_on_a_folder
    own, copy = shutil.copytree(root, tmp_path / "mine"), shutil.copytree(run, tmp_path / "run")
    before = values(evaluate_run(copy, root=own))
    put_images(own, {"new": 6}, size=(4, 4))
    with pytest.warns(UserWarning, match="^new are new in the data and in no part of the run, so they are left out"):
        assert values(evaluate_run(copy, root=own)) == before
    with pytest.warns(UserWarning, match="new are new in the data"):
        experiment.run(copy, root=own, progress=False)  # finished, so it is only tested
    shutil.rmtree(own / "new")
    Image.new("RGB", (4, 4), (200, 0, 0)).save(own / "c03" / "1.png")
    with pytest.warns(UserWarning, match="not those that the run was trained on: the examples differ"):
        evaluate_run(copy, root=own)
    with pytest.raises(ValueError, match="cannot be resumed: the data are not those"):
        experiment.run(copy, root=own, progress=False)
    shutil.rmtree(own / "c03")
    with pytest.raises(ValueError, match="the data is not complete: 1 of 14 classes are missing, c03"):
        evaluate_run(copy, root=own)


@pytest.mark.slow
def test_a_run_without_its_data_predicts(run_on_a_folder, tmp_path):
    """The folder of a run, somewhere else, is all that adapting, saving and predicting need."""
    _, run, root = run_on_a_folder
    pictures = {name: [Image.open(path).copy() for path in sorted((root / name).iterdir())] for name in ("c00", "c01")}
    copy, gone = shutil.copytree(run, tmp_path / "elsewhere"), root.rename(root.with_name("gone"))
    try:
        loaded = jaxmeta.load_run(copy)
        classifier = loaded.adapt({name: images[:4] for name, images in pictures.items()})
        classifier.save(tmp_path / "file")
        found = classifier.predict([images[5] for images in pictures.values()])
        again = jaxmeta.load_classifier(tmp_path / "file").predict([images[5] for images in pictures.values()])
        assert [p.name for p in found] == [p.name for p in again] and {p.name for p in found} <= set(pictures)
        with pytest.raises(OSError, match="mine"):
            evaluate_run(copy, root=root)
    finally:
        gone.rename(root)


def test_the_words_for_changed_data():
    before: dict[str, Any] = {"stamp": "a", "classes": {"train": ["oak", "elm", "fir"], "test": ["ash"]}}
    now = {"stamp": "b", "classes": {"train": ["oak", "ash", "yew"], "test": ["elm"]}}
    told = changed_data(before, now)
    assert told.endswith("trained on: fir are missing, yew are new, ash, elm are in another part")
    assert changed_data(before, {**before, "stamp": "b"}).endswith("trained on: the examples differ")
    shared = {"stamp": "c", "classes": {"train": ["oak", "elm"], "validation": [], "test": ["oak", "elm"]}}
    more = {"stamp": "d", "classes": {"train": ["oak", "elm", "yew"], "validation": [], "test": ["oak", "elm", "yew"]}}
    assert changed_data(shared, more).endswith("trained on: yew are new")
    assert changed_data(shared, {**before, "stamp": "e"}).endswith("are new, elm, oak are in another part")
    assert changed_data(before, before) == ""


def values(summaries):
    return {name: summary.mean for name, summary in summaries.items()}
