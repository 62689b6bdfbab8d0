"""Who is drawn how often, by which rule, and what that costs under any noise; no noise yet."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.bridge import bridge_cost
from feddp.common.privacy.accounting.epsilon import FINE, accountant_of, epsilon
from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    REPLACE_ONE,
    ZERO_OUT,
    Charges,
    Event,
    FixedSizeGaussianEvent,
    GaussianEvent,
    PoissonGaussianEvent,
)

USER, EXAMPLE = "user", "example"
NODE, SERVER = "node", "server"
POISSON, FIXED_SIZE = "poisson", "fixed-size"
BLT, BANDED, CYCLIC_POISSON = "blt", "banded", "cyclic-poisson"
CORRELATED = (BLT, BANDED, CYCLIC_POISSON)
MECHANISM_RELATIONS: Mapping[str, str] = {
    POISSON: ADD_OR_REMOVE_ONE,
    FIXED_SIZE: REPLACE_ONE,
    BLT: ZERO_OUT,
    BANDED: ZERO_OUT,
    CYCLIC_POISSON: ADD_OR_REMOVE_ONE,
}
ACCOUNTING_SHARE = 0.99
MIN_DELTA = 1e-12  # below it, the accountant's own round-off (about 1e-15) is no longer negligible
MAX_COINS = 256  # of one user; beyond it a privacy loss distribution takes gigabytes


@dataclass(frozen=True)
class Population:
    """Who is protected and who is drawn; declared and public.

    Attributes:
      unit: what epsilon protects, "user" or "example".
      sampling_unit: what is drawn and clipped.
      num_users: training users.
      num_examples: of all users together; None where users are drawn.
      max_examples_per_user: kept of one user; None where that does not enter the promise.
      max_nodes_per_user: nodes that hold data of one user.
    """

    unit: str
    sampling_unit: str
    num_users: int
    num_examples: int | None
    max_examples_per_user: int | None
    max_nodes_per_user: int

    @property
    def num_units(self) -> int:
        """How many units are drawn from: users, or examples."""
        return self.num_users if self.num_examples is None else self.num_examples

    @property
    def num_protected(self) -> int:
        """How many units are protected."""
        return self.num_users if self.unit == USER else self.num_units

    @property
    def num_coins(self) -> int:
        """Most coins that decide about one protected unit."""
        if self.unit == EXAMPLE:
            return 1
        return self.max_nodes_per_user * (self.max_examples_per_user or 1)


@dataclass(frozen=True)
class Schedule:
    """How often who is drawn, and the delta of the promise.

    Attributes:
      population: who is drawn.
      mechanism: one of `MECHANISM_RELATIONS`.
      target_epsilon: what was asked for.
      delta: of the promise.
      num_rounds: T.
      num_charges: T and the spare attempts.
      cohort: units of a round, on average.
      dimension: numbers that get noise in a release, on all nodes that may hold one user.
      separation: rounds between two participations of a unit; 1 without correlated noise.
      reasons: why each derived number is what it is.
    """

    population: Population
    mechanism: str
    target_epsilon: float
    delta: float
    num_rounds: int
    num_charges: int
    cohort: float
    dimension: int
    separation: int
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def relation(self) -> str:
        """The neighbouring relation; the mechanism decides it."""
        return MECHANISM_RELATIONS[self.mechanism]

    @property
    def probability(self) -> float:
        """Of a unit's coin in a round in which it may take part; 1 without coins."""
        if self.mechanism in (BLT, BANDED):
            return 1.0
        # Round-off must not make more of a whole turn than everybody.
        return min(1.0, self.cohort * self.separation / self.population.num_units)

    @property
    def accounting_delta(self) -> float:
        """At which epsilon is read."""
        return ACCOUNTING_SHARE * self.delta

    @property
    def accountant(self) -> str:
        """Which accountant certifies it."""
        return accountant_of(self.charges(1.0), self.relation)

    def event(self, multiplier: float) -> Event:
        """What one charge costs under noise of so many clipping norms."""
        if self.mechanism == FIXED_SIZE:
            return FixedSizeGaussianEvent(self.population.num_units, int(self.cohort), multiplier)
        if self.mechanism in (BLT, BANDED):
            return GaussianEvent(multiplier)
        return PoissonGaussianEvent(self.probability, multiplier, self.population.num_coins)

    def charges(self, multiplier: float) -> Charges:
        """All that the run may ever charge.

        Correlated noise makes all rounds one Gaussian release; with coins, one per turn of a unit,
        and one per spare attempt, which throws coins of its own.
        """
        turns = math.ceil(self.num_rounds / self.separation) + self.num_charges - self.num_rounds
        counts = {BLT: 1, BANDED: 1, CYCLIC_POISSON: turns}
        return ((self.event(multiplier), counts.get(self.mechanism, self.num_charges)),)

    def spent(self, multiplier: float, interval: float = FINE) -> float:
        """Epsilon of the whole schedule under this noise."""
        return epsilon(
            self.charges(multiplier),
            delta=self.accounting_delta,
            relation=self.relation,
            interval=interval,
        )

    def bridge(self, spent: float, noise_scale: int) -> tuple[float, float]:
        """What discrete noise of this scale adds to (epsilon, delta)."""
        return bridge_cost(
            num_charges=self.num_charges,
            dimension=self.dimension,
            noise_scale=noise_scale,
            epsilon=spent,
            delta=self.delta,
        )


