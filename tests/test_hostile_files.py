"""Files from strangers: whatever is in them, they are refused by an error or read right, in little time and memory.

Each format has a generator of files in `hostile_files.py`, and another process reads them, so that a crash is seen.
This reads ten thousand of each: `JAXMETA_HOSTILE=10000 pytest -m "slow or not slow" tests/test_hostile_files.py`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MANY = int(os.environ.get("JAXMETA_HOSTILE", "300"))
FORMATS = {
    "pickles": ["pickle"],
    "others": ["npy", "npz", "mat", "json", "msgpack", "image", "tar", "zip", "classifier"],
}


@pytest.mark.parametrize("kinds", FORMATS)
@pytest.mark.quick("pickles")
def test_files_of_strangers_are_refused_or_read_right(kinds):
    words = [sys.executable, "hostile_files.py", "0", str(MANY), *FORMATS[kinds]]
    done = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, errors="replace")
    *_, last = done.stdout.splitlines() or [""]
    assert done.returncode == 0, f"{last}: status {done.returncode}\n{done.stderr[-2000:]}"
    for kind, counts in json.loads(last).items():
        assert sum(counts.values()) == MANY and all(counts.values()), (kind, counts)
