"""The report of a run as a value, with what it says in words."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxmeta._summary import Summary
from jaxmeta.catalog import LEARNERS, Option, Settings
from jaxmeta.reports._findings import Findings, Tested
from jaxmeta.reports._words import chance, effort, monitored, show
from jaxmeta.training import Trained


class Report(NamedTuple):
    """Everything that a report tells."""

    settings: Settings
    """Settings of the run."""
    options: Mapping[str, Option]
    """Descriptions of the settings."""
    command: str
    """Command that repeats the run."""
    trained: Trained
    """The training."""
    tested: Tested
    """The test."""
    findings: Findings
    """Everything that was found beside it."""
    facts: Mapping[str, str]
    """Device, versions and start."""

    @property
    def test(self) -> dict[str, Summary]:
        """Each metric over the test tasks."""
        return self.tested.summaries

    @property
    def last(self) -> dict[str, Summary]:
        """Each metric over the test tasks, of a policy only those after all its episodes."""
        returns, test = self.tested.returns, self.test
        return test if returns is None else {name: test[name] for name in returns.metrics_at(-1)}

    @property
    def title(self) -> str:
        """Title of the report."""
        return f"{self.settings.learner} on {self.settings.benchmark}"

    @property
    def training(self) -> str:
        """Sentences about the training."""
        best = (
            f"The meta-parameters after update {self.trained.step} were the best on validation, and they were tested."
        )
        return f"The run did {effort(self.settings, self.trained)}. {best}"

    @property
    def notes(self) -> list[str]:
        """Facts that a reader of the numbers must know."""
        own_statistics = LEARNERS[self.settings.learner].trains_on in ("classes", "features")
        if self.settings.get("norm") != "batch" or own_statistics:
            return []
        return ["Batch norm uses the statistics of the batch at hand, at test too: the numbers are transductive."]

    @property
    def compared(self) -> dict[str, str]:
        """Results beside which that of the learner stands, by their names."""
        metric, guess = monitored(self.settings.kind), chance(self.settings)
        found = {} if guess is None else {"a guess": f"{100 * guess:.2f} %"}
        floors = {name: show(metric, summaries[metric]) for name, summaries in self.findings.floors.items()}
        return {**found, **floors, self.settings.learner: show(metric, self.test[metric])}

    @property
    def adaptation(self) -> tuple[str, list[tuple[int, dict[str, str]]]]:
        """Name of what is counted, and the metrics after each number of it."""
        unit = "episodes seen" if self.settings.kind == "environment" else "inner steps"
        rows = [(step.number, {n: show(n, s) for n, s in step.summaries.items()}) for step in self.findings.steps]
        return unit, rows


def facts_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the device, the versions and the start that a run's `config.json` holds."""
    return {name: config[name] for name in ("device", "started", "python")} | config["versions"]
