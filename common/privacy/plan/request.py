"""What is asked of a plan: numbers to be kept or found, and who is trusted with what."""

from collections.abc import Callable
from dataclasses import dataclass

from feddp.common.privacy.mechanism.cohorts import NODE
from feddp.common.privacy.mechanism.quantile import QuantileClipping


@dataclass(frozen=True, kw_only=True)
class Request:
    """The numbers that are asked for; None asks for the rule.

    **Edge cases:**

    | argument | rule for None |
    |---|---|
    | target_delta | min(1e-5, N^-1.1), N the protected units |
    | noise_multiplier | the smallest that keeps the target |
    | num_rounds | 50 |
    | expected_cohort_size | N/10 of the drawn units, between 20 and 1000, at most N |
    | separation | with correlated noise: N / cohort, at least 2 |
    | quantile | the clipping norm is fixed |

    Attributes:
      target_epsilon: of everything that is released.
      target_delta: of the same.
      noise_multiplier: z, noise standard deviation over clipping norm.
      clipping_norm: C of the first round.
      num_rounds: T.
      expected_cohort_size: units of a round on average; without coins, all whose turn it is.
      separation: rounds between two participations; of no effect without correlated noise.
      quantile: expected cohort size -> how C follows a quantile of the updates' norms.
    """

    target_epsilon: float
    clipping_norm: float
    target_delta: float | None = None
    noise_multiplier: float | None = None
    num_rounds: int | None = None
    expected_cohort_size: float | None = None
    separation: int | None = None
    quantile: Callable[[float], QuantileClipping] | None = None

    @property
    def is_adaptive(self) -> bool:
        """The clipping norm follows a quantile."""
        return self.quantile is not None


@dataclass(frozen=True)
class Trust:
    """Who is trusted with what is not yet noised.

    Attributes:
      model: "simulation", "server" or "node"; how the statement says it.
      is_noised_by_nodes: every node adds the full noise before its sum leaves it.
      drawn_by: who flips the coins, "node" or "server".
      asks_everyone: where the server draws, undrawn nodes are asked too.
    """

    model: str
    is_noised_by_nodes: bool = False
    drawn_by: str = NODE
    asks_everyone: bool = False
