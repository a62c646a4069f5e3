"""Every policy learner learns on a small environment with the defaults of its name."""

import jax
import numpy as np
import pytest

import jaxmeta
from jaxmeta import envs
from jaxmeta.catalog import LEARNERS

# Learner, environment, outer updates, and the least gain over the same learner before training, after adaptation.
# Particles2D: the start has -71, a point that stays -38, and one that knows the goal -2.
ROWS = [
    ("promp", "particles2d", 20, 45),
    ("maml-trpo", "particles2d", 5, 35),
    ("e-maml", "particles2d", 5, 25),
    ("multi-task-ppo", "particles2d", 20, 25),
]


@pytest.mark.slow
@pytest.mark.parametrize(("learner", "environment", "updates", "gain"), ROWS, ids=lambda x: str(x))
def test_defaults_learn(learner, environment, updates, gain):
    experiment = jaxmeta.Experiment(environment, learner=learner)
    env, settings = envs.make(environment), experiment.resolve()
    agent = LEARNERS[learner].build(settings, env, None)
    key = jax.random.key(0)
    start = jax.jit(agent.init)(key)
    done = jaxmeta.loop(
        agent.training, start, key, iterations=updates, log_every=updates, validate_every=updates, progress=False
    )
    tasks, test = env.sample_tasks(key, 20, split="test"), jax.jit(agent.test)
    before, after = (
        np.asarray(test(meta, tasks, key).sampled)[:, -1].mean()
        for meta in (agent.training.init(start).meta, done.state.meta)
    )
    assert after - before > gain
