import json
from pathlib import Path

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from extending.proofs.small_run import NUM_USERS, run, small_config

from feddp.common.errors import ConfigError
from feddp.common.privacy.mechanism.mechanisms import MECHANISMS, Mechanism
from feddp.common.privacy.mechanism.sampling import fresh_coins
from feddp.common.privacy.plan.statement import guarantee_line
from feddp.server.run import load_run
from feddp.simulations.cli import main


def test_it_answers_for_everything_that_a_mechanism_answers_for() -> None:
    assert isinstance(MECHANISMS["everyone"], Mechanism)


def test_a_run_is_planned_charged_and_said_as_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(small_config(tmp_path, privacy__mechanism="everyone"))
    plan = load_run(folder).plan  # plan.json opens
    assert plan.expected_cohort_size == NUM_USERS
    keys = np.arange(NUM_USERS, dtype=np.uint64)
    assert len(plan.draw.units(keys, 1, fresh_coins)) == NUM_USERS

    promise = json.loads((folder / "privacy.json").read_text())
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp_accounting.GaussianDpEvent(1.0), promise["num_charges"])
    bound = accountant.get_epsilon(promise["accounting_delta"])
    assert promise["epsilon"] == pytest.approx(bound, rel=1e-5)

    assert "add-or-remove-one" in guarantee_line(plan)
    card = (folder / "adapter" / "README.md").read_text()
    assert "all of N = 20 declared users take part (no amplification" in card
    assert main(["ledger", "verify", str(folder)]) == 0
    assert "verified" in capsys.readouterr().out


def test_what_its_accounting_does_not_cover_is_refused(tmp_path: Path) -> None:
    for changes in ({"sampling__expected_cohort_size": 10.0}, {"privacy__max_nodes_per_user": 2}):
        config = small_config(tmp_path, privacy__mechanism="everyone", **changes)
        with pytest.raises(ConfigError, match=r"must be all of N = 20|one unit on one node"):
            run(config)
