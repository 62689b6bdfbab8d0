"""The catalogue of seeded bugs fits the source, and its quick part is killed."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mutants.catalogue import MUTANTS
from mutants.mutant import Mutant, MutantError, missing_tests, table
from mutants.run import ROOT

QUICK = [mutant for mutant in MUTANTS if mutant.is_quick]


def test_there_are_enough_mutants_and_no_two_of_one_name() -> None:
    assert len(MUTANTS) >= 40
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mutant_fits_the_source_and_names_tests_that_exist(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert mutant.apply(source) != source
    assert mutant.killed_by
    assert missing_tests(mutant, ROOT) == []


def test_the_page_shows_this_catalogue() -> None:
    """`python -m mutants --table` prints it."""
    page = (ROOT / "docs" / "assurance.md").read_text(encoding="utf-8").splitlines()
    rows = table(MUTANTS)
    start = page.index(rows[0])
    assert page[start : start + len(rows)] == rows


def test_no_mutant_is_killed_by_a_name_that_it_does_not_know(tmp_path: Path) -> None:
    for number, mutant in enumerate(MUTANTS):
        source = (ROOT / mutant.file).read_text(encoding="utf-8")
        (tmp_path / f"mutant_{number}.py").write_text(mutant.apply(source), encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F823"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("source", ["x = 1", "a = 1\na = 1\n"])
def test_a_mutant_whose_text_is_absent_or_ambiguous_is_refused(source: str) -> None:
    mutant = Mutant("m", "common/errors.py", {"a = 1": "a = 2"}, ("t::t",))
    with pytest.raises(MutantError, match="must stand there once"):
        mutant.apply(source)


def test_a_mutant_that_is_no_python_is_refused() -> None:
    with pytest.raises(MutantError, match="no Python"):
        Mutant("m", "common/errors.py", {"a = 1": "a = ("}, ("t::t",)).apply("a = 1")


HARMLESS = """
from mutants.mutant import Mutant
from mutants.run import run_mutants
harmless = Mutant(
    "another comment",
    "common/privacy/mechanism/summation.py",
    {"The sum over nobody.": "The sum of nobody."},
    ("tests/common/privacy/mechanism/test_summation.py::test_sum_over_nobody_is_zero",),
)
broken = Mutant("no test", harmless.file, harmless.changes, ("tests/absent.py::test_absent",))
print([verdict.is_killed for verdict in run_mutants([harmless, broken])])
"""


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that has not loaded the code under test."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_a_change_that_no_test_notices_and_a_test_that_is_absent_kill_nothing() -> None:
    done = run_python("-c", HARMLESS)
    assert done.stdout.strip() == "[False, False]", done.stderr


def test_the_quick_mutants_are_killed_and_their_tests_pass_without_them() -> None:
    done = run_python("-m", "mutants", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" killed ") == len(QUICK) >= 5
