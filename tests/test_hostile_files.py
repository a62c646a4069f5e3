"""Files from strangers: whatever is in them, they are refused by an error or read right, in little time and memory.

Each format has a generator of files in `hostile_files.py`, and another process reads them, so that a crash is seen.
"""

import pytest
from hostile_files import CHECKS, read_many

MANY = 300
FORMATS = {"pickles": ["pickle"], "others": [kind for kind in CHECKS if kind != "pickle"]}


@pytest.mark.parametrize("kinds", FORMATS)
@pytest.mark.quick("pickles")
def test_files_of_strangers_are_refused_or_read_right(kinds):
    for kind, counts in read_many(MANY, FORMATS[kinds]).items():
        assert sum(counts.values()) == MANY and all(counts.values()), (kind, counts)
