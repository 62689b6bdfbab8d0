"""PrivacyPlan: all that a run promises, derived from the target, each number with its reason."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from common.errors import ConfigError
from common.privacy.accounting import (
    COARSE,
    FINE,
    MAX_GRID_STEPS,
    MAX_NOISE_MULTIPLIER,
    MIN_NOISE_MULTIPLIER,
    bridge_cost,
    calibrate_noise_multiplier,
    choose_grid_steps,
    epsilon,
    next_noise_multiplier,
)
from common.privacy.mechanism import GaussianMechanism
from common.privacy.noise import MAX_SCALE
from common.privacy.sampling import PoissonSampler

ACCOUNTING_SHARE = 0.99
MIN_DELTA = 1e-12  # below it, the accountant's own round-off (about 1e-15) is no longer negligible


@dataclass(frozen=True)
class PrivacyPlan:
    """What one run promises. Made before round 1, hashed into the ledger, never changed after.

    Attributes:
      num_users: N, declared and public; training users only.
      target_epsilon: what the user asked for; `epsilon` never exceeds it.
      epsilon: upper bound over all `num_charges` charges, also after an early stop.
      delta: of the promise; `accounting_delta` + `bridge_delta` never exceeds it.
      accounting_delta: the share at which the PLD is read.
      bridge_epsilon: what the discrete noise adds to epsilon; 0 but for a large epsilon.
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
    bridge_epsilon: float
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
    def is_noised_by_nodes(self) -> bool:
        """Every node adds the full noise before its sum leaves it."""
        return self.trust == "node"

    @property
    def mechanism(self) -> GaussianMechanism:
        """The one object that turns update sums into released updates."""
        return GaussianMechanism(
            sampler=PoissonSampler(self.sampling_probability),
            num_units=self.num_users,
            expected_cohort_size=self.expected_cohort_size,
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


@dataclass(frozen=True)
class _Schedule:
    """Who is drawn how often, and the delta of the promise; no noise yet."""

    num_users: int
    target_epsilon: float
    delta: float
    num_rounds: int
    num_charges: int
    cohort: float
    dimension: int

    @property
    def probability(self) -> float:
        return self.cohort / self.num_users

    @property
    def accounting_delta(self) -> float:
        return ACCOUNTING_SHARE * self.delta


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

    **Edge cases:**

    | argument | rule for None |
    |---|---|
    | target_delta | min(1e-5, N^-1.1) |
    | num_rounds | 50 |
    | spare_attempts | a tenth of the rounds, at least 3 |
    | expected_cohort_size | N/10, between 20 and 1000, at most N |
    | noise_multiplier | the smallest that keeps the target |

    Raises:
      ConfigError: delta is not below 1/N or too small to account for, the cohort is larger than N,
        or the target cannot be reached with this cohort and number of rounds; the message says
        what would reach it.
    """
    schedule, reasons = _make_schedule(
        num_users=num_users,
        target_epsilon=float(target_epsilon),
        target_delta=target_delta,
        num_rounds=num_rounds,
        expected_cohort_size=expected_cohort_size,
        spare_attempts=spare_attempts,
        dimension=dimension,
    )
    multiplier, spent, steps = _choose_noise(schedule, noise_multiplier, reasons)
    plan = PrivacyPlan(
        num_users=num_users,
        target_epsilon=schedule.target_epsilon,
        epsilon=spent,
        delta=schedule.delta,
        accounting_delta=schedule.accounting_delta,
        bridge_epsilon=0.0,
        bridge_delta=0.0,
        num_rounds=schedule.num_rounds,
        num_charges=schedule.num_charges,
        expected_cohort_size=schedule.cohort,
        sampling_probability=schedule.probability,
        noise_multiplier=multiplier,
        clipping_norm=float(clipping_norm),
        grid_steps=steps,
        dimension=dimension,
        trust=trust,
        seed=seed,
        details=details,
        reasons=reasons,
    )
    added_epsilon, added_delta = _bridge(schedule, spent, multiplier, steps)
    if spent + added_epsilon > schedule.target_epsilon:
        raise _misses_target(schedule, multiplier, spent + added_epsilon)
    return replace(
        plan,
        epsilon=spent + added_epsilon,
        bridge_epsilon=added_epsilon,
        bridge_delta=added_delta,
    )


def _make_schedule(
    *,
    num_users: int,
    target_epsilon: float,
    target_delta: float | None,
    num_rounds: int | None,
    expected_cohort_size: float | None,
    spare_attempts: int | None,
    dimension: int,
) -> tuple[_Schedule, dict[str, str]]:
    """The schedule by rule or as given, and the reasons; all problems with it at once."""
    delta, delta_reason = _choose(
        target_delta, min(1e-5, num_users**-1.1), "the smaller of 1e-5 and N^-1.1"
    )
    rounds, rounds_reason = _choose(num_rounds, 50, "the default")
    spare, _ = _choose(spare_attempts, max(3, math.ceil(rounds / 10)), "")
    cohort, cohort_reason = _choose(
        expected_cohort_size,
        min(num_users, max(20, min(1000, num_users / 10))),
        "N/10, between 20 and 1000",
    )
    problems = []
    if delta >= 1 / num_users:
        problems.append(
            f"privacy.target-delta = {delta:g}: must be below 1/N = {1 / num_users:.3g}; at or "
            "above it, publishing the data of a random user would pass for private."
        )
    if delta < MIN_DELTA:
        problems.append(
            f"privacy.target-delta = {delta:g}: must be at least {MIN_DELTA:g}, the least that "
            "the accountant resolves."
        )
    if cohort > num_users:
        problems.append(
            f"sampling.expected-cohort-size = {cohort:g}: must be at most N = {num_users}."
        )
    if problems:
        raise ConfigError(problems)
    schedule = _Schedule(
        num_users=num_users,
        target_epsilon=target_epsilon,
        delta=float(delta),
        num_rounds=rounds,
        num_charges=rounds + spare,
        cohort=float(cohort),
        dimension=dimension,
    )
    reasons = {
        "clipping_norm": "a public constant",
        "delta": delta_reason,
        "accounting_delta": f"{ACCOUNTING_SHARE:g} of delta, at which epsilon is read",
        "bridge_epsilon": "what the discrete noise adds to epsilon; 0 but for a large target",
        "bridge_delta": "what the discrete noise takes of delta, at most a hundredth",
        "num_rounds": rounds_reason,
        "num_charges": f"{rounds} rounds and {spare} spare attempts for crashes",
        "expected_cohort_size": cohort_reason,
        "sampling_probability": f"cohort of {cohort:g} out of {num_users}",
    }
    return schedule, reasons


def _choose_noise(
    schedule: _Schedule, noise_multiplier: float | None, reasons: dict[str, str]
) -> tuple[float, float, int]:
    """(noise multiplier, epsilon, grid steps); adds their reasons to `reasons`."""

    def grid_steps(multiplier: float) -> int:
        return choose_grid_steps(
            noise_multiplier=multiplier,
            num_charges=schedule.num_charges,
            dimension=schedule.dimension,
            epsilon=schedule.target_epsilon,
            delta=schedule.delta,
        )

    if noise_multiplier is None:
        # A target that no grid serves is refused here, before a calibration that would take long.
        grid_steps(MAX_SCALE / MAX_GRID_STEPS)
        multiplier = _calibrate(schedule)
        while _total(schedule, multiplier, grid_steps(multiplier)) > schedule.target_epsilon:
            multiplier = next_noise_multiplier(multiplier)
        reason = (
            f"smallest with epsilon <= {schedule.target_epsilon:g} over {schedule.num_charges} "
            "charges"
        )
    else:
        multiplier, reason = float(noise_multiplier), "given"
        _check_noise(schedule, multiplier)
    reasons["noise_multiplier"] = reason
    steps = grid_steps(multiplier)
    reasons["grid_steps"] = "smallest whose discrete noise takes at most delta/100"
    spent = _spent(schedule, multiplier)
    reasons["epsilon"] = (
        f"PLD bound over {schedule.num_charges} charges at delta {schedule.accounting_delta:.3g}"
    )
    return multiplier, spent, steps


def _check_noise(schedule: _Schedule, multiplier: float) -> None:
    """Refuses a given noise multiplier that is out of range or misses the target."""
    if not MIN_NOISE_MULTIPLIER <= multiplier <= MAX_NOISE_MULTIPLIER:
        raise ConfigError(
            [
                f"privacy.noise-multiplier = {multiplier:g}: must be from {MIN_NOISE_MULTIPLIER:g} "
                f'to {MAX_NOISE_MULTIPLIER:g}. Leave it "auto" to have it calibrated.'
            ]
        )
    # Far above the target the coarse bound decides: the fine one could need gigabytes there.
    spent = _spent(schedule, multiplier, interval=COARSE)
    if spent <= 2 * schedule.target_epsilon + 1:
        spent = _spent(schedule, multiplier)
    if spent > schedule.target_epsilon:
        raise _misses_target(schedule, multiplier, spent)


def _misses_target(schedule: _Schedule, multiplier: float, spent: float) -> ConfigError:
    return ConfigError(
        [
            f"privacy.noise-multiplier = {multiplier:g}: gives epsilon {spent:.3f} over "
            f"{schedule.num_charges} charges, above privacy.target-epsilon = "
            f'{schedule.target_epsilon:g}. Raise either, or leave it "auto".'
        ]
    )


def _calibrate(schedule: _Schedule) -> float:
    """The smallest noise multiplier that keeps the target, or a ConfigError that gives advice."""
    target, cohort, num_users = schedule.target_epsilon, schedule.cohort, schedule.num_users
    if (least := _spent(schedule, MAX_NOISE_MULTIPLIER)) <= target:
        return calibrate_noise_multiplier(
            sampling_probability=schedule.probability,
            num_charges=schedule.num_charges,
            target_epsilon=target,
            delta=schedule.accounting_delta,
        )
    smaller = _round_down(cohort / 2)
    while smaller > 1 and _spent(replace(schedule, cohort=smaller), MAX_NOISE_MULTIPLIER) > target:
        smaller = _round_down(smaller / 2)
    advice = (
        f"A cohort of {smaller:g} (sampling.expected-cohort-size) reaches it, under very much noise"
        if smaller > 1
        else "No cohort of these users reaches it"
    )
    raise ConfigError(
        [
            f"privacy.target-epsilon = {target:g}: out of reach for a cohort of {cohort:g} of "
            f"{num_users} users over {schedule.num_charges} charges; the most noise that feddp "
            f"adds ({MAX_NOISE_MULTIPLIER:g} C) gives {least:.3g}. {advice}; fewer rounds, more "
            "users or a larger target help."
        ]
    )


def _spent(schedule: _Schedule, multiplier: float, *, interval: float = FINE) -> float:
    """Epsilon of the whole schedule under this noise."""
    return epsilon(
        sampling_probability=schedule.probability,
        noise_multiplier=multiplier,
        num_charges=schedule.num_charges,
        delta=schedule.accounting_delta,
        interval=interval,
    )


def _bridge(
    schedule: _Schedule, spent: float, multiplier: float, steps: int
) -> tuple[float, float]:
    """What the discrete noise adds to (epsilon, delta)."""
    return bridge_cost(
        num_charges=schedule.num_charges,
        dimension=schedule.dimension,
        noise_scale=math.ceil(multiplier * steps),
        epsilon=spent,
        delta=schedule.delta,
    )


def _total(schedule: _Schedule, multiplier: float, steps: int) -> float:
    """Epsilon of the whole schedule with what the discrete noise adds."""
    spent = _spent(schedule, multiplier)
    return spent + _bridge(schedule, spent, multiplier, steps)[0]


def _choose(given: Any, derived: Any, rule: str) -> tuple[Any, str]:
    """(value, reason): what was given, else what the rule derives."""
    return (derived, rule) if given is None else (given, "given")


def _round_down(value: float) -> float:
    """To three digits, so that a printed number is the one that was tried.

    >>> _round_down(15.678)
    15.6
    """
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.floor(value / step) * step:.3g}")
