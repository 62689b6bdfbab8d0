"""Pictures of runs and comparisons: drawn once, inlined as SVG, and left as SVG and PNG."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from feddp.simulations.comparison.table import Row

# Replaced by the page's own text colour, so that one picture serves light, dark and paper.
_INK = "#123456"
_COLOURS = {
    "none": "#8a8f98",
    "example": "#c98a1b",
    "els": "#2f9e77",
    "uls": "#3b7dd8",
    "federated": "#a45bc0",
}
# Value without memory, and what is shown at least.
_AT_CHANCE = {"user_inference": (0.5, 0.4, 0.6), "exposure": (1.443, 0.0, 4.0)}
BLUE, RED = "#3b7dd8", "#d1495b"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "feddp",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#8a8f98",
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def draw_curves(lines: Sequence[Mapping[str, Any]], target_epsilon: float) -> Any:
    """Evaluation loss, and epsilon, over the rounds of a run: two panels of one picture."""
    with plt.rc_context(_STYLE):
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(7, 4.6), sharex=True, height_ratios=(3, 2), layout="constrained"
        )
        evaluated = [line for line in lines if "evaluation_loss" in line]
        above.plot(
            [line["round"] for line in evaluated],
            [line["evaluation_loss"] for line in evaluated],
            color=BLUE,
            marker="o",
            markersize=4,
        )
        above.set_ylabel("evaluation loss (nats)")
        below.plot(
            [line["round"] for line in lines], [line["epsilon"] for line in lines], color=RED
        )
        below.axhline(target_epsilon, color=RED, linestyle=":", linewidth=1)
        below.set_ylim(0, 1.1 * target_epsilon)
        below.set_ylabel("epsilon")
        below.set_xlabel("round")
    return figure


def draw_attacks(models: Mapping[str, Mapping[str, Any]], ceiling: float) -> Any:
    """AUC of every attack with its interval, a row each, on the models that were measured."""
    with plt.rc_context(_STYLE):
        names = ["user inference", *(f"membership, {n}" for n in models["private"]["membership"])]
        figure, axis = plt.subplots(figsize=(7, 0.7 + 0.55 * len(names)), layout="constrained")
        palette = {"base": "#8a8f98", "private": BLUE, "overfitted": RED}
        for offset, (model, leakage) in enumerate(models.items()):
            attacks = [leakage["user_inference"], *leakage["membership"].values()]
            values = [attack["auc"]["value"] for attack in attacks]
            errors = [
                [a["auc"]["value"] - a["auc"]["low"] for a in attacks],
                [a["auc"]["high"] - a["auc"]["value"] for a in attacks],
            ]
            heights = [index + 0.18 * (offset - 1) for index in range(len(names))]
            axis.errorbar(
                values,
                heights,
                xerr=errors,
                fmt="o",
                color=palette[model],
                label=model,
                markersize=5,
            )
        axis.axvline(0.5, color=_INK, linewidth=0.8)
        axis.axvline(ceiling, color=RED, linestyle=":", linewidth=1.2, label="ceiling")
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_xlim(0.3, 1.02)
        axis.set_xlabel("AUC (0.5 is chance)")
        axis.legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 1.0), fontsize=9)
    return figure


def draw_exposure(models: Mapping[str, Mapping[str, Any]]) -> Any | None:
    """Histogram of exposure in bits; None where no secret was ranked."""
    found = {name: model["exposure"] for name, model in models.items() if model["exposure"]}
    if not found:
        return None
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
        palette = {"base": "#8a8f98", "private": BLUE, "overfitted": RED}
        top = max(max(exposure["bits"]) for exposure in found.values())
        bins = [index * 0.5 for index in range(int(2 * top) + 3)]
        axis.hist(
            [exposure["bits"] for exposure in found.values()],
            bins=bins,
            color=[palette[name] for name in found],
            label=list(found),
        )
        axis.axvline(1.443, color=_INK, linewidth=0.8, linestyle="--", label="mean without memory")
        axis.set_xlabel("exposure (bits)")
        axis.set_ylabel("secrets")
        axis.legend(fontsize=9)
    return figure


def draw_against_epsilon(rows: Sequence[Row], figure_name: str, label: str) -> Any | None:
    """A figure of the rows against the epsilon of a user, a line per method and group size."""
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
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
                axis.axhline(values[0], color=_COLOURS[method], linewidth=1.2, label="no privacy")
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
                    color=_COLOURS[method],
                    label=title,
                )
            num_drawn += 1
        axis.set_xscale("log")
        _tick(axis.xaxis, sorted({row.epsilon for row in rows if row.epsilon}))
        axis.set_xlabel("epsilon of a user (upper bound, log scale)")
        axis.set_ylabel(label)
        if figure_name in _AT_CHANCE:  # differences around chance look like what they are
            chance, least, most = _AT_CHANCE[figure_name]
            low, high = axis.get_ylim()
            axis.set_ylim(min(low, least), max(high, most))
            axis.axhline(chance, color=_INK, linewidth=0.8, linestyle="--", label="chance")
        axis.legend(fontsize=9, ncols=3, loc="lower right", bbox_to_anchor=(1, 1.0))
    if num_drawn:
        return figure
    plt.close(figure)
    return None


def draw_noise(rows: Sequence[Row]) -> Any | None:
    """Noise per round where users and where examples are drawn: against G, or against epsilon.

    Against epsilon, a line per unit, where one group size was compared; None where one point was.
    """
    found = [row for row in rows if row.promise and row.method in ("els", "uls")]
    sizes, epsilons = {row.group_size for row in found}, {row.epsilon for row in found}
    if len(sizes) < 2 and len(epsilons) < 2:
        return None
    is_by_size = len(sizes) > 1
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
        for method in ("uls", "els"):
            for name, line in _noise_lines(found, method, is_by_size=is_by_size).items():
                axis.plot(*zip(*line, strict=True), marker="o", color=_COLOURS[method])
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
        _tick(axis.xaxis, sorted(sizes if is_by_size else epsilons))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.set_xlabel("group size G" if is_by_size else "epsilon of a user")
        axis.set_ylabel("noise norm / clipping norm")
        axis.margins(x=0.25)
    return figure


def _noise_lines(
    rows: Sequence[Row], method: str, *, is_by_size: bool
) -> dict[str, list[tuple[float, float]]]:
    """Noise of one method in the order of its x: G, a line per epsilon, or the other way round."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.method != method:
            continue
        size, epsilon = f"G = {row.group_size}", f"epsilon {row.epsilon:g}"
        name = f"{method}, {epsilon if is_by_size else size}"
        noise = float((row.promise or {})["noise_to_signal"])
        lines.setdefault(name, []).append((row.group_size if is_by_size else row.epsilon, noise))
    return {name: sorted(line) for name, line in lines.items()}


