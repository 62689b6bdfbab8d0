"""A run's ledger: made with its folder, or its population's, which must know it or have room."""

from pathlib import Path

import pytest
from small_ledger import small_plan

from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.disk import Disk
from feddp.common.errors import BudgetSpentError, ConfigError, LedgerDamagedError
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.ledger_entries import plan_row, start_of
from feddp.server.run_ledger import (
    LEDGER_NAME,
    anchor_path,
    create_or_check_ledger,
    key_path,
    ledger_path,
    open_ledger,
)
from feddp.server.run_secrets import LEDGER_KEY, make_secrets_folder

PLAN = small_plan()


def population(folder: Path, *, name: str = "clinic") -> RunConfig:
    """A population with room for one run, and the configuration of a run on it."""
    path = folder / "clinic.sqlite"
    if not path.exists():
        Ledger.create(path, {**plan_row(PLAN), "population": "clinic", "scope": "population"})
    return from_flat({"privacy.population": name, "privacy.ledger": str(path)})


def test_a_run_without_a_population_has_its_own_ledger(tmp_path: Path) -> None:
    config = from_flat({})
    make_secrets_folder(tmp_path / "r")
    (tmp_path / "r").mkdir()
    create_or_check_ledger(tmp_path / "r", tmp_path / "r", config, PLAN, Disk())
    assert ledger_path(tmp_path / "r", config) == tmp_path / "r" / LEDGER_NAME
    assert key_path(tmp_path / "r", config) == tmp_path / ".secrets" / "r" / LEDGER_KEY
    assert anchor_path(config) is None
    assert [path.name for path in (tmp_path / "r").iterdir()] == [LEDGER_NAME]
    with open_ledger(tmp_path / "r", config) as ledger:
        ledger.open_run(start_of("r", PLAN))
        assert ledger.history.plan["population"] == "r"


def test_key_and_anchor_lie_where_the_configuration_says(tmp_path: Path) -> None:
    config = from_flat(
        {
            "privacy.ledger-key": str(tmp_path / "elsewhere.key"),
            "privacy.anchor": str(tmp_path / "anchor.json"),
        }
    )
    create_or_check_ledger(tmp_path, tmp_path / "r", config, PLAN, Disk())
    with open_ledger(tmp_path, config):
        assert {path.name for path in tmp_path.iterdir()} >= {"elsewhere.key", "anchor.json"}


def test_a_run_of_a_population_makes_no_ledger(tmp_path: Path) -> None:
    config = population(tmp_path)
    (tmp_path / "run").mkdir()
    create_or_check_ledger(tmp_path / "run", tmp_path / "r", config, PLAN, Disk())
    assert list((tmp_path / "run").iterdir()) == []
    assert Ledger.read(tmp_path / "clinic.sqlite").num_rows == 1


def test_a_name_that_a_population_knows_is_refused(tmp_path: Path) -> None:
    config = population(tmp_path)
    with open_ledger(tmp_path, config) as ledger:
        ledger.open_run(start_of("r", PLAN))
    with pytest.raises(ConfigError, match="has charged"):
        create_or_check_ledger(tmp_path, tmp_path / "r", config, PLAN, Disk())
    with pytest.raises(BudgetSpentError, match="kept for runs that have begun"):
        create_or_check_ledger(tmp_path, tmp_path / "another", config, PLAN, Disk())


def test_the_ledger_of_another_population_is_refused_and_let_go(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is the ledger of 'clinic'"):
        open_ledger(tmp_path, population(tmp_path, name="school"))
    open_ledger(tmp_path, population(tmp_path)).__exit__(None, None, None)


def test_a_missing_ledger_is_never_made_by_opening_it(tmp_path: Path) -> None:
    with pytest.raises(LedgerDamagedError, match="missing"):
        open_ledger(tmp_path, from_flat({}))
    assert list(tmp_path.iterdir()) == []
