"""Every policy learner learns on a small environment with the defaults of its name."""

import jax
import numpy as np
import pytest

import jaxmeta
from jaxmeta import envs
from jaxmeta.catalog import LEARNERS

# Learner, horizon of Particles2D, outer updates, and the least gain over the same learner before training, in the
# return after adaptation. In 100 steps the start has -71, a point that stays -38, and one that knows the goal -2. In 20
# steps they have -9, -7 and -2. RL2 and VariBAD have tests of their own.
ROWS = [
    ("promp", 100, 20, 45),
    ("maml-trpo", 100, 5, 35),
    ("e-maml", 100, 5, 25),
    ("maml-a2c", 100, 40, 20),
    ("multi-task-ppo", 100, 20, 25),
    ("pearl", 20, 30, 3),
]


@pytest.mark.slow
@pytest.mark.parametrize(("learner", "horizon", "updates", "gain"), ROWS, ids=lambda x: str(x))
def test_defaults_learn(learner, horizon, updates, gain):
    experiment = jaxmeta.Experiment("particles2d", learner=learner, horizon=horizon)
    env, settings = envs.make("particles2d", horizon=horizon), experiment.resolve()
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
