"""What a person sees: the plan, the progress and the table at the end."""

import sys
import time
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from feddp.common.privacy.mechanism.allocation import update_noise_multiplier
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.privacy.plan.statement import delta_text, epsilon_text, guarantee_line
from feddp.server.rounds import RoundReport


def plan_lines(plan: PrivacyPlan) -> list[str]:
    """The derived numbers of a plan, each with its reason."""
    noise = plan.mechanism.noise_norm
    values: Sequence[tuple[str, str, str]] = [
        ("unit", plan.unit, f"protected; {plan.population.sampling_unit}s are drawn and clipped"),
        ("mechanism", plan.schedule.mechanism.name, f"neighbours by {plan.relation}"),
        ("num users N", f"{plan.num_users}", "declared"),
        *_examples(plan),
        ("target epsilon", f"{plan.target_epsilon:g}", "given"),
        ("delta", delta_text(plan.delta), plan.reasons["delta"]),
        ("rounds", f"{plan.num_rounds}", plan.reasons["num_rounds"]),
        ("charges", f"{plan.num_charges}", plan.reasons["num_charges"]),
        ("cohort q N", f"{plan.expected_cohort_size:g}", plan.reasons["expected_cohort_size"]),
        ("sampling q", f"{plan.sampling_probability:.5g}", plan.reasons["sampling_probability"]),
        ("noise multiplier", f"{plan.noise_multiplier:.4f}", plan.reasons["noise_multiplier"]),
        ("clipping norm C", f"{plan.clipping_norm:g}", _clipping(plan)),
        ("grid steps K", f"2^{plan.noise.grid_steps.bit_length() - 1}", plan.reasons["grid_steps"]),
        ("trained numbers", f"{plan.dimension}", "the adapter's layout"),
        ("noise norm", f"{noise:.4g}", "of a released update: z C sqrt(P) / (q N)"),
        (
            "noise to signal",
            f"{noise / plan.clipping_norm:.3g}",
            "per round, against updates that all reach C and agree",
        ),
        ("epsilon", epsilon_text(plan.epsilon), plan.reasons["epsilon"]),
    ]
    return [f"  {name:<17} {value:>12}   {reason}" for name, value, reason in values]


def _examples(plan: PrivacyPlan) -> list[tuple[str, str, str]]:
    """What is worth a line only where a user may have several coins or examples are drawn."""
    lines = []
    if plan.population.num_examples is not None:
        lines.append(
            ("num examples", f"{plan.population.num_examples}", "declared, of all users together")
        )
    if plan.population.num_coins > 1:
        lines.append(("coins of a user", f"{plan.population.num_coins}", plan.reasons["num_coins"]))
    if plan.cohorts.separation > 1:
        lines.append(
            ("separation", f"{plan.cohorts.separation}", "rounds from one turn to the next")
        )
    return lines


def _clipping(plan: PrivacyPlan) -> str:
    adaptive = plan.clipping.quantile
    if adaptive is None:
        return plan.reasons["clipping_norm"]
    split = update_noise_multiplier(plan.noise_multiplier, adaptive.bit_noise)
    return (
        f"of round 1; then it follows the {adaptive.quantile:g} quantile of the norms, whose "
        f"count gets noise of {adaptive.bit_noise:g}, which leaves the update {split:.4f} C"
    )


def curve_lines(curve: Sequence[float], plan: PrivacyPlan) -> list[str]:
    """Epsilon after some of the rounds, as bars."""
    total = len(curve)
    shown = sorted({max(1, round(total * share / 10)) for share in range(1, 11)})
    lines = ["  charges  epsilon"]
    for count in shown:
        bar = "#" * max(1, round(40 * curve[count - 1] / plan.target_epsilon))
        lines.append(f"  {count:>7}  {curve[count - 1]:>7.3f}  {bar}")
    return lines


class Progress:
    """A bar on a terminal, plain lines elsewhere; public values only."""

    def __init__(self, plan: PrivacyPlan, curve: Sequence[float]):
        self._plan, self._curve = plan, curve
        self._first: tuple[int, float] | None = None  # round and time of the first report
        self._bar = (
            tqdm(total=plan.num_rounds, unit="round", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )
        self._last_loss = ""

    def show(self, report: RoundReport, num_charges: int) -> None:
        """One released round."""
        if report.evaluation is not None:
            self._last_loss = f"loss {report.evaluation.loss:.4f}"
        first_round, since = self._first = self._first or (report.round, time.monotonic())
        spent = self._curve[num_charges - 1] if num_charges else 0.0
        meter = f"epsilon {spent:.2f}/{self._plan.target_epsilon:g}"
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._last_loss}, {meter}".lstrip(", "))
            self._bar.update(report.round - self._bar.n)
            return
        if report.evaluation is not None or report.round == self._plan.num_rounds:
            pace = (time.monotonic() - since) / max(1, report.round - first_round)
            left = pace * (self._plan.num_rounds - report.round)
            line = f"round {report.round:>4}/{self._plan.num_rounds}  {self._last_loss}  {meter}"
            print(line + (f"  {left:.0f} s left" if left else ""), flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()


def result_lines(results: Mapping[str, Mapping[str, float] | None], plan: PrivacyPlan) -> list[str]:
    """Base, private and non-private side by side, with the share of the gain that was kept."""
    rows = [(name, values) for name, values in results.items() if values]
    if not rows:
        return ["No evaluation users, so there is nothing to compare."]
    names = list(rows[0][1])
    lines = ["  " + " ".join([f"{'':<12}", *(f"{name:>11}" for name in names), "  guarantee"])]
    for name, values in rows:
        guarantee = {
            "base": "no private data used",
            "private": (
                f"epsilon <= {epsilon_text(plan.epsilon)}, delta {delta_text(plan.delta)}, "
                f"{plan.unit}"
            ),
        }.get(name, "none")
        cells = " ".join(f"{values[metric]:>11.4f}" for metric in names)
        lines.append(f"  {name:<12} {cells}   {guarantee}")
    base, private, ceiling = (results.get(k) for k in ("base", "private", "non_private"))
    if base and private and ceiling and base["loss"] > ceiling["loss"]:
        kept = (base["loss"] - private["loss"]) / (base["loss"] - ceiling["loss"])
        lines.append(f"  gain kept: {100 * kept:.0f} % of the non-private gain in loss")
    return [*lines, "", f"  {guarantee_line(plan)}"]
