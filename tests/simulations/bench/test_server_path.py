"""The server's way from a reply to the next adapter, on a real ledger."""

import pytest

from feddp.simulations.bench import server_path as measured
from feddp.simulations.bench.scoreboard import Scoreboard
from feddp.simulations.bench.server_path import measure_server, server_path


def test_the_server_path_is_measured_on_a_real_ledger_and_noise() -> None:
    seconds, copies = server_path(2, numbers=2000)
    assert len(seconds) == 2
    assert min(seconds) > 0
    assert copies > 1


def test_both_optimizers_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "server_path", lambda repeats, kind: ([0.5] * repeats, 3.0))
    board = Scoreboard()
    measure_server(board, 2)
    assert sum("fedavg" in name for name in board.figures) == 2
    assert sum("fedadam" in name for name in board.figures) == 2
