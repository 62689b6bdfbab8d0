"""feddp ledger: what a person sees of what was spent."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from feddp.common.assembly import config_sha256, load_model, plan_from_config
from feddp.common.config.run_config import RunConfig, from_flat, to_flat, to_toml
from feddp.common.errors import BudgetSpentError, ConfigError, LedgerDamagedError, PlanDiffersError
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.ledger_entries import plan_row, start_of
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.privacy.plan.shared_population import (
    planned_epsilon,
    shared_promise,
    spent_epsilon,
)
from feddp.common.privacy.plan.statement import epsilon_text, privacy_record
from feddp.server.run import Run, create_run
from feddp.server.run_ledger import LEDGER_NAME, open_ledger
from feddp.server.run_secrets import LEDGER_KEY, secret_path, secrets_folder
from feddp.simulations.cli import main
from feddp.simulations.commands.ledger import Mode, create, show, verify
from feddp.simulations.commands.ledger_checks import PROMISED

SETTINGS = {"run.rounds": 4, "run.name": "mine"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 4 rounds that burned an attempt, and released two rounds."""
    config = from_flat({**SETTINGS, "run.output-dir": str(tmp_path_factory.mktemp("runs"))})
    base, layout = load_model(config)
    plan = plan_from_config(config, trust="simulation", base=base, layout=layout)
    run = create_run(config, plan)
    with open_ledger(run.path, config) as ledger:
        ledger.open_run(start_of("mine", plan))
        ledger.burn(ledger.charge(1), cause="crash")
        for number in (2, 3):
            ledger.release(ledger.charge(number), sha256=str(number) * 64)
    return run


@pytest.fixture
def run(whole: Run, tmp_path: Path) -> Run:
    shutil.copytree(whole.path, tmp_path / "mine")
    shutil.copytree(secrets_folder(whole.path), secrets_folder(tmp_path / "mine"))
    return Run(tmp_path / "mine", whole.config, whole.plan)


def promise(run: Run, **changes: object) -> None:
    record: Mapping[str, object] = privacy_record(run.plan, ledger_head="00", not_covered=())
    (run.path / "privacy.json").write_text(json.dumps({**record, **changes}))


