"""Kills at random moments, and crowds: a download, a cache and a run that many processes begin and few end.

python tests/kill_many.py --kills 100                  # of one process
python tests/kill_many.py --kills 40 --processes 2     # of one of two, or of both
python tests/kill_many.py --crowd 8 --rounds 10        # eight at once in one folder
python tests/kill_many.py --crowd 3 --processes 2      # three runs of two processes each
python tests/kill_many.py --table FILE                 # 100 kills of 1, 2 and 4 processes, ten crowds of eight
"""

import argparse
import contextlib
import hashlib
import http.server
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from local_web import serve
from test_distributed import HEARTBEAT, ITERATIONS, finish, free_address, train

from jaxmeta.training import read_records

BUSY = 3  # exit status of a process whose run's folder another one has
CONTENT = np.random.default_rng(0).bytes(2_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SECONDS = 300.0
FULL = {1: 40, 2: 30, 4: 30}
"""Kills of the table, by the number of processes of a run."""
MOMENTS = {"download": "data/*.part", "cache": "cache/*tmp*", "save": "run/checkpoints/*tmp*", "lock": "run/.lock"}


def work(place: Path, url: str, address: str, count: int, index: int) -> int:
    """Downloads a file, decodes it into the cache, and trains, as one of some processes."""
    import jax

    import jaxmeta
    from jaxmeta.data.sources import cached
    from jaxmeta.data.sources._download import Remote, fetch

    if count > 1:
        jax.config.update("jax_num_cpu_devices", 4 // count)
        jax.distributed.initialize(
            address, count, index, initialization_timeout=60, heartbeat_timeout_seconds=HEARTBEAT
        )
    file = fetch(Remote("numbers.bin", 2, url, f"sha256:{DIGEST}"), place / "data", progress=False)

    def make() -> dict[str, np.ndarray]:
        return {"x": np.tile(np.frombuffer(file.read_bytes(), np.uint8), 10)}

    x = cached("numbers", ["x"], make)["x"]
    assert file.read_bytes() == CONTENT and x.reshape(10, -1)[index].tobytes() == CONTENT, "wrong bytes"
    try:
        train(place / "run", mesh=jaxmeta.task_mesh() if count > 1 else None)
    except BlockingIOError as error:
        sys.stderr.write(f"{error}\n")
        return BUSY
    return 0


@contextlib.contextmanager
def serving() -> Any:
    """A web server with one file, which it sends slowly, and a list of the bytes from which it was asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        starts: list[int] = []  # noqa: RUF012

        def do_GET(self):
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.starts.append(start)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for i in range(start, len(CONTENT), 50_000):
                    self.wfile.write(CONTENT[i : i + 50_000])
                    time.sleep(0.005)

        def log_message(self, format, *args):
            pass

    with serve(Handler) as url:
        yield f"{url}numbers.bin", Handler.starts


def start(place: Path, url: str, count: int = 1, runs: int = 1) -> list[subprocess.Popen[str]]:
    """Starts runs of `count` processes each, in one folder."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("XLA_", "JAX_COMP", "JAX_PERS"))}
    kept = {"JAX_COMPILATION_CACHE_DIR": str(place.parent / "programs"), **kept}
    env = {**kept, "PATH": "", "JAX_PLATFORMS": "cpu", "JAXMETA_CACHE": str(place / "cache"), "no_proxy": "*"}
    env |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    words = [sys.executable, __file__, "--work", str(place), url]
    addresses = [free_address() if count > 1 else "none" for _ in range(runs)]
    ends = [[address, str(count), str(i)] for address in addresses for i in range(count)]
    return [subprocess.Popen([*words, *end], stderr=subprocess.PIPE, text=True, env=env) for end in ends]


def records(place: Path) -> list[dict[str, float]]:
    """Returns the records of a run without what depends on the clock."""
    return [{k: v for k, v in record.items() if "second" not in k} for record in read_records(place / "run")]


def check(place: Path, whole: list[dict[str, float]], exact: bool) -> None:
    """Checks every byte that a run has left."""
    found = records(place)
    assert [record["step"] for record in found] == list(range(0, ITERATIONS + 1, 2))
    assert found == whole or not exact, "other numbers"
    for ours, theirs in zip(found, whole, strict=True):
        np.testing.assert_allclose([*ours.values()], [*theirs.values()], rtol=1e-3, atol=1e-5)
    assert (place / "data" / "numbers.bin").read_bytes() == CONTENT
    assert [path.name for path in (place / "data").iterdir()] == ["numbers.bin"]
    assert [path.name for path in (place / "cache").iterdir() if path.suffix == ".npz"] == ["numbers.npz"]
    assert not [path for path in place.rglob("*.lock") if path.is_file()]


def undisturbed(folder: Path, url: str) -> tuple[list[dict[str, float]], float]:
    """Returns the records of a run of one process, and its seconds."""
    finish(start(folder / "warm", url), SECONDS)  # compiles
    begin = time.monotonic()
    codes, said = finish(start(folder / "whole", url), SECONDS)
    assert codes == [0], said
    return records(folder / "whole"), time.monotonic() - begin


def wait_for(
    moment: str, place: Path, processes: list[subprocess.Popen[str]], chance: random.Random, seconds: float
) -> None:
    """Waits for a moment of the run, or for its end."""
    if moment == "any":
        time.sleep(chance.uniform(0, seconds))
        return
    while not next(place.glob(MOMENTS[moment]), None) and all(process.poll() is None for process in processes):
        time.sleep(0.001)
    time.sleep(chance.choice([0.0, chance.uniform(0, 0.2)]))


def kill_many(folder: Path, kills: int, count: int = 1, seed: int = 0, say: Any = None) -> dict[str, int]:
    """Kills processes at random moments, and checks every run that comes to its end in spite of it.

    Returns:
        The number of kills at each kind of moment, and the number of runs.
    """
    chance, done = random.Random(seed), dict.fromkeys([*MOMENTS, "any", "runs"], 0)
    with serving() as (url, _):
        whole, seconds = undisturbed(folder, url)
        while sum(done.values()) - done["runs"] < kills:
            place, left = folder / f"run{done['runs']}", chance.randint(1, 8)
            while left and sum(done.values()) - done["runs"] < kills:
                processes, moment = start(place, url, count), chance.choice([*MOMENTS, "any"])
                wait_for(moment, place, processes, chance, seconds)
                victims = chance.choice([processes[:1], processes[1:] or processes, processes])
                done[moment] += any(process.poll() is None for process in victims)
                for process in victims:
                    process.kill()
                finish(processes, SECONDS)
                left -= 1
            codes, said = finish(start(place, url, count), SECONDS)
            assert codes == [0] * count, said
            check(place, whole, exact=count == 1)
            done["runs"] += 1
            if say:
                say(str(done))
    return done


def crowd(folder: Path, size: int, rounds: int, count: int = 1, say: Any = None) -> dict[str, int]:
    """Starts `size` runs of `count` processes at once with one download, cache and folder: one does the work.

    Returns:
        How many processes trained, and how many were told that another one does.
    """
    done = {"trained": 0, "refused": 0}
    with serving() as (url, starts):
        whole, _ = undisturbed(folder, url)
        for number in range(rounds):
            place = folder / f"round{number}"
            starts.clear()
            codes, said = finish(start(place, url, count, size), SECONDS)
            assert set(codes) <= {0, BUSY} and 0 in codes, said
            runs = [set(codes[i : i + count]) for i in range(0, len(codes), count)]
            assert all(len(run) == 1 for run in runs), f"processes of one run end differently: {codes}"
            refusals = [text for code, text in zip(codes, said, strict=True) if code == BUSY]
            first = [text for text in refusals if "another process trains in folder" in text and "pid" in text]
            others = [text for text in refusals if "as the first of the processes says" in text]
            assert len(first) == runs.count({BUSY}) and len(first) + len(others) == len(refusals), refusals
            assert starts == [0], "more than one download"
            check(place, whole, exact=count == 1)
            done["trained"] += codes.count(0)
            done["refused"] += len(refusals)
            if say:
                say(f"round {number + 1}: {done}")
    return done


def write_table(path: Path, say: Any) -> None:
    """Kills a hundred times, makes ten crowds of eight, and writes the table of the page on many devices."""
    rows = [["processes of a run", *(f"kills: {moment}" for moment in (*MOMENTS, "any")), "runs that came to the end"]]
    rows.append(["---"] * len(rows[0]))
    with tempfile.TemporaryDirectory() as folder:
        for count, kills in FULL.items():
            place = Path(folder, str(count))
            place.mkdir()
            done = kill_many(place, kills, count, say=say)
            rows.append([str(count), *map(str, done.values())])
        crowd(Path(folder), 8, 10, say=say)
    path.write_text("".join(f"| {' | '.join(row)} |\n" for row in rows), encoding="utf-8")


def main() -> int:
    """Does what the command line asks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crowd", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        place, url, address, count, index = given.work
        return work(Path(place), url, address, int(count), int(index))

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    if given.table:
        write_table(given.table, say)
    with tempfile.TemporaryDirectory() as folder:
        if given.kills:
            say(f"kills: {kill_many(Path(folder), given.kills, given.processes, given.seed, say)}")
        if given.crowd:
            say(f"crowd: {crowd(Path(folder), given.crowd, given.rounds, given.processes, say)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
