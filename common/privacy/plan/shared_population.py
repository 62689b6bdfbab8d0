"""A population's promise: the PLAN row of its ledger, and epsilon recomputed from the rows."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting import renyi_filter
from feddp.common.privacy.accounting.bridge import bridge_cost
from feddp.common.privacy.accounting.epsilon import PLD, RDP, epsilon
from feddp.common.privacy.ledger.budget import ADAPTIVE, FIXED_SCHEDULE, FilterBudget, exact
from feddp.common.privacy.ledger.charge_terms import (
    Planned,
    schedule_from_body,
    schedule_to_body,
    slot_from_body,
)
from feddp.common.privacy.ledger.history import SCHEMA, Body
from feddp.common.privacy.plan.schedule import ACCOUNTING_SHARE
from feddp.common.privacy.plan.statement import accountant_version


def population_row(
    *,
    population: str,
    mode: str,
    terms: Mapping[str, str | int],
    target_epsilon: float,
    target_delta: float,
    schedule: Sequence[Planned],
) -> Body:
    """The PLAN row of a population that several runs share.

    Args:
      population: name of the users.
      mode: "fixed-schedule": the schedule is all that runs may ever charge; "adaptive": it is
        what is expected, and chooses the order of the filter.
      terms: unit, relation, trust, seeded, num_users.
      target_epsilon: of everything ever released.
      target_delta: of the same.
      schedule: the charges of all runs.

    Raises:
      ConfigError: the schedule costs more than the target, or does not fit the filter.
    """
    if any(entry.num_events != entry.count for entry in schedule):
        raise ConfigError(
            [
                "privacy.mechanism: a run with correlated noise is one event, and cannot be "
                "shared. Give it a ledger of its own: leave privacy.population empty."
            ]
        )
    delta = ACCOUNTING_SHARE * target_delta
    row: dict[str, Any] = {
        "schema": SCHEMA,
        "population": population,
        "scope": "population",
        **terms,
        "mode": mode,
        "accountant": f"pld {accountant_version()}",
        "target_epsilon": repr(target_epsilon),
        "target_delta": repr(target_delta),
        "accounting_delta": repr(delta),
        "schedule": schedule_to_body(schedule),
        "alpha": "",
        "budget": "",
        "plan_sha256": "",
    }
    if mode == FIXED_SCHEDULE:
        _check_schedule(row, target_epsilon)
        return row
    planned = [(entry.slot.event, entry.count) for entry in schedule]
    order = renyi_filter.choose_order(planned, target_epsilon, delta, str(terms["relation"]))
    total = renyi_filter.budget(target_epsilon, delta, order)
    accountant = f"rdp filter {accountant_version()}"
    filtered = {"alpha": repr(order), "budget": repr(total), "accountant": accountant}
    row |= {**filtered, "schedule": []}
    budget = FilterBudget(row)
    for entry in schedule:
        if shortage := budget.shortage(entry.slot, entry.count):
            raise ConfigError(
                [
                    f"--target-epsilon = {target_epsilon:g}: the adaptive filter does not hold the "
                    f"planned runs. {shortage} Raise it, or plan fewer or less costly rounds."
                ]
            )
        for _ in range(entry.count):
            budget.take(entry.slot, budget.cost(entry.slot))
    return row


def planned_epsilon(plan: Body) -> float:
    """Upper bound over everything that a PLAN row allows, at its target delta.

    **Guarantee:** at most target_epsilon in adaptive mode; in fixed-schedule mode the PLD bound of
    the whole schedule at accounting_delta and what the discrete noise adds.
    """
    if plan["mode"] == ADAPTIVE:
        return float(plan["target_epsilon"])
    return schedule_epsilon(plan, schedule_from_body(plan["schedule"]))


def shared_promise(plan: Body) -> dict[str, str | float] | None:
    """What a run on a shared ledger promises for all runs on it together; None on its own ledger.

    Returns:
      population, mode, epsilon (upper bound over everything that the PLAN row allows) and delta.
    """
    if plan["scope"] != "population":
        return None
    return {
        "population": plan["population"],
        "mode": plan["mode"],
        "epsilon": planned_epsilon(plan),
        "delta": float(plan["target_delta"]),
    }


def spent_epsilon(plan: Body, charges: Sequence[Body]) -> float:
    """A meter: what the charges so far cost; the promise is `planned_epsilon`."""
    if not charges:
        return 0.0
    if plan["mode"] == FIXED_SCHEDULE:
        counts = Counter(slot_from_body(charge) for charge in charges)
        planned = {entry.slot: entry for entry in schedule_from_body(plan["schedule"])}
        return schedule_epsilon(
            plan, [_begun(planned[slot], count) for slot, count in counts.items()]
        )
    spent = sum((exact(charge["cost"]) for charge in charges), Fraction(0))
    target, total = Fraction(plan["target_epsilon"]), exact(plan["budget"])
    return float(target - total + spent)  # an order's divergence converts to equal epsilon


def _begun(planned: Planned, count: int) -> Planned:
    """`count` charges of a slot at their costliest: burned attempts may all be one user's turn."""
    return Planned(planned.slot, count, min(count, planned.num_events))


def schedule_epsilon(plan: Body, schedule: Sequence[Planned]) -> float:
    """Upper bound of a schedule under a PLAN row's delta and relation, discrete noise included."""
    delta, relation = float(plan["accounting_delta"]), str(plan["relation"])
    accountant = RDP if plan["accountant"].startswith(f"{RDP} ") else PLD
    spent = _continuous_epsilon(tuple(schedule), delta, relation, accountant)
    added = 0.0
    for entry in schedule:
        added += bridge_cost(
            num_charges=entry.count,
            dimension=entry.slot.dimension,
            noise_scale=entry.slot.noise_scale,
            epsilon=spent,
            delta=float(plan["target_delta"]),
        )[0]
    return spent + added


@functools.lru_cache(maxsize=64)
def _continuous_epsilon(
    schedule: tuple[Planned, ...], delta: float, relation: str, accountant: str
) -> float:
    charges = [(entry.slot.event, entry.num_events) for entry in schedule]
    return epsilon(charges, delta=delta, relation=relation, accountant=accountant)


def _check_schedule(row: Body, target_epsilon: float) -> None:
    """Refuses a schedule that costs more than the target, in epsilon or in delta."""
    spent, left = planned_epsilon(row), float(row["target_delta"]) - float(row["accounting_delta"])
    if spent > target_epsilon:
        raise ConfigError(
            [
                f"--target-epsilon = {target_epsilon:g}: the schedule of all runs costs epsilon "
                f"{spent:.4f}. Lower privacy.target-epsilon of the runs, plan fewer of them, or "
                "raise it."
            ]
        )
    added = 0.0
    for entry in schedule_from_body(row["schedule"]):
        added += bridge_cost(
            num_charges=entry.count,
            dimension=entry.slot.dimension,
            noise_scale=entry.slot.noise_scale,
            epsilon=spent,
            delta=float(row["target_delta"]),
        )[1]
    if added > left:
        raise ConfigError(
            [
                f"The discrete noise of all runs costs delta {added:.3g}, and a hundredth of the "
                f"target, {left:.3g}, is kept for it. Plan fewer runs, or a larger --target-delta."
            ]
        )
