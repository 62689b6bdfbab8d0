"""Who is protected, who is drawn and how often: the public numbers a mechanism depends on."""

import math
from dataclasses import dataclass

USER, EXAMPLE = "user", "example"
NODE, SERVER = "node", "server"


@dataclass(frozen=True)
class Population:
    """Who is protected and who is drawn; declared and public.

    Attributes:
      unit: what epsilon protects, "user" or "example".
      sampling_unit: what is drawn and clipped, "user" or "example".
      num_users: N, training users only.
      num_examples: of all users together; None where users are drawn.
      max_examples_per_user: kept of one user; None where that does not enter the promise.
      max_nodes_per_user: nodes that may hold data of one user.
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
        """Most coins that decide about one protected unit in a round."""
        if self.unit == EXAMPLE:
            return 1
        return self.max_nodes_per_user * (self.max_examples_per_user or 1)


def declare_population(
    *,
    unit: str,
    sampling_unit: str,
    num_users: int,
    num_examples: int | None,
    max_examples_per_user: int | None,
    max_nodes_per_user: int,
) -> Population:
    """A population without the numbers that do not enter its promise; for them see `Population`."""
    draws_examples = sampling_unit == EXAMPLE
    return Population(
        unit=unit,
        sampling_unit=sampling_unit,
        num_users=num_users,
        num_examples=num_examples if draws_examples else None,
        max_examples_per_user=max_examples_per_user if draws_examples and unit == USER else None,
        max_nodes_per_user=max_nodes_per_user,
    )


@dataclass(frozen=True)
class Cohorts:
    """How the cohorts of a run are formed.

    Attributes:
      population: who is drawn.
      size: units of a round on average, the divisor of every released update.
      num_rounds: T.
      num_charges: T; in plans from before a burned attempt was its round, also spare attempts.
      separation: rounds between two participations of a unit; 1 without correlated noise.
      num_releases: of a round, each with all of the noise, that may hold one user: the nodes of a
        user where nodes add the noise.
    """

    population: Population
    size: float
    num_rounds: int
    num_charges: int
    separation: int
    num_releases: int = 1

    @property
    def num_spare(self) -> int:
        """Charges beyond the rounds, for burned attempts; 0 but in plans of before."""
        return self.num_charges - self.num_rounds

    @property
    def turn_probability(self) -> float:
        """Probability of a unit's coin in a round in which it may take part; `size` is the mean."""
        # Round-off must not give a probability above 1.
        return min(1.0, self.size * self.separation / self.population.num_units)

    @property
    def units_text(self) -> str:
        """The units that are drawn from, in words."""
        return f"N = {self.population.num_units} declared {self.population.sampling_unit}s"


def default_cohort_size(num_units: int) -> float:
    """N/10, between 20 and 1000, and at most N.

    >>> default_cohort_size(5000), default_cohort_size(15)
    (500.0, 15)
    """
    return min(num_units, max(20, min(1000, num_units / 10)))


def one_coin_problems(mechanism: str, population: Population) -> list[str]:
    """What a mechanism says of several coins per user that accounts for one."""
    if population.num_coins == 1 and population.max_nodes_per_user == 1:
        return []
    return [
        f'privacy.mechanism = "{mechanism}": a user must be one unit on one node. Take '
        'privacy.mechanism = "poisson", or privacy.max-nodes-per-user = 1 and one unit for '
        "drawing and promise."
    ]


def most_turns(num_rounds: int, separation: int) -> int:
    """Most participations of one unit: ceil(T / b)."""
    return math.ceil(num_rounds / separation)
