"""PrivacyPlan: all that a run promises, in parts; flattened where plan.json is written."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feddp.common.field_types import check_fields
from feddp.common.privacy.accounting.epsilon import PLD, RDP, epsilon_curve
from feddp.common.privacy.mechanism.cohorts import Cohorts, Population
from feddp.common.privacy.mechanism.correlated import CorrelatedGaussian
from feddp.common.privacy.mechanism.events import Charges, Event, to_body
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.mechanisms import MECHANISMS, Mechanism
from feddp.common.privacy.mechanism.noise_matrix import matrix_from_body
from feddp.common.privacy.mechanism.quantile import Clipping, QuantileClipping
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.plan.noise_choice import Noise, choose_noise
from feddp.common.privacy.plan.request import Request, Trust
from feddp.common.privacy.plan.schedule import Schedule, make_schedule, noised_dimension
from feddp.common.privacy.plan.separation_choice import choose_separation


@dataclass(frozen=True)
class PrivacyPlan:
    """What one run promises. Made before round 1, hashed into the ledger, never changed after.

    Attributes:
      schedule: who is drawn how often by which mechanism, and the target.
      noise: what is added, and what the run costs under it.
      clipping: the norm that clips updates.
      trust: who is trusted with what is not yet noised.
      dimension: P, numbers per update.
      seed: None, or the number that makes the run repeatable and not private.
      details: fingerprints of whatever else the run promises (configuration, base, layout).
      reasons: why each derived number is what it is; not part of the hash.
    """

    schedule: Schedule
    noise: Noise
    clipping: Clipping
    trust: Trust
    dimension: int
    seed: int | None
    details: Mapping[str, str]
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def cohorts(self) -> Cohorts:
        """Who is drawn how often."""
        return self.schedule.cohorts

    @property
    def population(self) -> Population:
        """Who is protected and who is drawn."""
        return self.schedule.cohorts.population

    @property
    def unit(self) -> str:
        """What epsilon protects, "user" or "example"."""
        return self.population.unit

    @property
    def num_users(self) -> int:
        """N, declared and public; training users only."""
        return self.population.num_users

    @property
    def relation(self) -> str:
        """The relation between neighbouring data sets; one of `events.RELATIONS`."""
        return self.schedule.mechanism.relation

    @property
    def num_rounds(self) -> int:
        """T."""
        return self.cohorts.num_rounds

    @property
    def num_charges(self) -> int:
        """T: a burned attempt is its round."""
        return self.cohorts.num_charges

    @property
    def expected_cohort_size(self) -> float:
        """Units of a round on average, the divisor of every released update."""
        return self.cohorts.size

    @property
    def sampling_probability(self) -> float:
        """Probability of a unit's coin in a round in which it may take part; 1 without coins."""
        return self.schedule.mechanism.probability(self.cohorts)

    @property
    def target_epsilon(self) -> float:
        """What was asked for; `epsilon` never exceeds it."""
        return self.schedule.target_epsilon

    @property
    def epsilon(self) -> float:
        """Upper bound over all `charges`, also after an early stop."""
        return self.noise.epsilon

    @property
    def delta(self) -> float:
        """Delta of the promise, never below the sum of `accounting_delta` and `bridge_delta`."""
        return self.schedule.delta

    @property
    def accounting_delta(self) -> float:
        """The share of delta at which epsilon is read."""
        return self.schedule.accounting_delta

    @property
    def noise_multiplier(self) -> float:
        """z, noise standard deviation over clipping norm."""
        return self.noise.multiplier

    @property
    def clipping_norm(self) -> float:
        """C of the first round."""
        return self.clipping.norm

    @property
    def charges(self) -> Charges:
        """All that the run may ever charge."""
        return self.schedule.charges(self.noise.multiplier)

    @property
    def event(self) -> Event:
        """What one charge costs."""
        return self.charges[0][0]

    @property
    def mechanism(self) -> GaussianMechanism | CorrelatedGaussian:
        """The one object that turns update sums into released updates."""
        return self.schedule.mechanism.make(
            self.cohorts,
            self.clipping,
            noise_multiplier=self.noise.multiplier,
            grid_steps=self.noise.grid_steps,
            dimension=self.dimension,
            matrix=self.noise.matrix,
        )

    @property
    def draw(self) -> Draw:
        """How the nodes draw in a round."""
        content = json.dumps(dict(self.details), sort_keys=True).encode()
        salt = hashlib.sha256(b"feddp-slots/" + content).hexdigest()
        return self.schedule.mechanism.draw(self.cohorts, salt)

    @property
    def sum_dimension(self) -> int:
        """Numbers of an update sum: P, and one for the clip bits where the norm adapts."""
        return self.dimension + self.clipping.num_bits

    @property
    def bit_steps(self) -> int:
        """Grid steps of the clip bit; 0 where the norm is fixed."""
        mechanism = self.mechanism
        return mechanism.bit_steps if isinstance(mechanism, GaussianMechanism) else 0

    @property
    def sha256(self) -> str:
        """Hash of every promised number, as hex."""
        content = {key: value for key, value in _content(self).items() if key != "reasons"}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> str:
        """The content of plan.json; floats round-trip exactly."""
        return json.dumps(_content(self), indent=2) + "\n"


