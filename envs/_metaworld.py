"""Meta-World's meta-learning benchmarks as a gymnasium environment with tasks."""

import functools
import importlib
import pickle
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from jaxmeta._checks import check_choice, check_integer
from jaxmeta.envs._base import SPLITS

_OF_MANY = ("ML10", "ML25", "ML45")


class MetaWorld(gymnasium.Env):
    """Meta-World's ML1, ML10, ML25 or ML45: a robot arm whose task is what to do, and where the goal is.

    A task is Meta-World's: the name of one of its 50 kinds, such as "door-open-v3", and where things are in it, which
    the observation of 39 numbers does not tell about the goal. There are 50 tasks of every kind in a split. In ML1 the
    splits differ in these, in the others in the kinds too. An action is four numbers: where the hand moves, and the
    fingers' force. The reward is between 0 and 10; `info["success"]` is 1.0 where the task is solved. Episodes are
    truncated after 500 steps and do not end by themselves.

    Until `set_task` is called, every episode is of a task of its own, drawn from the train split. Many arms at once are
    an `AsyncVectorEnv`; only its first process makes the benchmark's tasks, which takes seconds for each kind.

    Meta-World needs an older MuJoCo than brax: install it, `pip install jaxmeta[metaworld]`, in an environment of its
    own, without the extras `envs` and `dev`.

    Args:
        benchmark: "ML10", "ML25" or "ML45"; or for ML1 the kind, such as "reach-v3".
        seed: what the benchmark's tasks follow from.

    Raises:
        ImportError: if Meta-World is not installed.
        ValueError: if there is no such benchmark.

    Example:
        >>> env = MetaWorld("ML10")  # doctest: +SKIP
        >>> tasks = env.sample_tasks(20)  # two of each kind  # doctest: +SKIP
        >>> env.set_task(tasks[0])  # doctest: +SKIP
        >>> obs, info = env.reset(seed=0)  # doctest: +SKIP

    References:
        Yu et al., *Meta-World: A Benchmark and Evaluation for Multi-Task and Meta Reinforcement Learning*, CoRL 2019,
        https://arxiv.org/abs/1910.10897

        McLean et al., *Meta-World+: An Improved, Standardized, RL Benchmark*, NeurIPS 2025,
        https://arxiv.org/abs/2505.11289
    """

    def __init__(self, benchmark: str, *, seed: int = 0) -> None:
        try:
            self._metaworld = importlib.import_module("metaworld")
        except ImportError as error:
            raise ImportError(
                "MetaWorld needs Meta-World: pip install jaxmeta[metaworld], in an environment without brax"
            ) from error
        check_choice("benchmark", benchmark, (*_OF_MANY, *self._metaworld.ML1.ENV_NAMES))
        self.observation_space = spaces.Box(-np.inf, np.inf, (39,), np.float32)
        self.action_space = spaces.Box(-1, 1, (4,), np.float32)
        self.benchmark = benchmark
        self._seed = seed
        self._task: Any = None
        self._now: Any = None  # the task of this episode
        self._arm: Any = None

    def sample_tasks(self, num_tasks: int, *, split: str = "train") -> list[Any]:
        """Draw tasks, of all kinds equally often or once more; after `reset(seed=...)` the same ones each time.

        Args:
            num_tasks: how many.
            split: "train" or "test".
        """
        check_integer(num_tasks=num_tasks)
        check_choice("split", split, SPLITS)
        tasks = self._tasks[split]
        kinds = self.np_random.permutation(list(tasks))
        return [tasks[kinds[i % len(kinds)]][self.np_random.integers(50)] for i in range(num_tasks)]

    def set_task(self, task: Any) -> None:
        """Set the task of all episodes from the next reset on; None for a new one each time."""
        self._task = task

    def get_task(self) -> Any:
        """Return the task of the next reset if it is set, else that of this episode."""
        return self._started(self._now) if self._task is None else self._task

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: of the tasks that are drawn.
            options: `{"task": task}` does what `set_task` does.

        Returns:
            The first observation, and nothing more.
        """
        super().reset(seed=seed)
        if options and "task" in options:
            self.set_task(options["task"])
        self._now = self.sample_tasks(1)[0] if self._task is None else self._task
        kind = pickle.loads(self._now.data)["env_cls"]
        if type(self._arm) is not kind:
            self.close()
            self._arm = kind()
        self._arm.set_task(self._now)
        obs, _ = self._arm.reset()
        return obs.astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Do one step.

        Args:
            action: a member of `action_space`; beyond it, it is clipped.

        Returns:
            Observation, reward, False, whether the episode is truncated, and "success" and other metrics.
        """
        obs, reward, terminated, truncated, info = self._started(self._arm).step(np.clip(action, -1, 1))
        metrics = {name: float(value) for name, value in info.items()}
        return obs.astype(np.float32), float(reward), terminated, truncated, metrics

    def close(self) -> None:
        """Let the simulator go."""
        if self._arm is not None:
            self._arm.close()
            self._arm = None

    @functools.cached_property
    def _tasks(self) -> dict[str, dict[str, list[Any]]]:
        """All tasks, by split and kind."""
        of_many = self.benchmark in _OF_MANY
        module = self._metaworld
        made = getattr(module, self.benchmark)(self._seed) if of_many else module.ML1(self.benchmark, self._seed)
        kinds = {"train": made.train_classes, "test": made.test_classes}
        tasks = {"train": made.train_tasks, "test": made.test_tasks}
        return {
            split: {kind: [task for task in tasks[split] if task.env_name == kind] for kind in kinds[split]}
            for split in SPLITS
        }

    def _started(self, value: Any) -> Any:
        if value is None:
            raise gymnasium.error.ResetNeeded("Call reset() first")
        return value
