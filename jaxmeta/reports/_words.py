"""Facts about a run in words: its kind of task, its result in one line, its length."""

from collections.abc import Mapping, Sequence

from jaxmeta._summary import Summary
from jaxmeta.catalog import Settings
from jaxmeta.display import one_line
from jaxmeta.training import Trained


def monitored(kind: str) -> str:
    """Returns the metric that selects the best meta-parameters and heads the report."""
    return {"regression": "loss", "environment": "return"}.get(kind, "accuracy")


def task_name(settings: Settings) -> str:
    """Returns the kind of task in a few words, such as `5-way 1-shot`."""
    if settings.kind == "environment":
        return f"{settings.episodes}-episode"
    ways = f"{settings.ways}-way " if "ways" in settings else ""
    return f"{ways}{settings.shots}-shot"


def chance(settings: Settings) -> float | None:
    """Returns the accuracy of a guess, or `None` where there are no classes."""
    return 1 / settings.ways if "ways" in settings else None


def show(name: str, summary: Summary) -> str:
    """Returns one metric over test tasks as text, accuracy in percent."""
    if name == "accuracy":
        return f"{100 * summary.mean:.2f} ± {100 * summary.interval:.2f} %"
    return str(summary)


def headline(settings: Settings, test: Mapping[str, Summary]) -> str:
    """Returns the test result in one line."""
    metric, guess = monitored(settings.kind), chance(settings)
    summary = test[metric]
    against = "" if guess is None else f", chance {100 * guess:.3g} %"
    facts = f"{summary.num_tasks} tasks, 95 % interval{against}"
    return f"{task_name(settings)} test {metric} {show(metric, summary)} ({facts})"


def effort(settings: Settings, trained: Trained) -> str:
    """Returns how long the training was, and whether its time ended it."""
    updates, seconds = updates_and_seconds(trained)
    cut = ", which used its time up" if updates < settings.iterations else ""
    return f"{updates} of {settings.iterations} updates in {seconds / 60:.1f} minutes of training{cut}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table as lines of text, with columns of equal width."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def encoded(text: str) -> bytes:
    """Returns a text in UTF-8. Bytes of a file's name that are no text are shown as Python writes them."""
    return text.encode(errors="backslashreplace")


def updates_and_seconds(trained: Trained) -> tuple[int, float]:
    """Returns the length of the training, with NaN for a time that is not known."""
    if not trained.history:  # someone has removed the metrics
        return trained.step, float("nan")
    return int(trained.history[-1]["step"]), trained.history[-1]["seconds"]
