"""Run folders and ledgers as the first layout of feddp wrote them: they open, and say the same.

`old_runs/CASE/expected.json` is what that version read and printed. Each test has a copy: reading
must not change a file, and continuing does.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.statement import guarantee_line
from feddp.server.run import load_run
from feddp.simulations.cli import main

RUNS = Path(__file__).parent / "old_runs"
EXPECTED: dict[str, dict[str, Any]] = {
    path.parent.name: json.loads(path.read_text()) for path in sorted(RUNS.glob("*/expected.json"))
}
QUICK = "seeded-unfinished"
RESUMED = [
    pytest.param(case, name, marks=[] if case == QUICK else [pytest.mark.slow])
    for case, expected in EXPECTED.items()
    for name in expected["resume"]
]


@pytest.fixture
def folder(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a case, where commands run; git does not keep the modes of its secrets."""
    copy = tmp_path / case
    shutil.copytree(RUNS / case, copy)
    for name, mode in EXPECTED[case]["modes"].items():
        (copy / name).chmod(int(mode, 8))
    monkeypatch.chdir(copy)
    return copy


def said(expected: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and text of a command."""
    capsys.readouterr()
    code = main(expected["arguments"])
    shown = capsys.readouterr()
    return code, (shown.out + shown.err).replace(str(Path.cwd()), "CASE")


def test_every_old_run_says_what_is_expected_of_it() -> None:
    assert set(EXPECTED) == {path.name for path in RUNS.iterdir()}
    assert EXPECTED[QUICK]["resume"]


@pytest.mark.parametrize("case", EXPECTED)
def test_an_old_run_opens_with_the_plan_and_promise_that_it_had(case: str, folder: Path) -> None:
    for name, expected in EXPECTED[case]["runs"].items():
        run = load_run(folder / name)
        assert run.plan.sha256 == expected["plan_sha256"]
        assert run.plan.to_json() == (folder / name / "plan.json").read_text()
        assert guarantee_line(run.plan) == expected["guarantee_line"]
        releases = Ledger.read(run.ledger_path).runs[run.name].releases
        assert len(releases) == expected["released_rounds"]


@pytest.mark.parametrize("case", EXPECTED)
def test_an_old_ledger_has_the_same_rows_and_verifies_as_it_did(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    commands = [run["verify"] for run in EXPECTED[case]["runs"].values()]
    for name, expected in EXPECTED[case]["ledgers"].items():
        content = Ledger.read_content(folder / name)
        assert content.history.head.hex() == expected["head"]
        assert [row[1] for row in content.rows] == expected["kinds"]
        assert content.history.public_key.hex() == expected["public_key"]
        assert (content.history.open_charge is not None) == expected["open_charge"]
        commands.append(expected["verify"])
    commands += [EXPECTED[case]["with_anchor"]] if "with_anchor" in EXPECTED[case] else []
    for expected in commands:
        assert said(expected, capsys) == (expected["exit_code"], expected["output"])
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(("case", "name"), RESUMED)
def test_an_unfinished_old_run_is_continued_as_the_old_version_did(
    case: str, name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = EXPECTED[case]["resume"][name]
    code, text = said(expected, capsys)
    assert code == expected["exit_code"], text
    ledger = Ledger.read_content(load_run(folder / name).ledger_path)
    assert [row[1] for row in ledger.rows] == expected["ledger_kinds"]
    assert main(["ledger", "verify", name]) == expected["verify_exit_code"]
