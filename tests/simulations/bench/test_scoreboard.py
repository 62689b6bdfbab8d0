"""What a bench found is printed and kept."""

import json
from pathlib import Path

import pytest

from feddp.simulations.bench.race import Spread
from feddp.simulations.bench.scoreboard import Measure, Scoreboard


def test_a_scoreboard_writes_numbers_and_a_plot(tmp_path: Path) -> None:
    board = Scoreboard()
    board.measure([Measure("case", "engine", "loop", Spread(2.0, 1.0, 3.0), 100.0)])
    board.figure("share", {"a": 0.123456})
    board.skip("pfl", "not installed")
    board.write(tmp_path)
    written = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert written["measures"][0]["ratio"] == [1.0, 2.0, 3.0]
    assert written["figures"] == {"share": {"a": 0.123456}}
    assert written["skipped"] == {"pfl": "not installed"}
    assert (tmp_path / "bench.png").stat().st_size > 0


def test_what_is_found_is_printed_with_three_digits_as_it_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = Scoreboard()
    board.figure("shares", {"a": 0.123456, "b": [1234.5, 2]})
    board.skip("pfl", "not installed")
    board.write(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["shares: {'a': 0.123, 'b': [1230.0, 2]}", "pfl: skipped: not installed"]
    assert not (tmp_path / "bench.png").exists()  # there are no ratios
