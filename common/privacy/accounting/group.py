"""What a promise for one unit means for several: a user's examples, or related users."""

import numpy as np

from feddp.common.privacy.accounting.epsilon import FINE, ROUND_UP, compose
from feddp.common.privacy.mechanism.events import Charges

_LEAST_DELTA = 1e-14  # below it, the accountant's own cuts are no longer negligible
_POINTS = 4000


def black_box_group_epsilon(
    charges: Charges, size: int, *, delta: float, relation: str, interval: float = FINE
) -> float:
    """Upper bound from the promise for one unit alone: k e at delta_e (e^(k e) - 1) / (e^e - 1).

    The smallest over e; infinity where it needs a delta that the accountant does not resolve.

    Args:
      charges: what one unit is charged.
      size: k >= 1, units of the group.
      delta: for the group, in (0, 1).
      relation: one of `events.RELATIONS`.
      interval: discretisation of the privacy loss.

    Reference: Vadhan 2017, lemma 2.2.
    """
    composed = compose(charges, relation=relation, interval=interval)
    least = float(composed.get_epsilon_for_delta(delta))
    most = float(composed.get_epsilon_for_delta(_LEAST_DELTA))
    if not np.isfinite(most):
        return np.inf
    points = np.linspace(max(least, 1e-6), most, _POINTS)
    deltas = np.array(composed.get_delta_for_epsilon(points))
    # log of (e^(k e) - 1) / (e^e - 1), without overflow
    growth = (size - 1) * points + np.log1p(-np.exp(-size * points)) - np.log1p(-np.exp(-points))
    allowed = np.log(deltas) + growth <= np.log(delta)
    return float(size * points[np.argmax(allowed)] * ROUND_UP) if allowed.any() else np.inf