def _content(plan: PrivacyPlan) -> dict[str, Any]:
    """All parts as one level of plan.json, derived numbers included."""
    schedule, noise, population = plan.schedule, plan.noise, plan.population
    quantile, matrix = plan.clipping.quantile, noise.matrix
    return {
        "unit": population.unit,
        "sampling_unit": population.sampling_unit,
        "relation": schedule.mechanism.relation,
        "mechanism_name": schedule.mechanism.name,
        "num_users": population.num_users,
        "num_examples": population.num_examples,
        "max_examples_per_user": population.max_examples_per_user,
        "max_nodes_per_user": population.max_nodes_per_user,
        "num_coins": population.num_coins,
        "target_epsilon": schedule.target_epsilon,
        "epsilon": noise.epsilon,
        "delta": schedule.delta,
        "accounting_delta": schedule.accounting_delta,
        "bridge_epsilon": noise.bridge_epsilon,
        "bridge_delta": noise.bridge_delta,
        "accountant": schedule.accountant,
        "charges": [{**to_body(event), "count": count} for event, count in plan.charges],
        "num_rounds": plan.cohorts.num_rounds,
        "num_charges": plan.cohorts.num_charges,
        "expected_cohort_size": plan.cohorts.size,
        "sampling_probability": plan.sampling_probability,
        "separation": plan.cohorts.separation,
        "noise_multiplier": noise.multiplier,
        "clipping_norm": plan.clipping.norm,
        "quantile": None if quantile is None else asdict(quantile),
        "matrix": None if matrix is None else matrix.to_body(),
        "grid_steps": noise.grid_steps,
        "dimension": plan.dimension,
        "trust": plan.trust.model,
        "is_noised_by_nodes": plan.trust.is_noised_by_nodes,
        "seed": plan.seed,
        "drawn_by": plan.trust.drawn_by,
        "asks_everyone": plan.trust.asks_everyone,
        "details": dict(plan.details),
        "reasons": dict(plan.reasons),
        # Plans of before have no such number.
        **({"num_releases": plan.cohorts.num_releases} if plan.cohorts.num_releases > 1 else {}),
    }


