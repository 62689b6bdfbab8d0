import inspect

from feddp.common import errors
from feddp.common.errors import ConfigError, FeddpError, ProblemsError

# Told apart by scripts and supervisors; a number never changes its meaning.
EXIT_CODES = {
    "FeddpError": 1,
    "ProblemsError": 2,
    "ConfigError": 2,
    "DataError": 2,
    "ModelError": 2,
    "LedgerDamagedError": 3,
    "RolledBackError": 4,
    "LedgerLockedError": 5,
    "BudgetSpentError": 6,
    "PlanDiffersError": 7,
    "DiskError": 8,
}


def test_every_error_has_its_exit_code() -> None:
    found = {
        name: kind.exit_code
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, FeddpError)
    }
    assert found == EXIT_CODES


def test_all_problems_of_a_check_are_told_in_their_order() -> None:
    error = ConfigError(["first", "second"])
    assert error.problems == ("first", "second")
    assert str(error) == "first\nsecond"
    assert isinstance(error, ProblemsError)


def test_the_only_problem_of_a_check_is_one_line() -> None:
    error = ConfigError("alone")
    assert (error.problems, str(error)) == (("alone",), "alone")
