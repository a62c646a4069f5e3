"""The published tables as data: their rows, the runner that fills them, and the page that is made from its lines."""

import importlib
import io
import json
import os
import pickle
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxmeta import Experiment, data
from jaxmeta import __main__ as command_line
from jaxmeta.catalog import LEARNERS
from jaxmeta.data.sources import standard_splits
from jaxmeta.training import read_records

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "experiments" / "tables"
MODULES = [path.stem for path in sorted(FOLDER.glob("*.py"))]
FLAGS = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)


@pytest.fixture(scope="module")
def our():
    """The modules of the tables, by name, and none of them behind the tests."""
    sys.path.insert(0, str(FOLDER))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    sys.path.remove(str(FOLDER))
    for name in MODULES:
        sys.modules.pop(name)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))


def rows_of(our):
    return [(row, name) for rows in our.catalog.TABLES.values() for row in rows for name in row.budgets]


def test_every_row_is_a_run_with_a_key_of_its_own(our):
    keys = [row.key(name, seed) for row, name in rows_of(our) for seed in (0, 1)]
    assert len(keys) == len(set(keys)) > 1000
    for row, name in rows_of(our):
        assert row.experiment(name, 0).resolve().test_tasks >= 600
        assert row.budget(name).updates == row.experiment(name, 3).iterations


def test_rows_share_a_folder_exactly_if_they_train_alike(our):
    trainings = {}
    for row, name in rows_of(our):
        settings = {**row.experiment(name, 0).resolve(), "budget": name}
        assert trainings.setdefault(row.folder(name, 0), settings) == settings
    assert len({json.dumps(settings, sort_keys=True) for settings in trainings.values()}) == len(trainings)
    row = our.omniglot.ROWS[0]
    assert len({row.folder("cpu", 0), row.folder("cpu", 1), row.folder("paper", 0)}) == 3


def test_every_learner_that_classifies_or_regresses_has_a_row(our):
    sinusoids = {row.learner for row in our.sinusoid.ROWS}
    assert sinusoids == {name for name, e in LEARNERS.items() if any("regression" in r.kinds for r in e.recipes)}
    wanted = "maml fomaml anil meta-sgd meta-curvature meta-kfo maml-plus-plus boil reptile imaml cavia protonet "
    wanted += "matching-network relation-network r2d2 lr-d2 metaoptnet simpleshot baseline baseline-plus-plus"
    settings = {(row.learner, row.setting.split(",")[0]) for row in our.omniglot.ROWS if row.table != "omniglot-small"}
    assert {(name, f"{n}-way {k}-shot") for name in wanted.split() for n in (5, 20) for k in (1, 5)} <= settings


def test_the_printed_command_is_the_run(our, monkeypatch):
    class Parsed(Exception):
        pass

    def stop(self, *args, **kwargs):
        raise Parsed(self)

    monkeypatch.setattr(Experiment, "run", stop)
    seen = set()
    for row, name in rows_of(our):
        if (row.benchmark, row.learner, row.experiment(name, 0).model) in seen:
            continue
        seen.add((row.benchmark, row.learner, row.experiment(name, 0).model))
        words = shlex.split(row.command(name, 2, "/somewhere"))
        assert words[:2] == ["jaxmeta", "train"] and words[-2:] == ["--root", "/somewhere"]
        with pytest.raises(Parsed) as caught:
            command_line.main(words[1:])
        assert dict(caught.value.args[0].resolve()) == dict(row.experiment(name, 2).resolve())
    assert len(seen) > 60


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda our: our.rows.Budget(10, 2, test_tasks=599), "test_tasks must be at least 600, got 599"),
        (lambda our: our.omniglot.ROWS[0].budget("gpu"), "must be one of paper, cpu, got 'gpu'"),
        (lambda our: our.catalog.of_tables(("omni",)), "tables must be among omniglot, .*got 'omni'"),
        (lambda our: our.jobs.jobs_of(("cub",), "", "cpu", None), "rows must match .*cub with a budget 'cpu', got ''"),
        (lambda our: our.run.main(our.run.Args(small=True)), "output must be another file for small runs"),
        (
            lambda our: our.pack.pack(our.pack.Args("omniglot", Path(), part_mib=0)),
            "part_mib must be at least 1",
        ),
    ],
)
def test_mistakes_are_told(our, make, told):
    with pytest.raises(ValueError, match=told):
        make(our)


