"""Progress: a bar in a terminal or a notebook, and plain lines in a pipe or a file."""

import contextlib
import io
import os
import sys
import warnings
from typing import Any

from tqdm.std import tqdm

_SECONDS = 10.0  # between two lines


class _Lines(tqdm):  # type: ignore[type-arg]
    """Progress as lines of text, each of which says something new."""

    _said: Any = None

    def display(self, *_: Any, **__: Any) -> None:
        """Writes a line, unless the last one has said the same."""
        state = (self.n, self.desc, self.postfix)
        if state == self._said:
            return
        self._said = state
        begun = "" if self.total is None else ": {n_fmt} of {total_fmt} {unit}s"
        line = "{desc}: {n_fmt} of {total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
        form = line if self.n > self.initial else "{desc}" + begun
        text = self.format_meter(**{**self.format_dict, "bar_format": form, "ncols": None})
        with contextlib.suppress(OSError):  # a full disk ends no training
            self.fp.write(" ".join(text.split()) + "\n")
            self.fp.flush()

    def set_description_str(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Changes what the next line says is happening."""
        del refresh
        super().set_description_str(desc, refresh=False)

    def close(self) -> None:
        """Writes the last line, if there was time for one before."""
        if not self.disable and self.last_print_t >= self.start_t + self.delay:
            self.display()
        self.fp = io.StringIO()  # tqdm would end a bar there
        super().close()


def progress_bar(
    description: str,
    total: int | None = None,
    unit: str = "step",
    *,
    shown: bool = True,
    delay: float = 1.0,
    **options: Any,
) -> Any:
    """Makes a progress bar with the interface of tqdm, such as the place suits.

    Args:
        description: what is happening. `set_description_str` changes it.
        total: number of steps. `None` shows the description alone, and removes it at the end.
        unit: name of a step.
        shown: whether to show anything.
        delay: seconds before anything is shown.
        options: further arguments of tqdm.
    """
    options |= {"total": total, "desc": description, "unit": unit, "delay": delay}
    if not shown or not _can_be_written():
        return tqdm(disable=True, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a notebook without widgets, which gets lines
        from tqdm.auto import tqdm as bar
    notebook = any(base.__name__ == "tqdm_notebook" for base in bar.__mro__)
    if notebook or sys.stderr.isatty():
        alone = {"bar_format": "{desc}", "leave": False} if total is None else {}
        return bar(**options, **alone, ncols=None if notebook or _has_width() else 80)
    # A notebook shows what goes to stderr in red.
    file = sys.stdout if "ipykernel" in sys.modules else sys.stderr
    return _Lines(file=file, **{**options, "mininterval": _SECONDS, "miniters": 1})


def _can_be_written() -> bool:
    """Tells whether there is a standard error, on a disk that is not full or in a terminal that is still there."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return False
    return True


def _has_width() -> bool:
    """Tells whether the terminal knows its width; a recorded one, as of `script`, may not."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False
