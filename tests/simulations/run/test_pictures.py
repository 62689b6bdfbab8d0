"""Pictures: the curves of a run name the unit that is protected, and a picture stands alone."""

import re
from pathlib import Path

import pytest

from feddp.simulations.run.pictures import draw_curves, save

LINES = [
    {"round": 0, "epsilon": 0.0, "evaluation_loss": 4.0},
    {"round": 1, "epsilon": 0.5},
    {"round": 2, "epsilon": 0.8, "evaluation_loss": 3.5},
]


@pytest.mark.parametrize("unit", ["user", "example"])
def test_curves_name_the_unit_and_draw_what_was_measured(unit: str) -> None:
    figure = draw_curves(LINES, unit=unit, target_epsilon=2.0, delta=1e-5)
    above, below = figure.axes
    assert unit in below.get_ylabel()
    assert "1e-05" in below.get_xlabel()
    assert above.lines[0].get_xydata().tolist() == [[0, 4.0], [2, 3.5]]
    assert below.lines[0].get_xydata().tolist() == [[0, 0.0], [1, 0.5], [2, 0.8]]


def test_a_picture_is_kept_in_both_forms_and_takes_the_colour_of_its_page(tmp_path: Path) -> None:
    figure = draw_curves(LINES, unit="user", target_epsilon=2.0, delta=1e-5)
    body = save(figure, tmp_path, "curves")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "#333333" in (tmp_path / "curves.svg").read_text()
    assert "currentColor" in body
    assert "#123456" not in body
    assert all(name.startswith("curves-") for name in re.findall(r'id="([^"]+)"', body))
    again = draw_curves(LINES, unit="user", target_epsilon=2.0, delta=1e-5)
    assert save(again, tmp_path, "curves") == body