def test_jobs_are_in_the_order_of_value_and_first_seeds_come_first(our):
    jobs = our.jobs.jobs_of(("omniglot", "sinusoid"), "", "paper", None)
    assert jobs[0].row.name == "omniglot: maml, 5-way 1-shot"
    seeds = [job.seed for job in jobs]
    assert seeds == sorted(seeds) and max(seeds) == 2
    first = [job.row.order for job in jobs if job.seed == 0]
    assert first == sorted(first)
    assert {job.row.table for job in jobs} == {"omniglot", "omniglot-heads", "omniglot-pretrained", "sinusoid"}


# Lines


LINE = {"key": "a", "value": 0.5}


@pytest.mark.parametrize("torn", [b"", b'{"key": "b", "val', b'{"key": "b"}'])
def test_a_torn_last_line_is_ignored_and_repaired(our, torn, tmp_path):
    path = tmp_path / "lines.jsonl"
    our.lines.append(path, LINE)
    path.write_bytes(path.read_bytes() + torn)
    assert our.lines.read(path) == [LINE]
    our.lines.repair(path)
    our.lines.append(path, {"key": "c"})
    assert our.lines.read(path) == [LINE, {"key": "c"}]
    assert our.lines.read(tmp_path / "none") == []


def test_a_line_that_is_no_result_is_an_error(our, tmp_path):
    (tmp_path / "lines").write_text('{"key": "a"}\n[1]\n')
    with pytest.raises(ValueError, match="line 2 of .*lines is no result"):
        our.lines.read(tmp_path / "lines")


@pytest.mark.parametrize(
    ("values", "limit", "expected"),
    [
        (
            [1.0, 2.0, 3.0, 6.0],
            None,
            {"value": 3.0, "interval": 1.96 * np.sqrt(14 / 3) / 2, "median": 2.5},
        ),
        ([1.0, 2.0, 30.0], 12.5, {"value": 11.0, "median": 2.0, "diverged": 1 / 3}),
        ([1.0, 2.0, np.nan, np.inf], 12.5, {"value": None, "interval": None, "median": None, "diverged": 0.5}),
        ([1.0, 2.0, np.nan], 12.5, {"value": None, "median": 2.0, "diverged": 1 / 3}),
    ],
)
def test_numbers_of_a_test(our, values, limit, expected):
    with np.errstate(invalid="ignore"):
        found = our.lines.numbers_of(np.array(values, np.float32), limit)
    for name, value in expected.items():
        assert found[name] == (value if value is None else pytest.approx(value, rel=1e-5)), name
    json.dumps(found, allow_nan=False)


# The page


def line(value, **others):
    """A result of MAML's first row."""
    found = {"table": "omniglot", "label": "maml", "setting": "5-way 1-shot", "seed": 0, "budget": "cpu", "updates": 10}
    found |= {"tasks": 4, "metric": "accuracy", "value": value, "interval": 0.01, "median": value, "diverged": 0.0}
    found |= {"test_tasks": 600, "minutes": 2.0, "hardware": "H", "date": "2026-01-02", "options": {}}
    return {**found, **others, "key": repr((value, others))}


CELLS = "98.7 ± 0.4 | {} | {} | 2.0 | a |"


