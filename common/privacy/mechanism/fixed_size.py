"""fixed-size: exactly so many units per round, drawn in one place; independent noise."""

import math
from dataclasses import dataclass

from feddp.common.privacy.mechanism.cohorts import (
    NODE,
    Cohorts,
    Population,
    default_cohort_size,
    one_coin_problems,
)
from feddp.common.privacy.mechanism.events import REPLACE_ONE, Charges
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.noise_matrix import NoiseMatrix
from feddp.common.privacy.mechanism.quantile import Clipping
from feddp.common.privacy.mechanism.sampling import Draw, FixedSizeSampler


@dataclass(frozen=True)
class FixedSize:
    """Cohorts of fixed size, sampled without replacement.

    **Guarantee:** every round is one charge; replace-one.
    """

    name: str = "fixed-size"
    relation: str = REPLACE_ONE
    is_amplified: bool = True
    is_correlated: bool = False
    has_choice_of_turns: bool = False
    has_independent_rounds: bool = False
    needs_one_node: bool = True

    def problems(
        self, population: Population, *, drawn_by: str, is_noised_by_nodes: bool, is_adaptive: bool
    ) -> list[str]:
        """A user is one unit, and one place knows all of them."""
        problems = one_coin_problems(self.name, population)
        if drawn_by != NODE:
            problems.append(
                f'privacy.mechanism = "{self.name}": with sampling.by = "server" the cohort would '
                "be drawn from the enrolled, who may be fewer than N. Take "
                'privacy.mechanism = "poisson".'
            )
        return problems

    def arrange(
        self, num_units: int, size: float | None, separation: int | None
    ) -> tuple[float, int]:
        """A whole number by rule, or the size as given; no separation."""
        return math.floor(default_cohort_size(num_units)) if size is None else size, 1

    def number_problems(self, cohorts: Cohorts) -> list[str]:
        """The size is a whole number."""
        if cohorts.size == int(cohorts.size):
            return []
        return [
            f"sampling.expected-cohort-size = {cohorts.size:g}: must be a whole number where "
            "cohorts have a fixed size."
        ]

    def probability(self, cohorts: Cohorts) -> float:
        """Of a unit to be in the cohort."""
        return cohorts.turn_probability

    def charges(self, cohorts: Cohorts, noise_multiplier: float) -> Charges:
        """One event per round."""
        return ((self._sampler(cohorts).event(noise_multiplier), cohorts.num_charges),)

    def choose_matrix(self, cohorts: Cohorts) -> NoiseMatrix | None:
        """None: the noise is independent."""
        return None

    def make(
        self,
        cohorts: Cohorts,
        clipping: Clipping,
        *,
        noise_multiplier: float,
        grid_steps: int,
        dimension: int,
        matrix: NoiseMatrix | None,
    ) -> GaussianMechanism:
        """A cohort of fixed size, independent noise."""
        return GaussianMechanism(
            sampler=self._sampler(cohorts),
            num_units=cohorts.population.num_units,
            expected_cohort_size=cohorts.size,
            clipping_norm=clipping.norm,
            noise_multiplier=noise_multiplier,
            grid_steps=grid_steps,
            dimension=dimension,
            quantile=clipping.quantile,
        )

    def draw(self, cohorts: Cohorts, salt: str) -> Draw:
        """The same number of units in every round."""
        return self._sampler(cohorts).draw

    def draw_text(self, cohorts: Cohorts) -> str:
        """Who is drawn, in words."""
        return f"exactly {cohorts.size:.10g} of {cohorts.units_text} are drawn"

    def _sampler(self, cohorts: Cohorts) -> FixedSizeSampler:
        return FixedSizeSampler(cohorts.population.num_units, int(cohorts.size))


FIXED_SIZE = FixedSize()
