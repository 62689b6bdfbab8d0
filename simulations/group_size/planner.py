"""feddp plan --group-size: how many examples of a user to use, before anything is spent.

Compares the noise of an averaged update, at equal user-level promise and examples per round: with
users drawn (ULS), a user's G examples are averaged and clipped together; with examples drawn (ELS),
each is clipped on its own, and a user is protected as a group of G. Reads no private data: all it
needs about users is one public number, the correlation of the gradients of one user's examples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from feddp.common.privacy.accounting.epsilon import COARSE, epsilon
from feddp.common.privacy.mechanism.events import ADD_OR_REMOVE_ONE, PoissonGaussianEvent

GROUP_SIZES = (1, 2, 4, 8, 16, 32)
_MIN_MULTIPLIER, _MAX_MULTIPLIER = 0.3, 3000.0
_TOLERANCE = 1e-3
_EQUAL = 0.01


@dataclass(frozen=True)
class Setting:
    """What both ways of drawing have in common.

    Attributes:
      num_users: N.
      num_rounds: T charges.
      examples_per_round: B, the compute of a round.
      target_epsilon, target_delta: of a user.
    """

    num_users: int
    num_rounds: int
    examples_per_round: float
    target_epsilon: float
    target_delta: float


@dataclass(frozen=True)
class Prediction:
    """Predicted noise at one group size.

    Attributes:
      group_size: G.
      uls_multiplier: z if users are drawn; None if B / G exceeds N.
      uls_noise: noise of an averaged example over the clipping norm of one example.
      els_multiplier, els_noise: the same if examples are drawn; None if B exceeds G N.
      crossover: ULS has less noise if the norm of a mean of G examples, over that of one, is below
        this.
    """

    group_size: int
    uls_multiplier: float | None
    uls_noise: float | None
    els_multiplier: float | None
    els_noise: float | None

    @property
    def crossover(self) -> float | None:
        """See the class."""
        if self.els_noise is None or self.uls_multiplier is None or self.uls_noise is None:
            return None
        return self.els_noise / self.uls_noise


def predict(
    setting: Setting,
    group_sizes: Sequence[int] = GROUP_SIZES,
    *,
    is_with_examples: bool = True,
    mean_examples: Callable[[int], float] = float,
) -> list[Prediction]:
    """Predicted noise of ULS and, if asked for, ELS for each group size.

    Args:
      setting: what is promised, and the compute.
      group_sizes: each G.
      is_with_examples: also ELS.
      mean_examples: average examples used per user, at most G each; G if every user has enough.

    Reference: Charles et al. 2024 (arXiv 2407.07737), section 4.
    """
    return [_predict(setting, size, mean_examples(size), is_with_examples) for size in group_sizes]


def typical_norm(group_size: int, correlation: float) -> float:
    """Norm of the mean of G gradients of one user over that of one, C_u(G) / C.

    Args:
      group_size: G.
      correlation: rho, the mean cosine between gradients of two examples of one user, 0 to 1.

    >>> round(typical_norm(4, 0.5), 4), typical_norm(16, 1.0)
    (0.7906, 1.0)
    """
    return math.sqrt(correlation + (1 - correlation) / group_size)


def nu(prediction: Prediction, correlation: float) -> float:
    """The noise of ULS at the clipping norm that its mean needs; the best G minimises it."""
    if prediction.uls_noise is None:
        return math.inf
    return prediction.uls_noise * typical_norm(prediction.group_size, correlation)


def best_group_size(predictions: Sequence[Prediction], correlation: float) -> tuple[int, float]:
    """(G, gain): the group size with the least noise under ULS, and the noise of G = 1 over it."""
    best = min(predictions, key=lambda p: nu(p, correlation))
    one = next(p for p in predictions if p.group_size == 1)
    return best.group_size, nu(one, correlation) / nu(best, correlation)


def calibrate(
    *, probability: float, num_coins: int, num_rounds: int, target_epsilon: float, delta: float
) -> float:
    """A noise multiplier that meets the target, to a thousandth; for predictions, not promises."""

    def keeps(multiplier: float) -> bool:
        """Whether a multiplier spends no more than the target."""
        event = PoissonGaussianEvent(probability, multiplier, num_coins)
        spent = epsilon(
            [(event, num_rounds)], delta=delta, relation=ADD_OR_REMOVE_ONE, interval=COARSE
        )
        return spent <= target_epsilon

    # From above, in growing steps: small multipliers make large distributions.
    high = 1.0 * num_coins
    while not keeps(high):
        high *= 2
        if high > _MAX_MULTIPLIER:
            return math.inf
    low = high / 2
    while low > _MIN_MULTIPLIER and keeps(low):
        low, high = low / 2, low
    while high / low > 1 + _TOLERANCE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if keeps(middle) else (middle, high)
    return high


def quieter_unit(prediction: Prediction, correlation: float) -> str:
    """Which way of drawing has less noise at one group size: "ULS", "ELS", "=", or "-".

    "=" means they differ by less than 1 %, "-" that a round would need more examples than exist.
    """
    if prediction.crossover is None:
        return "-"
    share = typical_norm(prediction.group_size, correlation) / prediction.crossover
    if abs(share - 1) < _EQUAL:
        return "="
    return "ULS" if share < 1 else "ELS"


def planner_lines(setting: Setting, predictions: Sequence[Prediction]) -> list[str]:
    """The table, the best group size and crossover for some correlations, and how to read them."""
    lines = [
        "Group size G: examples of a user, where users (ULS) or examples (ELS) are drawn",
        f"  {setting.num_users} users, {setting.num_rounds} charges, "
        f"{setting.examples_per_round:g} examples a round, "
        f"epsilon {setting.target_epsilon:g} at delta {setting.target_delta:.2g}, user",
        "",
        f"  {'G':>4}{'ULS z':>9}{'ULS noise':>12}{'ELS z':>9}{'ELS noise':>12}"
        "   ULS is quieter where C(G)/C is below",
    ]
    for p in predictions:
        cells = "".join(
            f"{'-' if value is None else f'{value:.{digits}f}':>{width}}"
            for value, digits, width in (
                (p.uls_multiplier, 3, 9),
                (p.uls_noise, 5, 12),
                (p.els_multiplier, 3, 9),
                (p.els_noise, 5, 12),
            )
        )
        bar = "-" if p.crossover is None else f"{p.crossover:.2f} {_bar(p.crossover)}"
        lines.append(f"  {p.group_size:>4}{cells}   {bar}")
    return [
        *lines,
        "",
        "  noise: of a mean over all examples of a round, in clipping norms C of one example",
        "  C(G)/C: norm of a mean of G gradients of one user over that of one gradient,",
        "          about sqrt(r + (1 - r) / G) where two gradients of a user have correlation r",
        "",
        *_crossover_lines(predictions),
        "",
        "  ELS is predicted for users who all have G examples. Measure r on public or generated",
        "  users, never on the private ones.",
    ]


def _crossover_lines(predictions: Sequence[Prediction]) -> list[str]:
    """By correlation: the best group size under ULS, its gain, and the quieter unit per size."""
    sizes = "".join(f"{p.group_size:>5}" for p in predictions)
    lines = [f"  {'r':>5}{'best G, ULS':>14}{'gain over G = 1':>18}   quieter at G ={sizes}"]
    for correlation in (0.0, 0.1, 0.5, 1.0):
        size, gain = best_group_size(predictions, correlation)
        is_known = math.isfinite(gain)  # G = 1 may take more users than there are
        best = str(size) if any(p.uls_noise is not None for p in predictions) else "-"
        units = "".join(f"{quieter_unit(p, correlation):>5}" for p in predictions)
        lines.append(
            f"  {correlation:>5.1f}{best:>14}{f'{gain:.2f}' if is_known else '-':>18}"
            f"{'':>17}{units}"
        )
    return lines


def _predict(setting: Setting, size: int, mean: float, is_with_examples: bool) -> Prediction:
    def multiplier(probability: float, num_coins: int) -> float | None:
        """The calibrated one; None where more would be drawn than there are."""
        if probability > 1:
            return None
        found = calibrate(
            probability=probability,
            num_coins=num_coins,
            num_rounds=setting.num_rounds,
            target_epsilon=setting.target_epsilon,
            delta=setting.target_delta,
        )
        return found if math.isfinite(found) else None

    examples = setting.examples_per_round
    probability = examples / (mean * setting.num_users)  # of a user's coin, and of an example's
    uls = multiplier(probability, 1)
    els = multiplier(probability, size) if is_with_examples else None
    return Prediction(
        group_size=size,
        uls_multiplier=uls,
        uls_noise=None if uls is None else uls * mean / examples,
        els_multiplier=els,
        els_noise=None if els is None else els / examples,
    )


def _bar(share: float) -> str:
    return "#" * round(20 * min(share, 1.5))
