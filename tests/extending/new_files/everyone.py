"""everyone: every unit in every round, without a coin; independent noise."""

from dataclasses import dataclass

from feddp.common.privacy.mechanism.cohorts import Cohorts, Population, one_coin_problems
from feddp.common.privacy.mechanism.events import ADD_OR_REMOVE_ONE, Charges, GaussianEvent
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.noise_matrix import NoiseMatrix
from feddp.common.privacy.mechanism.quantile import Clipping
from feddp.common.privacy.mechanism.sampling import Draw


@dataclass(frozen=True)
class EveryUnit:
    """Nobody is left out, so whoever is added or removed moves every sum by C at most."""

    relation: str = ADD_OR_REMOVE_ONE

    @property
    def draw(self) -> Draw:
        """Everybody."""
        return Draw()

    def mean_cohort(self, num_units: int) -> float:
        """All units."""
        return float(num_units)

    def event(self, noise_multiplier: float) -> GaussianEvent:
        """A Gaussian, without amplification."""
        return GaussianEvent(noise_multiplier)


@dataclass(frozen=True)
class Everyone:
    """Full participation: for few users who are always there.

    **Guarantee:** every round is one charge; add-or-remove-one.
    """

    name: str = "everyone"
    relation: str = ADD_OR_REMOVE_ONE
    is_amplified: bool = False
    is_correlated: bool = False
    has_choice_of_turns: bool = False
    has_independent_rounds: bool = False
    needs_one_node: bool = False

    def problems(
        self, population: Population, *, drawn_by: str, is_noised_by_nodes: bool, is_adaptive: bool
    ) -> list[str]:
        """A user is one unit: several would add up to more than C."""
        return one_coin_problems(self.name, population)

    def arrange(
        self, num_units: int, size: float | None, separation: int | None
    ) -> tuple[float, int]:
        """All units; no separation."""
        return float(num_units) if size is None else size, 1

    def number_problems(self, cohorts: Cohorts) -> list[str]:
        """The cohort is everybody."""
        if cohorts.size == cohorts.population.num_units:
            return []
        return [
            f"sampling.expected-cohort-size = {cohorts.size:g}: must be all of "
            f'{cohorts.units_text}. Leave it out, or take privacy.mechanism = "poisson".'
        ]

    def probability(self, cohorts: Cohorts) -> float:
        """1: there are no coins."""
        return 1.0

    def charges(self, cohorts: Cohorts, noise_multiplier: float) -> Charges:
        """One event per round."""
        return ((EveryUnit().event(noise_multiplier), cohorts.num_charges),)

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
        """All units, independent noise."""
        return GaussianMechanism(
            sampler=EveryUnit(),
            num_units=cohorts.population.num_units,
            expected_cohort_size=cohorts.size,
            clipping_norm=clipping.norm,
            noise_multiplier=noise_multiplier,
            grid_steps=grid_steps,
            dimension=dimension,
            quantile=clipping.quantile,
        )

    def draw(self, cohorts: Cohorts, salt: str) -> Draw:
        """Everybody."""
        return EveryUnit().draw

    def draw_text(self, cohorts: Cohorts) -> str:
        """Who is drawn, in words."""
        return f"all of {cohorts.units_text} take part (no amplification by sampling is claimed)"


EVERYONE = Everyone()
