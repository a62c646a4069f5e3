"""Simulators of one process: episodes of environments outside of JAX, which can be continued from any of their steps.

Worker processes get this module by value and import neither JAX nor jaxmeta, so it must not import them either.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

_SPLITS = ("train", "test")
_FINISHED = 1000  # episodes at least that can be drawn or continued although their simulator plays another one
_LIMIT = 2**31  # of the numbers of episodes, which are 32-bit integers in JAX


class Blueprint(NamedTuple):
    """Everything that a process needs to simulate."""

    make: Callable[[], Any]
    """Makes an environment with the interface of gymnasium."""
    sample_tasks: Callable[[np.random.Generator, int, str], Any] | None
    """Draws tasks; `None` for the environment's own method."""
    set_task: Callable[[Any, Any], None] | None
    """Sets the task of an environment; `None` for the environment's own method."""
    horizon: int
    """Number of steps after which an episode is truncated."""
    obs_shape: tuple[int, ...]
    """Shape of the environment's observations."""
    obs_dtype: str
    """Type of the observations that are sent."""
    action: tuple[Any, Any] | int
    """Middle and half width of the box of actions, or the first of the discrete actions."""
    metrics: tuple[str, ...]
    """Names of the numbers in `info` that are sent."""


@dataclass
class _Episode:
    seed: int
    task: Any
    actions: list[Any] = field(default_factory=list)
    last: tuple[Any, ...] = ()  # result of the newest step, or only the first observation
    env: Any = None  # the simulator that plays the episode now, if one does
    position: float = math.inf  # number of steps that the simulator has taken, infinite if that is not known


