"""Every experiment and every benchmark runs, a few steps each: `make smoke`."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLAGS = os.environ["XLA_FLAGS"].split()  # for quick compilation; the scripts set the number of devices themselves
ENVIRONMENT = os.environ | {"XLA_FLAGS": " ".join(flag for flag in FLAGS if "device_count" not in flag)}
RUNS = {
    "sinusoid": "--learners maml cavia-5 reptile --iterations 200 --test-tasks 20",
    "prior_fitted": "--iterations 2 --width 8 --layers 1 --num-tasks 2 --test-tasks 4",
    "tables/run": "--small --tables sinusoid --rows ': maml, 10 shots, after 1 step' --minutes 2",
    "learned_optimizer": "--iterations 2 --num-runs 2 --steps 20 --problems 2",
    "learned_objective": "--iterations 1 --num-runs 2 --window 2 --updates 4 --tuning 1 --points 2 --tasks 4",
    "continual": "--effort 0.002 --characters 40 --classes 5 --streams 5 --hidden 4",
    "hypergradient": "--steps 2 --seeds 0 --drawings 20 --large 10 --rounds 1",
    "prior_fitted_tables": "--iterations 2 --num-tasks 2 --width 8 --layers 1 --tables iris --rows 10 --splits 2 "
    "--methods 'prior-fitted network' '5 nearest neighbors'",
    "data_weights": "--seeds 0 --steps 40 --warm-up 20 --methods noisy 'net, SAMA'",
    "distillation": "--seeds 0 --updates 2 --steps 1 --tests 2 --networks 1",
    "long_training": "--steps 20 --updates 1 --lengths 10",
    "pretrain": "--iterations 2 --classes 10 --test-tasks 2 --shots 1",
    "one_by_one": "--learners protonet --iterations 2 --test-tasks 2",
    "dark_room": "--iterations 2 --num-tasks 8 --promp-iterations 2 --promp-tasks 2 --promp-episodes 2 --test-tasks 8 "
    "--size 5",
    "maml_particles2d": "--algorithms promp --seeds 0 --iterations 2 --num-tasks 2 --episodes 2 --test-tasks 2",
    "rl2_bandits": "--iterations 2 --num-tasks 4 --pulls 10 --test-tasks 10",
    "meta_rl_table": "--updates 1 --seeds 1 --num-tasks 2 --episodes 2 --horizon 5 --test-tasks 2 --learners rl2 pearl "
    "promp",
    "pearl_particles2d": "--iterations 2 --num-tasks 2 --updates 2 --test-tasks 2 --seeds 0",
    "bodies": "--small --film --parts half-cheetah-forward-backward/promp",
    "benchmarks/heads": "--shots 1 --features 16 --num-tasks 2 --rounds 1",
    "benchmarks/meta_gradients": "--conv-steps 2 --hidden 4 --transformer-steps 2 --layers 2 --width 8 --length 8 "
    "--sequences 1 --samples 2 --rounds 1 --only first_order",
    "benchmarks/suite": "--num-tasks 2 --hidden 4 --size 64 --rounds 1 --updates 2 "
    "--only sinusoid 'MAML, 1 step, first' 'a task'",
    "benchmarks/scaling": "--devices 1 2 --num-tasks 2 --steps 1 --hidden 64 --base-tasks 2 --rounds 1",
    "benchmarks/rl": "--num-tasks 2 --episodes 2 --horizon 5 --rounds 1",
    "benchmarks/sampling": "--rounds 2",
    "benchmarks/sweep": "--runs 2 --updates 4 2 --rounds 1 --only sinusoid",
    "benchmarks/gpu": "--small --limit 60",
}


@pytest.mark.smoke
@pytest.mark.parametrize("script", RUNS)
def test_an_experiment_runs(script, tmp_path):
    where = [] if script.startswith("benchmarks") else ["--folder", tmp_path]
    where += ["--output", tmp_path / "out.json"] if script.startswith(("benchmarks", "bodies", "tables")) else []
    words = [sys.executable, ROOT / f"experiments/{script}.py", *shlex.split(RUNS[script]), *where]
    done = subprocess.run(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert any(path.is_file() and path.stat().st_size for path in tmp_path.rglob("*"))