def plan_from_json(text: str) -> PrivacyPlan:
    """Reads `to_json` back.

    **Guarantee:** every number of the text is one of the plan's, those that follow from others
    included: a text that contradicts itself is refused.

    Raises:
      ValueError, TypeError, KeyError: the text is not a plan.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict) or not isinstance(content.get("charges"), list):
        raise ValueError("the text is not a plan")
    try:
        plan = _plan_from_content(content)
        check_fields(plan)
        made = _content(plan)
    except (ArithmeticError, AttributeError) as error:
        raise ValueError("the text is not a plan") from error
    if wrong := [key for key, value in content.items() if key not in made or made[key] != value]:
        raise ValueError(f"not the numbers of a plan: {', '.join(wrong)}")
    return plan


def _plan_from_content(content: Mapping[str, Any]) -> PrivacyPlan:
    quantile = content["quantile"] and QuantileClipping(**content["quantile"])
    clipping = Clipping(content["clipping_norm"], quantile)
    population = Population(
        content["unit"],
        content["sampling_unit"],
        content["num_users"],
        content["num_examples"],
        content["max_examples_per_user"],
        content["max_nodes_per_user"],
    )
    # Plans from before the server could draw say nothing about it.
    named = ("is_noised_by_nodes", "drawn_by", "asks_everyone")
    trust = Trust(content["trust"], **{key: content[key] for key in named if key in content})
    schedule = Schedule(
        cohorts=Cohorts(
            population,
            content["expected_cohort_size"],
            content["num_rounds"],
            content["num_charges"],
            content["separation"],
            content.get("num_releases", 1),
        ),
        mechanism=_mechanism_named(content["mechanism_name"]),
        target_epsilon=content["target_epsilon"],
        delta=content["delta"],
        dimension=noised_dimension(
            content["dimension"], population, trust, is_adaptive=quantile is not None
        ),
        accountant=content["accountant"],
    )
    noise = Noise(
        content["noise_multiplier"],
        content["grid_steps"],
        content["matrix"] and matrix_from_body(content["matrix"]),
        content["epsilon"],
        content["bridge_epsilon"],
        content["bridge_delta"],
    )
    if schedule.accountant not in (PLD, RDP):
        raise ValueError("no such accountant")
    return PrivacyPlan(
        schedule,
        noise,
        clipping,
        trust,
        content["dimension"],
        content["seed"],
        content.get("details", {}),
        content.get("reasons", {}),
    )


def _mechanism_named(name: str) -> Mechanism:
    if name not in MECHANISMS:
        raise ValueError("no such mechanism")
    return MECHANISMS[name]


def make_plan(
    request: Request,
    *,
    population: Population,
    mechanism: Mechanism,
    trust: Trust,
    dimension: int,
    seed: int | None,
    details: Mapping[str, str],
) -> PrivacyPlan:
    """Derives the whole plan. Reads no data.

    First who is drawn how often (`make_schedule`), then the noise that it takes (`choose_noise`),
    the smallest that keeps the target unless one is given, then the plan of both.

    **Guarantee:** the epsilon of all charges at accounting_delta is at most target_epsilon, and
    accounting_delta + bridge_delta <= delta.

    Args:
      request: numbers to be kept, or found by rule.
      population: who is protected and who is drawn.
      mechanism: one of `MECHANISMS`.
      trust: who draws, who adds the noise, and how the statement says it.
      dimension: P, numbers per update.
      seed: None, or what makes the run repeatable and not private.
      details: fingerprints of whatever else the run promises.

    Raises:
      ConfigError: the combination promises nothing, delta is not below 1/N or too small to account
        for, the cohort is larger than N, or the target cannot be reached with this cohort and
        number of rounds; the message says what would help.
    """
    schedule, reasons = make_schedule(
        request, population=population, mechanism=mechanism, trust=trust, dimension=dimension
    )
    if request.separation is None and mechanism.has_choice_of_turns:
        schedule = choose_separation(schedule, request.noise_multiplier)
        reasons |= {"separation": "rounds between turns; of those tried, the least prefix error"}
    quantile = None if request.quantile is None else request.quantile(schedule.cohorts.size)
    clipping = Clipping(float(request.clipping_norm), quantile)
    noise, noise_reasons = choose_noise(schedule, request.noise_multiplier, clipping)
    return PrivacyPlan(
        schedule=schedule,
        noise=noise,
        clipping=clipping,
        trust=trust,
        dimension=dimension,
        seed=seed,
        details=details,
        reasons=reasons | noise_reasons,
    )


def planned_curve(plan: PrivacyPlan) -> NDArray[np.float64]:
    """Epsilon after 1, 2, ..., num_charges charges; float64, non-decreasing.

    A meter: the promise is the last value plus `bridge_epsilon`, also after an early stop. With
    correlated noise the first charges are counted as if each began an event of its own.
    """
    event, count = plan.charges[0]
    curve = epsilon_curve(
        event,
        count,
        delta=plan.accounting_delta,
        relation=plan.relation,
        accountant=plan.schedule.accountant,
    )
    begun = np.minimum(np.arange(1, plan.num_charges + 1), count)
    rising: NDArray[np.float64] = curve[begun - 1]
    return rising
