"""Text output of a run: the plan, the curve of epsilon and the table of results."""

from collections.abc import Mapping, Sequence

from feddp.common.privacy.mechanism.allocation import update_noise_multiplier
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.privacy.plan.statement import delta_text, epsilon_text, guarantee_line


def plan_lines(plan: PrivacyPlan) -> list[str]:
    """The derived numbers of a plan, each with its reason."""
    return [f"  {name:<17} {value:>12}   {reason}" for name, value, reason in plan_rows(plan)]


def plan_rows(plan: PrivacyPlan) -> Sequence[tuple[str, str, str]]:
    """(name, value, reason) of every derived number."""
    noise = plan.mechanism.noise_norm
    return [
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


def _examples(plan: PrivacyPlan) -> list[tuple[str, str, str]]:
    """Rows for runs with drawn examples, several coins per user or a separation."""
    lines = []
    if plan.population.num_examples is not None:
        lines.append(
            ("num examples", f"{plan.population.num_examples}", "declared, of all users together")
        )
    if plan.population.num_coins > 1:
        lines.append(("coins of a user", f"{plan.population.num_coins}", plan.reasons["num_coins"]))
    if plan.cohorts.separation > 1:
        lines.append(
            (
                "separation",
                f"{plan.cohorts.separation}",
                plan.reasons.get("separation", "rounds from one turn to the next"),
            )
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


Results = Mapping[str, Mapping[str, float] | None]


def result_lines(results: Results, plan: PrivacyPlan) -> list[str]:
    """Base, private and non-private side by side, with the share of the gain that was kept."""
    head, rows = result_rows(results, plan)
    if not rows:
        return ["No evaluation users, so there is nothing to compare."]
    lines = ["  " + " ".join([f"{'':<12}", *(f"{name:>11}" for name in head[1:-1]), "  guarantee"])]
    for name, *cells, guarantee in rows:
        lines.append(f"  {name:<12} {' '.join(f'{cell:>11}' for cell in cells)}   {guarantee}")
    base, private, ceiling = (results.get(k) for k in ("base", "private", "non_private"))
    if base and private and ceiling and base["loss"] > ceiling["loss"]:
        kept = (base["loss"] - private["loss"]) / (base["loss"] - ceiling["loss"])
        lines.append(f"  gain kept: {100 * kept:.0f} % of the non-private gain in loss")
    return [*lines, "", f"  {guarantee_line(plan)}"]


def result_rows(results: Results, plan: PrivacyPlan) -> tuple[list[str], list[list[str]]]:
    """(column names, one row per model): its name, its metrics, and its guarantee."""
    rows = [(name, values) for name, values in results.items() if values]
    if not rows:
        return [], []
    names = list(rows[0][1])
    private = (
        f"epsilon <= {epsilon_text(plan.epsilon)}, delta {delta_text(plan.delta)}, {plan.unit}"
    )
    guarantees = {"base": "no private data used", "private": private}
    return ["", *names, "guarantee"], [
        [name, *(f"{values[metric]:.4f}" for metric in names), guarantees.get(name, "none")]
        for name, values in rows
    ]
