"""The budget of a population: exact at its edge, and shared by all runs."""

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from ledger_rows import (
    ALPHA,
    COST,
    EVALUATION,
    SHA256,
    SLOT,
    adaptive_plan,
    answer,
    chained,
    charged_body,
    key_of,
    new_ledger,
    open_body,
    open_ledger,
    plan_of,
    rewrite,
    start_of,
    with_scale,
)

from feddp.common.errors import BudgetSpentError, LedgerDamagedError, PlanDiffersError
from feddp.common.privacy.accounting import renyi_filter
from feddp.common.privacy.ledger.budget import FilterBudget, ScheduleBudget, exact
from feddp.common.privacy.ledger.history import Body, Charge
from feddp.common.privacy.ledger.ledger import Ledger

SHARED = {"scope": "population", "population": "people", "plan_sha256": ""}


def budget_text(num_charges: int, units: int) -> str:
    """So many costs, and so many units of the last of 15 digits more."""
    whole = num_charges * Decimal(COST)
    unit = Decimal(1).scaleb(whole.adjusted() - 14)
    text = repr(float(whole + units * unit))
    assert Fraction(text) == Fraction(whole + units * unit)
    return text


@pytest.mark.parametrize(("units", "allowed"), [(-1, 2), (0, 3), (1, 3)])
def test_the_filter_is_exact_at_its_edge(tmp_path: Path, units: int, allowed: int) -> None:
    path = new_ledger(tmp_path, adaptive_plan(budget_text(3, units)))
    with open_ledger(path) as ledger:
        ledger.open_run(start_of(num_charges=allowed))
        for number in range(1, allowed + 1):
            ledger.release(ledger.charge(number), SHA256)
        assert len(Ledger.read(path).charges) == allowed
    before = path.read_bytes()
    with open_ledger(path) as ledger, pytest.raises(BudgetSpentError, match="remaining"):
        ledger.open_run(start_of("another", num_charges=1))
    assert path.read_bytes() == before


def test_a_run_that_does_not_fit_is_refused_in_numbers_before_anything_is_written(
    tmp_path: Path,
) -> None:
    path = new_ledger(tmp_path, adaptive_plan(budget_text(3, 0)))
    before = path.read_bytes()
    with open_ledger(path) as ledger, pytest.raises(BudgetSpentError) as refused:
        ledger.open_run(start_of(num_charges=4))
    cost = float(COST)
    assert str(refused.value).startswith(
        f"The population's budget is spent. Requested {4 * cost:.6g}, remaining {3 * cost:.6g}, "
        f"difference {cost:.6g} (epsilon, delta 1e-05, user)."
    )
    assert refused.value.exit_code == 6
    assert path.read_bytes() == before


def test_runs_with_different_plans_share_one_filter(tmp_path: Path) -> None:
    path = new_ledger(tmp_path, adaptive_plan(budget_text(4, 0)))
    for name, count in (("a", 1), ("b", 2), ("a", 1)):
        with open_ledger(path) as ledger:
            ledger.open_run(start_of(name, num_charges=2, plan_sha256=name * 64))
            for _ in range(count):
                ledger.release(ledger.charge(ledger.next_round), SHA256)
    history = Ledger.read(path)
    assert {name: run.next_round for name, run in history.runs.items()} == {"a": 3, "b": 3}
    assert isinstance(history.budget, FilterBudget)
    assert history.budget.remaining == 0


def test_a_charge_that_another_run_left_open_is_burned(tmp_path: Path) -> None:
    path = new_ledger(tmp_path, adaptive_plan())
    with open_ledger(path) as ledger:
        ledger.open_run(start_of("a"))
        ledger.charge(1)
    with open_ledger(path) as ledger:
        ledger.open_run(start_of("b"))
        assert ledger.open_charge is None
        ledger.charge(1)
    with open_ledger(path) as ledger:
        ledger.open_run(start_of("a"))
        assert ledger.charge(2) == Charge(2, 1)
    assert len(Ledger.read(path).charges) == 3


def test_a_run_never_answers_the_charge_of_another(tmp_path: Path) -> None:
    path = new_ledger(tmp_path, adaptive_plan())
    rows: list[tuple[str, Body]] = [
        ("PLAN", adaptive_plan()),
        ("OPEN", open_body(1, run="a")),
        ("CHARGE", charged_body(1, 1, run="a", cost=COST)),
        ("OPEN", open_body(2, run="b")),
        ("RELEASE", answer("RELEASE", 1, 1)),
    ]
    rewrite(path, chained(rows, key_of(path)))
    with pytest.raises(LedgerDamagedError, match="RELEASE cannot stand here"):
        open_ledger(path)


def test_a_fixed_schedule_holds_its_slots_and_no_other(tmp_path: Path) -> None:
    path = new_ledger(tmp_path, {**plan_of(4, 1), **SHARED})
    with open_ledger(path) as ledger:
        ledger.open_run(start_of("a", num_charges=3))
        ledger.release(ledger.charge(1), SHA256)
        ledger.release(ledger.charge(1, EVALUATION), SHA256)
        assert ledger.next_round == 2
        for slot in (EVALUATION, with_scale(1 << 21)):
            with pytest.raises(BudgetSpentError, match="planned charges"):
                ledger.charge(2 if slot.purpose == "update" else 1, slot)