@pytest.mark.parametrize(
    ("lines", "here", "budget"),
    [
        ([line(0.5)], "50.00 ± 1.00", "10 x 4"),
        ([line(0.5, test_tasks=2000)], "50.00 ± 1.00 (2000 tasks)", "10 x 4"),
        ([line(0.5), line(0.6, updates=20), line(0.7, updates=15)], "60.00 ± 1.00", "20 x 4"),
        ([line(0.5, updates=10**6), line(0.6, budget="paper")], "60.00 ± 1.00", "10 x 4"),
        ([line(0.4), line(0.9, date="2025-01-01")], "40.00 ± 1.00", "10 x 4"),
        ([line(v, seed=s) for s, v in enumerate((0.5, 0.6, 0.7))], "60.00 ± 10.00 (3 seeds)", "10 x 4"),
        ([line(0.5), line(0.6, seed=1, date="2026-01-03", options={"steps": 2})], "60.00 ± 1.00", "10 x 4"),
        (
            [line(0.5), line(0.6, seed=1), line(0.9, date="2027-01-01", hardware="H2")],
            "55.00 ± 7.07 (2 seeds)",
            "10 x 4",
        ),
        ([line(None, interval=None)], "diverged", "10 x 4"),
        ([line(0.5), line(None, seed=1)], "50.00 ± 1.00 (2 seeds, 1 diverged)", "10 x 4"),
        ([line(0.5, tasks=None)], "50.00 ± 1.00", "10 minibatches"),
    ],
)
def test_the_largest_budget_and_the_newest_run_count(our, lines, here, budget):
    expected = f"| maml | 5-way 1-shot | {CELLS.format(here, budget)}"
    *_, found, _, runs = our.page.table("omniglot", lines)
    assert found.replace("\xa0", " ") == expected
    assert runs.startswith("Runs: a: H, 2026-01-0")


def test_runs_have_letters(our):
    lines = [line(0.5, hardware=f"card {i}", setting=f"{i}-way") for i in range(28)]
    *rows, _, runs = our.page.table("omniglot", lines)
    assert [row[-4:-2].strip() for row in rows[-28:]][:3] == ["a", "b", "c"] and rows[-1].endswith("| bb |")
    assert runs.startswith("Runs: a: card 0, 2026-01-02; b: card 1, 2026-01-02; ") and "; ba: card 26, " in runs


def test_sinusoids_have_a_column_per_number_of_steps(our):
    common = {"table": "sinusoid", "metric": "loss", "interval": 0.1}
    steps = [("5 shots, after 1 step", 0.6), ("5 shots, after 10 steps", None)]
    lines = [line(value, setting=setting, **common, diverged=float(value is None)) for setting, value in steps]
    lines.append(line(0.0038, label="conditional-neural-process", setting="10 shots", **common | {"interval": 0.0005}))
    header, _, *found = (text.replace("\xa0", " ") for text in our.page.table("sinusoid", lines))
    assert header.startswith("| learner | seeds | shots | after 1 step | after 10 | no steps | paper |")
    assert found[0].startswith(
        "| maml | 1 | 5 | 0.600 ± 0.100 | diverged |  | 0.67 ‡ / 0.35 ‡ | 0.600 / - | 0 % / 100 % |"
    )
    assert found[1].startswith("| conditional-neural-process | 1 | 10 |  |  | 0.0038 ± 0.0005 | - |")


def test_the_page_of_results_is_made_from_the_lines(our):
    """And no region of it is missing."""
    page = (ROOT / "docs" / "pages" / "results.md").read_text(encoding="utf-8")
    for name, table in our.page.tables().items():
        assert "\n".join([f"<!-- generated: tables {name} -->", "", *table, "", "<!-- end -->"]) in page


def test_published_numbers_have_a_source_and_a_mark(our):
    papers = [row.paper for row, _ in rows_of(our) if row.paper]
    assert all(paper.source.startswith("https://") and paper.where for paper in papers)
    assert our.rows.Published(48.7, 1.84, "https://a", "Table 1", "memory").text == "48.70 ± 1.84 †"
    assert our.rows.Published(96.0, None, "https://a", "Table 1", "paper").text == "96.0"


# The runner


def arguments(our, tmp_path, **options):
    chosen = {"tables": ("sinusoid",), "rows": ": maml, 10 shots, after 1 step", "small": True, "seeds": (0,)}
    return our.run.Args(folder=tmp_path / "runs", output=tmp_path / "lines.jsonl", **{**chosen, **options})