def make_schedule(
    *,
    population: Population,
    mechanism: str,
    target_epsilon: float,
    target_delta: float | None,
    num_rounds: int | None,
    expected_cohort_size: float | None,
    spare_attempts: int | None,
    separation: int | None,
    dimension: int,
    is_noised_by_nodes: bool,
) -> Schedule:
    """The schedule by rule (None) or as given; all problems with it at once.

    **Edge cases:**

    | argument | rule for None |
    |---|---|
    | target_delta | min(1e-5, N^-1.1), N the protected units |
    | num_rounds | 50 |
    | spare_attempts | a tenth of the rounds, at least 3 |
    | expected_cohort_size | N/10 of the drawn units, between 20 and 1000, at most N |
    | separation | with correlated noise: N / cohort, at least 2 |

    Args:
      population: who is protected and who is drawn.
      mechanism: one of `MECHANISM_RELATIONS`.
      target_epsilon: of everything that is released.
      target_delta: of the same.
      num_rounds: T.
      expected_cohort_size: units of a round on average; all whose turn it is for "blt", "banded".
      spare_attempts: charges beyond T, for attempts that crashes burn.
      separation: rounds between two participations; of no effect without correlated noise.
      dimension: numbers that get noise in a release.
      is_noised_by_nodes: each node that holds a user makes such a release.

    Raises:
      ConfigError: a combination that promises nothing, or a number out of range.
    """
    if problems := population_problems(population, mechanism, is_noised_by_nodes):
        raise ConfigError(problems)
    units, protected = population.num_units, population.num_protected
    delta, delta_reason = choose(
        target_delta, min(1e-5, protected**-1.1), "the smaller of 1e-5 and N^-1.1"
    )
    rounds, rounds_reason = choose(num_rounds, 50, "the default")
    spare, _ = choose(spare_attempts, max(3, math.ceil(rounds / 10)), "")
    cohort, cohort_reason = choose(
        expected_cohort_size, *_cohort_rule(units, is_whole=mechanism == FIXED_SIZE)
    )
    apart = 1
    if mechanism in CORRELATED:
        apart = separation if separation is not None else max(2, math.floor(units / cohort))
        if mechanism != CYCLIC_POISSON:  # all units whose turn it is take part
            cohort = units / apart
    if problems := _number_problems(delta, protected, cohort, units, mechanism, apart, rounds):
        raise ConfigError(problems)
    schedule = Schedule(
        population=population,
        mechanism=mechanism,
        target_epsilon=float(target_epsilon),
        delta=float(delta),
        num_rounds=rounds,
        num_charges=rounds + spare,
        cohort=float(cohort),
        dimension=dimension * (population.max_nodes_per_user if is_noised_by_nodes else 1),
        separation=apart,
    )
    return replace(schedule, reasons=_reasons(schedule, delta_reason, rounds_reason, cohort_reason))


def _reasons(schedule: Schedule, delta: str, rounds: str, cohort: str) -> dict[str, str]:
    """Why each number of a schedule is what it is; those that were chosen bring their reason."""
    population, num_rounds = schedule.population, schedule.num_rounds
    units = f"{population.num_units}"
    if population.sampling_unit != USER:
        units += f" {population.sampling_unit}s"
    spare = schedule.num_charges - num_rounds
    return {
        "clipping_norm": "a public constant",
        "delta": delta,
        "accounting_delta": f"{ACCOUNTING_SHARE:g} of delta, at which epsilon is read",
        "bridge_epsilon": "what the discrete noise adds to epsilon; 0 but for a large target",
        "bridge_delta": "what the discrete noise takes of delta, at most a hundredth",
        "num_rounds": rounds,
        "num_charges": f"{num_rounds} rounds and {spare} spare attempts for crashes",
        "expected_cohort_size": cohort,
        "sampling_probability": f"cohort of {schedule.cohort:g} out of {units}",
        "num_coins": _coins_reason(population),
        "relation": f"what {schedule.mechanism} sampling protects against",
    }


