"""The adaptive filter: one order and one budget fixed in the plan, one cost per charge.

With a fixed schedule the promise is the epsilon of the whole plan (`accounting.epsilon`). Where the
noise or the number of rounds may depend on releases, that is no longer valid; Renyi divergences at
one order, fixed beforehand, still add up. Choosing the best order afterwards would not be valid.
"""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction

import numpy as np

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.renyi import ORDERS, conversion, renyi_divergence
from feddp.common.privacy.mechanism.events import Charges, Event

_DIGITS = 12
_RELATIVE, _ABSOLUTE = 1e-9, 1e-11  # far above the round-off of one divergence


def choose_order(charges: Charges, epsilon: float, delta: float, relation: str) -> float:
    """The order whose budget holds the planned schedule most often.

    Args:
      charges: the planned schedule.
      epsilon: of the promise.
      delta: of the promise.
      relation: one of `events.RELATIONS`.

    Raises:
      ConfigError: no order leaves a budget.
    """
    planned = np.zeros(len(ORDERS))
    for event, count in charges:
        planned += count * renyi_divergence(event, relation)
    budgets = np.array([_exact_budget(epsilon, delta, order) for order in ORDERS])
    best = int(np.argmax(budgets / planned))
    if budgets[best] <= 0:
        raise ConfigError(
            [
                f"--target-epsilon = {epsilon:g}: too small for the adaptive filter at delta "
                f"{delta:g}. Raise it, or take --filter fixed-schedule."
            ]
        )
    return ORDERS[best]


def budget(epsilon: float, delta: float, order: float) -> float:
    """B: the divergence at `order` that may be spent in all; rounded down.

    **Guarantee:** a run that stops before the sum of its costs passes B is (epsilon, delta)-
    private, however its charges depend on earlier releases, if `order` was fixed before the first.

    Args:
      epsilon: of the promise.
      delta: of the promise, in (0, 1).
      order: alpha > 1.

    Reference: Feldman & Zrnic 2021 (arXiv 2008.11193); Lecuyer 2021 (2103.01379).

    >>> budget(2.0, 1e-6, 8.3)
    0.525743489499
    """
    exact = _exact_budget(epsilon, delta, order)
    return _to_digits(exact - 10.0**-_DIGITS * (epsilon + abs(epsilon - exact)), ROUND_FLOOR)


def cost(event: Event, order: float, relation: str) -> float:
    """The divergence of one charge at `order`; rounded up, 12 digits, so `repr` is its exact form.

    Args:
      event: what is charged.
      order: alpha > 1, the filter's.
      relation: one of `events.RELATIONS`.

    Raises:
      ConfigError: no Renyi bound is known for this event and relation, or it is infinite.
    """
    divergence = float(renyi_divergence(event, relation, [order])[0])
    if not math.isfinite(divergence):
        raise ConfigError([f"No Renyi bound is known for {event} at order {order:g}."])
    return _to_digits(divergence * (1 + _RELATIVE) + _ABSOLUTE, ROUND_CEILING)


def _exact_budget(epsilon: float, delta: float, order: float) -> float:
    return epsilon - conversion(order, delta)


def _to_digits(number: float | Fraction, rounding: str) -> float:
    """The next decimal of 12 digits; it and the float name each other."""
    top, bottom = Fraction(number).as_integer_ratio()
    return float(Context(prec=_DIGITS, rounding=rounding).divide(Decimal(top), Decimal(bottom)))
