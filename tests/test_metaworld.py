# pyright: reportArgumentType=false, reportMissingImports=false
"""Meta-World's tasks: its own splits and simulators, in an environment with Meta-World and without brax."""

import pickle

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium.utils.env_checker import check_env

from jaxmeta import MetaParams, envs, rl

metaworld = pytest.importorskip("metaworld")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def reach():
    env = envs.MetaWorld("reach-v3", seed=3)
    env.reset(seed=0)
    return env


def goals(tasks):
    return {pickle.loads(task.data)["rand_vec"].tobytes() for task in tasks}


def test_ml1_draws_from_metaworlds_own_splits(reach):
    """`gymnasium.make_vec("Meta-World/ML1-train")` of 3.1.1 wrongly gives the tasks of the test split."""
    own = metaworld.ML1("reach-v3", seed=3)
    train, test = reach.sample_tasks(300), reach.sample_tasks(300, split="test")
    assert goals(train) == goals(own.train_tasks) and goals(test) == goals(own.test_tasks)
    assert not goals(train) & goals(test)


def test_steps_equal_metaworlds_and_an_expert_succeeds(reach):
    from metaworld.policies import SawyerReachV3Policy

    expert = SawyerReachV3Policy()
    task = reach.sample_tasks(1)[0]
    arm = metaworld.ML1("reach-v3", seed=3).train_classes["reach-v3"]()
    arm.set_task(task)
    reach.set_task(task)
    obs, _ = reach.reset()
    theirs, _ = arm.reset()
    goal = arm._target_pos
    np.testing.assert_array_equal(obs, theirs.astype(np.float32))
    assert np.all(obs[-3:] == 0) and np.all(goal != 0)  # not seen but by the expert
    info = {}
    for i in range(500):
        action = np.clip(expert.get_action(np.concatenate([theirs[:-3], goal])), -1, 1)
        theirs, their_reward, *_ = arm.step(action)
        obs, reward, terminated, truncated, info = reach.step(np.where(np.abs(action) == 1, 5 * action, action))
        np.testing.assert_array_equal(obs, theirs.astype(np.float32))
        assert (reward, terminated, truncated) == (float(their_reward), False, i == 499)
    assert info["success"] == 1.0
    assert reach.get_task() is task


def test_gymnasium_finds_nothing(reach):
    reach.set_task(reach.sample_tasks(1)[0])
    check_env(reach, skip_render_check=True)


def test_ml10_has_two_of_each_kind_in_twenty_and_changes_between_them():
    env = envs.MetaWorld("ML10")
    env.reset(seed=0)
    tasks = env.sample_tasks(20)
    kinds = [task.env_name for task in tasks]
    assert sorted(kinds[:10]) == sorted(kinds[10:]) == sorted(metaworld.ML10(seed=0).train_classes)
    tests = {task.env_name for task in env.sample_tasks(5, split="test")}
    assert len(tests) == 5 and not tests & set(kinds)
    for task in tasks[:3]:
        env.set_task(task)
        env.reset()
        assert env.observation_space.contains(env.step(env.action_space.sample())[0])
        assert env.get_task() is task
    env.set_task(None)
    env.reset(seed=0)
    assert env.sample_tasks(20) == tasks


def test_arms_in_processes():
    env = envs.AsyncVectorEnv([lambda: envs.MetaWorld("reach-v3")] * 2)
    try:
        tasks = env.sample_tasks(2)
        env.set_task(tasks)
        obs, _ = env.reset(seed=0)
        assert env.get_task() == tasks
        _, _, _, _, info = env.step(np.ones((2, 4), np.float32))
        assert obs.shape == (2, 39) and info["success"].tolist() == [0.0, 0.0]
    finally:
        env.close()


def test_errors():
    with pytest.raises(ValueError, match="benchmark must be one of 'ML10', .* got 'ML7'"):
        envs.MetaWorld("ML7")
    env = envs.MetaWorld("reach-v3")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.get_task()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(4))
    with pytest.raises(ValueError, match="split must be one of"):
        env.sample_tasks(1, split="validation")


def test_metaworlds_own_evaluation_takes_our_agent():
    from metaworld.evaluation import metalearning_evaluation

    policy = rl.GaussianPolicy(action_size=4, sizes=(8,))
    params = policy.init(jax.random.key(0), jnp.zeros((1, 39)))
    agent = rl.AdaptingAgent(policy.apply, MetaParams(params), optax.sgd(0.1))
    arms = gymnasium.make_vec("Meta-World/ML1-test", env_name="reach-v3", meta_batch_size=2, max_episode_steps=20)
    result = metalearning_evaluation(agent, arms, num_evals=2, adaptation_episodes=2, evaluation_episodes=1)
    success_rate, mean_return, by_kind = result
    assert 0 <= success_rate <= 1 and mean_return > 0 and set(by_kind) == {"reach-v3"}
