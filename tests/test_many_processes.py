"""Kills at random moments and crowds of processes, a few of those that `kill_many.py` makes."""

import kill_many
import pytest


@pytest.mark.slow
def test_a_killed_run_comes_to_the_same_numbers(tmp_path):
    done = kill_many.kill_many(tmp_path, 3)
    assert done["runs"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_of_a_crowd_one_does_the_work(count, tmp_path):
    done = kill_many.crowd(tmp_path, 3, 2 // count, count)
    assert done["trained"] + done["refused"] == 6
