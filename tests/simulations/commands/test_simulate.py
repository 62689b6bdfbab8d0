from pathlib import Path

import pytest

from feddp.simulations.cli import main


def test_a_new_noise_segment_needs_a_run_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--new-noise-segment"]) == 2
    assert "only a run that is resumed has lost its key" in capsys.readouterr().err


def test_a_run_to_resume_may_stand_in_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--set", f"run.resume={tmp_path / 'none'}"]) == 2
    assert f"{tmp_path / 'none'}: no run here" in capsys.readouterr().err


def test_the_command_is_kept_as_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []

    def show_resumption(path: Path, *, is_new_segment: bool, command: str) -> int:
        kept.append(command)
        return 0

    monkeypatch.setattr("feddp.simulations.run.terminal.show_resumption", show_resumption)
    assert main(["simulate", "--resume", "a run"]) == 0
    assert kept == ["feddp simulate --resume 'a run'"]
