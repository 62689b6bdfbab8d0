"""The shared style of pictures, how they are saved, and the curves of a run."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.privacy.plan.statement import delta_text
from feddp.common.tracking import read_metrics
from feddp.server.publisher import METRICS_NAME

CURVES_NAME = "curves.png"

# Replaced by the page's text colour, so that one picture works on light, dark and paper.
INK = "#123456"
BLUE, RED, GREY = "#3b7dd8", "#d1495b", "#8a8f98"
COLOURS = {
    "none": GREY,
    "example": "#c98a1b",
    "els": "#2f9e77",
    "uls": BLUE,
    "federated": "#a45bc0",
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "feddp",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#8a8f98",
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


@contextmanager
def panel(height: float, *, width: float = 7.0) -> Iterator[tuple[Figure, Any]]:
    """A figure in the shared style, in inches, and its one axis, to draw on inside the block."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def draw_curves(
    lines: Sequence[Mapping[str, Any]], *, unit: str, target_epsilon: float, delta: float
) -> Figure:
    """Evaluation loss, and epsilon of the protected unit, by lines of metrics.jsonl: two panels."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 4.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
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
        below.set_ylabel(f"epsilon, {unit}")
        below.set_xlabel(f"round; epsilon is an upper bound at delta {delta_text(delta)}")
    return figure


def curves_of(folder: Path, plan: PrivacyPlan) -> Figure:
    """The curves of a run folder, from its metrics.jsonl."""
    return draw_curves(
        read_metrics(folder / METRICS_NAME),
        unit=plan.unit,
        target_epsilon=plan.target_epsilon,
        delta=plan.delta,
    )


def leave_curves(folder: Path, plan: PrivacyPlan) -> None:
    """Writes curves.png of a run into its folder."""
    write_png(curves_of(folder, plan), folder / CURVES_NAME)


def tick(axis: Any, values: Sequence[float]) -> None:
    """Ticks only at these values, as plain numbers."""
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)


def save(figure: Figure, folder: Path, name: str) -> str:
    """Writes NAME.svg and NAME.png; returns the SVG for a page, in the page's text colour."""
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    (folder / f"{name}.svg").write_text(svg.replace(INK, "#333333"), encoding="utf-8")
    write_png(figure, folder / f"{name}.png")
    body = svg[svg.index("<svg") :]
    body = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', body, count=1)
    # Unique ids, because several pictures share one page.
    body = re.sub(r'(id="|#)([A-Za-z]\w*)', rf"\g<1>{name}-\g<2>", _without_colours(body))
    return body.replace("INK", "currentColor")


def _without_colours(body: str) -> str:
    """Ink as "currentColor", and other colours without "#", which here marks ids."""
    body = body.replace(INK, "INK")
    return re.sub(
        r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})\b",
        lambda m: "rgb({},{},{})".format(*(int(part, 16) for part in m.groups())),
        body,
    )


def write_png(figure: Figure, path: Path) -> None:
    """Writes the figure as PNG, in dark ink on white."""
    for axis in figure.axes:
        for text in axis.findobj(Text):
            if text.get_color() == INK:
                text.set_color("#333333")
    figure.savefig(path, format="png", dpi=150, facecolor="white")
