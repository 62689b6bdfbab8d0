"""What a bench found is printed as it comes, and kept."""

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


def test_numbers_are_printed_short_and_nothing_is_drawn_without_ratios(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = Scoreboard()
    board.figure("shares", {"a": 0.123456, "b": [2.0, 31.4159]})
    board.skip("pfl", "not installed")
    board.write(tmp_path / "bench")
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["shares: {'a': 0.123, 'b': [2.0, 31.4]}", "pfl: skipped: not installed"]
    assert [path.name for path in (tmp_path / "bench").iterdir()] == ["bench.json"]
