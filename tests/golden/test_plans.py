"""What is asked for makes the same plan as ever, and the plans of before still open.

`plans.jsonl` holds what was asked and what came of it; floats agree to the last digits that
processors agree on. `old_plans.jsonl` holds plan files from before a burned attempt was its round,
which open to the very texts that they had. The version of the accountant stands as VERSION in both.
"""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
from flat_plan import flat_plan

from feddp.common.privacy.mechanism.mechanisms import MECHANISMS
from feddp.common.privacy.mechanism.quantile import QuantileClipping
from feddp.common.privacy.plan.ledger_entries import plan_row
from feddp.common.privacy.plan.plan import PrivacyPlan, plan_from_json
from feddp.common.privacy.plan.statement import (
    guarantee_line,
    privacy_record,
    record_to_json,
    statement,
)


def read(name: str) -> dict[str, dict[str, Any]]:
    lines = (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
    return {made["name"]: made for made in map(json.loads, lines)}


GOLDEN, OLD = read("plans.jsonl"), read("old_plans.jsonl")
VERSION = importlib.metadata.version("dp-accounting")
OUTSIDE = ("nothing",)
LONG = ("poisson-large-target", "fixed-size-auto", "poisson-auto")  # to calibrate


def sha256(text: str) -> str:
    return hashlib.sha256(text.replace(VERSION, "VERSION").encode()).hexdigest()


def adaptive(cohort: float) -> QuantileClipping:
    return QuantileClipping(0.5, 0.2, cohort / 20, 0.01, 10.0)


def assert_texts(plan: PrivacyPlan, golden: dict[str, Any]) -> None:
    assert statement(plan, not_covered=OUTSIDE).replace(VERSION, "VERSION") == golden["statement"]
    assert guarantee_line(plan).replace(VERSION, "VERSION") == golden["line"]
    assert repr(plan.draw) == golden["draw"]


def assert_same(found: Any, golden: Any) -> None:
    """Equal, floats to nine digits."""
    if isinstance(golden, dict):
        assert found.keys() == golden.keys()
        for name, value in golden.items():
            assert_same(found[name], value)
    elif isinstance(golden, list):
        for one, other in zip(found, golden, strict=True):
            assert_same(one, other)
    elif isinstance(golden, float):
        assert found == pytest.approx(golden, rel=1e-9)
    else:
        assert found == golden


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in GOLDEN],
)
def test_what_was_asked_before_makes_the_same_plan_and_texts(name: str) -> None:
    asked = dict(GOLDEN[name]["asked"])
    if asked.pop("quantile", False):
        asked["quantile"] = adaptive
    plan = flat_plan(**asked)
    assert_same(json.loads(plan.to_json()), GOLDEN[name]["plan"])
    assert_texts(plan, GOLDEN[name])
    assert plan_from_json(plan.to_json()) == plan


@pytest.mark.parametrize("name", OLD)
def test_a_plan_file_of_before_opens_to_the_same_texts(name: str) -> None:
    golden, text = OLD[name], json.dumps(OLD[name]["plan"], indent=2) + "\n"
    plan = plan_from_json(text)
    record = record_to_json(privacy_record(plan, ledger_head="1f" * 32, not_covered=OUTSIDE))
    assert plan.to_json() == text
    assert plan.sha256 == golden["sha256"]
    assert sha256(record) == golden["privacy_json_sha256"]
    assert sha256(json.dumps(plan_row(plan, "run"), sort_keys=True)) == golden["plan_row_sha256"]
    assert_texts(plan, golden)
    scale, norm, bit_steps, dimension = golden["noise"]
    noised = plan.mechanism
    assert [noised.noise_scale, plan.bit_steps, plan.sum_dimension] == [scale, bit_steps, dimension]
    assert noised.noise_norm == pytest.approx(norm, rel=1e-12)


def test_a_plan_of_before_keeps_its_accountant_and_its_spare_attempts() -> None:
    plan = plan_from_json(json.dumps(OLD["fixed-size"]["plan"]))
    assert plan.schedule.accountant == "rdp"
    assert plan.cohorts.num_spare > 0
    assert plan.epsilon > 1.5 * GOLDEN["fixed-size"]["plan"]["epsilon"]


def test_every_mechanism_has_a_golden_plan() -> None:
    for plans in (GOLDEN, OLD):
        assert {made["plan"]["mechanism_name"] for made in plans.values()} == set(MECHANISMS)
