"""Publisher: reports each durable released round to files, trackers, Prometheus and console."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from feddp.common.config.run_config import RunConfig, to_flat
from feddp.common.evaluation import metrics_of
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.plan import PrivacyPlan, planned_curve
from feddp.common.tracking import open_trackers
from feddp.server.metrics import Metrics
from feddp.server.rounds import RoundReport

METRICS_NAME = "metrics.jsonl"


class Publisher:
    """Writes to metrics.jsonl, the trackers, Prometheus and the console. Public values only.

    How long a round took depends on who was drawn: it goes to the console and to the operator's
    metrics alone.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        plan: PrivacyPlan,
        ledger: Ledger,
        metrics: Metrics,
        show: Callable[[RoundReport, int], None],
    ):
        self._curve, self._task = planned_curve(plan), config.model.task
        self._ledger, self._metrics, self._show = ledger, metrics, show
        self._stack = ExitStack()
        self._trackers = open_trackers(
            config.tracking.report_to, folder=folder, config=to_flat(config)
        )
        for tracker in self._trackers:
            self._stack.callback(tracker.close)

    def publish(self, report: RoundReport) -> None:
        """Publishes one released round."""
        epsilon = self.measure(report.round)
        values = metrics_of(report.evaluation, task=self._task)
        line = {f"evaluation_{name}": value for name, value in values.items()}
        for tracker in self._trackers:
            tracker.log(report.round, {"epsilon": epsilon, **line})
        self._show(report, self._ledger.num_charges)

    def measure(self, round: int) -> float:
        """Updates the Prometheus metrics; returns epsilon so far."""
        num_charges = self._ledger.num_charges
        spent = float(self._curve[num_charges - 1]) if num_charges else 0.0
        self._metrics.round_released(
            round, epsilon=spent, num_charges=num_charges, ledger_rows=self._ledger.num_rows
        )
        return spent

    def close(self) -> None:
        """Closes the trackers."""
        self._stack.close()