def population_problems(
    population: Population, mechanism: str, is_noised_by_nodes: bool
) -> list[str]:
    """Combinations that promise nothing, each with what to do instead."""
    problems = []
    if (population.unit, population.sampling_unit) == (EXAMPLE, USER):
        problems.append(
            'sampling.unit = "user": a promise per example needs examples to be drawn and clipped. '
            'Set sampling.unit = "example", or privacy.unit = "user", which promises more.'
        )
    if population.sampling_unit == EXAMPLE and population.num_examples is None:
        problems.append("privacy.num-examples: declare it where examples are drawn.")
    problems += _coin_problems(population)
    has_several = population.num_coins > 1 or population.max_nodes_per_user > 1
    if mechanism != POISSON and has_several:
        problems.append(
            f'privacy.mechanism = "{mechanism}": a user must be one unit on one node. Take '
            'privacy.mechanism = "poisson", or privacy.max-nodes-per-user = 1 and one unit for '
            "drawing and promise."
        )
    if mechanism in CORRELATED and is_noised_by_nodes:
        problems.append(
            f'privacy.mechanism = "{mechanism}": correlated noise is made in one place. Take '
            'privacy.trust = "server" or privacy.mechanism = "poisson".'
        )
    if mechanism == CYCLIC_POISSON and population.unit == EXAMPLE:
        # Without one example, the later ones of its user have other places and so other turns.
        problems.append(
            f'privacy.mechanism = "{mechanism}": the turn of an example follows its place among '
            'its user\'s. Take "poisson", "blt" or "banded", or privacy.unit = "user".'
        )
    return problems


def drawing_problems(
    drawn_by: str, sampling_unit: str, mechanism: str, is_noised_by_nodes: bool
) -> list[str]:
    """What a draw by the server, among nodes of one user each, cannot be combined with."""
    if drawn_by == NODE:
        return []
    problems = []
    if sampling_unit != USER:
        problems.append(
            'sampling.by = "server": the server draws users, and not their examples. Set '
            'sampling.unit = "user", or sampling.by = "node".'
        )
    if mechanism == FIXED_SIZE:
        problems.append(
            f'privacy.mechanism = "{mechanism}": with sampling.by = "server" the cohort would be '
            'drawn from the enrolled, who may be fewer than N. Take privacy.mechanism = "poisson".'
        )
    if is_noised_by_nodes:
        problems.append(
            'sampling.by = "server": with privacy.trust = "node" nobody trusts the server\'s '
            'coins. Set sampling.by = "node".'
        )
    return problems


def _coin_problems(population: Population) -> list[str]:
    examples, most = population.num_examples, population.max_examples_per_user
    if population.sampling_unit == USER or population.unit == EXAMPLE:
        bound = None
    elif most is None:
        return ["data.max-examples-per-user: a user's promise needs it where examples are drawn."]
    else:
        bound = population.num_users * most * population.max_nodes_per_user
    problems = []
    if bound is not None and examples is not None and examples > bound:
        problems.append(
            f"privacy.num-examples = {examples}: must be at most {bound}, which is what "
            f"{population.num_users} users with data.max-examples-per-user = {most} can have."
        )
    if population.num_coins > MAX_COINS:
        problems.append(
            f"data.max-examples-per-user = {most}: one user would have {population.num_coins} "
            f"coins, at most {MAX_COINS} are allowed. Keep fewer examples, or draw users."
        )
    return problems


def _number_problems(
    delta: float,
    protected: int,
    cohort: float,
    units: int,
    mechanism: str,
    separation: int,
    rounds: int,
) -> list[str]:
    problems = []
    if delta >= 1 / protected:
        problems.append(
            f"privacy.target-delta = {delta:g}: must be below 1/N = {1 / protected:.3g}; at or "
            "above it, publishing the data of a random user would pass for private."
        )
    if delta < MIN_DELTA:
        problems.append(
            f"privacy.target-delta = {delta:g}: must be at least {MIN_DELTA:g}, the least that "
            "the accountant resolves."
        )
    if cohort > units:
        problems.append(f"sampling.expected-cohort-size = {cohort:g}: must be at most N = {units}.")
    elif cohort * separation > units * (1 + 1e-9) and mechanism != FIXED_SIZE:
        problems.append(
            f"sampling.separation = {separation}: a cohort of {cohort:g} every round needs "
            f"{cohort * separation:g} units, and there are {units}. Lower either."
        )
    if mechanism == FIXED_SIZE and cohort != int(cohort):
        problems.append(
            f"sampling.expected-cohort-size = {cohort:g}: must be a whole number where cohorts "
            "have a fixed size."
        )
    if mechanism in CORRELATED and not 2 <= separation <= rounds:
        problems.append(
            f"sampling.separation = {separation}: must be from 2 to the number of rounds, "
            f'{rounds}. Take privacy.mechanism = "poisson" for fewer or larger cohorts.'
        )
    return problems


def _cohort_rule(units: int, *, is_whole: bool) -> tuple[float, str]:
    cohort = min(units, max(20, min(1000, units / 10)))
    return (math.floor(cohort) if is_whole else cohort), "N/10, between 20 and 1000"


def _coins_reason(population: Population) -> str:
    if population.unit == EXAMPLE:
        return "one coin per example"
    if population.sampling_unit == EXAMPLE:
        return (
            f"{population.max_examples_per_user} examples of a user on "
            f"{population.max_nodes_per_user} node(s), each with a coin"
        )
    return f"a user lies on {population.max_nodes_per_user} node(s), each with a coin"


def choose(given: Any, derived: Any, rule: str) -> tuple[Any, str]:
    """(value, reason): what was given, else what the rule derives."""
    return (derived, rule) if given is None else (given, "given")