class Simulators:
    """Simulators of one process.

    JAX may repeat, drop and reorder what it takes for a function without side effects, and may step a state twice. So
    the truth about an episode is its seed, its task and its actions, and a simulator is only where the episode has got
    to: a step from an earlier state replays the actions until there, and another action from there begins a new branch.

    An episode keeps its simulator until it ends. If there are twice as many simulators as episodes in the largest
    batch, those that were not stepped for the longest time lose theirs.

    Args:
        blueprint: everything about the environment.
        first: number of the first episode.
    """

    def __init__(self, blueprint: Blueprint, first: int = 0) -> None:
        self._blueprint = blueprint
        self._numbers = itertools.count(first)
        self._episodes: dict[int, _Episode] = {}
        # Numbers of the episodes, the one that was used least recently first: with a simulator and before the first
        # step (which may be resets that nobody asked for, see `rl.Trial`), with a simulator, and without one.
        self._fresh: dict[int, None] = {}
        self._running: dict[int, None] = {}
        self._resting: dict[int, None] = {}
        self._free: list[Any] = []
        self._all: list[Any] = []
        self._capacity = 1
        self._task_env: Any = None

    def tasks(self, draws: Sequence[tuple[Sequence[int], int, str]]) -> list[Any]:
        """Draws tasks, once for each `(words of the seed, number, split)`."""
        return [self._draw(words, n, split) for words, n, split in draws]

    def reset(self, seeds: np.ndarray, tasks: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Starts an episode for each seed and task, and returns their numbers and first observations."""
        self._make_room(len(seeds))
        numbers = np.empty(len(seeds), np.int32)
        obs = self._empty_observations(len(seeds))
        for i, (seed, task) in enumerate(zip(seeds.tolist(), tasks, strict=True)):
            numbers[i] = number = next(self._numbers) % _LIMIT
            episode = self._episodes[number] = _Episode(seed, task)
            self._fresh[number] = None
            self._bring(number, 0)
            obs[i] = episode.last[0]
        return numbers, obs

    def step(self, numbers: np.ndarray, steps: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        """Takes a step in each of some episodes, which have taken `steps` of them so far.

        Returns:
            The episodes' numbers after the step `[B]`, observations `[B, *obs_shape]`, rewards `[B]`, whether episodes
            have ended by themselves `[B]`, whether they are cut off `[B]`, and metrics `[B, len(metrics)]`.
        """
        size = len(numbers)
        self._make_room(size)
        after = numbers.copy()
        obs, metrics = self._empty_observations(size), np.empty((size, len(self._blueprint.metrics)))
        reward, terminated, truncated = np.empty(size), np.empty(size, bool), np.empty(size, bool)
        for number in numbers.tolist():
            self._touch(number)
        for i, action in enumerate(self._own(actions)):
            after[i], result = self._step(int(numbers[i]), int(steps[i]), action)
            obs[i], reward[i], terminated[i], truncated[i], metrics[i] = result
        return after, obs, reward, terminated, truncated, metrics

    def render(self, number: int, step: int) -> np.ndarray:
        """Draws an episode after some of its steps."""
        self._make_room(1)
        self._touch(number)
        self._bring(number, step)
        return np.asarray(self._episodes[number].env.render())

    def close(self) -> None:
        """Closes all simulators."""
        for env in (*self._all, self._task_env):
            if env is not None:
                env.close()

    def _step(self, number: int, step: int, action: Any) -> tuple[int, tuple[Any, ...]]:
        episode = self._episodes[number]
        if step < len(episode.actions):
            repeated = np.array_equal(episode.actions[step], action)
            if repeated and step + 1 == len(episode.actions):
                return number, episode.last
            branch = _Episode(episode.seed, episode.task, episode.actions[:step])
            number = next(self._numbers) % _LIMIT
            episode = self._episodes[number] = branch
        self._running[number] = None
        self._fresh.pop(number, None)
        self._bring(number, step)
        episode.last = self._advance(episode, action)
        episode.actions.append(action)
        if episode.last[2] or episode.last[3]:
            self._release(number)
            self._free.append(self._take_from(number))
        return number, episode.last

    def _advance(self, episode: _Episode, action: Any) -> tuple[Any, ...]:
        """Steps an episode's simulator."""
        taken, episode.position = episode.position, math.inf  # a step that fails leaves the simulator anywhere
        result = episode.env.step(action)
        if not isinstance(result, tuple) or len(result) != 5:
            raise TypeError(f"step must return (obs, reward, terminated, truncated, info), got {len(result)} values")
        obs, reward, terminated, truncated, info = result
        episode.position = taken + 1
        missing = [name for name in self._blueprint.metrics if name not in info]
        if missing:
            raise KeyError(f"info has no {missing[0]!r}, which is among metrics: it has {', '.join(info) or 'nothing'}")
        metrics = [float(info[name]) for name in self._blueprint.metrics]
        cut = bool(truncated) or episode.position >= self._blueprint.horizon
        return self._checked(obs), float(reward), bool(terminated), cut, metrics

    def _bring(self, number: int, step: int) -> None:
        """Gives an episode a simulator, and plays the episode until one of its steps."""
        episode = self._episodes[number]
        obs: Any = None
        if episode.env is None or episode.position > step:
            episode.env = self._take() if episode.env is None else episode.env
            episode.position = math.inf
            self._resting.pop(number, None)
            if number not in self._fresh:
                self._running[number] = None
            _set_task(self._blueprint, episode.env, episode.task)
            obs = self._checked(episode.env.reset(seed=episode.seed)[0])
            episode.position = 0
        while episode.position < step:
            obs = self._advance(episode, episode.actions[int(episode.position)])[0]
        if obs is None or step < len(episode.actions):
            return
        if not episode.last:
            episode.last = (obs,)
        elif not np.allclose(obs, episode.last[0], rtol=1e-3, atol=1e-4, equal_nan=True):
            raise RuntimeError(
                "an episode had to be played again and came out differently, because the simulator is not determined "
                "by its seed, its task and its actions"
            )

    def _take(self) -> Any:
        """Returns a simulator that no episode has."""
        if self._free:
            return self._free.pop()
        if len(self._all) < self._capacity:
            env = self._blueprint.make()
            self._all.append(env)
            return env
        number = next(number for number in itertools.chain(self._fresh, self._running) if self._episodes[number].env)
        self._release(number)
        return self._take_from(number)

    def _take_from(self, number: int) -> Any:
        episode = self._episodes[number]
        env, episode.env = episode.env, None
        return env

    def _release(self, number: int) -> None:
        """Notes that an episode loses its simulator."""
        self._fresh.pop(number, None)
        self._running.pop(number, None)
        self._resting[number] = None

    def _touch(self, number: int) -> None:
        """Notes that an episode is in use."""
        if number not in self._episodes:
            raise LookupError(
                "the episode of a state is forgotten: a state can be stepped while its environment is open and "
                "before thousands of other episodes have begun"
            )
        for group in (self._fresh, self._running, self._resting):
            if number in group:
                group[number] = group.pop(number)

    def _make_room(self, size: int) -> None:
        """Adapts to the size of a batch, and forgets old episodes."""
        self._capacity = max(self._capacity, 2 * size)
        while len(self._resting) > max(_FINISHED, 4 * self._capacity):
            number = next(iter(self._resting))
            del self._resting[number], self._episodes[number]

    def _draw(self, words: Sequence[int], n: int, split: str) -> Any:
        blueprint, seed = self._blueprint, [*map(int, words), _SPLITS.index(split)]
        if blueprint.sample_tasks is not None:
            return blueprint.sample_tasks(np.random.default_rng(seed), n, split)
        if self._task_env is None:
            self._task_env = blueprint.make()
        draw = find_method(self._task_env, "sample_tasks")
        self._task_env.reset(seed=int(np.random.SeedSequence(seed).generate_state(1)[0]) >> 1)
        return draw(n, split=split) if "split" in inspect.signature(draw).parameters else draw(n)

    def _own(self, actions: np.ndarray) -> Iterator[Any]:
        """Turns JAX's actions into the environment's."""
        own = self._blueprint.action
        if isinstance(own, int):
            return iter(actions + own)
        middle, half = own
        clipped = np.clip(actions, -1, 1).reshape(-1, *middle.shape)
        return iter((middle + half * clipped).astype(middle.dtype))

    def _empty_observations(self, size: int) -> np.ndarray:
        return np.empty((size, *self._blueprint.obs_shape), self._blueprint.obs_dtype)

    def _checked(self, obs: Any) -> np.ndarray:
        if np.shape(obs) != self._blueprint.obs_shape:
            raise ValueError(f"observations must have shape {self._blueprint.obs_shape}, got {np.shape(obs)}")
        return np.array(obs)  # a copy, because simulators may reuse their buffers


def find_method(env: Any, name: str) -> Callable[..., Any]:
    """Returns a method of an environment or of what it wraps."""
    inner = env
    while not hasattr(inner, name):
        if not hasattr(inner, "env"):
            raise TypeError(f"{type(env).__name__} must have a method {name}, or HostEnv an argument {name}")
        inner = inner.env
    return getattr(inner, name)


def _set_task(blueprint: Blueprint, env: Any, task: Any) -> None:
    if blueprint.set_task is None:
        find_method(env, "set_task")(task)
    else:
        blueprint.set_task(env, task)
