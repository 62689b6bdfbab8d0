"""A file that spends more than it may is refused by its rows, whoever wrote it."""

import pytest
from ledger_rows import COST, PUBLIC_KEY, adaptive_plan, answer, charged_body, open_body

from feddp.common.errors import LedgerDamagedError
from feddp.common.privacy.ledger.history import History


def charged(num_charges: int, *, budget: str | None = None, allowed: int = 5) -> History:
    """A history with so many burned charges of a run that planned `allowed` of them."""
    history = History()
    history.apply("PLAN", {**adaptive_plan(budget), "public_key": PUBLIC_KEY})
    history.apply("OPEN", open_body(1, num_charges=allowed))
    for attempt in range(1, num_charges + 1):
        history.apply("CHARGE", charged_body(1, attempt, cost=COST))
        history.apply("BURN", answer("BURN", 1, attempt))
    return history


def test_a_run_charges_what_it_planned_and_not_once_more() -> None:
    assert len(charged(2, allowed=2).charges) == 2
    with pytest.raises(LedgerDamagedError, match="CHARGE cannot stand here"):
        charged(3, allowed=2)


def test_a_filter_is_spent_to_its_edge_and_not_beyond() -> None:
    budget = repr(2.5 * float(COST))
    assert len(charged(2, budget=budget).charges) == 2
    with pytest.raises(LedgerDamagedError, match="CHARGE cannot stand here"):
        charged(3, budget=budget)
