"""Starts of runs on one fixed schedule: what a run may still charge is kept for it."""

from decimal import Decimal
from pathlib import Path

import pytest
from ledger_rows import (
    COST,
    EVALUATION,
    SHA256,
    SLOT,
    adaptive_plan,
    chained,
    key_of,
    new_ledger,
    open_body,
    open_ledger,
    plan_of,
    rewrite,
    start_of,
    with_scale,
)

from feddp.common.errors import BudgetSpentError, FeddpError, LedgerDamagedError
from feddp.common.privacy.ledger.charge_terms import Planned, schedule_to_body
from feddp.common.privacy.ledger.history import Body
from feddp.common.privacy.ledger.ledger import Ledger

SHARED = {"scope": "population", "population": "people", "plan_sha256": ""}
SHARED_SCHEDULE = {**plan_of(6, 1), **SHARED}


def test_what_a_begun_run_may_still_charge_is_kept_for_it(tmp_path: Path) -> None:
    path = new_ledger(tmp_path, SHARED_SCHEDULE)
    with open_ledger(path) as ledger:
        ledger.open_run(start_of("a", num_charges=4))
        ledger.release(ledger.charge(1), SHA256)
    before = path.read_bytes()
    with open_ledger(path) as ledger:
        with pytest.raises(
            BudgetSpentError, match=r"remaining 2, difference 1 .* 3 charges are kept for runs that"
        ):
            ledger.open_run(start_of("b", num_charges=3))
        assert path.read_bytes() == before
        ledger.open_run(start_of("b", num_charges=2))
        for number in (1, 2):
            ledger.release(ledger.charge(number), SHA256)
    with open_ledger(path) as ledger:
        ledger.open_run(start_of("a", num_charges=4))
        for number in (2, 3, 4):
            ledger.release(ledger.charge(number), SHA256)
        with pytest.raises(BudgetSpentError, match="this run allows 4 charges"):
            ledger.charge(5)


def test_a_run_that_has_ended_frees_its_spare_attempts_and_nothing_that_was_charged(
    tmp_path: Path,
) -> None:
    path = new_ledger(tmp_path, SHARED_SCHEDULE)
    with open_ledger(path) as ledger:
        ledger.open_run(start_of("a", num_charges=5, num_rounds=2))
        ledger.burn(ledger.charge(1), "crash")
        ledger.release(ledger.charge(1), SHA256)
        ledger.release(ledger.charge(2), SHA256)
    with open_ledger(path) as ledger:
        with pytest.raises(BudgetSpentError, match="remaining 3"):
            ledger.open_run(start_of("b", num_charges=4))
        ledger.open_run(start_of("b", num_charges=3))


def test_a_charge_for_another_purpose_never_takes_what_is_kept_for_a_run(tmp_path: Path) -> None:
    path = new_ledger(tmp_path, {**plan_of(6, 2), **SHARED})
    with open_ledger(path) as ledger:
        ledger.open_run(start_of("a", num_charges=5))
    with open_ledger(path) as ledger:
        ledger.open_run(start_of("b", num_charges=2, slot=EVALUATION))
        ledger.release(ledger.charge(1, SLOT), SHA256)
        with pytest.raises(BudgetSpentError, match="remaining 0"):
            ledger.charge(2, SLOT)


def test_runs_of_other_slots_do_not_stand_in_each_others_way(tmp_path: Path) -> None:
    other = with_scale(1 << 21)
    schedule = schedule_to_body([Planned(SLOT, 3, 3), Planned(other, 2, 2)])
    path = new_ledger(tmp_path, {**plan_of(), **SHARED, "schedule": schedule})
    for name, count, slot in (("a", 3, SLOT), ("b", 2, other)):
        with open_ledger(path) as ledger:
            ledger.open_run(start_of(name, num_charges=count, slot=slot))
    assert list(Ledger.read(path).runs) == ["a", "b"]


def test_a_filter_keeps_nothing_for_runs_that_have_begun(tmp_path: Path) -> None:
    path = new_ledger(tmp_path, adaptive_plan(repr(float(4 * Decimal(COST)))))
    for name in "ab":
        with open_ledger(path) as ledger:
            ledger.open_run(start_of(name, num_charges=4))


@pytest.mark.parametrize("change", [{"num_charges": 3}, {"num_rounds": 3}, {"slot": "other"}])
def test_a_run_says_the_same_at_each_start(tmp_path: Path, change: Body) -> None:
    path = new_ledger(tmp_path, SHARED_SCHEDULE)
    made = {"num_charges": 2, "num_rounds": 2}
    with open_ledger(path) as ledger:
        ledger.open_run(start_of("a", **made))
    again = {**made, **change}
    if "slot" in change:
        again["slot"] = with_scale(1 << 21)
    with open_ledger(path) as ledger, pytest.raises(FeddpError):
        ledger.open_run(start_of("a", **again))


def test_rows_that_open_more_than_the_schedule_holds_are_refused(tmp_path: Path) -> None:
    path = new_ledger(tmp_path, SHARED_SCHEDULE)
    rows: list[tuple[str, Body]] = [
        ("PLAN", SHARED_SCHEDULE),
        ("OPEN", open_body(1, run="a", num_charges=4)),
        ("OPEN", open_body(2, run="b", num_charges=3)),
    ]
    rewrite(path, chained(rows, key_of(path)))
    with pytest.raises(LedgerDamagedError, match="OPEN cannot stand here"):
        open_ledger(path)
