"""Who is drawn how often, by which rule, and what that costs under any noise; no noise yet."""

from dataclasses import dataclass
from typing import Any

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.bridge import bridge_cost
from feddp.common.privacy.accounting.epsilon import FINE, PLD, epsilon
from feddp.common.privacy.mechanism.cohorts import EXAMPLE, NODE, USER, Cohorts, Population
from feddp.common.privacy.mechanism.events import Charges
from feddp.common.privacy.mechanism.mechanisms import Mechanism
from feddp.common.privacy.plan.request import Request, Trust

ACCOUNTING_SHARE = 0.99
MIN_DELTA = 1e-12  # below it, the accountant's own round-off (about 1e-15) is no longer negligible
MAX_COINS = 256  # of one user; beyond it a privacy loss distribution takes gigabytes

Reasons = dict[str, str]  # of each derived number


@dataclass(frozen=True)
class Schedule:
    """Who is drawn how often by which mechanism, and the target of the promise.

    Attributes:
      cohorts: who is drawn how often.
      mechanism: which noise is added, and what a round costs.
      target_epsilon: what was asked for.
      delta: of the promise.
      dimension: numbers that get noise in a release, on all nodes that may hold one user.
      accountant: which certifies the schedule; a plan keeps the one that it was made with.
    """

    cohorts: Cohorts
    mechanism: Mechanism
    target_epsilon: float
    delta: float
    dimension: int
    accountant: str = PLD

    @property
    def accounting_delta(self) -> float:
        """The share of delta at which epsilon is read."""
        return ACCOUNTING_SHARE * self.delta

    def charges(self, noise_multiplier: float) -> Charges:
        """All that the run may ever charge under this noise multiplier."""
        return self.mechanism.charges(self.cohorts, noise_multiplier)

    def spent(self, noise_multiplier: float, interval: float = FINE) -> float:
        """Epsilon of the whole schedule under this noise."""
        return epsilon(
            self.charges(noise_multiplier),
            delta=self.accounting_delta,
            relation=self.mechanism.relation,
            interval=interval,
            accountant=self.accountant,
        )

    def bridge(self, spent: float, noise_scale: int) -> tuple[float, float]:
        """What discrete noise of this scale adds to (epsilon, delta)."""
        return bridge_cost(
            num_charges=self.cohorts.num_charges,
            dimension=self.dimension,
            noise_scale=noise_scale,
            epsilon=spent,
            delta=self.delta,
        )


def make_schedule(
    request: Request, *, population: Population, mechanism: Mechanism, trust: Trust, dimension: int
) -> tuple[Schedule, Reasons]:
    """The schedule by rule or as given, and why its numbers are what they are.

    Args:
      request: for the rules see there.
      population: who is protected and who is drawn.
      mechanism: one of `MECHANISMS`.
      trust: who draws and who adds the noise.
      dimension: numbers of an update.

    Raises:
      ConfigError: a combination that promises nothing, or numbers out of range; all at once.
    """
    if problems := _combination_problems(population, mechanism, trust, request.is_adaptive):
        raise ConfigError(problems)
    delta, delta_reason = choose(
        request.target_delta,
        min(1e-5, population.num_protected**-1.1),
        "the smaller of 1e-5 and N^-1.1",
    )
    rounds, rounds_reason = choose(request.num_rounds, 50, "the default")
    _, size_reason = choose(request.expected_cohort_size, None, "N/10, between 20 and 1000")
    size, separation = mechanism.arrange(
        population.num_units, request.expected_cohort_size, request.separation
    )
    if request.separation is None and mechanism.has_choice_of_turns:
        separation = min(separation, rounds)
    has_several_noises = trust.is_noised_by_nodes and population.unit == USER
    num_releases = population.max_nodes_per_user if has_several_noises else 1
    cohorts = Cohorts(population, float(size), rounds, rounds, separation, num_releases)
    if problems := _number_problems(delta, cohorts) + mechanism.number_problems(cohorts):
        raise ConfigError(problems)
    schedule = Schedule(
        cohorts=cohorts,
        mechanism=mechanism,
        target_epsilon=float(request.target_epsilon),
        delta=float(delta),
        dimension=noised_dimension(dimension, population, trust, is_adaptive=request.is_adaptive),
    )
    return schedule, _reasons(schedule, delta_reason, rounds_reason, size_reason)


