"""PrivacyPlan: all that a run promises, derived from the target, each number with its reason."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.epsilon import epsilon_curve
from feddp.common.privacy.mechanism.correlated import CorrelatedGaussian
from feddp.common.privacy.mechanism.events import Charges, Event, from_body, to_body
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.quantile import QuantileClipping
from feddp.common.privacy.mechanism.sampling import Draw, FixedSizeSampler, PoissonSampler, Sampler
from feddp.common.privacy.plan.matrix_choice import (
    NoiseMatrix,
    choose_matrix,
    matrix_from_body,
    participation_rule,
)
from feddp.common.privacy.plan.noise_choice import Noise, choose_noise
from feddp.common.privacy.plan.schedule import (
    CORRELATED,
    EXAMPLE,
    FIXED_SIZE,
    NODE,
    POISSON,
    USER,
    Population,
    Schedule,
    drawing_problems,
    make_schedule,
)

_ONE_NORM = (
    'privacy.clipping = "quantile": correlated noise of privacy.mechanism = "{}" cancels under one '
    'norm alone. Set privacy.clipping = "fixed".'
)


@dataclass(frozen=True)
class PrivacyPlan:
    """What one run promises. Made before round 1, hashed into the ledger, never changed after.

    Attributes:
      unit: what epsilon protects, "user" or "example".
      sampling_unit: what is drawn and clipped, "user" or "example".
      relation: between neighbouring data sets; one of `events.RELATIONS`.
      mechanism_name: who takes part and which noise; see `schedule.MECHANISM_RELATIONS`.
      num_users: N, declared and public; training users only.
      num_examples: of all users together, declared; None where users are drawn.
      max_examples_per_user: kept of one user; None where that does not enter the promise.
      max_nodes_per_user: nodes that may hold data of one user.
      num_coins: most coins that decide about one protected unit in a round.
      target_epsilon: what the user asked for; `epsilon` never exceeds it.
      epsilon: upper bound over all `charges`, also after an early stop.
      delta: of the promise; `accounting_delta` + `bridge_delta` never exceeds it.
      accounting_delta: the share at which epsilon is read.
      bridge_epsilon: what the discrete noise adds to epsilon; 0 but for a large epsilon.
      bridge_delta: the share that the discrete noise takes.
      accountant: "pld" or "rdp".
      charges: all that the run may ever charge, spare attempts included.
      num_rounds: T.
      num_charges: T plus the spare attempts that crashes may burn.
      expected_cohort_size: units of a round on average, the divisor of every released update.
      sampling_probability: q of a unit's coin in a round in which it may take part.
      separation: rounds between two participations of a unit; 1 without correlated noise.
      noise_multiplier: z, noise standard deviation over clipping norm.
      clipping_norm: C of the first round, and of all unless `quantile` is there.
      quantile: how C follows a quantile of the updates' norms; None keeps it.
      matrix: what makes the noise correlated; None where it is not.
      grid_steps: K, integer steps per C.
      dimension: P, numbers per update.
      trust: who is trusted with what is not yet noised.
      is_noised_by_nodes: every node adds the full noise before its sum leaves it.
      seed: None, or the number that makes the run repeatable and not private.
      drawn_by: who flips the coins, "node" or "server".
      asks_everyone: where the server does: undrawn nodes are asked all the same.
      details: fingerprints of whatever else the run promises (configuration, base, layout).
      reasons: why each derived number is what it is; not part of the hash.
    """

    unit: str
    sampling_unit: str
    relation: str
    mechanism_name: str
    num_users: int
    num_examples: int | None
    max_examples_per_user: int | None
    max_nodes_per_user: int
    num_coins: int
    target_epsilon: float
    epsilon: float
    delta: float
    accounting_delta: float
    bridge_epsilon: float
    bridge_delta: float
    accountant: str
    charges: Charges
    num_rounds: int
    num_charges: int
    expected_cohort_size: float
    sampling_probability: float
    separation: int
    noise_multiplier: float
    clipping_norm: float
    quantile: QuantileClipping | None
    matrix: NoiseMatrix | None
    grid_steps: int
    dimension: int
    trust: str
    is_noised_by_nodes: bool
    seed: int | None
    drawn_by: str = NODE
    asks_everyone: bool = False
    details: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def num_units(self) -> int:
        """How many units are drawn from: users, or examples."""
        return self.num_users if self.num_examples is None else self.num_examples

    @property
    def event(self) -> Event:
        """What one charge costs."""
        return self.charges[0][0]

    @property
    def mechanism(self) -> GaussianMechanism | CorrelatedGaussian:
        """The one object that turns update sums into released updates."""
        if self.matrix is not None:
            return self._correlated(self.matrix)
        return GaussianMechanism(
            sampler=self._sampler,
            num_units=self.num_units,
            expected_cohort_size=self.expected_cohort_size,
            clipping_norm=self.clipping_norm,
            noise_multiplier=self.noise_multiplier,
            grid_steps=self.grid_steps,
            dimension=self.dimension,
            quantile=self.quantile,
        )

    def _correlated(self, matrix: NoiseMatrix) -> CorrelatedGaussian:
        return CorrelatedGaussian(
            num_units=self.num_units,
            expected_cohort_size=self.expected_cohort_size,
            clipping_norm=self.clipping_norm,
            noise_multiplier=self.noise_multiplier,
            grid_steps=self.grid_steps,
            dimension=self.dimension,
            coefficients=matrix.coefficients,
            num_rounds=self.num_rounds,
            num_spare=matrix.num_spare,
            participation=participation_rule(
                self.mechanism_name,
                num_rounds=self.num_rounds,
                separation=self.separation,
                sampling_probability=self.sampling_probability,
            ),
            shift=matrix.shift,
        )

    @property
    def draw(self) -> Draw:
        """How the nodes draw in a round."""
        if self.matrix is None:
            return self._sampler.draw
        content = json.dumps(dict(self.details), sort_keys=True).encode()
        salt = hashlib.sha256(b"feddp-slots/" + content).hexdigest()
        return Draw(self.sampling_probability, separation=self.separation, salt=salt)

    @property
    def sum_dimension(self) -> int:
        """Numbers of an update sum: P, and one for the clip bits where the norm adapts."""
        return self.dimension + (self.quantile is not None)

    @property
    def bit_steps(self) -> int:
        """Grid steps of the clip bit; 0 where the norm is fixed."""
        mechanism = self.mechanism
        return mechanism.bit_steps if isinstance(mechanism, GaussianMechanism) else 0

    @property
    def _sampler(self) -> Sampler:
        if self.mechanism_name == FIXED_SIZE:
            return FixedSizeSampler(self.num_units, int(self.expected_cohort_size))
        return PoissonSampler(self.sampling_probability, self.num_coins)

    @property
    def sha256(self) -> str:
        """Hash of every promised number, as hex."""
        content = {key: value for key, value in self._content().items() if key != "reasons"}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> str:
        """The content of plan.json; floats round-trip exactly."""
        return json.dumps(self._content(), indent=2) + "\n"

    def _content(self) -> dict[str, Any]:
        charges = [{**to_body(event), "count": count} for event, count in self.charges]
        matrix = self.matrix and self.matrix.to_body()
        return asdict(self) | {"charges": charges, "matrix": matrix}


def plan_from_json(text: str) -> PrivacyPlan:
    """Reads `to_json` back.

    Raises:
      ValueError, TypeError, KeyError: the text is not a plan.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict) or not isinstance(content.get("charges"), list):
        raise ValueError("the text is not a plan")
    charges = tuple(_read_charge(body) for body in content["charges"])
    quantile = content.get("quantile") and QuantileClipping(**content["quantile"])
    matrix = content.get("matrix") and matrix_from_body(content["matrix"])
    return PrivacyPlan(**content | {"charges": charges, "quantile": quantile, "matrix": matrix})


