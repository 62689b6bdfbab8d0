"""The epsilon of a ledger, from its rows alone."""

from typing import Any

from feddp.common.privacy.accounting.epsilon import epsilon
from feddp.common.privacy.ledger.charge_terms import UPDATE, Planned, Slot, schedule_to_body
from feddp.common.privacy.mechanism.events import PoissonGaussianEvent
from feddp.common.privacy.plan.shared_population import planned_epsilon, spent_epsilon

TURN = PoissonGaussianEvent(0.25, 4.0)
SLOT = Slot(UPDATE, TURN, 1000, 1 << 28)
# Ten rounds of five groups and three spare attempts: two turns of a user, and three more.
PLAN: dict[str, Any] = {
    "mode": "fixed-schedule",
    "accountant": "pld 0.6",
    "relation": "add-or-remove-one",
    "target_delta": "1e-05",
    "accounting_delta": "9.9e-06",
    "schedule": schedule_to_body([Planned(SLOT, 13, 5)]),
}


def test_a_round_and_its_burned_attempts_may_all_be_turns_of_one_user() -> None:
    three = epsilon([(TURN, 3)], delta=9.9e-6, relation="add-or-remove-one")
    assert spent_epsilon(PLAN, [SLOT.to_body()] * 3) >= three


def test_the_meter_ends_at_the_promise() -> None:
    assert spent_epsilon(PLAN, []) == 0
    assert spent_epsilon(PLAN, [SLOT.to_body()] * 13) == planned_epsilon(PLAN)
