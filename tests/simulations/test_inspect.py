import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from common.build import load_model
from common.config import from_flat
from common.errors import LedgerDamagedError, PlanDiffersError
from common.privacy.ledger import Ledger
from common.privacy.statement import epsilon_text, privacy_record
from server.run import LEDGER_NAME, Run, create_run, plan_from_config, plan_row
from simulations.cli import main
from simulations.inspect import PROMISED, show_ledger

SETTINGS = {"run.rounds": 4, "run.name": "mine", "privacy.spare-attempts": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 4 rounds that burned an attempt, and released two rounds."""
    config = from_flat({**SETTINGS, "run.output-dir": str(tmp_path_factory.mktemp("runs"))})
    base, layout = load_model(config)
    plan = plan_from_config(config, num_users=3000, trust="simulation", base=base, layout=layout)
    run = create_run(config, plan)
    with Ledger.open(run.path / LEDGER_NAME, plan_sha256=plan.sha256) as ledger:
        ledger.open_run("mine")
        ledger.burn(ledger.charge(1), cause="crash")
        for number in (1, 2):
            ledger.release(ledger.charge(number), sha256=str(number) * 64)
    return run


@pytest.fixture
def run(whole: Run, tmp_path: Path) -> Run:
    shutil.copytree(whole.path, tmp_path / "mine")
    return Run(tmp_path / "mine", whole.config, whole.plan)


def promise(run: Run, **changes: object) -> None:
    record: Mapping[str, object] = privacy_record(run.plan, ledger_head="00", not_covered=())
    (run.path / "privacy.json").write_text(json.dumps({**record, **changes}))


def test_ledger_shows_plan_charges_and_head(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert show_ledger(run.path, is_verifying=False) == 0
    out = capsys.readouterr().out
    assert "3 of 6: 2 released, 1 burned, 0 open" in out
    assert Ledger.read(run.path / LEDGER_NAME).head.hex() in out
    assert run.plan.sha256[:16] in out
    assert "upper bound" in out
    assert "verified" not in out


def test_verifying_recomputes_epsilon_so_far_and_planned(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show_ledger(run.path, is_verifying=True) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "verified" in line]
    assert "3 charges so far" in line
    assert f"<= {epsilon_text(run.plan.epsilon)} for all 6 planned" in line
    so_far = float(line.split("epsilon <= ")[1].split()[0])
    assert 0 < so_far < run.plan.epsilon


def test_a_run_without_a_charge_has_spent_nothing(
    tmp_path: Path, whole: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = create_run(from_flat({**SETTINGS, "run.output-dir": str(tmp_path)}), whole.plan)
    assert show_ledger(fresh.path, is_verifying=True) == 0
    assert "epsilon <= 0.000 for the 0 charges so far" in capsys.readouterr().out


def test_a_privacy_json_of_the_plan_verifies(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    promise(run)
    assert show_ledger(run.path, is_verifying=True) == 0
    assert "privacy.json promises what the plan does" in capsys.readouterr().out


@pytest.mark.parametrize("name", PROMISED)
def test_a_privacy_json_that_says_anything_else_is_refused(name: str, run: Run) -> None:
    promise(run, **{name: "something else"})
    with pytest.raises(LedgerDamagedError, match=f"{name} = something else"):
        show_ledger(run.path, is_verifying=True)


@pytest.mark.parametrize("content", ["", "[]", "{}", "\x00"])
def test_a_damaged_privacy_json_is_one_line_and_exit_code_3(
    content: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.path / "privacy.json").write_text(content)
    assert main(["ledger", str(run.path), "--verify"]) == 3
    assert "privacy.json: damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["epsilon", "target_epsilon"])
def test_a_plan_that_promises_less_than_its_charges_cost_is_refused(
    name: str, tmp_path: Path, whole: Run
) -> None:
    low = dataclasses.replace(whole.plan, **{name: whole.plan.epsilon * 0.999})
    run = create_run(from_flat({**SETTINGS, "run.output-dir": str(tmp_path)}), low)
    with pytest.raises(LedgerDamagedError, match="6 charges cost"):
        show_ledger(run.path, is_verifying=True)


def test_a_ledger_row_that_is_not_the_plans_is_refused(run: Run) -> None:
    path = run.path / LEDGER_NAME
    path.unlink()
    row = {**plan_row(run.plan), "num_charges": run.plan.num_charges + 1}
    Ledger.create(path, row)
    with pytest.raises(PlanDiffersError, match="num_charges"):
        show_ledger(run.path, is_verifying=False)


def test_another_version_of_the_accountant_is_no_other_plan(run: Run) -> None:
    path = run.path / LEDGER_NAME
    path.unlink()
    Ledger.create(path, {**plan_row(run.plan), "accountant": "pld dp-accounting 0.0.1"})
    assert show_ledger(run.path, is_verifying=True) == 0
