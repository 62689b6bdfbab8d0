"""blt and banded: correlated noise for units that take part whenever their turn comes."""

from collections.abc import Callable
from dataclasses import dataclass

from feddp.common.privacy.mechanism.cohorts import (
    Cohorts,
    Population,
    default_cohort_size,
    most_turns,
)
from feddp.common.privacy.mechanism.correlated import CorrelatedGaussian
from feddp.common.privacy.mechanism.events import ZERO_OUT, Charges
from feddp.common.privacy.mechanism.noise_matrix import NoiseMatrix, choose_banded, choose_blt
from feddp.common.privacy.mechanism.participation import FixedSeparation
from feddp.common.privacy.mechanism.quantile import Clipping
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.turns import (
    correlated_gaussian,
    correlation_problems,
    default_separation,
    separation_problems,
)


@dataclass(frozen=True)
class FixedTurns:
    """Every unit takes part when its turn comes; no coins, so no amplification by sampling.

    **Guarantee:** the whole run is one charge of one Gaussian; zero-out.

    Attributes:
      name: "blt" or "banded".
      matrix_rule: the matrix with the least mean error of the prefix sums, within a family.
    """

    name: str
    matrix_rule: Callable[[Cohorts], NoiseMatrix]
    relation: str = ZERO_OUT
    is_amplified: bool = False
    is_correlated: bool = True
    has_choice_of_turns: bool = False
    has_independent_rounds: bool = False
    needs_one_node: bool = False

    def problems(
        self, population: Population, *, drawn_by: str, is_noised_by_nodes: bool, is_adaptive: bool
    ) -> list[str]:
        """Those of correlated noise."""
        return correlation_problems(
            self.name, population, is_noised_by_nodes=is_noised_by_nodes, is_adaptive=is_adaptive
        )

    def arrange(
        self, num_units: int, size: float | None, separation: int | None
    ) -> tuple[float, int]:
        """The separation as given, or derived from the size; all units whose turn it is."""
        if separation is None:
            wanted = default_cohort_size(num_units) if size is None else size
            separation = default_separation(num_units, wanted)
        return num_units / separation, separation

    def number_problems(self, cohorts: Cohorts) -> list[str]:
        """The separation is in range."""
        return separation_problems(cohorts)

    def probability(self, cohorts: Cohorts) -> float:
        """1: there are no coins."""
        return 1.0

    def charges(self, cohorts: Cohorts, noise_multiplier: float) -> Charges:
        """One event, once."""
        made = self._participation(cohorts).event(
            noise_multiplier=noise_multiplier,
            num_rows=cohorts.num_rounds,
            num_spare=cohorts.num_spare,
        )
        return (made,)

    def choose_matrix(self, cohorts: Cohorts) -> NoiseMatrix | None:
        """By `matrix_rule`."""
        return self.matrix_rule(cohorts)

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
        """Turns a fixed number of rounds apart, correlated noise."""
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
        """Every unit whose turn it is."""
        return Draw(separation=cohorts.separation, salt=salt)

    def draw_text(self, cohorts: Cohorts) -> str:
        """Who is drawn, in words."""
        return (
            f"those of {cohorts.units_text} take part whose turn it is, every "
            f"{cohorts.separation} rounds (no amplification by sampling is claimed)"
        )

    def _participation(self, cohorts: Cohorts) -> FixedSeparation:
        separation = cohorts.separation
        return FixedSeparation(separation, most_turns(cohorts.num_rounds, separation))


BLT = FixedTurns("blt", choose_blt)
BANDED = FixedTurns("banded", choose_banded)
