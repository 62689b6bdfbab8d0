"""Plans that were made before are made again, byte for byte, and their files still open.

The version of the accountant, which the texts name, stands as VERSION in the golden ones.
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

LINES = (Path(__file__).parent / "plans.jsonl").read_text(encoding="utf-8").splitlines()
GOLDEN: dict[str, dict[str, Any]] = {made["name"]: made for made in map(json.loads, LINES)}
VERSION = importlib.metadata.version("dp-accounting")
OUTSIDE = ("nothing",)
LONG = ("poisson-large-target", "fixed-size-auto", "poisson-auto")  # to calibrate


def plan_json(golden: dict[str, Any]) -> str:
    return json.dumps(golden["plan"], indent=2) + "\n"


def sha256(text: str) -> str:
    return hashlib.sha256(text.replace(VERSION, "VERSION").encode()).hexdigest()


def adaptive(cohort: float) -> QuantileClipping:
    return QuantileClipping(0.5, 0.2, cohort / 20, 0.01, 10.0)


def check_texts(plan: PrivacyPlan, golden: dict[str, Any]) -> None:
    record = record_to_json(privacy_record(plan, ledger_head="1f" * 32, not_covered=OUTSIDE))
    assert plan.to_json() == plan_json(golden)
    assert plan.sha256 == golden["sha256"]
    assert sha256(record) == golden["privacy_json_sha256"]
    assert sha256(json.dumps(plan_row(plan, "run"), sort_keys=True)) == golden["plan_row_sha256"]
    assert statement(plan, not_covered=OUTSIDE).replace(VERSION, "VERSION") == golden["statement"]
    assert guarantee_line(plan).replace(VERSION, "VERSION") == golden["line"]
    noised = plan.mechanism
    found = [noised.noise_scale, noised.noise_norm, plan.bit_steps, plan.sum_dimension]
    assert found == golden["noise"]
    assert repr(plan.draw) == golden["draw"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in GOLDEN],
)
def test_what_was_asked_before_makes_the_same_plan_and_texts(name: str) -> None:
    asked = dict(GOLDEN[name]["asked"])
    if asked.pop("quantile", False):
        asked["quantile"] = adaptive
    check_texts(flat_plan(**asked), GOLDEN[name])


@pytest.mark.parametrize("name", GOLDEN)
def test_a_plan_file_of_before_opens_to_the_same_texts(name: str) -> None:
    check_texts(plan_from_json(plan_json(GOLDEN[name])), GOLDEN[name])


def test_every_mechanism_has_a_golden_plan() -> None:
    assert {golden["plan"]["mechanism_name"] for golden in GOLDEN.values()} == set(MECHANISMS)
