"""Which unit to draw, how many of a user's examples, and where to clip: chosen on public users."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from feddp.simulations.group_size.planner import Prediction, Setting
from feddp.simulations.group_size.proxy import Proxy

_EQUAL = 1.01


@dataclass(frozen=True)
class Choice:
    """What is best by predicted noise.

    Attributes:
      unit: "user" (ULS) or "example" (ELS).
      group_size: G.
      noise: nu of the choice.
      other_size, other_noise: the best of the other unit; infinite if it cannot be drawn.
    """

    unit: str
    group_size: int
    noise: float
    other_size: int
    other_noise: float


def nu_of_users(prediction: Prediction, proxy: Proxy) -> float:
    """nu(G) = z(G) C(G) / (q N): noise per coordinate of a released mean if users are drawn."""
    if prediction.uls_noise is None:
        return math.inf
    return prediction.uls_noise * proxy.norm(prediction.group_size)


def nu_of_examples(prediction: Prediction, proxy: Proxy) -> float:
    """The same if examples are drawn, each clipped at the norm of a single one, C(1)."""
    return math.inf if prediction.els_noise is None else prediction.els_noise * proxy.norm(1)


def choose(predictions: Sequence[Prediction], proxy: Proxy) -> Choice | None:
    """The unit and group size with the least predicted noise; None if none can be drawn.

    For users: the smallest G within 1 % of the least noise. For examples the noise hardly depends
    on G, while a small G leaves examples unused, so G is the one nearest the median public user's
    count. Ties go to users, the simpler promise.

    Reference: Charles et al. 2024 (arXiv 2407.07737), sections 4 and 5.
    """
    least = min(nu_of_users(p, proxy) for p in predictions)
    by_user = next(p for p in predictions if nu_of_users(p, proxy) <= least * _EQUAL)
    by_example = min(predictions, key=lambda p: abs(p.group_size - proxy.median_count))
    other = nu_of_examples(by_example, proxy)
    if math.isinf(least) and math.isinf(other):
        return None
    if least <= other * _EQUAL:
        noise = nu_of_users(by_user, proxy)
        return Choice("user", by_user.group_size, noise, by_example.group_size, other)
    return Choice("example", by_example.group_size, other, by_user.group_size, least)


def crossings(predictions: Sequence[Prediction], proxy: Proxy) -> list[float]:
    """Group sizes with the same noise for both units, interpolated on a log scale."""
    found = []
    gaps = [
        (p.group_size, math.log(nu_of_users(p, proxy) / nu_of_examples(p, proxy)))
        for p in predictions
        if p.crossover is not None and p.group_size > 1  # at G = 1 both units are the same
    ]
    for (size, gap), (next_size, next_gap) in itertools.pairwise(gaps):
        if gap * next_gap < 0:
            share = gap / (gap - next_gap)
            found.append(float(size * (next_size / size) ** share))
    return found


def grouping_lines(
    setting: Setting,
    predictions: Sequence[Prediction],
    proxy: Proxy,
    *,
    source: str,
    choice: Choice | None,
    clipping_norm: float,
) -> list[str]:
    """The public statistics, nu(G) of both units, and the chosen settings with reasons."""
    lines = [
        "Group size G: examples of a user, where users (ULS) or examples (ELS) are drawn",
        f"  {setting.num_users} users, {setting.num_rounds} charges, "
        f"{setting.examples_per_round:.4g} examples a round, "
        f"epsilon {setting.target_epsilon:g} at delta {setting.target_delta:.2g}, user",
        f"  public statistics: {source}, {len(proxy.counts)} of them measured; the median has "
        f"{proxy.median_count:g} examples;",
        f"  two updates of one user have correlation {proxy.correlation:.2f}",
        "",
        f"  {'G':>4}{'examples':>10}{'C(G)':>8}{'C(G)/C(1)':>11}{'ULS below':>11}"
        f"{'nu ULS':>11}{'nu ELS':>11}   quieter",
    ]
    for p in predictions:
        norm, users, examples = (
            proxy.norm(p.group_size),
            nu_of_users(p, proxy),
            nu_of_examples(p, proxy),
        )
        bar = "-" if p.crossover is None else f"{p.crossover:.2f}"
        lines.append(
            f"  {p.group_size:>4}{proxy.mean_examples(p.group_size):>10.2f}{norm:>8.3g}"
            f"{norm / proxy.norm(1):>11.2f}{bar:>11}{_noise(users):>11}{_noise(examples):>11}"
            f"   {_quieter(users, examples)}"
        )
    return [
        *lines,
        "",
        "  examples: of a user, on average, where at most G are used. C(G): median norm of the",
        "  mean update of so many. ULS is quieter where C(G)/C(1) is below the bar. nu: noise of a",
        "  released mean, by coordinate: z C(G) / (q N) for ULS, z C(1) / examples for ELS.",
        "",
        *_choice_lines(setting, proxy, choice, clipping_norm),
    ]


def _choice_lines(
    setting: Setting, proxy: Proxy, choice: Choice | None, clipping_norm: float
) -> list[str]:
    if choice is None:
        return ["  No choice: more examples a round than there are. Lower the cohort."]
    size = choice.group_size
    is_user = choice.unit == "user"
    cohort = setting.examples_per_round / (proxy.mean_examples(size) if is_user else 1)
    gain = choice.other_noise / choice.noise
    versus = (
        f"1/{gain:.2f} of the noise of {'ELS' if is_user else 'ULS'} at G = {choice.other_size}"
        if math.isfinite(gain) and gain > _EQUAL
        else "as quiet as ELS, and the simpler promise"
    )
    why_size = "least nu" if is_user else "what the median public user has; nu hardly moves with it"
    rows = [
        (f'sampling.unit = "{choice.unit}"', versus),
        (f"data.max-examples-per-user = {size}", why_size),
        (f"privacy.clipping-norm = {clipping_norm:.2g}", "median norm of what is clipped"),
        (f"sampling.expected-cohort-size = {cohort:.0f}", "the same examples a round"),
    ]
    if not is_user:
        total = setting.num_users * proxy.mean_examples(size)
        rows.append(("privacy.num-examples = ?", f"declare it; about {total:.0f} by the proxy"))
    return ["  Chosen", *(f"    {text:<40} # {reason}" for text, reason in rows)]


def _noise(value: float) -> str:
    return "-" if math.isinf(value) else f"{value:.3g}"


def _quieter(users: float, examples: float) -> str:
    if math.isinf(users) or math.isinf(examples):
        return "-"
    if max(users, examples) <= _EQUAL * min(users, examples):
        return "="
    return "ULS" if users < examples else "ELS"
