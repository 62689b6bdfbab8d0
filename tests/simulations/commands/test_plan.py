from pathlib import Path

import pytest

from feddp.simulations.cli import main


def test_keys_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--keys"]) == 0
    out = capsys.readouterr().out
    assert "privacy.target-epsilon = 8.0" in out
    assert "data.user-column" in out


def test_plan_prints_each_number_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--set", "run.rounds=20"]) == 0
    out = capsys.readouterr().out
    for part in ("noise multiplier", "noise to signal", "N/10", "not repeated", "Epsilon over"):
        assert part in out


def test_plan_prints_the_estimate_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--set", "run.rounds=5", "--set", "privacy.cross-check=edgeworth"]
    assert main(words) == 0
    assert "Edgeworth" in capsys.readouterr().out


def test_public_users_are_for_group_sizes_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--proxy", "users.jsonl"]) == 2
    assert capsys.readouterr().err == (
        "feddp: --proxy: only --group-size reads it. Add --group-size.\n"
    )


def test_check_of_the_demo_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--set", "run.rounds=5", "--count-users"]) == 0
    out = capsys.readouterr().out
    assert "fit together" in out
    assert "3000" in out


def test_check_reports_model_and_data_problems_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["check", "--set", f"data.path={tmp_path}/none.jsonl", "--set"]
    arguments += ["privacy.num-users=100", "--set", "adapter.target-modules=c_attn"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "no such file" in error
    assert "q_proj" in error