def _read_charge(body: object) -> tuple[Event, int]:
    if not isinstance(body, dict) or type(body.get("count")) is not int:
        raise ValueError("not a charge and its count")
    return from_body({k: v for k, v in body.items() if k != "count"}), int(body["count"])


def make_plan(
    *,
    num_users: int,
    target_epsilon: float,
    target_delta: float | None,
    noise_multiplier: float | None,
    clipping_norm: float,
    num_rounds: int | None,
    expected_cohort_size: float | None,
    spare_attempts: int | None,
    dimension: int,
    trust: str,
    seed: int | None,
    details: Mapping[str, str],
    unit: str = USER,
    sampling_unit: str = USER,
    mechanism: str = POISSON,
    num_examples: int | None = None,
    max_examples_per_user: int | None = None,
    max_nodes_per_user: int = 1,
    separation: int | None = None,
    quantile: Callable[[float], QuantileClipping] | None = None,
    is_noised_by_nodes: bool = False,
    drawn_by: str = NODE,
    asks_everyone: bool = False,
) -> PrivacyPlan:
    """Derives the whole plan; None asks for the rule. Reads no data.

    First who is drawn how often (`make_schedule`, where the rules are), then the noise that it
    takes, the smallest that keeps the target unless one is given, then the plan of both. For the
    arguments see `PrivacyPlan`; `quantile` is made for the expected cohort size.

    **Guarantee:** the epsilon of all charges at accounting_delta is at most target_epsilon, and
    accounting_delta + bridge_delta <= delta.

    Raises:
      ConfigError: the combination promises nothing, delta is not below 1/N or too small to account
        for, the cohort is larger than N, or the target cannot be reached with this cohort and
        number of rounds; the message says what would help.
    """
    problems = drawing_problems(drawn_by, sampling_unit, mechanism, is_noised_by_nodes)
    if quantile is not None and mechanism in CORRELATED:
        problems.append(_ONE_NORM.format(mechanism))
    if problems:
        raise ConfigError(problems)
    population = _population(
        unit, sampling_unit, num_users, num_examples, max_examples_per_user, max_nodes_per_user
    )
    schedule = make_schedule(
        population=population,
        mechanism=mechanism,
        target_epsilon=target_epsilon,
        target_delta=target_delta,
        num_rounds=num_rounds,
        expected_cohort_size=expected_cohort_size,
        spare_attempts=spare_attempts,
        separation=separation,
        dimension=dimension + (quantile is not None),
        is_noised_by_nodes=is_noised_by_nodes,
    )
    clipping = quantile and quantile(schedule.cohort)
    noise = choose_noise(schedule, noise_multiplier, clipping)
    return PrivacyPlan(
        **_scheduled(schedule),
        **_noised(schedule, noise),
        clipping_norm=float(clipping_norm),
        quantile=clipping,
        dimension=dimension,
        trust=trust,
        is_noised_by_nodes=is_noised_by_nodes,
        seed=seed,
        drawn_by=drawn_by,
        asks_everyone=asks_everyone,
        details=details,
    )


