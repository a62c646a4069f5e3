"""Checkpoints of any pytree, by orbax: a save is finished or absent, whenever the process dies."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxmeta._types import PyTree


class Checkpoints:
    """The last checkpoints of one run, in a folder of their own.

    Args:
        folder: made if it does not exist.
        keep: how many of the newest to keep.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._folder = Path(folder).absolute()
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """Step of the newest finished checkpoint, or `None`."""
        return self._manager.latest_step()

    def save(self, step: int, tree: PyTree) -> None:
        """Saves `tree` as the checkpoint of `step`; does nothing if that step is there already."""
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(_by_path(tree)))

    def restore(self, like: PyTree) -> PyTree:
        """Restores the newest checkpoint.

        Args:
            like: a pytree of the structure, shapes and dtypes that were saved.

        Returns:
            The saved values, arranged as `like`.

        Raises:
            FileNotFoundError: if there is no checkpoint.
            ValueError: if the checkpoint holds other names, shapes or dtypes than `like`.
        """
        step = self.latest
        if step is None:
            raise FileNotFoundError(f"no checkpoint in {self._folder}")
        wanted = _by_path(like)
        saved = dict(self._manager.restore(step, args=ocp.args.StandardRestore()))
        _check_same(wanted, saved, self._folder / str(step))
        leaves = [jax.numpy.asarray(saved[name]) for name in wanted]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _by_path(tree: PyTree) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def _check_same(wanted: dict[str, np.ndarray], saved: dict[str, Any], where: Path) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in saved]
    problems += [f"{name} is not expected" for name in saved if name not in wanted]
    for name in wanted.keys() & saved.keys():
        old, new = saved[name], wanted[name]
        if old.shape != new.shape or old.dtype != new.dtype:
            problems.append(f"{name} is {old.dtype}{list(old.shape)}, expected {new.dtype}{list(new.shape)}")
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        raise ValueError(
            f"checkpoint {where} is of another configuration: {shown} ({len(problems)} differences in all)"
        )
