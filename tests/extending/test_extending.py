"""Each change fits the source, takes no more files than the page says, and works."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutants.run import ROOT, copy_source
from test_layout import FOLDERS

from extending.change import FOLDER, Change
from extending.changes import CHANGES


def run_python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A process that has not loaded the code under test."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(cwd), str(cwd / "tests")])}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def apply_alone(change: Change, root: Path) -> None:
    """The changed files in a folder that has nothing else."""
    for name in change.files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name in change.edits:
            shutil.copy(ROOT / name, root / name)
    change.apply(root)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_change_fits_the_source_and_takes_few_files(change: Change, tmp_path: Path) -> None:
    apply_alone(change, tmp_path)
    changed = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(changed) == sorted(change.files)
    assert len(changed) <= change.max_files
    assert all(name.split("/")[0] in FOLDERS for name in changed)


def test_what_newcomers_write_is_as_neat_as_the_rest(tmp_path: Path) -> None:
    for number, change in enumerate(CHANGES):
        apply_alone(change, tmp_path / str(number))
    ours = 'lint.isort.known-first-party = ["feddp"]'
    settings = ["--config", str(ROOT / "pyproject.toml"), "--config", ours, "--no-cache"]
    for command in (["check"], ["format", "--check"]):
        done = run_python("-m", "ruff", *command, *settings, str(tmp_path))
        assert done.returncode == 0, done.stdout


def test_every_proof_and_every_new_file_belongs_to_a_change() -> None:
    assert {path.name for path in (FOLDER / "proofs").glob("prove_*.py")} == {
        change.proof for change in CHANGES
    }
    assert {path.name for path in (FOLDER / "new_files").glob("*.py")} == {
        name for change in CHANGES for name in change.new_files.values()
    }


def test_all_changes_work_together() -> None:
    done = run_python("-m", "extending")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("works  ")


@pytest.mark.slow
def test_each_change_works_alone() -> None:
    done = run_python("-m", "extending", "--apart")
    assert done.stdout.count("works  ") == len(CHANGES), done.stdout + done.stderr


@pytest.mark.slow
def test_no_proof_passes_without_its_change() -> None:
    done = run_python("-m", "extending", "--without")
    assert done.stdout.count("fails  ") == len(CHANGES), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("module", ["mypy", "importlinter.cli"])
def test_with_all_changes_types_and_imports_are_right(module: str, tmp_path: Path) -> None:
    copy = copy_source(tmp_path / "copy")
    for change in CHANGES:
        change.apply(copy)
    command = "from importlinter.cli import lint_imports_command as c; c()"
    arguments = ["-m", "mypy"] if module == "mypy" else ["-c", command]
    done = run_python(*arguments, cwd=copy)
    assert done.returncode == 0, done.stdout + done.stderr
