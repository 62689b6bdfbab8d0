"""Epsilon of any schedule of events, and the curve of epsilon over its charges.

The certificate is the privacy loss distribution (PLD) of dp-accounting, composed over a fixed
schedule. One charge's PLD is built once and composed with itself, which costs the same for ten
rounds as for ten thousand. Everything is rounded toward privacy. Plans with cohorts of fixed size
that were made under Renyi differential privacy keep their accountant.
"""

import functools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
from dp_accounting.pld import privacy_loss_distribution as pld
from numpy.typing import NDArray

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.mixture import fixed_size_pld, mixture_pld
from feddp.common.privacy.accounting.renyi import ORDERS, conversion, epsilon_rdp, renyi_divergence
from feddp.common.privacy.mechanism.events import (
    RELATIONS,
    REPLACE_ONE,
    Charges,
    Event,
    FixedSizeGaussianEvent,
    GaussianEvent,
    PoissonGaussianEvent,
)

FINE, COARSE = 1e-4, 1e-3  # discretisation of the privacy loss; coarser is larger, never smaller
PLD, RDP = "pld", "rdp"
ROUND_UP = 1 + 1e-6  # far above the round-off of the Fourier transforms for any delta >= 1e-12
_MAX_CURVE_POINTS = 256


def accountant_of(charges: Charges, relation: str) -> str:
    """Which accountant certifies these charges in a new plan: "pld".

    | event | add-or-remove-one, zero-out | replace-one |
    |---|---|---|
    | Poisson Gaussian, one coin | pld | pld |
    | Poisson Gaussian, several coins | pld | refused |
    | Gaussian | pld | pld |
    | fixed-size Gaussian | refused | pld |

    Raises:
      ConfigError: no accountant covers an event under this relation.
    """
    for event, _ in charges:
        _check_is_covered(event, relation)
    return PLD


def _check_is_covered(event: Event, relation: str) -> None:
    replaces = relation == REPLACE_ONE
    match event:
        case FixedSizeGaussianEvent() if replaces:
            return
        case GaussianEvent():
            return
        case PoissonGaussianEvent(num_coins=coins) if coins == 1 or not replaces:
            return
    raise ConfigError([f"No accountant covers {event} under {relation}."])


def epsilon(
    charges: Charges,
    *,
    delta: float,
    relation: str,
    interval: float = FINE,
    accountant: str = PLD,
) -> float:
    """Upper bound of epsilon for a fixed schedule.

    **Guarantee:** the schedule is (epsilon, delta)-private for neighbours by `relation`, in both
    directions. Rounded up by a relative 1e-6. The events may come in any order, and whatever is
    not in them (clipping norms, optimizer, masks) may depend on earlier releases.

    An odometer over several runs on one population is the epsilon of their charges together.

    **Edge cases:**

    | arguments | result |
    |---|---|
    | no charges | 0 |
    | delta below about 1e-15 | infinity |

    Args:
      charges: each event and how often it is charged.
      delta: in (0, 1).
      relation: one of `events.RELATIONS`.
      interval: discretisation of the privacy loss; of no effect under RDP.
      accountant: RDP only for a plan that was made under it.

    Raises:
      ConfigError: no accountant covers these charges; see `accountant_of`.

    Reference: Koskela et al. 2020; Doroshenko et al. 2022 (connect-the-dots, arXiv 2207.04380);
    Zhu, Dong & Wang 2022 (2106.08567) for composition.

    >>> from feddp.common.privacy.mechanism.events import ADD_OR_REMOVE_ONE
    >>> rounds = [(PoissonGaussianEvent(0.01, 1.0), 1000)]
    >>> round(epsilon(rounds, delta=1e-6, relation=ADD_OR_REMOVE_ONE), 4)
    2.1245
    """
    charged = _merged(charges)
    if accountant == RDP:
        return epsilon_rdp(charged, delta, relation) * ROUND_UP
    if not charged:
        return 0.0
    return _read(compose(charged, relation=relation, interval=interval), delta)


def compose(
    charges: Charges, *, relation: str, interval: float = FINE
) -> pld.PrivacyLossDistribution:
    """The privacy loss distribution of at least one charge; both directions.

    Args:
      charges: each event and how often it is charged.
      relation: one of `events.RELATIONS`.
      interval: discretisation of the privacy loss, in units of epsilon.

    Raises:
      ConfigError: see `accountant_of`.
    """
    accountant_of(charges, relation)
    parts = [_self_composed(event, count, relation, interval) for event, count in charges]
    return functools.reduce(lambda left, right: left.compose(right), parts)


