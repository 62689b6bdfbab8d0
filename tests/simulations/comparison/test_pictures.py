"""Pictures of a comparison show every row, and chance where attacks are drawn."""

from math import inf

import pytest

from feddp.simulations.comparison.pictures import draw_against_epsilon, draw_noise
from feddp.simulations.comparison.table import Row
from feddp.simulations.leakage.attacks import Interval


def row(method: str, epsilon: float, size: int, *, num_seeds: int = 3) -> Row:
    promise = {"user_epsilon": epsilon, "noise_to_signal": 10 / epsilon + size}
    width = 0.1 if num_seeds > 1 else inf
    loss, auc = (Interval(v, v - width, v + width) for v in (4 - epsilon / 4, 0.5))
    leakage = {"user_inference": auc}
    return Row(method, epsilon, size, num_seeds, promise, {"loss": loss}, leakage, 1.0)


def test_every_method_and_group_size_has_a_line_in_the_order_of_epsilon() -> None:
    rows = [row(m, e, g) for m in ("uls", "els") for e in (8.0, 1.0) for g in (1, 4)]
    none = Row("none", 0.0, 4, 3, None, {"loss": Interval(1.5, 1.4, 1.6)}, {}, 1.0)
    figure = draw_against_epsilon([*rows, none], "loss", "loss (nats)")
    assert figure is not None
    (axis,) = figure.axes
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sorted(labels) == sorted(
        ["no privacy", *(f"{m}, G = {g}" for m in ("uls", "els") for g in (1, 4))]
    )
    drawn = [list(map(float, c.lines[0].get_xdata())) for c in axis.containers]
    assert drawn == [[1.0, 8.0]] * 4
    assert [float(tick) for tick in axis.get_xticks()] == [1.0, 8.0]


def test_attacks_are_drawn_beside_chance_and_one_seed_without_an_interval() -> None:
    rows = [row("uls", epsilon, 4, num_seeds=1) for epsilon in (1.0, 8.0)]
    figure = draw_against_epsilon(rows, "user_inference", "AUC")
    assert figure is not None
    (axis,) = figure.axes
    assert "chance" in [text.get_text() for text in axis.get_legend().get_texts()]
    assert axis.get_ylim()[0] <= 0.4
    assert axis.get_ylim()[1] >= 0.6
    assert not axis.containers[0].has_yerr


def test_what_no_row_has_is_not_drawn() -> None:
    assert draw_against_epsilon([row("uls", 1.0, 4)], "exposure", "bits") is None


@pytest.mark.parametrize(
    ("points", "label"),
    [
        ([(1.0, 1), (1.0, 4)], "group size G"),
        ([(1.0, 4), (8.0, 4)], "epsilon of a user"),
    ],
)
def test_noise_is_drawn_over_what_was_varied(points: list[tuple[float, int]], label: str) -> None:
    figure = draw_noise([row(m, *point) for m in ("uls", "els") for point in points])
    assert figure is not None
    (axis,) = figure.axes
    assert axis.get_xlabel() == label
    assert len(axis.lines) == 2


def test_one_point_makes_no_line_of_noise() -> None:
    assert draw_noise([row("uls", 1.0, 4), row("els", 1.0, 4), row("example", 8.0, 1)]) is None