def draw_nu(
    points: Sequence[tuple[int, float, float]],
    *,
    crossings: Sequence[float],
    chosen: tuple[int, float],
    title: str,
) -> Any:
    """Predicted noise of users and of examples against G, where they cross, and what is chosen.

    Args:
      points: (G, nu of users, nu of examples), in the order of G.
      crossings: group sizes at which both are equal.
      chosen: (G, nu).
      title: what is promised.
    """
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
        sizes = [size for size, _, _ in points]
        for column, method, title_of in (
            (1, "uls", "users drawn (ULS)"),
            (2, "els", "examples drawn (ELS)"),
        ):
            values = [point[column] for point in points]
            axis.plot(sizes, values, marker="o", color=_COLOURS[method], label=title_of)
        for number, size in enumerate(crossings):
            label = "crossover" if number == 0 else None
            axis.axvline(size, color=_INK, linestyle=":", linewidth=1.2, label=label)
        axis.plot(*chosen, "o", markersize=13, markerfacecolor="none", color=RED, label="chosen")
        axis.set_title(title)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        _tick(axis.xaxis, sizes)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.set_xlabel("group size G: examples of a user")
        axis.set_ylabel("predicted noise nu(G)")
        axis.legend(fontsize=9, ncols=2)
    return figure


def _tick(axis: Any, values: Sequence[float]) -> None:
    """Ticks at these values alone, as plain numbers."""
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)


def save(figure: Any, folder: Path, name: str) -> str:
    """Writes NAME.svg and NAME.png; returns the SVG for a page, in the page's text colour."""
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    (folder / f"{name}.svg").write_text(svg.replace(_INK, "#333333"), encoding="utf-8")
    (folder / f"{name}.png").write_bytes(_png(figure))
    plt.close(figure)
    body = svg[svg.index("<svg") :]
    body = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', body, count=1)
    # Ids are made unique: several pictures share one page.
    body = re.sub(r'(id="|#)([A-Za-z]\w*)', rf"\g<1>{name}-\g<2>", _without_colours(body))
    return body.replace("INK", "currentColor")


def _without_colours(body: str) -> str:
    """Ink to a word, and other colours to a form without "#", which marks ids."""
    body = body.replace(_INK, "INK")
    return re.sub(
        r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})\b",
        lambda m: "rgb({},{},{})".format(*(int(part, 16) for part in m.groups())),
        body,
    )


def _png(figure: Any) -> bytes:
    """On white, in dark ink."""
    for axis in figure.axes:
        for text in axis.findobj(matplotlib.text.Text):
            if text.get_color() == _INK:
                text.set_color("#333333")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, facecolor="white")
    return content.getvalue()


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