@pytest.fixture
def at_once(our, monkeypatch):
    """Takes every row for a short one, so that no speed is measured."""
    monkeypatch.setattr(our.run, "minutes_left", lambda *_: 0.0)


def test_a_finished_row_is_a_line_and_is_not_run_again(our, at_once, tmp_path, capsys):
    args = arguments(our, tmp_path)
    assert our.run.main(args) == 0
    (found,) = our.lines.read(args.output)
    assert (found["label"], found["budget"], found["updates"], found["tasks"]) == ("maml", "cpu", 4, 2)
    assert found["hardware"] == our.lines.hardware() and found["versions"].keys() == {"jaxmeta", "jax"}
    assert found["options"]["test_steps"] == 1 and found["test_tasks"] == 600
    job = our.jobs.jobs_of(args.tables, args.rows, None, (0,), small=True)[0]
    tested = job.row.tested("cpu", 0)
    parts = tested.build()
    losses = np.asarray(parts.test([parts.load(job.folder(args.folder))])[0].metrics["loss"])
    assert found["value"] == pytest.approx(losses.mean(), rel=1e-4)
    assert our.run.main(args) == 0 and len(our.lines.read(args.output)) == 1
    assert our.run.main(replace(args, list=True)) == 0
    assert "all rows are there" in (shown := capsys.readouterr().out) and "there    " + found["key"] in shown


def test_a_row_whose_training_diverges_says_so(our, at_once, tmp_path, monkeypatch):
    def diverge(*args, **kwargs):
        raise FloatingPointError("loss became NaN")

    monkeypatch.setattr(Experiment, "run", diverge)
    args = arguments(our, tmp_path)
    our.run.main(args)
    (found,) = our.lines.read(args.output)
    assert found["value"] is None and found["diverged"] == 1.0


def test_rows_without_data_are_left_and_others_run(our, at_once, tmp_path, monkeypatch, capsys):
    real = Experiment.run

    def run(self, *args, **kwargs):
        if self.benchmark == "cifar-fs":
            return real(self, *args, **kwargs)
        raise FloatingPointError("loss became NaN")

    monkeypatch.setattr(Experiment, "run", run)
    rows = ": maml, (10 shots, after 1 step|5-way 1-shot)"
    args = arguments(our, tmp_path, tables=("sinusoid", "cifar-fs"), rows=rows, root=tmp_path)
    assert our.run.main(args) == 1
    assert [found["table"] for found in our.lines.read(args.output)] == ["sinusoid"]
    assert "cifar-fs: nothing to read in" in capsys.readouterr().out


def test_a_row_that_fits_comes_before_one_that_does_not(our, tmp_path, monkeypatch):
    jobs = our.jobs.jobs_of(("sinusoid",), "maml", "cpu", (0,))[:3]
    needed = dict(zip((job.key for job in jobs), (9.0, 2.0, 1.0), strict=True))
    monkeypatch.setattr(our.run, "minutes_left", lambda job, *_: needed[job.key])
    args = our.run.Args(folder=tmp_path)
    for minutes, chosen in ((10, 0), (3, 1), (1.5, 2), (0.5, 0)):
        assert our.run._next(jobs, args, None, our.run.Clock(minutes)) == jobs[chosen]


def test_estimates_follow_the_size_of_a_run(our, tmp_path):
    settings = {"num_tasks": 4, "ways": 5, "shots": 1, "train_shots": 2, "queries": 3, "steps": 2, "test_steps": 3}
    settings |= {"test_queries": 7, "iterations": 100, "validate_every": 50, "validation_tasks": 10, "test_tasks": 20}
    assert our.pace.work_of(settings) == 4 * 5 * (2 * 2 + 3)
    assert our.pace.work_of_tests(settings) == pytest.approx(2 * 0.4 * 20 * 5 * (3 + 7))
    assert our.pace.work_of_run(settings) == pytest.approx(100 * 140 + 0.4 * 3 * 10 * 50 + 800)
    row = our.sinusoid.ROWS[0]
    work = our.pace.work_of_run(row.experiment("cpu", 0).resolve())
    tests = our.pace.work_of_tests(row.experiment("cpu", 0).resolve())
    assert our.pace.minutes_of(row, "cpu", our.pace.Pace(2.0, 60.0)) == pytest.approx(1 + 2 * work / 60)
    assert our.pace.minutes_of(row, "cpu", our.pace.Pace(2.0, 60.0), 1.0) == pytest.approx(1 + 2 * tests / 60)
    known = our.pace.Paces(tmp_path / "pace.jsonl", [])
    assert known.find(row, "cpu") is None
    before = our.lines.result_line(row, "cpu", 0, our.lines.DIVERGED, 3.0)
    pace = our.pace.Paces(tmp_path / "pace.jsonl", [before]).find(row, "cpu")
    assert pace.seconds * (work - tests) == pytest.approx(180, rel=0.05)  # tested with fewer shots


