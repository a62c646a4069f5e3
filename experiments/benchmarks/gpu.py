"""Speed on a GPU: lowerings, XLA's options, precision, many tasks, meta-RL, and PyTorch on the same card.

The rows of `gpu_rows.py` are measured one after the other, in order of importance, until the time is over. Each result
is one JSON line, written when it is known. Rows that the file has are skipped, so a second call continues. A process
measures the rows; one that takes too long is killed, which costs the others nothing. Options of XLA get processes of
their own.

Conv-4: 5-way 1-shot, 28x28 random pixels, 4 convolutions x 64 channels with stride 2, Adam outside, 20 updates in one
program. "lowering" has 84x84 and 32x32 photos, "shared" ProtoNets with 15 queries. Meta-RL: 20 episodes of 100 steps
(half-cheetah 200) before and after the inner step. Memory is the compiler's figure, PyTorch's that of its allocator.

    python experiments/benchmarks/gpu.py                  # 9 minutes on a GPU
    python experiments/benchmarks/gpu.py --page           # the table and the plot of the page "On a GPU"
"""

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gpu_page
import tyro
from gpu_rows import SMALL, Row, Sizes, rows

PARTS = {
    "machine": 15,
    "Conv-4": 150,
    "precision": 100,
    "lowering": 120,
    "options": 60,
    "small tasks": 40,
    "PyTorch": 40,
    "meta-RL": 100,
    "memory": 40,
}
"""Seconds in which a part may begin rows, of 540. Time that is left at the end goes to what is missing."""


@dataclass(frozen=True)
class Args:
    """Measure jaxmeta on a GPU."""

    limit: float = 540
    """Seconds after which everything ends."""
    row_limit: float = 75
    """Seconds after which a row is given up."""
    parts: tuple[str, ...] = tuple(PARTS)
    """Parts to measure."""
    small: bool = False
    """Tiny sizes, for a test on a CPU."""
    output: Path = Path("experiments/results/gpu.jsonl")
    """Where the results go, and where they are continued."""
    page: bool = False
    """Measure nothing; write the page's tables and its plot from the results."""


class Worker:
    """A process that measures rows."""

    def __init__(self, flags: str, sizes: Sizes):
        self.flags = flags
        self.log = Path(tempfile.mkstemp(suffix=".log")[1])
        os.environ |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9"}
        before = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{before} {flags}".strip()  # the process inherits it
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, sizes, self.log), daemon=True)
        self.process.start()
        other.close()
        os.environ["XLA_FLAGS"] = before

    def measure(self, index: int, seconds: float) -> dict[str, Any]:
        """The result of a row, or an error."""
        try:
            self.pipe.send(index)
            if self.pipe.poll(seconds):
                return self.pipe.recv()
            self.close()
            return {"error": f"not done in {seconds:.0f} s"}
        except (EOFError, OSError):
            self.process.join()
            last = [line for line in self.log.read_text(errors="replace").splitlines() if line.startswith("F")]
            return {"error": " ".join([f"the process ended with {self.process.exitcode}", *last[:1]])}

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.join()
        self.log.unlink(missing_ok=True)


def serve(pipe: Connection, sizes: Sizes, log: Path) -> None:
    """Measures the rows whose numbers come through the pipe."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
    import jax

    table = rows(sizes)
    jax.devices()  # starts the card before the first row needs it
    while True:
        try:
            pipe.send(table[pipe.recv()].measure())
        except EOFError:
            return
        except Exception as error:
            pipe.send({"error": f"{type(error).__name__}: {error}"[:400]})


class Workers:
    """One worker for each set of XLA's options, the next one started ahead."""

    def __init__(self, sizes: Sizes):
        self.sizes = sizes
        self.found: dict[str, Worker] = {}

    def get(self, flags: str) -> Worker:
        """The worker with these options."""
        if flags not in self.found or not self.found[flags].process.is_alive():
            self.found[flags] = Worker(flags, self.sizes)
        return self.found[flags]

    def keep(self, flags: set[str]) -> None:
        """Ends the others."""
        for other in self.found.keys() - flags:
            self.found.pop(other).close()


def measure(args: Args, limits: Mapping[str, float]) -> None:
    """Measures all rows that are missing, within the time of each part."""
    begin = time.monotonic()
    sizes = SMALL if args.small else Sizes()
    table = rows(sizes)
    workers = Workers(sizes)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open("a+", encoding="utf-8") as file:
        file.seek(0)
        done = {(row["part"], row["name"]) for row in map(json.loads, file)}
        spent = dict.fromkeys(PARTS, 0.0)
        for seconds in (limits, dict.fromkeys(PARTS, args.limit)):
            for i, row in enumerate(table):
                left = args.limit - (time.monotonic() - begin)
                wanted = row.part in args.parts and (row.part, row.name) not in done
                if not wanted or spent[row.part] >= seconds[row.part] or left < 3:
                    continue
                ahead = next((r.flags for r in table[i:] if r.flags != row.flags and r.part in args.parts), "")
                workers.keep({"", row.flags, ahead})
                worker = workers.get(row.flags)
                if "" in workers.found:
                    workers.get(ahead)
                start = time.monotonic()
                result = worker.measure(i, min(args.row_limit, left - 2))
                now = time.monotonic()
                spent[row.part] += now - start
                done.add((row.part, row.name))
                _say(file, row, {**result, "row_s": now - start, "at_s": now - begin})
    workers.keep(set())


def _say(file: Any, row: Row, result: dict[str, Any]) -> None:
    """Writes one line, and prints it."""
    values = {key: float(f"{x:.5g}") if isinstance(x, float) else x for key, x in result.items()}
    line = json.dumps({"part": row.part, "name": row.name, **values})
    print(line, file=file, flush=True)
    print(line, flush=True)


def main(args: Args) -> None:
    """Measure, or write the page."""
    if args.page:
        gpu_page.write(args.output)
    else:
        measure(args, {part: seconds * args.limit / 540 for part, seconds in PARTS.items()})


if __name__ == "__main__":
    main(tyro.cli(Args))
