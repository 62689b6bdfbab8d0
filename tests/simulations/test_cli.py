import subprocess
import sys
from pathlib import Path

import pytest

from feddp.simulations.cli import main


def test_config_errors_come_before_anything_heavy_is_imported() -> None:
    script = (
        "import sys; from simulations.cli import main;"
        "code = main(['simulate', '--set', 'privacy.noise_multiplier=1']);"
        "heavy = {'torch', 'transformers', 'peft', 'dp_accounting'} & set(sys.modules);"
        "print(sorted(heavy)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (2, "[]")
    assert done.stderr.strip() == (
        'feddp: Unknown key "privacy.noise_multiplier". Did you mean "privacy.noise-multiplier"?'
    )


def test_keys_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--keys"]) == 0
    out = capsys.readouterr().out
    assert "privacy.target-epsilon = 8.0" in out
    assert "data.user-column" in out


def test_a_run_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["simulate", "--resume"], ["ledger", "verify"], ["chat"]):
        assert main([*arguments, str(tmp_path / "none")]) == 2
        error = capsys.readouterr().err
        assert "no run here" in error
        assert "Traceback" not in error


def test_plan_prints_each_number_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--set", "run.rounds=20"]) == 0
    out = capsys.readouterr().out
    for part in ("noise multiplier", "noise to signal", "N/10", "spare attempts", "Epsilon over"):
        assert part in out


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