def png(side):
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 99, np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_mini(root, lists):
    for part, names in lists.items():
        images = np.zeros((4 * len(names), 84, 84, 3), np.uint8)
        rows = {name: list(range(4 * i, 4 * i + 4)) for i, name in enumerate(names)}
        content = pickle.dumps({"image_data": images, "class_dict": rows})
        (root / f"mini-imagenet-cache-{part}.pkl").write_bytes(content)


def write_tiered(root, lists):
    for part, names in zip(("train", "val", "test"), lists.values(), strict=True):
        labels = np.repeat(np.arange(len(names)), 4)
        picture = np.frombuffer(png(4), np.uint8)
        (root / f"{part}_images_png.pkl").write_bytes(pickle.dumps([picture] * len(labels)))
        (root / f"{part}_labels.pkl").write_bytes(pickle.dumps({"label_specific": labels}))


def write_cub(root, lists):
    with tarfile.open(root / "CUB_200_2011.tgz", "w:gz") as archive:
        for name in (name for part in lists.values() for name in part):
            for i in range(4):
                entry = tarfile.TarInfo(f"CUB_200_2011/images/{name}/{i}.png")
                entry.size = len(png(4))
                archive.addfile(entry, io.BytesIO(png(4)))


WRITERS = {"mini-imagenet": write_mini, "tiered-imagenet": write_tiered, "cub": write_cub}


@pytest.mark.slow
@pytest.mark.parametrize("table", WRITERS)
def test_rows_of_photos_run_on_files_of_the_published_layout(our, at_once, table, tmp_path):
    row = next(row for row in our.catalog.TABLES[table] if row.label == "protonet")
    split = row.options.get("split") or next(iter(standard_splits(row.benchmark)))
    WRITERS[table](tmp_path, standard_splits(row.benchmark)[split])
    tiny = {"hidden": 2, "size": 16, "queries": 1, "test_queries": 1}
    row = replace(row.shrunk(), options={**row.options, **tiny})
    args = arguments(our, tmp_path, root=tmp_path)
    assert our.run.run(args, [our.jobs.Job(row, "paper", 0)]) == 0
    (found,) = our.lines.read(args.output)
    assert found["table"] == table and found["value"] == pytest.approx(0.2, abs=0.05)  # all pictures are the same


def test_memory_is_estimated_without_the_data(our, tmp_path):
    row = next(row for row in our.fc100.ROWS if row.label == "protonet")
    row = replace(row, options={**row.options, "hidden": 2})
    path = our.pace.made_up(row.benchmark, tmp_path)
    names = [name for part in standard_splits("fc100")["oreshkin"].values() for name in part]
    assert data.Examples.load(path).names == tuple(sorted(names))
    assert our.pace.memory_of(row.experiment("paper", 0), path) > 1
    with pytest.raises(FileNotFoundError, match="omniglot: its files are needed"):
        our.pace.made_up("omniglot", tmp_path)


@pytest.mark.slow
def test_time_is_estimated_without_the_data(our, tmp_path, capsys):
    row = next(row for row in our.fc100.ROWS if row.label == "protonet").shrunk()
    job = our.jobs.Job(replace(row, options={**row.options, "hidden": 2}), "cpu", 0)
    our.show.list_rows([job], tmp_path / "lines.jsonl", tmp_path / "runs", tmp_path, measure=5)
    assert f"missing  {job.key}: " in (shown := capsys.readouterr().out) and "0 rows of unknown speed" in shown


