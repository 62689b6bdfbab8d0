"""The publisher: what a released round shows, everywhere the same and nothing else."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from small_ledger import small_plan
from small_run import create

from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.evaluation import Evaluation
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.ledger_entries import start_of
from feddp.common.privacy.plan.plan import planned_curve
from feddp.server.metrics import Metrics
from feddp.server.publisher import METRICS_NAME, Publisher
from feddp.server.rounds import RoundReport

PLAN = small_plan()
CONFIG = from_flat({"tracking.report-to": ""})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(create(tmp_path / "run", PLAN) / "ledger.sqlite") as opened:
        opened.open_run(start_of("small", PLAN))
        yield opened


def publisher_of(
    folder: Path, ledger: Ledger, shown: list[object], config: RunConfig = CONFIG
) -> tuple[Publisher, Metrics]:
    metrics = Metrics("small", PLAN.epsilon, folder)

    def show(report: RoundReport, num_charges: int) -> None:
        shown.append((report.round, num_charges))

    return Publisher(folder, config, PLAN, ledger, metrics, show), metrics


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / METRICS_NAME).read_text().splitlines()]


def test_a_round_is_shown_with_the_epsilon_of_its_charges(tmp_path: Path, ledger: Ledger) -> None:
    shown: list[object] = []
    publisher, metrics = publisher_of(tmp_path, ledger, shown)
    publisher.publish(RoundReport(0, 0.0, None))
    ledger.burn(ledger.charge(1), "crash")
    ledger.release(ledger.charge(2), "0" * 64)
    publisher.publish(RoundReport(2, 1.23456, Evaluation(25.0, 10, 5)))
    publisher.close()
    curve = planned_curve(PLAN)
    assert lines(tmp_path) == [
        {"round": 0, "epsilon": 0.0},
        {
            "round": 2,
            "epsilon": curve[1],  # the burned charge is spent as well
            "evaluation_loss": 2.5,
            "evaluation_perplexity": pytest.approx(12.182, abs=1e-3),
        },
    ]
    assert shown == [(0, 0), (2, 2)]
    assert (
        f'feddp_epsilon_spent{{run="small"}} {curve[1]}'
        in generate_latest(metrics.registry).decode()
    )


def test_a_round_that_is_published_again_has_one_line(tmp_path: Path, ledger: Ledger) -> None:
    publisher, _ = publisher_of(tmp_path, ledger, [])
    for seconds in (1.0, 2.0):
        publisher.publish(RoundReport(0, seconds, None))
    assert lines(tmp_path) == [{"round": 0, "epsilon": 0.0}]


def test_measuring_publishes_nothing(tmp_path: Path, ledger: Ledger) -> None:
    shown: list[object] = []
    publisher, _ = publisher_of(tmp_path, ledger, shown)
    ledger.release(ledger.charge(1), "0" * 64)
    assert publisher.measure(1) == planned_curve(PLAN)[0]
    assert (shown, (tmp_path / METRICS_NAME).exists()) == ([], False)


def test_closing_closes_every_tracker(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []

    class Tracker:
        def __init__(self, number: int):
            self.number = number

        def log(self, round: int, metrics: dict[str, float]) -> None: ...

        def close(self) -> None:
            closed.append(self.number)

    monkeypatch.setattr(
        "feddp.server.publisher.open_trackers", lambda *_, **__: [Tracker(1), Tracker(2)]
    )
    publisher, _ = publisher_of(tmp_path, ledger, [], replace(CONFIG))
    publisher.close()
    assert sorted(closed) == [1, 2]
