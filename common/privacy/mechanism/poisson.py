"""poisson: a coin per unit and round, independent noise in every round."""

from dataclasses import dataclass

from feddp.common.privacy.mechanism.cohorts import Cohorts, Population, default_cohort_size
from feddp.common.privacy.mechanism.events import ADD_OR_REMOVE_ONE, Charges
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.noise_matrix import NoiseMatrix
from feddp.common.privacy.mechanism.quantile import Clipping
from feddp.common.privacy.mechanism.sampling import Draw, PoissonSampler


@dataclass(frozen=True)
class Poisson:
    """Poisson sampling; the one mechanism that accounts for several coins of one user.

    **Guarantee:** every round is one charge; add-or-remove-one.
    """

    name: str = "poisson"
    relation: str = ADD_OR_REMOVE_ONE
    is_amplified: bool = True
    is_correlated: bool = False
    has_choice_of_turns: bool = False
    has_independent_rounds: bool = True
    needs_one_node: bool = False

    def problems(
        self, population: Population, *, drawn_by: str, is_noised_by_nodes: bool, is_adaptive: bool
    ) -> list[str]:
        """None of its own."""
        return []

    def arrange(
        self, num_units: int, size: float | None, separation: int | None
    ) -> tuple[float, int]:
        """The size as given; no separation."""
        return default_cohort_size(num_units) if size is None else size, 1

    def number_problems(self, cohorts: Cohorts) -> list[str]:
        """None of its own."""
        return []

    def probability(self, cohorts: Cohorts) -> float:
        """q."""
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
        """A coin per unit, independent noise."""
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
        """A coin per unit."""
        return self._sampler(cohorts).draw

    def draw_text(self, cohorts: Cohorts) -> str:
        """Who is drawn, in words."""
        return (
            f"every one of {cohorts.units_text} is drawn with probability "
            f"{self.probability(cohorts):.10g}"
        )

    def _sampler(self, cohorts: Cohorts) -> PoissonSampler:
        num_releases = cohorts.num_releases
        coins = cohorts.population.num_coins // num_releases
        return PoissonSampler(self.probability(cohorts), coins, num_releases)


POISSON = Poisson()
