"""Meta-World's meta-learning benchmarks as a gymnasium environment with tasks."""

import functools
import importlib
import pickle
from typing import Any

import numpy as np

from jaxmeta._checks import check_choice, check_installed, check_integer
from jaxmeta.envs._base import SPLITS
from jaxmeta.envs._gymnasium import reset_needed
from jaxmeta.envs._optional import deferred_base

_Env = deferred_base("gymnasium", "Env", extra="metaworld")
_OF_MANY_KINDS = ("ML10", "ML25", "ML45")


class MetaWorld(_Env):
    """Meta-World's benchmarks ML1, ML10, ML25 and ML45: a robot arm with tasks of different kinds and goals.

    A task of Meta-World is the name of one of its 50 kinds, such as `"door-open-v3"`, and the positions of the objects
    and the goal. An observation has 39 numbers, which do not tell the goal. A split has 50 tasks of every kind. The two
    splits of ML1 differ in the positions, those of the other benchmarks in the kinds as well. An action has four
    numbers: the movement of the hand, and the force of the fingers. The reward is between 0 and 10, and
    `info["success"]` is 1.0 where the task is solved. Episodes are truncated after 500 steps and never end by
    themselves.

    Until `set_task` is called, every episode has its own task, drawn from the train split. Use an `AsyncVectorEnv` for
    many arms at once. Only its first process makes the benchmark's tasks, which takes seconds for each kind.

    Meta-World needs an older MuJoCo than brax does. Install it with `pip install "jaxmeta[metaworld]"` in its own
    environment, without the extras `envs` and `dev`.

    Args:
        benchmark: `"ML10"`, `"ML25"` or `"ML45"`, or for ML1 the kind, such as `"reach-v3"`.
        seed: seed of the benchmark's tasks.

    Raises:
        ModuleNotFoundError: if Meta-World is not installed.
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
        from gymnasium import spaces

        check_installed("metaworld", "MetaWorld", "metaworld", ", in an environment without brax")
        self._metaworld = importlib.import_module("metaworld")
        check_choice("benchmark", benchmark, (*_OF_MANY_KINDS, *self._metaworld.ML1.ENV_NAMES))
        self.observation_space = spaces.Box(-np.inf, np.inf, (39,), np.float32)
        self.action_space = spaces.Box(-1, 1, (4,), np.float32)
        self.benchmark = benchmark
        self._seed = seed
        self._task: Any = None
        self._episode_task: Any = None
        self._arm: Any = None

    def sample_tasks(self, num_tasks: int, *, split: str = "train") -> list[Any]:
        """Draws tasks, which are the same ones after every `reset(seed=...)` with the same seed.

        The numbers of tasks of two kinds differ by at most one.

        Args:
            num_tasks: number of tasks.
            split: `"train"` or `"test"`.
        """
        check_integer(num_tasks=num_tasks)
        check_choice("split", split, SPLITS)
        tasks = self._tasks[split]
        kinds = self.np_random.permutation(list(tasks))
        return [tasks[kinds[i % len(kinds)]][self.np_random.integers(50)] for i in range(num_tasks)]

    def set_task(self, task: Any) -> None:
        """Sets the task of all episodes from the next reset on; None draws a new task for each episode."""
        self._task = task

    def get_task(self) -> Any:
        """Returns the task that was set for the next reset, or else the task of this episode."""
        return self._started(self._episode_task) if self._task is None else self._task

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: seed of the tasks that are drawn.
            options: `{"task": task}` sets the task, as `set_task` does.

        Returns:
            The first observation, and an empty dictionary.
        """
        super().reset(seed=seed)
        if options and "task" in options:
            self.set_task(options["task"])
        self._episode_task = self.sample_tasks(1)[0] if self._task is None else self._task
        kind = pickle.loads(self._episode_task.data)["env_cls"]
        if type(self._arm) is not kind:
            self.close()
            self._arm = kind()
        self._arm.set_task(self._episode_task)
        obs, _ = self._arm.reset()
        return obs.astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes one step.

        Args:
            action: a member of `action_space`. Numbers outside of it are clipped.

        Returns:
            Observation, reward, False, whether the episode was truncated, and `"success"` and other metrics.
        """
        obs, reward, terminated, truncated, info = self._started(self._arm).step(np.clip(action, -1, 1))
        metrics = {name: float(value) for name, value in info.items()}
        return obs.astype(np.float32), float(reward), terminated, truncated, metrics

    def close(self) -> None:
        """Closes the simulator."""
        if self._arm is not None:
            self._arm.close()
            self._arm = None

    @functools.cached_property
    def _tasks(self) -> dict[str, dict[str, list[Any]]]:
        """All tasks, by split and kind."""
        of_many = self.benchmark in _OF_MANY_KINDS
        module = self._metaworld
        made = getattr(module, self.benchmark)(self._seed) if of_many else module.ML1(self.benchmark, self._seed)
        kinds = {"train": made.train_classes, "test": made.test_classes}
        tasks = {"train": made.train_tasks, "test": made.test_tasks}
        return {
            split: {kind: [task for task in tasks[split] if task.env_name == kind] for kind in kinds[split]}
            for split in SPLITS
        }

    def _started(self, value: Any) -> Any:
        """Returns a value that only exists after the first reset."""
        if value is None:
            raise reset_needed()
        return value