def _population(
    unit: str,
    sampling_unit: str,
    num_users: int,
    num_examples: int | None,
    max_examples_per_user: int | None,
    max_nodes_per_user: int,
) -> Population:
    """The population without what does not enter the promise."""
    draws_examples = sampling_unit == EXAMPLE
    return Population(
        unit=unit,
        sampling_unit=sampling_unit,
        num_users=num_users,
        num_examples=num_examples if draws_examples else None,
        max_examples_per_user=max_examples_per_user if draws_examples and unit == USER else None,
        max_nodes_per_user=max_nodes_per_user,
    )


def _scheduled(schedule: Schedule) -> dict[str, Any]:
    """What a plan takes from its schedule alone."""
    return asdict(schedule.population) | {
        "relation": schedule.relation,
        "mechanism_name": schedule.mechanism,
        "num_coins": schedule.population.num_coins,
        "target_epsilon": schedule.target_epsilon,
        "delta": schedule.delta,
        "accounting_delta": schedule.accounting_delta,
        "accountant": schedule.accountant,
        "num_rounds": schedule.num_rounds,
        "num_charges": schedule.num_charges,
        "expected_cohort_size": schedule.cohort,
        "sampling_probability": schedule.probability,
        "separation": schedule.separation,
        "matrix": choose_matrix(schedule) if schedule.mechanism in CORRELATED else None,
    }


def _noised(schedule: Schedule, noise: Noise) -> dict[str, Any]:
    """What a plan takes from its noise."""
    return {
        "epsilon": noise.epsilon,
        "bridge_epsilon": noise.bridge_epsilon,
        "bridge_delta": noise.bridge_delta,
        "charges": schedule.charges(noise.multiplier),
        "noise_multiplier": noise.multiplier,
        "grid_steps": noise.grid_steps,
        "reasons": {**schedule.reasons, **noise.reasons},
    }


def planned_curve(plan: PrivacyPlan) -> NDArray[np.float64]:
    """Epsilon after 1, 2, ..., num_charges charges; float64, non-decreasing.

    A meter: the promise is the last value plus `bridge_epsilon`, also after an early stop. With
    correlated noise the first charges are counted as if each began an event of its own.
    """
    event, count = plan.charges[0]
    curve = epsilon_curve(event, count, delta=plan.accounting_delta, relation=plan.relation)
    begun = np.minimum(np.arange(1, plan.num_charges + 1), count)
    rising: NDArray[np.float64] = curve[begun - 1]
    return rising
