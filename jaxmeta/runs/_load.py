"""A run from its folder, without its data: to adapt to new classes, and to predict."""

import os
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxmeta._save import load
from jaxmeta._summary import Summary
from jaxmeta._types import Batch, MetaLearner, MetaParams
from jaxmeta.catalog import CLASSES, Settings
from jaxmeta.display import short_repr
from jaxmeta.prediction import Classifier, Inputs, read_labeled
from jaxmeta.runs._data import stand_in
from jaxmeta.runs._evaluate_run import evaluate_run, experiment_of
from jaxmeta.runs._experiment import build
from jaxmeta.runs._film import save_film
from jaxmeta.runs._folder import META_FILE, Record, command_of_run, read_record
from jaxmeta.runs._parts import Parts


class Run(NamedTuple):
    """A trained run, without its data. `load_run` makes one."""

    folder: Path
    """Folder of the run."""
    settings: Settings
    """Every option of the run with its final value."""
    model: Any
    """The network, a Linen module. `None` for environments."""
    learner: Any
    """The `MetaLearner`. `None` for environments."""
    meta: MetaParams
    """The best meta-parameters."""
    record: Record
    """Record of the run in its folder: versions, command, data, modules of the user."""

    __repr__ = short_repr

    @property
    def inputs(self) -> Inputs:
        """Description of the model's inputs, which makes them of files, pictures, sentences or arrays."""
        shape, kind = tuple(self.record.data["input_shape"]), self.settings.kind
        return Inputs(kind if kind in ("images", "text") else "arrays", shape, bool(self.record.data["invert"]))

    def adapt(self, examples: Any, names: Sequence[Any] | None = None, *, seed: int = 0) -> Classifier:
        """Adapts to classes of your own.

        Args:
            examples: a few examples of each class: a folder with a folder of images for each class, a mapping from
                names to images, sentences or arrays, a text file of lines `class<TAB>sentence`, or a file `.npz` with
                arrays `x` and `y`. With `names`, a sequence of images, sentences or arrays.
            names: name of the class of each example.
            seed: seed of the inner loop, for learners that draw random numbers in it.

        Returns:
            A `Classifier` of these classes. Where a prediction of the model would depend on the other inputs of its
            batch, as with `norm="batch"`, each input is put beside the examples, so that it does not.

        Raises:
            ValueError: if an example cannot be read, there is one class only, or the learner was trained for fewer
                classes and cannot do with more.
            TypeError: if the run is no classifier, or an example is of a wrong type.
        """
        if self.settings.kind not in CLASSES:
            raise TypeError(
                f"adapt is for classification, and this run is on {self.settings.benchmark} ({self.settings.kind}). "
                "Use run.learner.adapt(run.meta, jaxmeta.Batch(x, y), key)"
            )
        inputs = self.inputs
        items, labels = read_labeled(examples, names, inputs)
        classes = tuple(dict.fromkeys(labels))
        if len(classes) < 2:
            raise ValueError(f"examples must be of two classes or more, got {', '.join(classes)}")
        learner = _learner_of(self, len(classes))
        support = Batch(jnp.asarray(inputs(items)), jnp.asarray([classes.index(label) for label in labels]))
        adapted = _compiled(learner).adapt(self.meta, support, jax.random.key(seed))
        apply = _beside if _looks_at_others(learner, adapted, support.x) else _alone
        return Classifier(Partial(_Logits(apply, learner, len(classes)), adapted, support.x), classes, inputs)

    @property
    def command(self) -> str:
        """The shortest command that repeats the run."""
        return command_of_run(self.folder, self.settings, self.record)

    def film(self, path: str | os.PathLike[str], task: int = 0, *, step: int | None = None) -> Path:
        """Saves a film of the policy in one of the test tasks, with the most probable actions.

        Args:
            path: path of the film: `.html` for a page that plays a body in three dimensions, `.gif`, or `.mp4` (needs
                ffmpeg).
            task: number of the task among those of the test.
            step: number of steps of adaptation before the episode that is shown, such as 0. `None` for all steps. With
                `rl2` it is always a whole trial.

        Returns:
            The path.

        Raises:
            TypeError: if the run is no policy.
            ValueError: if there is no such task or step, the environment cannot be drawn, or `path` has another ending.

        Example:
            >>> run = load_run("runs/half-cheetah")  # doctest: +SKIP
            >>> run.film("before.html", step=0), run.film("after.html")  # doctest: +SKIP
        """
        return save_film(self.settings, self.meta, Path(path), task, step)

    def evaluate(self, **options: Any) -> dict[str, Summary]:
        """Tests the run once more, see `evaluate_run`. This needs the data."""
        return evaluate_run(self.folder, **options)


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Loads a run that has finished, without its data.

    The folder may have been copied from another machine. Modules of the user that the run loaded are run again.

    Args:
        folder: folder that `jaxmeta train` or `Experiment.run` made.

    Returns:
        The `Run`.

    Raises:
        FileNotFoundError: if `folder` is not the folder of a run that has finished.
        ValueError: if the folder is damaged, or of another version.

    Example:
        >>> run = load_run("runs/demo")  # doctest: +SKIP
        >>> classifier = run.adapt("shots")  # doctest: +SKIP
        >>> classifier.predict("photo.jpg")[0].name  # doctest: +SKIP
        'tulip'
    """
    folder = Path(folder)
    record = read_record(folder)
    settings = experiment_of(folder, record).resolve()
    if not (folder / META_FILE).is_file():
        raise FileNotFoundError(f"{folder} holds no finished run: it has no {META_FILE}. Run its command again")
    parts: Any = _parts(settings, record)
    meta = jax.tree.map(jnp.asarray, load(folder / META_FILE, parts.meta))
    return Run(folder, settings, getattr(parts, "model", None), getattr(parts, "learner", None), meta, record)


def _parts(settings: Settings, record: Record) -> Parts:
    return build(settings, partial(stand_in, record.data) if record.data else None)


def _learner_of(run: Run, ways: int) -> MetaLearner:
    """Returns the learner for so many classes.

    Raises:
        ValueError: if the run's cannot do with so many.
    """
    if ways == run.settings.ways:
        return run.learner
    options = {name: value for name, value in run.settings.items() if name != "ways"} | {"ways": ways}
    other: Any = _parts(experiment_of(run.folder, run.record._replace(settings=options)).resolve(), run.record)
    if _shapes(other.meta) == _shapes(run.meta):
        return other.learner
    if ways < run.settings.ways:
        return run.learner
    raise ValueError(
        f"examples have {ways} classes, but {run.settings.learner} was trained for {run.settings.ways}. "
        f"Train it with --ways {ways}, or train a learner such as protonet, which takes any number"
    )


def _shapes(meta: MetaParams) -> Any:
    return jax.tree.map(jnp.shape, meta), jax.tree.structure(meta)


@lru_cache(8)
def _compiled(learner: MetaLearner) -> MetaLearner:
    """Returns the learner with functions that are compiled once for all tasks of one size."""
    return learner._replace(adapt=jax.jit(learner.adapt), predict=jax.jit(learner.predict))


class _Logits(NamedTuple):
    """The logits of the first `ways` classes, as a function that two adaptations of a run share."""

    apply: Any
    learner: MetaLearner
    ways: int

    def __call__(self, adapted: Any, support: jax.Array, x: jax.Array) -> jax.Array:
        return self.apply(self.learner, adapted, support, x)[:, : self.ways]


def _alone(learner: MetaLearner, adapted: Any, support: jax.Array, x: jax.Array) -> jax.Array:
    return learner.predict(adapted, x)


def _beside(learner: MetaLearner, adapted: Any, support: jax.Array, x: jax.Array) -> jax.Array:
    """Logits of each input beside the support set, whose statistics the model then sees."""
    return jax.vmap(lambda one: learner.predict(adapted, jnp.concatenate([support, one[None]]))[-1])(x)


def _looks_at_others(learner: MetaLearner, adapted: Any, x: jax.Array) -> bool:
    """Tells whether the prediction for an input depends on the others in its batch."""
    predict = _compiled(learner).predict
    together, alone = np.asarray(predict(adapted, x))[:1], np.asarray(predict(adapted, x[:1]))
    return not np.allclose(together, alone, rtol=1e-2, atol=1e-3, equal_nan=True)