def test_show_prints_every_row_the_spending_and_the_head(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    show(run.path)
    out = capsys.readouterr().out
    assert "3 of 4: 2 released, 1 burned, 0 open" in out
    assert Ledger.read(run.path / LEDGER_NAME).head.hex() in out
    assert "upper bound" in out
    assert "verified" not in out
    for part in (
        "OPEN    mine, start 1",
        "CHARGE  2/1 update",
        "BURN    1/1 crash",
        "this run only",
    ):
        assert part in out


def test_verifying_recomputes_epsilon_so_far_and_planned(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    verify(run.path, anchor=None)
    out = capsys.readouterr().out
    assert f"the events cost epsilon <= {epsilon_text(run.plan.epsilon)}" in out
    so_far = float(out.split("spent     epsilon <= ")[1].split()[0])
    assert 0 < so_far < run.plan.epsilon


def test_a_run_without_a_charge_has_spent_nothing(
    tmp_path: Path, whole: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = create_run(from_flat({**SETTINGS, "run.output-dir": str(tmp_path)}), whole.plan)
    verify(fresh.path, anchor=None)
    assert "spent     epsilon <= 0.000" in capsys.readouterr().out


def test_a_privacy_json_of_the_plan_verifies(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    promise(run)
    verify(run.path, anchor=None)
    assert "privacy.json promises what the plan does" in capsys.readouterr().out


@pytest.mark.parametrize("name", PROMISED)
def test_a_privacy_json_that_says_anything_else_is_refused(name: str, run: Run) -> None:
    promise(run, **{name: "something else"})
    with pytest.raises(LedgerDamagedError, match=f"{name} = something else"):
        verify(run.path, anchor=None)


@pytest.mark.parametrize("content", ["", "[]", "{}", "\x00"])
def test_a_damaged_privacy_json_is_one_line_and_exit_code_3(
    content: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.path / "privacy.json").write_text(content)
    assert main(["ledger", "verify", str(run.path)]) == 3
    assert "privacy.json: damaged" in capsys.readouterr().err


@pytest.mark.parametrize(("part", "name"), [("noise", "epsilon"), ("schedule", "target_epsilon")])
def test_a_plan_that_promises_less_than_its_charges_cost_is_refused(
    part: str, name: str, tmp_path: Path, whole: Run
) -> None:
    less = {name: whole.plan.epsilon * 0.999}
    low = dataclasses.replace(
        whole.plan, **{part: dataclasses.replace(getattr(whole.plan, part), **less)}
    )
    run = create_run(from_flat({**SETTINGS, "run.output-dir": str(tmp_path)}), low)
    with pytest.raises(LedgerDamagedError, match="charges cost"):
        verify(run.path, anchor=None)


def test_a_ledger_row_that_is_not_the_plans_is_refused(run: Run) -> None:
    path = run.path / LEDGER_NAME
    path.unlink()
    row = plan_row(run.plan)
    (entry,) = row["schedule"]
    Ledger.create(
        path,
        {
            **row,
            "schedule": [{**entry, "count": entry["count"] + 1, "num_events": entry["count"] + 1}],
        },
    )
    with pytest.raises(PlanDiffersError, match="schedule"):
        verify(run.path, anchor=None)


def test_another_version_of_the_accountant_is_no_other_plan(run: Run) -> None:
    path = run.path / LEDGER_NAME
    path.unlink()
    Ledger.create(path, {**plan_row(run.plan), "accountant": "pld dp-accounting 0.0.1"})
    verify(run.path, anchor=None)


# Export, anchor, key, backup


def test_export_is_json_lines_that_anyone_can_check(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "export", str(run.path / LEDGER_NAME)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    history = Ledger.read(run.path / LEDGER_NAME)
    assert [line["hash"] for line in lines] == [head.hex() for head in history.heads[1:]]
    assert [line["body"] for line in lines if line["kind"] == "CHARGE"] == history.charges
    secret = secret_path(run.path, LEDGER_KEY).read_text().strip()
    assert secret not in json.dumps(lines)


def test_an_anchor_turns_an_old_copy_into_exit_code_4(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, file = run.path / LEDGER_NAME, tmp_path / "anchor.json"
    backup = tmp_path / "old.sqlite"
    assert main(["ledger", "backup", str(run.path), "--file", str(backup)]) == 0
    assert Ledger.read(backup).head.hex() in capsys.readouterr().out
    assert main(["ledger", "rotate", str(run.path)]) == 0
    assert main(["ledger", "anchor", str(run.path), "--file", str(file)]) == 0
    assert main(["ledger", "verify", str(run.path), "--anchor", str(file)]) == 0
    assert "extends the head" in capsys.readouterr().out
    shutil.copy(backup, path)
    assert main(["ledger", "verify", str(run.path)]) == 0  # nothing in it is wrong
    assert main(["ledger", "verify", str(run.path), "--anchor", str(file)]) == 4
    assert main(["ledger", "anchor", str(run.path), "--file", str(file)]) == 4
    assert "rolled back" in capsys.readouterr().err


def test_an_anchor_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    assert main(["ledger", "verify", str(run.path), "--anchor", str(tmp_path / "none")]) == 2


# Populations

POPULATION = {
    "privacy.population": "people",
    "privacy.noise-multiplier": 0.8,
    "run.rounds": 2,
}


def people(folder: Path, mode: str, *, num_runs: int = 2, epsilon: float = 8.0) -> Path:
    """The ledger of a population, whose runs each promise about epsilon 3."""
    path = folder / "people.sqlite"
    planned = folder / "planned.toml"
    planned.write_text(to_toml(member(folder, "planned")), encoding="utf-8")
    create(path, "people", [planned], target_epsilon=epsilon, runs=num_runs, mode=Mode(mode))
    return path


def member(folder: Path, name: str, **changes: object) -> RunConfig:
    own = {"run.name": name, "run.output-dir": str(folder), "privacy.target-epsilon": 5.0}
    shared = {"privacy.ledger": str(folder / "people.sqlite")}
    return from_flat({**POPULATION, **own, **shared, **changes})


PLANS: dict[str, PrivacyPlan] = {}  # by the settings that a plan depends on


def make(config: RunConfig) -> Run:
    key = config_sha256(to_flat(config))
    if key not in PLANS:
        base, layout = load_model(config)
        PLANS[key] = plan_from_config(config, trust="simulation", base=base, layout=layout)
    return create_run(config, PLANS[key])


def spend(run: Run) -> None:
    with open_ledger(run.path, run.config) as ledger:
        ledger.open_run(start_of(run.name, run.plan))
        for number in (1, 2):
            ledger.release(ledger.charge(number), sha256="0" * 64)


@pytest.mark.parametrize("mode", ["fixed-schedule", "adaptive"])
def test_runs_spend_their_populations_budget_until_it_refuses_the_next(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epsilon = 8.0 if mode == "fixed-schedule" else 6.0
    path = people(tmp_path, mode, epsilon=epsilon)
    num_taken, refusal = 0, ""
    while not refusal and num_taken < 60:
        before = path.read_bytes()
        try:
            spend(make(member(tmp_path, f"r{num_taken}")))
            num_taken += 1
        except BudgetSpentError as error:
            refusal = str(error)
    assert refusal.startswith("The population's budget is spent. Requested ")
    assert path.read_bytes() == before
    assert num_taken >= 2
    assert not (tmp_path / f"r{num_taken}").exists()
    verify(tmp_path / "r0", anchor=None)
    assert "every run on it" in capsys.readouterr().out
    history = Ledger.read(path)
    planned = planned_epsilon(history.plan)
    assert spent_epsilon(history.plan, history.charges) <= planned <= epsilon
    assert shared_promise(history.plan) == {
        "population": "people",
        "mode": mode,
        "epsilon": planned,
        "delta": float(history.plan["target_delta"]),
    }


def test_a_schedule_above_the_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the schedule of all runs costs epsilon"):
        people(tmp_path, "fixed-schedule", epsilon=2.0)
    with pytest.raises(ConfigError, match="the adaptive filter"):
        people(tmp_path, "adaptive", epsilon=2.0)
    assert not (tmp_path / "people.sqlite").exists()


def test_a_run_of_a_population_never_creates_its_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerDamagedError, match="counts as a spent budget"):
        make(member(tmp_path, "r"))
    assert list(tmp_path.iterdir()) == []


def test_a_population_of_another_name_or_seed_is_refused(tmp_path: Path) -> None:
    people(tmp_path, "adaptive")
    with pytest.raises(ConfigError, match="is the ledger of 'people'"):
        make(member(tmp_path, "r", **{"privacy.population": "others"}))
    with pytest.raises(PlanDiffersError, match="seeded"):
        make(member(tmp_path, "r", **{"run.seed": 1}))


def test_a_name_that_a_run_has_used_is_refused_in_another_folder(tmp_path: Path) -> None:
    people(tmp_path, "adaptive")
    spend(make(member(tmp_path, "r")))
    other = member(tmp_path, "r", **{"run.output-dir": str(tmp_path / "other")})
    with pytest.raises(ConfigError, match="a run of that name"):
        make(other)
