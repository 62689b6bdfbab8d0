"""Pictures of a comparison: figures and noise against epsilon and group size."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from feddp.simulations.comparison.table import Row
from feddp.simulations.run.pictures import COLOURS, INK, panel, tick

# Value without memorisation, and the least range shown.
_AT_CHANCE = {"user_inference": (0.5, 0.4, 0.6), "exposure": (1.443, 0.0, 4.0)}


def draw_against_epsilon(rows: Sequence[Row], figure_name: str, label: str) -> Figure | None:
    """A figure of the rows against a user's epsilon, one line per method and group size."""
    with panel(3.6) as (figure, axis):
        num_drawn = 0
        for (method, adapter, size), line in _lines(rows, figure_name).items():
            style = "-" if size == max(row.group_size for row in rows) else "--"
            title = (
                method
                if method in ("none", "example")
                else f"{f'{method} {adapter}'.strip()}, G = {size}"
            )
            values = [interval.value for _, interval in line]
            if method == "none":
                axis.axhline(values[0], color=COLOURS[method], linewidth=1.2, label="no privacy")
            else:
                errors = [
                    [min(i.value - i.low, 10 * abs(i.value)) for _, i in line],
                    [min(i.high - i.value, 10 * abs(i.value)) for _, i in line],
                ]
                is_one_seed = any(i.high == float("inf") for _, i in line)
                axis.errorbar(
                    [epsilon for epsilon, _ in line],
                    values,
                    yerr=None if is_one_seed else errors,
                    marker="o",
                    linestyle=style,
                    color=COLOURS[method],
                    label=title,
                )
            num_drawn += 1
        axis.set_xscale("log")
        tick(axis.xaxis, sorted({row.epsilon for row in rows if row.epsilon}))
        axis.set_xlabel("epsilon of a user (upper bound, log scale)")
        axis.set_ylabel(label)
        if figure_name in _AT_CHANCE:  # keep small differences around chance small
            chance, least, most = _AT_CHANCE[figure_name]
            low, high = axis.get_ylim()
            axis.set_ylim(min(low, least), max(high, most))
            axis.axhline(chance, color=INK, linewidth=0.8, linestyle="--", label="chance")
        axis.legend(fontsize=9, ncols=3, loc="lower right", bbox_to_anchor=(1, 1.0))
    return figure if num_drawn else None


def _lines(rows: Sequence[Row], name: str) -> dict[tuple[str, str, int], list[tuple[float, Any]]]:
    """(epsilon of a user, interval) in order, by method and group size."""
    lines: dict[tuple[str, str, int], list[tuple[float, Any]]] = {}
    for row in rows:
        interval = row.metrics.get(name) or row.leakage.get(name)
        if interval is None:
            continue
        epsilon = float((row.promise or {}).get("user_epsilon", 0.0))
        lines.setdefault((row.method, row.adapter, row.group_size), []).append((epsilon, interval))
    return {key: sorted(line, key=lambda pair: pair[0]) for key, line in lines.items()}


def draw_noise(rows: Sequence[Row]) -> Figure | None:
    """Noise per round if users or if examples are drawn, against G or against epsilon.

    If only one group size was compared: against epsilon, one line per unit; None for one point.
    """
    found = [row for row in rows if row.promise and row.method in ("els", "uls")]
    sizes, epsilons = {row.group_size for row in found}, {row.epsilon for row in found}
    if len(sizes) < 2 and len(epsilons) < 2:
        return None
    is_by_size = len(sizes) > 1
    with panel(3.2) as (figure, axis):
        for method in ("uls", "els"):
            for name, line in _noise_lines(found, method, is_by_size=is_by_size).items():
                axis.plot(*zip(*line, strict=True), marker="o", color=COLOURS[method])
                axis.annotate(
                    name,
                    line[-1],
                    xytext=(7, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        tick(axis.xaxis, sorted(sizes if is_by_size else epsilons))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.set_xlabel("group size G" if is_by_size else "epsilon of a user")
        axis.set_ylabel("noise norm / clipping norm")
        axis.margins(x=0.25)
    return figure


def _noise_lines(
    rows: Sequence[Row], method: str, *, is_by_size: bool
) -> dict[str, list[tuple[float, float]]]:
    """Noise of one method in order of x: against G, one line per epsilon, or vice versa."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.method != method:
            continue
        size, epsilon = f"G = {row.group_size}", f"epsilon {row.epsilon:g}"
        name = f"{method}, {epsilon if is_by_size else size}"
        noise = float((row.promise or {})["noise_to_signal"])
        lines.setdefault(name, []).append((row.group_size if is_by_size else row.epsilon, noise))
    return {name: sorted(line) for name, line in lines.items()}
