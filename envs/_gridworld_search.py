"""Exact search for the best exploration of a gridworld with a hidden goal."""

import numpy as np

from jaxmeta.envs._grid import MOVES

_MOST_STATES = 4_000_000


def best_returns(size: int, goals: np.ndarray, start: tuple[int, int], horizon: int, episodes: int) -> np.ndarray:
    """Returns the expected returns of the episodes under a policy with the largest expected sum, `[episodes]`.

    Until the goal is found, a policy is a walk. Let `U` be the cells that may still hold the goal. A step to the cell
    `c` finds a goal in `c`, which then pays 1 in all steps that remain and in all later episodes the return `V(c)` of
    walking straight to `c`. Each other goal of `U` costs 0.1. So the sum over all goals of the returns is::

        F(t, position, U) = max over c of gain(t, c) [c in U] - 0.1 |U - c| + F(t + 1, c, U - c)

    The recursion runs forward over all reachable `(position, U)` of a step. States are dropped if an upper bound of
    their sum is less than a sum that is already reached.

    Args:
        size: number of rows and columns.
        goals: mask of the cells that may hold the goal, bool `[size, size]`.
        start: cell of the first step of each episode.
        horizon: number of steps of an episode.
        episodes: number of episodes.

    Raises:
        ValueError: if the grid is too large for an exact search.
    """
    width, floor = 2000, -np.inf
    while width <= _MOST_STATES and size**2 < 63:  # a set of cells is an integer of 64 bits
        search = _Search(size, goals, start, horizon, episodes)
        gains, complete = search.run(width, floor)
        if complete:
            return gains / 10 / goals.sum()
        width, floor = 8 * width, gains.sum()
    raise ValueError(f"size must be less for an exact search (5 is quick), got {size} with a horizon of {horizon}")


class _Search:
    """Search in tenths of a reward, so that all sums are exact."""

    def __init__(self, size: int, goals: np.ndarray, start: tuple[int, int], horizon: int, episodes: int) -> None:
        cells = np.stack(np.divmod(np.arange(size**2), size), axis=-1)
        steps = np.abs(cells - start).sum(axis=1)
        self.goals = np.flatnonzero(goals)
        self.horizon, self.episodes = horizon, episodes
        self.start = start[0] * size + start[1]
        self.neighbors = np.clip(cells[:, None] + MOVES, 0, size - 1) @ [size, 1]
        self.known = np.where(steps <= horizon, 10 * (horizon - steps + 1) - (steps - 1), -horizon)  # V, see above

    def run(self, width: int, floor: float) -> tuple[np.ndarray, bool]:
        """Returns the best gains `[episodes]`, and whether all states that can reach `floor` were followed.

        Args:
            width: largest number of states that are followed.
            floor: a sum that can be reached. States that cannot reach it are dropped.
        """
        unseen = np.array([sum(1 << int(goal) for goal in self.goals)])
        gains = np.zeros((1, self.episodes), np.int64)
        complete = True
        for episode in range(self.episodes):
            cell, unseen, gains = _merge(np.full(len(unseen), self.start), unseen, gains)
            for left in range(self.horizon - 1, -1, -1):
                cell, unseen, gains = _merge(*self.step(cell, unseen, gains, episode, left))
                bound = gains.sum(axis=1) + self.most(unseen, episode, left)
                best = np.argsort(-bound, kind="stable")
                best = best[bound[best] >= floor]
                complete &= len(best) <= width
                cell, unseen, gains = (x[best[:width]] for x in (cell, unseen, gains))
        return gains[np.argmax(gains.sum(axis=1))], complete

    def step(
        self, cell: np.ndarray, unseen: np.ndarray, gains: np.ndarray, episode: int, left: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the states after each action in each state, when `left` steps of the episode remain after it."""
        count = self.neighbors.shape[1]
        cell, unseen, gains = self.neighbors[cell].ravel(), np.repeat(unseen, count), np.repeat(gains, count, axis=0)
        found = unseen >> cell & 1
        unseen = unseen & ~(1 << cell)
        gains[:, episode] += 10 * (left + 1) * found - np.bitwise_count(unseen)
        gains[:, episode + 1 :] += (found * self.known[cell])[:, None]
        return cell, unseen, gains

    def most(self, unseen: np.ndarray, episode: int, left: int) -> np.ndarray:
        """Returns upper bounds of what remains: a goal is found in every step, and the others in the next episode."""
        count = np.bitwise_count(unseen).astype(int)
        here = np.minimum(count, left)
        step = np.arange(1, left + 1)
        in_episode = np.concatenate([[0], np.cumsum(10 * (left - step + 1) - (step - 1))])[here] - left * (count - here)
        later = (unseen[:, None] >> self.goals & 1) @ self.known[self.goals]
        return in_episode + (self.episodes - 1 - episode) * later


def _merge(cell: np.ndarray, unseen: np.ndarray, gains: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keeps the best of the equal states; of two with the same sum, the one with more in the first episode."""
    order = np.lexsort((-gains[:, 0], -gains.sum(axis=1), cell, unseen))
    cell, unseen, gains = cell[order], unseen[order], gains[order]
    first = np.concatenate([[True], (cell[1:] != cell[:-1]) | (unseen[1:] != unseen[:-1])])
    return cell[first], unseen[first], gains[first]
