"""PrivacyPlan: everything that a run promises, derived from the target, each number with its reason."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from common.errors import ConfigError
from common.privacy.accounting import (
    MAX_NOISE_MULTIPLIER,
    bridge_delta,
    calibrate_noise_multiplier,
    choose_grid_steps,
    epsilon,
)
from common.privacy.mechanism import PoissonGaussian

ACCOUNTING_SHARE = 0.99


@dataclass(frozen=True)
class PrivacyPlan:
    """What one run promises. Made before round 1, hashed into the ledger, never changed after.

    Attributes:
      num_users: N, declared and public; training users only.
      target_epsilon: what the user asked for; `epsilon` never exceeds it.
      epsilon: upper bound over all `num_charges` charges, also after an early stop.
      delta: of the promise; `accounting_delta` + `bridge_delta` never exceeds it.
      accounting_delta: the share at which the PLD is read.
      bridge_delta: the share that the discrete noise takes.
      num_rounds: T.
      num_charges: T plus the spare attempts that crashes may burn.
      expected_cohort_size: q N, the divisor of every released update.
      sampling_probability: q.
      noise_multiplier: z, noise standard deviation over clipping norm.
      clipping_norm: C.
      grid_steps: K, integer steps per C.
      dimension: P, numbers per update.
      trust: who is trusted with what is not yet noised.
      seed: None, or the number that makes the run repeatable and not private.
      details: fingerprints of whatever else the run promises (configuration, base, layout).
      reasons: why each derived number is what it is; not part of the hash.
    """

    num_users: int
    target_epsilon: float
    epsilon: float
    delta: float
    accounting_delta: float
    bridge_delta: float
    num_rounds: int
    num_charges: int
    expected_cohort_size: float
    sampling_probability: float
    noise_multiplier: float
    clipping_norm: float
    grid_steps: int
    dimension: int
    trust: str
    seed: int | None
    details: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def mechanism(self) -> PoissonGaussian:
        """The one object that turns update sums into released updates."""
        return PoissonGaussian(
            num_users=self.num_users,
            expected_cohort_size=self.expected_cohort_size,
            sampling_probability=self.sampling_probability,
            clipping_norm=self.clipping_norm,
            noise_multiplier=self.noise_multiplier,
            grid_steps=self.grid_steps,
            dimension=self.dimension,
        )

    @property
    def sha256(self) -> str:
        """Hash of every promised number, as hex."""
        content = {key: value for key, value in asdict(self).items() if key != "reasons"}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> str:
        """The content of plan.json; floats round-trip exactly."""
        return json.dumps(asdict(self), indent=2) + "\n"


def plan_from_json(text: str) -> PrivacyPlan:
    """Reads `to_json` back.

    Raises:
      ValueError, TypeError: the text is not a plan.
    """
    return PrivacyPlan(**json.loads(text))


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
) -> PrivacyPlan:
    """Derives the whole plan; None asks for the rule. Reads no data.

    **Guarantee:** epsilon(num_charges rounds, accounting_delta) <= target_epsilon by the PLD
    accountant, and accounting_delta + bridge_delta <= delta.

    Raises:
      ConfigError: delta is not below 1/N, or the target cannot be reached with this cohort and
        number of rounds; the message says what would reach it.
    """
    reasons = {"clipping_norm": "a public constant"}
    delta, reasons["delta"] = _choose(
        target_delta, min(1e-5, num_users**-1.1), "the smaller of 1e-5 and N^-1.1"
    )
    if delta >= 1 / num_users:
        raise ConfigError(
            [
                f"privacy.target-delta = {delta:g}: must be below 1/N = {1 / num_users:.3g}; at or "
                "above it, publishing the data of a random user would pass for private."
            ]
        )
    rounds, reasons["num_rounds"] = _choose(num_rounds, 50, "the default")
    spare, _ = _choose(spare_attempts, max(3, math.ceil(rounds / 10)), "")
    charges = rounds + spare
    reasons["num_charges"] = f"{rounds} rounds and {spare} spare attempts for crashes"
    cohort, reasons["expected_cohort_size"] = _choose(
        expected_cohort_size,
        float(min(num_users, max(20, min(1000, num_users / 10)))),
        "N/10, between 20 and 1000",
    )
    probability = cohort / num_users
    reasons["sampling_probability"] = f"cohort of {cohort:g} out of {num_users}"
    multiplier, reasons["noise_multiplier"] = _choose(
        noise_multiplier,
        lambda: _calibrate(num_users, cohort, charges, target_epsilon, ACCOUNTING_SHARE * delta),
        f"smallest with epsilon <= {target_epsilon:g} over {charges} charges",
    )
    spent = epsilon(
        sampling_probability=probability,
        noise_multiplier=multiplier,
        num_charges=charges,
        delta=ACCOUNTING_SHARE * delta,
    )
    reasons["epsilon"] = f"PLD bound over {charges} charges at delta {ACCOUNTING_SHARE * delta:.3g}"
    if spent > target_epsilon:
        raise ConfigError(
            [
                f"privacy.noise-multiplier = {multiplier:g}: gives epsilon {spent:.3f} over {charges} "
                f"charges, above privacy.target-epsilon = {target_epsilon:g}. Raise either, or "
                'leave it "auto".'
            ]
        )
    steps = choose_grid_steps(
        noise_multiplier=multiplier,
        num_charges=charges,
        dimension=dimension,
        epsilon=target_epsilon,
        delta=delta,
    )
    reasons["grid_steps"] = "smallest whose discrete noise takes at most delta/100"
    plan = PrivacyPlan(
        num_users=num_users,
        target_epsilon=target_epsilon,
        epsilon=spent,
        delta=delta,
        accounting_delta=ACCOUNTING_SHARE * delta,
        bridge_delta=0.0,
        num_rounds=rounds,
        num_charges=charges,
        expected_cohort_size=cohort,
        sampling_probability=probability,
        noise_multiplier=multiplier,
        clipping_norm=clipping_norm,
        grid_steps=steps,
        dimension=dimension,
        trust=trust,
        seed=seed,
        details=details,
        reasons=reasons,
    )
    bridge = bridge_delta(
        num_charges=charges,
        dimension=dimension,
        noise_scale=plan.mechanism.noise_scale,
        epsilon=spent,
    )
    return replace(plan, bridge_delta=bridge)


def _choose(given: Any, derived: Any, rule: str) -> tuple[Any, str]:
    """(value, reason): what was given, else what the rule derives."""
    if given is not None:
        return given, "given"
    return (derived() if callable(derived) else derived), rule


def _calibrate(
    num_users: int, cohort: float, charges: int, target_epsilon: float, delta: float
) -> float:
    """The smallest noise multiplier that keeps the target, or a ConfigError that gives advice."""

    def least_epsilon(expected_cohort_size: float) -> float:
        return epsilon(
            sampling_probability=expected_cohort_size / num_users,
            noise_multiplier=MAX_NOISE_MULTIPLIER,
            num_charges=charges,
            delta=delta,
        )

    if (least := least_epsilon(cohort)) <= target_epsilon:
        return calibrate_noise_multiplier(
            sampling_probability=cohort / num_users,
            num_charges=charges,
            target_epsilon=target_epsilon,
            delta=delta,
        )
    smaller = cohort
    while smaller > 1 and least_epsilon(smaller) > target_epsilon:
        smaller /= 2
    advice = (
        f"sampling.expected-cohort-size = {smaller:.3g} would reach it, under very much noise"
        if smaller > 1
        else "no cohort of these users reaches it"
    )
    raise ConfigError(
        [
            f"privacy.target-epsilon = {target_epsilon:g}: out of reach for a cohort of {cohort:g} of "
            f"{num_users} users over {charges} charges; the most noise that feddp adds "
            f"({MAX_NOISE_MULTIPLIER:g} C) gives {least:.3g}. {advice[0].upper()}{advice[1:]}; fewer "
            "rounds, more users or a larger target help."
        ]
    )
