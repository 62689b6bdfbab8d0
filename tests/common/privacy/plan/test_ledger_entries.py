"""What a plan says of itself in a ledger."""

from flat_plan import changed
from small_ledger import PLAN

from feddp.common.privacy.plan.ledger_entries import plan_row, planned_of, start_of, terms_of


def test_a_start_and_a_plan_row_name_the_same_plan_and_terms() -> None:
    row, start = plan_row(PLAN, "mine"), start_of("mine", PLAN)
    assert row["plan_sha256"] == start.plan_sha256 == PLAN.sha256
    assert {key: row[key] for key in start.terms} == start.terms == terms_of(PLAN)
    assert (start.num_charges, start.num_rounds) == (PLAN.num_charges, PLAN.num_rounds)


def test_all_charges_of_a_run_are_planned() -> None:
    planned = planned_of(PLAN)
    ((event, count),) = PLAN.charges
    assert (planned.slot.event, planned.count, planned.num_events) == (event, count, count)
    assert planned.slot.noise_scale == PLAN.mechanism.noise_scale


def test_a_seeded_run_says_so() -> None:
    assert terms_of(PLAN)["seeded"] == "no"
    assert terms_of(changed(PLAN, seed=0))["seeded"] == "yes"
