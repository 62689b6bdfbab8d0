import json
from pathlib import Path

import pytest
from small_ledger import small_plan

from feddp.common.config.run_config import RunConfig
from feddp.common.errors import LedgerDamagedError, PlanDiffersError
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.ledger_entries import plan_row
from feddp.common.privacy.plan.shared_population import planned_epsilon
from feddp.common.privacy.plan.statement import privacy_record
from feddp.server.run import Run
from feddp.simulations.commands.ledger_checks import (
    PROMISED,
    check_epsilon,
    check_plan,
    check_record,
)

PLAN = small_plan()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    Ledger.create(path, plan_row(PLAN))
    return path


def test_a_ledger_of_the_runs_plan_passes(path: Path) -> None:
    history = Ledger.read(path)
    check_plan(Run(path.parent, RunConfig(), PLAN), history)
    assert check_epsilon(path, history) == planned_epsilon(history.plan)


def test_a_ledger_of_another_plan_is_refused(path: Path) -> None:
    run = Run(path.parent, RunConfig(), small_plan(num_rounds=4))
    with pytest.raises(PlanDiffersError, match=r"of plan\.json is not the ledger's"):
        check_plan(run, Ledger.read(path))


def test_charges_that_cost_more_than_the_target_are_refused(tmp_path: Path) -> None:
    low = {**plan_row(PLAN), "target_epsilon": repr(PLAN.epsilon * 0.5)}
    Ledger.create(tmp_path / "low.sqlite", low)
    with pytest.raises(LedgerDamagedError, match="Do not publish what it released"):
        check_epsilon(tmp_path / "low.sqlite", Ledger.read(tmp_path / "low.sqlite"))


def test_without_a_record_there_is_nothing_to_check(tmp_path: Path) -> None:
    assert not check_record(Run(tmp_path, RunConfig(), PLAN))


@pytest.mark.parametrize("name", [None, *PROMISED])
def test_a_record_says_what_the_plan_does(name: str | None, tmp_path: Path) -> None:
    record = dict(privacy_record(PLAN, ledger_head="00", not_covered=()))
    if name is not None:
        record[name] = "something else"
    (tmp_path / "privacy.json").write_text(json.dumps(record))
    run = Run(tmp_path, RunConfig(), PLAN)
    if name is None:
        assert check_record(run)
        return
    with pytest.raises(LedgerDamagedError, match=f"{name} = something else"):
        check_record(run)
