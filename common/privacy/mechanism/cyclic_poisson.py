"""cyclic-poisson: correlated noise, and a coin for each unit whose turn it is."""

from dataclasses import dataclass

from feddp.common.privacy.mechanism.cohorts import (
    EXAMPLE,
    Cohorts,
    Population,
    default_cohort_size,
)
from feddp.common.privacy.mechanism.correlated import CorrelatedGaussian
from feddp.common.privacy.mechanism.events import ADD_OR_REMOVE_ONE, Charges
from feddp.common.privacy.mechanism.noise_matrix import NoiseMatrix, choose_single_turn_banded
from feddp.common.privacy.mechanism.participation import CyclicPoisson
from feddp.common.privacy.mechanism.quantile import Clipping
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.turns import (
    correlated_gaussian,
    correlation_problems,
    default_separation,
    separation_problems,
)


@dataclass(frozen=True)
class CyclicPoissonTurns:
    """Units take turns, and a coin decides who of a turn takes part.

    **Guarantee:** one charge per turn of a unit; add-or-remove-one.
    """

    name: str = "cyclic-poisson"
    relation: str = ADD_OR_REMOVE_ONE
    is_amplified: bool = True
    is_correlated: bool = True
    has_choice_of_turns: bool = True
    has_independent_rounds: bool = False
    needs_one_node: bool = False

    def problems(
        self, population: Population, *, drawn_by: str, is_noised_by_nodes: bool, is_adaptive: bool
    ) -> list[str]:
        """Those of correlated noise; and examples have no turns of their own."""
        problems = correlation_problems(
            self.name, population, is_noised_by_nodes=is_noised_by_nodes, is_adaptive=is_adaptive
        )
        if population.unit == EXAMPLE:
            # Removing one example would move its user's later ones to other turns.
            problems.append(
                f'privacy.mechanism = "{self.name}": the turn of an example follows its place '
                'among its user\'s. Take "poisson", "blt" or "banded", or privacy.unit = "user".'
            )
        return problems

    def arrange(
        self, num_units: int, size: float | None, separation: int | None
    ) -> tuple[float, int]:
        """The size as given; the separation as given, or derived from the size."""
        if size is None:
            size = default_cohort_size(num_units)
        return size, default_separation(num_units, size) if separation is None else separation

    def number_problems(self, cohorts: Cohorts) -> list[str]:
        """The separation is in range."""
        return separation_problems(cohorts)

    def probability(self, cohorts: Cohorts) -> float:
        """q' of a coin when the turn has come."""
        return cohorts.turn_probability

    def charges(self, cohorts: Cohorts, noise_multiplier: float) -> Charges:
        """One event per turn of a unit."""
        made = self._participation(cohorts).event(
            noise_multiplier=noise_multiplier,
            num_rows=cohorts.num_rounds,
            num_spare=cohorts.num_spare,
        )
        return (made,)

    def choose_matrix(self, cohorts: Cohorts) -> NoiseMatrix | None:
        """A banded matrix whose bands touch one participation of a unit only."""
        return choose_single_turn_banded(cohorts)

    def make(
        self,
        cohorts: Cohorts,
        clipping: Clipping,
        *,
        noise_multiplier: float,
        grid_steps: int,
        dimension: int,
        matrix: NoiseMatrix | None,
    ) -> CorrelatedGaussian:
        """Coins within turns, correlated noise."""
        return correlated_gaussian(
            cohorts,
            clipping,
            self._participation(cohorts),
            noise_multiplier=noise_multiplier,
            grid_steps=grid_steps,
            dimension=dimension,
            matrix=matrix,
        )

    def draw(self, cohorts: Cohorts, salt: str) -> Draw:
        """A coin per unit whose turn it is."""
        return Draw(self.probability(cohorts), separation=cohorts.separation, salt=salt)

    def draw_text(self, cohorts: Cohorts) -> str:
        """Who is drawn, in words."""
        return (
            f"every one of {cohorts.units_text} whose turn it is, every {cohorts.separation} "
            f"rounds, is drawn with probability {self.probability(cohorts):.10g}"
        )

    def _participation(self, cohorts: Cohorts) -> CyclicPoisson:
        return CyclicPoisson(cohorts.separation, self.probability(cohorts))


CYCLIC_POISSON = CyclicPoissonTurns()
