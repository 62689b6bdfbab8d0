"""The picture of a choice of the group size."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from feddp.simulations.run.pictures import COLOURS, INK, RED, panel, tick


def draw_nu(
    points: Sequence[tuple[int, float, float]],
    *,
    crossings: Sequence[float],
    chosen: tuple[int, float],
    title: str,
) -> Figure:
    """Predicted noise of users and of examples against G, with crossings and the choice.

    Args:
      points: (G, nu of users, nu of examples), in the order of G.
      crossings: group sizes at which both are equal.
      chosen: (G, nu).
    """
    with panel(3.6) as (figure, axis):
        sizes = [size for size, _, _ in points]
        for column, method, title_of in (
            (1, "uls", "users drawn (ULS)"),
            (2, "els", "examples drawn (ELS)"),
        ):
            values = [point[column] for point in points]
            axis.plot(sizes, values, marker="o", color=COLOURS[method], label=title_of)
        for number, size in enumerate(crossings):
            label = "crossover" if number == 0 else None
            axis.axvline(size, color=INK, linestyle=":", linewidth=1.2, label=label)
        axis.plot(*chosen, "o", markersize=13, markerfacecolor="none", color=RED, label="chosen")
        axis.set_title(title)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        tick(axis.xaxis, sizes)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.set_xlabel("group size G: examples of a user")
        axis.set_ylabel("predicted noise nu(G)")
        axis.legend(fontsize=9, ncols=2)
    return figure
