from pathlib import Path

import pytest

from feddp.simulations.cli import main
from feddp.simulations.commands.measure import Stage
from feddp.simulations.comparison.table import write_comparison


def test_a_bench_of_no_turns_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--repeats", "0"]) == 2
    assert capsys.readouterr().err == "feddp: --repeats 0: must be at least 1.\n"


def test_a_bench_takes_several_stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def bench(*, repeats: int, folder: Path, only: list[str]) -> int:
        asked.append([str(repeats), folder.name, *only])
        return 0

    monkeypatch.setattr("feddp.simulations.bench.bench.bench", bench)
    words = ["bench", "--only", "pfl", "--only", "users", "--output-dir", str(tmp_path / "x")]
    assert main(words) == 0
    assert asked == [["3", "x", Stage.pfl, Stage.users]]


def test_a_report_says_where_its_page_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_comparison(tmp_path, [], [], "feddp compare x.toml")
    (tmp_path / "config.toml").write_text("[run]\n")
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(str(tmp_path / "report.html"))


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_a_run_that_is_not_there_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_comparison_without_its_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: cannot be read" in capsys.readouterr().err