def noised_dimension(
    dimension: int, population: Population, trust: Trust, *, is_adaptive: bool
) -> int:
    """Numbers that get noise in a release, clip bit included, on all nodes that may hold a user."""
    num_noises = population.max_nodes_per_user if trust.is_noised_by_nodes else 1
    return (dimension + is_adaptive) * num_noises


def _reasons(schedule: Schedule, delta: str, rounds: str, cohort: str) -> Reasons:
    """Why each number of a schedule is what it is; chosen ones come with their reason."""
    cohorts, population = schedule.cohorts, schedule.cohorts.population
    units = f"{population.num_units}"
    if population.sampling_unit != USER:
        units += f" {population.sampling_unit}s"
    return {
        "clipping_norm": "a public constant",
        "delta": delta,
        "accounting_delta": f"{ACCOUNTING_SHARE:g} of delta, at which epsilon is read",
        "bridge_epsilon": "what the discrete noise adds to epsilon; 0 but for a large target",
        "bridge_delta": "what the discrete noise takes of delta, at most a hundredth",
        "num_rounds": rounds,
        "num_charges": (
            f"{cohorts.num_rounds} rounds; one that a crash burns is charged and not repeated"
        ),
        "expected_cohort_size": cohort,
        "sampling_probability": f"cohort of {cohorts.size:g} out of {units}",
        "num_coins": _coins_reason(population),
        "relation": f"what {schedule.mechanism.name} sampling protects against",
    }


def _combination_problems(
    population: Population, mechanism: Mechanism, trust: Trust, is_adaptive: bool
) -> list[str]:
    """Combinations that promise nothing, each with what to do instead."""
    problems = _drawing_problems(population, trust)
    if (population.unit, population.sampling_unit) == (EXAMPLE, USER):
        problems.append(
            'sampling.unit = "user": a promise per example needs examples to be drawn and clipped. '
            'Set sampling.unit = "example", or privacy.unit = "user", which promises more.'
        )
    if population.sampling_unit == EXAMPLE and population.num_examples is None:
        problems.append("privacy.num-examples: declare it where examples are drawn.")
    problems += _coin_problems(population, trust)
    return problems + mechanism.problems(
        population,
        drawn_by=trust.drawn_by,
        is_noised_by_nodes=trust.is_noised_by_nodes,
        is_adaptive=is_adaptive,
    )


def _drawing_problems(population: Population, trust: Trust) -> list[str]:
    """What a draw by the server, among nodes of one user each, cannot be combined with."""
    if trust.drawn_by == NODE:
        return []
    problems = []
    if population.sampling_unit != USER:
        problems.append(
            'sampling.by = "server": the server draws users, and not their examples. Set '
            'sampling.unit = "user", or sampling.by = "node".'
        )
    if trust.is_noised_by_nodes:
        problems.append(
            'sampling.by = "server": with privacy.trust = "node" nobody trusts the server\'s '
            'coins. Set sampling.by = "node".'
        )
    return problems


def _coin_problems(population: Population, trust: Trust) -> list[str]:
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
    num_coins = population.num_coins
    if trust.is_noised_by_nodes:
        num_coins //= population.max_nodes_per_user
    if num_coins > MAX_COINS:
        problems.append(
            f"data.max-examples-per-user = {most}: one user would have {num_coins} "
            f"coins, at most {MAX_COINS} are allowed. Keep fewer examples, or draw users."
        )
    return problems


def _number_problems(delta: float, cohorts: Cohorts) -> list[str]:
    problems, population = [], cohorts.population
    protected, units = population.num_protected, population.num_units
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
    size, separation = cohorts.size, cohorts.separation
    if size > units:
        problems.append(f"sampling.expected-cohort-size = {size:g}: must be at most N = {units}.")
    elif size * separation > units * (1 + 1e-9):
        problems.append(
            f"sampling.separation = {separation}: a cohort of {size:g} every round needs "
            f"{size * separation:g} units, and there are {units}. Lower either."
        )
    return problems


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