@pytest.mark.parametrize("name", ["mini-imagenet", "omniglot"])
def test_a_packed_file_takes_the_place_of_the_files(our, name, tmp_path):
    (tmp_path / "files").mkdir()
    if name == "omniglot":
        names = [f"A/character{i:04}" for i in range(1623)]
        images = np.arange(1623 * 20, dtype=np.uint32).astype(np.uint8)[:, None, None, None]
        data.Examples.of(np.broadcast_to(images, (1623 * 20, 28, 28, 1)), np.repeat(names, 20)).save(
            tmp_path / "first.npz"
        )
        root, split = tmp_path / "first.npz", {"split": "random"}
    else:
        write_mini(tmp_path / "files", standard_splits(name)["ravi"])
        root, split = tmp_path / "files", {}
    parts = our.pack.pack(our.pack.Args(name, tmp_path / "packed", root, part_mib=1))
    assert len(parts) > 8 and all(path.stat().st_size <= 1 << 20 for path in parts)
    whole = tmp_path / "packed" / f"{name}.npz"
    whole.write_bytes(b"".join(path.read_bytes() for path in parts))
    row = next(row for row in our.catalog.TABLES[name] if row.label == "maml")
    assert our.jobs.root_of(tmp_path / "packed", row) == str(whole)
    sizes = {"ways": 5, "shots": 1, "queries": 1, **split}
    before, after = (data.get_tasksets(name, root=of, **sizes) for of in (root, whole))
    assert before.classes == after.classes and before.stamp == after.stamp
    damaged = whole.read_bytes()[:-9000] + bytes(100) + whole.read_bytes()[-8900:]
    whole.write_bytes(damaged)
    with pytest.raises(ValueError, match="packed"):
        data.get_tasksets(name, root=whole, **sizes)


# Time and kills


def command(tmp_path, *words):
    found = [sys.executable, FOLDER / "run.py", "--folder", tmp_path / "runs", "--output", tmp_path / "lines.jsonl"]
    found += ["--tables", "sinusoid", "--seeds", "0", "--rows", ": maml, 10 shots, after 1 step", *words]
    return list(map(str, found)), {"env": os.environ | {"XLA_FLAGS": FLAGS}, "cwd": tmp_path}


@pytest.mark.slow
def test_a_call_stops_in_time_and_the_next_one_goes_on(tmp_path):
    words, options = command(tmp_path, "--minutes", "0.5")
    steps = []
    for _ in range(2):
        begin = time.monotonic()
        done = subprocess.run(words, **options, capture_output=True, text=True)
        assert done.returncode == 0 and "1 rows are left" in done.stdout, done.stdout + done.stderr
        assert time.monotonic() - begin < 30 + 30  # imports, and what a busy machine adds
        (folder,) = (tmp_path / "runs").glob("sinusoid-*")
        steps.append(read_records(folder)[-1]["step"] if read_records(folder) else 0)
    assert 0 < steps[0] < steps[1] and not (tmp_path / "lines.jsonl").exists()


@pytest.mark.slow
def test_kill_9_loses_at_most_the_row_that_runs(our, tmp_path):
    words, options = command(tmp_path, "--small", "--minutes", "2")
    assert subprocess.run(words, **options, capture_output=True).returncode == 0
    words, options = command(tmp_path, "--minutes", "5")
    with subprocess.Popen(words, **options, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not any((tmp_path / "runs").glob("sinusoid-*/checkpoints/*")):
            time.sleep(0.2)
        time.sleep(3)
        process.send_signal(signal.SIGKILL)
    assert len(our.lines.read(tmp_path / "lines.jsonl")) == 1
    words, options = command(tmp_path, "--minutes", "0.4")
    done = subprocess.run(words, **options, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    our.lines.repair(tmp_path / "lines.jsonl")
    assert len(our.lines.read(tmp_path / "lines.jsonl")) >= 1
