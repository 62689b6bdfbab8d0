"""Plans from numbers in one level; whatever is not named is a default."""

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

from feddp.common.privacy.mechanism.cohorts import Population, declare_population
from feddp.common.privacy.mechanism.mechanisms import MECHANISMS
from feddp.common.privacy.plan.plan import PrivacyPlan, make_plan
from feddp.common.privacy.plan.request import Request, Trust

DEFAULTS: dict[str, Any] = {
    "unit": "user",
    "sampling_unit": "user",
    "mechanism": "poisson",
    "num_examples": None,
    "max_examples_per_user": None,
    "max_nodes_per_user": 1,
    "seed": None,
    "details": {},
}


def flat_plan(**numbers: Any) -> PrivacyPlan:
    """`make_plan` of the parts that these numbers belong to; `trust` is the trust model.

    `spare_attempts` makes a plan as it was before a burned attempt was its round.
    """
    left = DEFAULTS | numbers
    num_spare = left.pop("spare_attempts", 0)

    def taken(part: type) -> dict[str, Any]:
        return {item.name: left.pop(item.name) for item in fields(part) if item.name in left}

    trust, mechanism = left.pop("trust"), MECHANISMS[left.pop("mechanism")]
    plan = make_plan(
        Request(**taken(Request)),
        population=declare_population(**taken(Population)),
        mechanism=mechanism,
        trust=Trust(trust, **taken(Trust)),
        **left,
    )
    return of_before(plan, num_spare) if num_spare else plan


def of_before(plan: PrivacyPlan, num_spare: int) -> PrivacyPlan:
    """The plan with charges for spare attempts; its epsilon is computed anew."""
    older = changed(plan, num_charges=plan.num_rounds + num_spare, num_spare=num_spare)
    spent = older.schedule.spent(older.noise_multiplier)
    steps = older.noise.grid_steps
    added, delta = older.schedule.bridge(spent, math.ceil(older.noise_multiplier * steps))
    return changed(older, epsilon=spent + added, bridge_epsilon=added, bridge_delta=delta)


def changed(part: Any, **numbers: Any) -> Any:
    """The same part with other values of its fields, and of those of the parts in it."""
    found = {item.name: getattr(part, item.name) for item in fields(part)}
    made = {name: changed(value, **numbers) for name, value in found.items() if is_dataclass(value)}
    return replace(part, **made | {name: numbers[name] for name in found.keys() & numbers.keys()})
