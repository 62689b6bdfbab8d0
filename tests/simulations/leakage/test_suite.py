"""The suite's verdicts, and the whole suite on an adapter that must be caught."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feddp.common.config.run_config import from_flat
from feddp.common.errors import ConfigError
from feddp.server.run import Run
from feddp.simulations.leakage.attacks import Attack, Interval
from feddp.simulations.leakage.evaluate import Extent, _target, measure_overfitted
from feddp.simulations.leakage.suite import Ceilings, Leakage, exceeded

CHANCE = Attack(Interval(0.5, 0.45, 0.55), Interval(0.01, 0.0, 0.03), 0.01, 300, 300)
CAUGHT = Attack(Interval(0.9, 0.85, 0.95), Interval(0.5, 0.4, 0.6), 0.01, 300, 300)


def test_attacks_at_chance_are_below_every_ceiling() -> None:
    leakage = Leakage(CHANCE, {"loss": CHANCE}, poison_gap=Interval(0.0, -0.1, 0.1))
    assert exceeded(leakage, Ceilings(1.0, 1e-5)) == []


def test_attacks_wholly_above_their_ceilings_are_named() -> None:
    leakage = Leakage(CAUGHT, {"loss": CAUGHT}, poison_gap=Interval(0.8, 0.7, 0.9))
    assert exceeded(leakage, Ceilings(1.0, 1e-5)) == [
        "user inference, AUC",
        "user inference, TPR",
        "membership by loss, AUC",
        "poisoning",
    ]
    assert exceeded(leakage, Ceilings(8.0, 1e-5)) == []


def test_a_promise_about_examples_puts_no_ceiling_on_users() -> None:
    leakage = Leakage(CAUGHT, {"loss": CAUGHT}, poison_gap=Interval(0.8, 0.7, 0.9))
    ceilings = Ceilings(float("inf"), 1e-5)
    assert ceilings.auc == ceilings.poison_gap == ceilings.true_positive_rate == 1
    assert exceeded(leakage, ceilings) == []


def test_real_data_needs_a_folder_outside_the_run(tmp_path: Path) -> None:
    real = from_flat({"data.path": "users.jsonl", "privacy.num-users": 100})
    run = Run(tmp_path / "runs" / "x", real, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="neither noised nor charged"):
        _target(run, None)
    with pytest.raises(ConfigError, match="must lie outside"):
        _target(run, tmp_path / "runs" / "y")
    assert _target(run, tmp_path / "z") == tmp_path / "z" / "x-leakage.json"
    generated = replace(run, config=from_flat({}))
    assert _target(generated, None) == run.path / "leakage.json"


@pytest.mark.slow
def test_an_overfitted_adapter_without_privacy_is_caught_by_every_attack() -> None:
    config = from_flat({"run.seed": 1, "nodes.threads": 1})
    extent = Extent(num_users=100, num_secrets=10, num_unknown_digits=2, num_overfitted=30)
    found = measure_overfitted(config, extent)
    assert found.user_inference.auc.low > 0.5
    assert all(attack.auc.low > 0.5 for attack in found.membership.values())
    assert found.exposure is not None
    assert found.exposure.mean.low > found.exposure.null_mean.value
    assert found.poison_gap is not None
    assert found.poison_gap.low > 0
    assert found.sensitive_tokens is not None
    assert found.sensitive_tokens.controlled_gain.low > 0
    assert np.isfinite(found.sensitive_tokens.lowest)
