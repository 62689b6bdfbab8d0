"""The budget of a population: what its PLAN row still allows, in exact arithmetic.

`fixed-schedule`: the plan lists the charges of all runs, and a charge takes a slot of it.
`adaptive`: a charge has a cost at one Renyi order that the plan fixed, and the costs stay within
its budget.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from feddp.common.privacy.accounting import renyi_filter
from feddp.common.privacy.ledger.charge_terms import Slot, schedule_from_body
from feddp.common.privacy.mechanism.events import Event

FIXED_SCHEDULE, ADAPTIVE = "fixed-schedule", "adaptive"
# Another machine may compute a cost that is larger in its last digits, and it must still verify:
# `renyi_filter.cost` adds ten times as much to the divergence.
_TOLERANCE = 1 - Fraction(1, 10**10)
_MAX_EXPONENT = 700.0


@dataclass(frozen=True)
class Shortage:
    """Why charges do not fit, with numbers of one kind.

    Attributes:
      requested: by the charges.
      remaining: in the budget.
      measure: what is counted.
    """

    requested: Fraction
    remaining: Fraction
    measure: str

    def __str__(self) -> str:
        """The wording of the refusal."""
        parts = (self.requested, self.remaining, self.requested - self.remaining)
        requested, remaining, difference = (f"{float(part):.6g}" for part in parts)
        return (
            f"Requested {requested}, remaining {remaining}, difference {difference} "
            f"({self.measure})."
        )


class Budget(Protocol):
    """What is left. `shortage` and `accepts` change nothing; costs are exact decimals."""

    def cost(self, slot: Slot) -> str:
        """The cost that the CHARGE row of a slot states."""

    def shortage(self, slot: Slot, count: int, *, kept: int = 0) -> Shortage | None:
        """Why `count` charges of a slot do not fit beside `kept` others; None when they do."""

    def accepts(self, slot: Slot, cost: str, *, kept: int = 0) -> bool:
        """Whether a charge of this cost may follow."""

    def take(self, slot: Slot, cost: str) -> None:
        """Spends it."""


def budget_of(plan: Mapping[str, Any]) -> Budget:
    """The whole budget of a PLAN row.

    Raises:
      ValueError: the row's numbers contradict each other.
    """
    return ScheduleBudget(plan) if plan["mode"] == FIXED_SCHEDULE else FilterBudget(plan)


class ScheduleBudget:
    """The slots of a fixed schedule.

    **Guarantee:** charges of each slot never exceed its planned count, so that their composition
    is at most the planned one.
    """

    def __init__(self, plan: Mapping[str, Any]):
        if plan["alpha"] or plan["budget"]:
            raise ValueError("a fixed schedule has no filter")
        schedule = schedule_from_body(plan["schedule"])
        is_shared = plan["scope"] == "population"
        if is_shared and any(planned.num_events != planned.count for planned in schedule):
            raise ValueError("several runs cannot share an event of correlated noise")
        self._left = {planned.slot: planned.count for planned in schedule}

    def cost(self, slot: Slot) -> str:
        """No cost, because slots are counted."""
        return ""

    def shortage(self, slot: Slot, count: int, *, kept: int = 0) -> Shortage | None:
        """Charges beyond the slots that are left; a slot that was never planned has none."""
        left = max(0, self._left.get(slot, 0) - kept)
        if count <= left:
            return None
        return Shortage(Fraction(count), Fraction(left), f"planned charges of {slot.event}")

    def accepts(self, slot: Slot, cost: str, *, kept: int = 0) -> bool:
        """Whether a slot is left."""
        return cost == "" and self.shortage(slot, 1, kept=kept) is None

    def take(self, slot: Slot, cost: str) -> None:
        """Uses up one slot."""
        self._left[slot] -= 1


class FilterBudget:
    """A Renyi filter at one order, and a second one for the distance of discrete noise.

    **Guarantee:** the costs, rounded up, sum to at most the budget, rounded down: the released
    values are (target_epsilon, accounting_delta)-private under continuous noise, however later
    charges were chosen. The Kullback-Leibler divergences between discrete and rounded noise, which
    add up under adaptive choice as well, stay within target_delta - accounting_delta.

    **Edge cases:** a cost of exactly what is left is taken; the smallest decimal more is refused.

    Reference: Feldman & Zrnic 2021 (arXiv 2008.11193); `bridge_delta` for the distance.
    """

    def __init__(self, plan: Mapping[str, Any]):
        self._alpha, delta = float(plan["alpha"]), float(plan["accounting_delta"])
        self._epsilon, self._delta = float(plan["target_epsilon"]), float(plan["target_delta"])
        self._unit, self._relation = plan["unit"], plan["relation"]
        if plan["schedule"] or repr(self._alpha) != plan["alpha"] or not delta < self._delta:
            raise ValueError("a filter has an order, and no schedule")
        self._left = exact(plan["budget"])
        if self._left > exact(repr(renyi_filter.budget(self._epsilon, delta, self._alpha))):
            raise ValueError("the budget is above what epsilon and delta allow")
        self._distance_left = _distance_limit(self._epsilon, self._delta - delta)

    @property
    def remaining(self) -> Fraction:
        """Divergence at the order that is left: worth the same amount of epsilon."""
        return self._left

    def cost(self, slot: Slot) -> str:
        """The divergence at the fixed order, rounded up with a margin."""
        return repr(_renyi(slot.event, self._alpha, self._relation))

    def shortage(self, slot: Slot, count: int, *, kept: int = 0) -> Shortage | None:
        """At a fixed order a divergence is worth the same amount of epsilon."""
        each, distance = exact(self.cost(slot)), _distance(slot)
        left, distance_left = self._left - kept * each, self._distance_left - kept * distance
        if count * each > left:
            measure = f"epsilon, delta {self._delta:g}, {self._unit}"
            return Shortage(count * each, left, measure)
        if count * distance > distance_left:
            measure = "distance of discrete noise, for which a larger grid needs less"
            return Shortage(count * distance, distance_left, measure)
        return None

    def accepts(self, slot: Slot, cost: str, *, kept: int = 0) -> bool:
        """Refuses a cost below the recomputed one, and one above what is left."""
        each, distance = exact(self.cost(slot)), _distance(slot)
        left, distance_left = self._left - kept * each, self._distance_left - kept * distance
        return each * _TOLERANCE <= exact(cost) <= left and distance <= distance_left

    def take(self, slot: Slot, cost: str) -> None:
        """Subtracts the cost from what is left."""
        self._left -= exact(cost)
        self._distance_left -= _distance(slot)


def exact(text: str) -> Fraction:
    """The number of a decimal text that a finite float prints as.

    Raises:
      ValueError: any other text.
    """
    number = float(text)
    if repr(number) != text or not 0 <= number < math.inf:
        raise ValueError("not the exact form of a number")
    return Fraction(text)


@functools.lru_cache(maxsize=256)
def _renyi(event: Event, alpha: float, relation: str) -> float:
    return renyi_filter.cost(event, alpha, relation)


def _distance(slot: Slot) -> Fraction:
    """576 times the KL divergence between discrete and rounded noise, at most."""
    return Fraction(slot.dimension, slot.noise_scale**4)


def _distance_limit(epsilon: float, delta: float) -> Fraction:
    """The sum of distances that costs at most `delta` at this epsilon: see `bridge_delta`."""
    if epsilon > _MAX_EXPONENT:
        return Fraction(0)
    share = delta / (1 + math.exp(epsilon)) / (1 + 1e-6)
    return 1152 * Fraction(share) ** 2