def epsilon_curve(
    event: Event, num_charges: int, *, delta: float, relation: str, accountant: str = PLD
) -> NDArray[np.float64]:
    """Epsilon after 1, 2, ..., num_charges charges of one event, in one pass.

    **Guarantee:** every value is an upper bound at its number of charges, none is below the one
    before it, and the last one is `epsilon`. A meter: the promise of a fixed schedule is its last
    value, also after an early stop.

    **Edge cases:** the inner values use a coarser grid, so they are slightly larger; beyond 256
    charges they rise in at most 256 equal strides, each at the bound of its end.

    Args:
      event: of every charge.
      num_charges: at least 0.
      delta: in (0, 1).
      relation: one of `events.RELATIONS`.
      accountant: RDP only for a plan that was made under it.

    Returns:
      float64, shape (num_charges,), non-decreasing.

    Raises:
      ConfigError: no accountant covers the event; see `accountant_of`.
    """
    if num_charges == 0:
        return np.zeros(0)
    if accountant == RDP:
        return _rdp_curve(event, num_charges, delta, relation)
    stride = math.ceil(num_charges / _MAX_CURVE_POINTS)
    one = compose([(event, stride)], relation=relation, interval=COARSE)
    composed, values = one, [_read(one, delta)]
    while len(values) * stride < num_charges:
        composed = composed.compose(one)
        values.append(_read(composed, delta))
    last = epsilon([(event, num_charges)], delta=delta, relation=relation)
    inner = np.repeat(np.maximum.accumulate(values), stride)[:num_charges]
    # Fewer charges never cost more, so the last value bounds them all.
    curve: NDArray[np.float64] = np.minimum(inner, last)
    curve[-1] = last
    return curve


def _rdp_curve(event: Event, num_charges: int, delta: float, relation: str) -> NDArray[np.float64]:
    one = renyi_divergence(event, relation)
    added = np.array([conversion(order, delta) for order in ORDERS])
    counts = np.arange(1, num_charges + 1)
    best: NDArray[np.float64] = np.min(counts[:, None] * one + added, axis=1)
    return np.maximum(best, 0) * ROUND_UP


def _merged(charges: Charges) -> list[tuple[Event, int]]:
    """Every event once; the order does not matter to a fixed schedule."""
    counts: Counter[Event] = Counter()
    for event, count in charges:
        counts[event] += count
    return [(event, count) for event, count in counts.items() if count > 0]


def _read(composed: pld.PrivacyLossDistribution, delta: float) -> float:
    """The larger epsilon of both directions, rounded up."""
    return float(composed.get_epsilon_for_delta(delta)) * ROUND_UP


def _self_composed(
    event: Event, count: int, relation: str, interval: float
) -> pld.PrivacyLossDistribution:
    if isinstance(event, GaussianEvent):
        # Independent Gaussian releases are one of their common precision, exactly.
        return _single(GaussianEvent(event.noise_multiplier / math.sqrt(count)), relation, interval)
    if isinstance(event, PoissonGaussianEvent) and event.num_releases > 1:
        count *= event.num_releases
        event = replace(event, num_releases=1)
    return _single(event, relation, interval).self_compose(count)


@functools.lru_cache(maxsize=16)
def _single(event: Event, relation: str, interval: float) -> pld.PrivacyLossDistribution:
    if isinstance(event, PoissonGaussianEvent) and event.num_coins > 1:
        mixture = event.to_dp_event()
        return mixture_pld(
            mixture.standard_deviation, mixture.sensitivities, mixture.sampling_probs, interval
        )
    if isinstance(event, FixedSizeGaussianEvent):
        share = event.cohort_size / event.num_users
        return fixed_size_pld(event.noise_multiplier, share, interval)
    probability = event.sampling_probability if isinstance(event, PoissonGaussianEvent) else 1.0
    return pld.from_gaussian_mechanism(
        event.noise_multiplier,
        sampling_prob=probability,
        value_discretization_interval=interval,
        neighboring_relation=RELATIONS[relation],
    )
