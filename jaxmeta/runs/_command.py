"""The command that repeats a run."""

import shlex
from collections.abc import Sequence

from jaxmeta.catalog import Settings, resolve
from jaxmeta.runs._options import OPTIONS


def command_of(settings: Settings, *, modules: Sequence[str] = (), root: str = "") -> str:
    """Returns the shortest `jaxmeta train` with these settings: it names what differs from the defaults.

    Args:
        settings: settings of a run, as `Experiment.resolve` returns them.
        modules: files or names of the modules that register names of the user.
        root: folder with the benchmark's files, if it was given.

    Example:
        >>> from jaxmeta import Experiment
        >>> command_of(Experiment("glyphs", "protonet", ways=20, train_shots=1).resolve())
        'jaxmeta train --learner protonet --ways 20'
    """
    given = dict(settings)
    for name in settings:  # an option is left out if the others alone give its value
        rest = {other: value for other, value in given.items() if other != name}
        try:
            same = dict(resolve(OPTIONS, rest)) == dict(settings)
        except ValueError:  # another option does not apply without it
            same = False
        if same:
            given = rest
    words = ["jaxmeta", "train"]
    for module in modules:
        words += ["--module", module]
    for name, value in given.items():
        words += [OPTIONS[name].flag] if value is True else [OPTIONS[name].flag, str(value)]
    words += ["--root", root] if root else []
    return shlex.join(words)
