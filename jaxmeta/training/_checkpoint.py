"""Checkpoints of any pytree, by orbax: a save is finished or absent, whenever the process dies."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxmeta._files import checksum
from jaxmeta._types import PyTree, is_key

_CHECKSUM = "checksum"  # no path in a tree is called so


class Checkpoints:
    """The last checkpoints of one run, in a folder of their own.

    Args:
        folder: made if it does not exist, unless `read_only`.
        keep: how many of the newest to keep.
        read_only: make nothing and clean nothing up; for `restore` only.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2, read_only: bool = False):
        self._options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=False,
            create=not read_only,
            cleanup_tmp_directories=not read_only,  # what a kill in the middle of a save left
        )
        self._folder, self._read_only = Path(folder).absolute(), read_only
        self._manager = ocp.CheckpointManager(self._folder, options=self._options)

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
            arrays = _by_path(tree)
            content = {**arrays, _CHECKSUM: np.uint32(_checksum(arrays))}
            self._manager.save(step, args=ocp.args.StandardSave(content))

    def restore(self, like: PyTree, *, part: bool = False) -> PyTree:
        """Restores the newest checkpoint.

        Args:
            like: a pytree of the structure, shapes and dtypes that were saved.
            part: whether more than `like` may have been saved.

        Returns:
            The saved values, arranged as `like`.

        Raises:
            FileNotFoundError: if there is no checkpoint.
            ValueError: if the checkpoint holds other names, shapes or dtypes than `like`, or cannot be read.
        """
        saved, where = self._newest()
        wanted = _by_path(like)
        _check_same(wanted, {name: saved[name] for name in wanted if name in saved} if part else saved, where)
        restored = {name: _like(leaf, saved[name]) if name in saved else leaf for name, leaf in _paths(like).items()}
        return jax.tree.unflatten(jax.tree.structure(like), restored.values())

    def _newest(self) -> tuple[dict[str, Any], Path]:
        """Returns what the newest checkpoint holds, and its folder.

        A training that goes on may remove a checkpoint while it is read. There is a newer one then.
        """
        step = self.latest
        if step is None:
            raise FileNotFoundError(f"no checkpoint in {self._folder}")
        where = self._folder / str(step)
        try:
            saved = dict(self._manager.restore(step, args=ocp.args.StandardRestore()))
            if saved.pop(_CHECKSUM) != _checksum(saved):
                raise ValueError("its checksum is another")
        except Exception as error:  # whatever the layers below orbax make of a damaged file
            if self._read_only:
                self._manager.close()
                self._manager = ocp.CheckpointManager(self._folder, options=self._options)
                if self.latest != step:
                    return self._newest()
            raise ValueError(
                f"checkpoint {where} is damaged; remove that folder to go on from the checkpoint before it "
                f"({type(error).__name__})"
            ) from error
        return saved, where


def _paths(tree: PyTree) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _by_path(tree: PyTree) -> dict[str, np.ndarray]:
    """Returns the arrays to save by path, without empty ones, which orbax refuses."""
    arrays = {name: np.asarray(_data(leaf)) for name, leaf in _paths(tree).items()}
    return {name: array for name, array in arrays.items() if array.size}


def _checksum(arrays: dict[str, Any]) -> int:
    return checksum(arrays[name] for name in sorted(arrays))


def _data(leaf: Any) -> Any:
    """The bits of a random key; the whole of what is divided over processes; anything else as it is."""
    if is_key(leaf):
        return jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return multihost_utils.process_allgather(leaf, tiled=True)
    return leaf


def _like(leaf: Any, saved: np.ndarray) -> jax.Array:
    array = jax.numpy.asarray(saved)
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if is_key(leaf) else array


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
