"""Renyi divergences: what the adaptive filter adds up; elsewhere a looser cross-check."""

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np
from dp_accounting.rdp import RdpAccountant
from numpy.typing import NDArray

from feddp.common.errors import ConfigError
from feddp.common.privacy.mechanism.events import (
    RELATIONS,
    REPLACE_ONE,
    Charges,
    Event,
    FixedSizeGaussianEvent,
    GaussianEvent,
    PoissonGaussianEvent,
)

ORDERS: tuple[float, ...] = (
    *(1 + tenths / 10 for tenths in range(1, 100)),
    *map(float, range(11, 64)),
    128.0,
    256.0,
    512.0,
    1024.0,
)


def renyi_divergence(
    event: Event, relation: str, orders: Sequence[float] = ORDERS
) -> NDArray[np.float64]:
    """Renyi divergence of one charge at each order; infinite where it does not converge.

    Args:
      event: what is charged.
      relation: one of `events.RELATIONS`.
      orders: each above 1.01.

    Returns:
      float64, shape (len(orders),).

    Raises:
      ConfigError: no bound is known for this event and relation.

    Reference: Mironov 2017 (arXiv 1702.07476); Mironov, Talwar & Zhang 2019 (1908.10530);
    Wang, Balle & Kasiviswanathan 2019 (1808.00087) for fixed-size samples.

    >>> renyi_divergence(GaussianEvent(2.0), "zero-out", [8.0])
    array([1.])
    """
    _check_renyi(event, relation)
    if isinstance(event, GaussianEvent) and relation == REPLACE_ONE:
        # The sum moves by up to 2 C; this accountant wants noise over that.
        event = GaussianEvent(event.noise_multiplier / 2)
    accountant = RdpAccountant(orders, RELATIONS[relation])
    with _quiet():
        accountant.compose(event.to_dp_event())
    divergence: NDArray[np.float64] = accountant.rdp
    return divergence


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without a warning per order that does not converge under little noise: it is left out."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def epsilon_rdp(charges: Charges, delta: float, relation: str) -> float:
    """Epsilon of a schedule by Renyi divergences at the best order: a looser cross-check.

    Of plans with cohorts of fixed size that were made before `fixed_size_pld` it is the
    certificate.

    Args:
      charges: each event and how often it is charged.
      delta: in (0, 1).
      relation: one of `events.RELATIONS`.

    Raises:
      ConfigError: no Renyi bound is known for an event under this relation.

    Reference: Mironov 2017 (arXiv 1702.07476), theorem 1 (composition).
    """
    total = np.zeros(len(ORDERS))
    for event, count in charges:
        total += count * renyi_divergence(event, relation)
    return float(
        min(to_epsilon(rho, order, delta) for rho, order in zip(total, ORDERS, strict=True))
    )


def to_epsilon(divergence: float, order: float, delta: float) -> float:
    """Epsilon at `delta` of a Renyi divergence at one order; never below 0.

    Args:
      divergence: of all charges together, in nats.
      order: above 1.
      delta: in (0, 1).

    Reference: Canonne, Kamath & Steinke 2020 (arXiv 2004.00010), proposition 12.

    >>> round(to_epsilon(1.0, 8.3, 1e-6), 8)
    2.47425651
    """
    return max(0.0, divergence + conversion(order, delta))


def conversion(order: float, delta: float) -> float:
    """What `to_epsilon` adds to a divergence at this order."""
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


def _check_renyi(event: Event, relation: str) -> None:
    match event:
        case GaussianEvent():
            return
        case PoissonGaussianEvent(num_coins=1) if relation != REPLACE_ONE:
            return
        case FixedSizeGaussianEvent() if relation == REPLACE_ONE:
            return
    raise ConfigError([f"No Renyi bound is known for {event} under {relation}."])
