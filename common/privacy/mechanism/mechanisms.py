"""The mechanisms that privacy.mechanism names, and what each of them answers for."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from feddp.common.privacy.mechanism.cohorts import Cohorts, Population
from feddp.common.privacy.mechanism.correlated import CorrelatedGaussian
from feddp.common.privacy.mechanism.cyclic_poisson import CYCLIC_POISSON
from feddp.common.privacy.mechanism.events import Charges
from feddp.common.privacy.mechanism.fixed_size import FIXED_SIZE
from feddp.common.privacy.mechanism.fixed_turns import BANDED, BLT
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.noise_matrix import NoiseMatrix
from feddp.common.privacy.mechanism.poisson import POISSON
from feddp.common.privacy.mechanism.quantile import Clipping
from feddp.common.privacy.mechanism.sampling import Draw


@runtime_checkable
class Mechanism(Protocol):
    """Who takes part, which noise is added, what that costs, and how it is put into words."""

    @property
    def name(self) -> str:
        """The value of privacy.mechanism."""
        ...

    @property
    def relation(self) -> str:
        """The neighbouring relation under which `charges` is the cost."""
        ...

    @property
    def is_amplified(self) -> bool:
        """The promise relies on the cohort being secret."""
        ...

    @property
    def is_correlated(self) -> bool:
        """The noise of a round depends on that of earlier rounds."""
        ...

    @property
    def has_choice_of_turns(self) -> bool:
        """Coins decide within a turn, so that separation and cohort size are two choices."""
        ...

    @property
    def has_independent_rounds(self) -> bool:
        """Each unit has its own coin in each round, and each round its own noise."""
        ...

    @property
    def needs_one_node(self) -> bool:
        """Only a node that has all units can draw."""
        ...

    def problems(
        self, population: Population, *, drawn_by: str, is_noised_by_nodes: bool, is_adaptive: bool
    ) -> list[str]:
        """What it cannot be combined with, each with what to do instead.

        Args:
          population: who is protected and who is drawn.
          drawn_by: who flips the coins, "node" or "server".
          is_noised_by_nodes: every node adds the full noise itself.
          is_adaptive: the clipping norm follows a quantile.
        """
        ...

    def arrange(
        self, num_units: int, size: float | None, separation: int | None
    ) -> tuple[float, int]:
        """(cohort size, separation) by rule (None) or as given."""
        ...

    def number_problems(self, cohorts: Cohorts) -> list[str]:
        """Numbers that are out of range."""
        ...

    def probability(self, cohorts: Cohorts) -> float:
        """Probability of a unit's coin in a round in which it may take part; 1 without coins."""
        ...

    def charges(self, cohorts: Cohorts, noise_multiplier: float) -> Charges:
        """All that a run may ever charge: one event, and how often."""
        ...

    def choose_matrix(self, cohorts: Cohorts) -> NoiseMatrix | None:
        """What correlates the noise; None where it is independent."""
        ...

    def make(
        self,
        cohorts: Cohorts,
        clipping: Clipping,
        *,
        noise_multiplier: float,
        grid_steps: int,
        dimension: int,
        matrix: NoiseMatrix | None,
    ) -> GaussianMechanism | CorrelatedGaussian:
        """What turns update sums into released updates."""
        ...

    def draw(self, cohorts: Cohorts, salt: str) -> Draw:
        """How the nodes draw in a round; the salt spreads units over the turns."""
        ...

    def draw_text(self, cohorts: Cohorts) -> str:
        """Who is drawn, in words."""
        ...


_ALL: tuple[Mechanism, ...] = (POISSON, FIXED_SIZE, BLT, BANDED, CYCLIC_POISSON)
MECHANISMS: Mapping[str, Mechanism] = {mechanism.name: mechanism for mechanism in _ALL}