def test_a_run_keeps_to_the_charges_of_its_own_plan(tmp_path: Path) -> None:
    path = new_ledger(tmp_path, adaptive_plan())
    with open_ledger(path) as ledger:
        ledger.open_run(start_of("a", num_charges=1))
        ledger.burn(ledger.charge(1), "crash")
        with pytest.raises(BudgetSpentError, match="plan of this run allows 1 charges"):
            ledger.charge(2)


@pytest.mark.parametrize(
    "term", [{"seeded": "yes"}, {"num_users": 99}, {"trust": "server"}, {"unit": "example"}]
)
def test_a_run_on_other_terms_is_refused(tmp_path: Path, term: dict[str, str | int]) -> None:
    from dataclasses import replace

    path = new_ledger(tmp_path, adaptive_plan())
    before = path.read_bytes()
    start = start_of()
    with open_ledger(path) as ledger, pytest.raises(PlanDiffersError, match=next(iter(term))):
        ledger.open_run(replace(start, terms={**start.terms, **term}))
    assert path.read_bytes() == before


def test_a_seeded_ledger_refuses_a_private_run(tmp_path: Path) -> None:
    path = new_ledger(tmp_path, {**adaptive_plan(), "seeded": "yes"})
    with open_ledger(path) as ledger, pytest.raises(PlanDiffersError, match="seeded = yes"):
        ledger.open_run(start_of())


# Costs


@pytest.mark.parametrize("share", ["0.5", "0.999999"])
def test_a_charge_that_says_less_than_it_costs_is_refused(tmp_path: Path, share: str) -> None:
    path = new_ledger(tmp_path, adaptive_plan())
    for cost, is_refused in ((COST, False), (repr(float(share) * float(COST)), True)):
        rows: list[tuple[str, Body]] = [
            ("PLAN", adaptive_plan()),
            ("OPEN", open_body(1)),
            ("CHARGE", charged_body(1, 1, cost=cost)),
        ]
        rewrite(path, chained(rows, key_of(path)))
        if is_refused:
            with pytest.raises(LedgerDamagedError, match="CHARGE cannot stand here"):
                Ledger.read(path)
        else:
            Ledger.read(path)


def test_a_cost_stays_above_the_divergence_also_in_its_tolerance() -> None:
    from feddp.common.privacy.accounting.renyi import renyi_divergence
    from feddp.common.privacy.ledger.budget import _TOLERANCE

    for slot in (SLOT, EVALUATION):
        true = float(renyi_divergence(slot.event, "add-or-remove-one", [ALPHA])[0])
        cost = repr(renyi_filter.cost(slot.event, ALPHA, "add-or-remove-one"))
        assert exact(cost) * _TOLERANCE > Fraction(true)


def test_discrete_noise_has_its_own_share_of_delta() -> None:
    budget = FilterBudget(adaptive_plan())
    assert budget.shortage(with_scale(1 << 20), 5) is None
    assert budget.shortage(with_scale(16), 1) is not None
    assert not budget.accepts(with_scale(16), COST)


@pytest.mark.parametrize(
    "change",
    [
        {"budget": "100.0"},
        {"budget": "-1.0"},
        {"budget": "nan"},
        {"budget": "inf"},
        {"budget": "1"},
        {"budget": ""},
        {"alpha": "4"},
        {"alpha": "nan"},
        {"target_delta": "9.9e-06"},
        {"mode": "fixed-schedule"},
        {"schedule": plan_of()["schedule"]},
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(tmp_path: Path, change: Body) -> None:
    with pytest.raises(LedgerDamagedError):
        new_ledger(tmp_path, {**adaptive_plan(), **change})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"count": -1},
        {"count": True},
        {"count": "5"},
        {"dimension": 0},
        {"num_events": 6},
        {"num_events": 0},
    ],
)
def test_a_schedule_with_a_wrong_number_is_refused(change: Body) -> None:
    plan = plan_of()
    with pytest.raises(ValueError, match=r"\w"):
        ScheduleBudget({**plan, "schedule": [{**plan["schedule"][0], **change}]})


def test_a_slot_stands_once_in_a_schedule() -> None:
    plan = plan_of()
    with pytest.raises(ValueError, match="twice"):
        ScheduleBudget({**plan, "schedule": plan["schedule"] * 2})


@pytest.mark.parametrize("text", ["1", "1e3", " 1.0", "-1.0", "nan", "inf", "0.10", ""])
def test_only_the_exact_form_of_a_number_is_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        exact(text)


def test_runs_cannot_share_an_event_of_correlated_noise() -> None:
    plan = plan_of()
    correlated = [{**plan["schedule"][0], "num_events": 1}]
    ScheduleBudget({**plan, "schedule": correlated})  # one run may
    with pytest.raises(ValueError, match="cannot share"):
        ScheduleBudget({**plan, **SHARED, "schedule": correlated})
