"""Events: what one charge costs, in a closed schema, as functions of public numbers alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import dp_accounting
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
from scipy import stats

Body = Mapping[str, str | int]

ADD_OR_REMOVE_ONE = "add-or-remove-one"
ZERO_OUT = "zero-out"
REPLACE_ONE = "replace-one"
RELATIONS: Mapping[str, dp_accounting.NeighboringRelation] = {
    ADD_OR_REMOVE_ONE: dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    ZERO_OUT: dp_accounting.NeighboringRelation.REPLACE_SPECIAL,
    REPLACE_ONE: dp_accounting.NeighboringRelation.REPLACE_ONE,
}


_NEGLIGIBLE = 1e-30  # against the 1e-15 that one composition may cut


@dataclass(frozen=True)
class PoissonGaussianEvent:
    """Independent coins decide who takes part; noise of z C is added to the sum.

    A user may have several coins: one per node that holds the user's data, or one per example
    where examples are drawn. Each success adds a vector of norm at most C. Where every node adds
    the whole noise to its own sum, one charge is as many releases as nodes may hold a user, each
    with coins and noise of its own: given what was released before, they are independent, so they
    compose like charges one after the other.

    Attributes:
      sampling_probability: q of one coin, in (0, 1].
      noise_multiplier: z > 0.
      num_coins: most coins of one user in one release; 1 is plain user-level sampling.
      num_releases: most releases of one charge that a user's coins may enter.

    Reference: Charles et al. 2024 (arXiv 2407.07737), Choquette-Choo et al. 2023 (2310.15526).
    """

    sampling_probability: float
    noise_multiplier: float
    num_coins: int = 1
    num_releases: int = 1

    def to_dp_event(self) -> dp_accounting.DpEvent:
        """A Poisson-sampled Gaussian, or a mixture of Gaussians with Binomial(num_coins, q)."""
        if self.num_coins == 1:
            release: dp_accounting.DpEvent = dp_accounting.PoissonSampledDpEvent(
                self.sampling_probability, dp_accounting.GaussianDpEvent(self.noise_multiplier)
            )
        else:
            counts, weights = _binomial(self.num_coins, self.sampling_probability)
            release = MixtureOfGaussiansDpEvent(self.noise_multiplier, counts, weights)
        if self.num_releases == 1:
            return release
        return dp_accounting.SelfComposedDpEvent(release, self.num_releases)


def _binomial(num_coins: int, probability: float) -> tuple[list[int], list[float]]:
    """How many of a user's coins succeed, with the probability of each count.

    The largest counts, of total probability below 1e-30, are merged into the largest of them:
    counted as worse than they are, never dropped.
    """
    law = stats.binom(num_coins, probability)
    counts = list(range(num_coins + 1))
    last = next((count for count in counts if law.sf(count) < _NEGLIGIBLE), num_coins)
    weights = [float(weight) for weight in law.pmf(counts[: last + 1])]
    if last < num_coins:
        return [*counts[: last + 1], num_coins], [*weights, float(law.sf(last))]
    return counts, weights


@dataclass(frozen=True)
class FixedSizeGaussianEvent:
    """Exactly `cohort_size` of `num_users`, without replacement; replace-one.

    Replacing a user moves the sum by up to 2 C, so the Gaussian's multiplier is z / 2.
    """

    num_users: int
    cohort_size: int
    noise_multiplier: float

    def to_dp_event(self) -> dp_accounting.DpEvent:
        """Sampled without replacement, with half the noise multiplier."""
        return dp_accounting.SampledWithoutReplacementDpEvent(
            self.num_users,
            self.cohort_size,
            dp_accounting.GaussianDpEvent(self.noise_multiplier / 2),
        )


@dataclass(frozen=True)
class GaussianEvent:
    """A Gaussian release without amplification; also a whole run with correlated noise.

    Attributes:
      noise_multiplier: noise standard deviation over the sensitivity of what is released.
    """

    noise_multiplier: float

    def to_dp_event(self) -> dp_accounting.DpEvent:
        """A Gaussian."""
        return dp_accounting.GaussianDpEvent(self.noise_multiplier)


Event = PoissonGaussianEvent | FixedSizeGaussianEvent | GaussianEvent
Charges = Sequence[tuple[Event, int]]  # each event with how often it is charged

KINDS: Mapping[str, type[Event]] = {
    "poisson-gaussian": PoissonGaussianEvent,
    "fixed-size-gaussian": FixedSizeGaussianEvent,
    "gaussian": GaussianEvent,
}


def to_body(event: Event) -> Body:
    """Kind and numbers as texts and integers: floats as their shortest exact decimals.

    A single release per charge is not written out: events had no such number once.

    >>> to_body(GaussianEvent(2.5))
    {'event': 'gaussian', 'noise_multiplier': '2.5'}
    """
    kind = next(kind for kind, made in KINDS.items() if type(event) is made)
    numbers = {k: repr(v) if isinstance(v, float) else v for k, v in asdict(event).items()}
    if numbers.get("num_releases") == 1:
        del numbers["num_releases"]
    return {"event": kind, **numbers}


def from_body(body: Body) -> Event:
    """Reads `to_body` back.

    Raises:
      ValueError: unknown kind, a field more or less, or a text that is not the exact decimal of a
        number in range.
    """
    made = KINDS.get(str(body.get("event")))
    if made is None:
        raise ValueError("unknown kind of event")
    try:
        event = made(
            **{k: float(v) if type(v) is str else v for k, v in body.items() if k != "event"}  # type: ignore[arg-type]
        )
    except TypeError as error:
        raise ValueError("wrong fields for this kind of event") from error
    if to_body(event) != body or not _is_in_range(event):
        raise ValueError("numbers out of range or not in their exact form")
    return event


def _is_in_range(event: Event) -> bool:
    multiplier = event.noise_multiplier
    if type(multiplier) is not float or not 0 < multiplier < float("inf"):
        return False
    match event:
        case PoissonGaussianEvent(q, _, num_coins, num_releases):
            counts = (num_coins, num_releases)
            is_counted = all(type(count) is int and count >= 1 for count in counts)
            return type(q) is float and 0 < q <= 1 and is_counted
        case FixedSizeGaussianEvent(num_users, cohort_size, _):
            return type(cohort_size) is int and 1 <= cohort_size <= num_users
        case GaussianEvent():
            return True
