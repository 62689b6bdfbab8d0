"""Every error that a person can see, with its exit code."""

from collections.abc import Sequence


class FeddpError(Exception):
    """A mistake or a state that a person can act on; printed as its message, without a traceback.

    Messages say what is wrong, the value, what is allowed, and what to do.
    """

    exit_code = 1


class ProblemsError(FeddpError):
    """All problems of one check at once, or the only one.

    `problems`: one line each, in the order in which they were found.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]):
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class ConfigError(ProblemsError):
    """The configuration asks for something that is unknown, out of range or contradictory."""


class DataError(ProblemsError):
    """The data cannot be read as the configuration describes it."""


class ModelError(ProblemsError):
    """The base model cannot be loaded, or lacks the modules that the adapter needs."""


class LedgerDamagedError(FeddpError):
    """The ledger does not verify: damaged, tampered with, or of an unknown version."""

    exit_code = 3


class RolledBackError(FeddpError):
    """The ledger does not extend a remembered head: an old copy, or another ledger."""

    exit_code = 4


class LedgerLockedError(FeddpError):
    """Another process holds the ledger."""

    exit_code = 5


class BudgetSpentError(FeddpError):
    """The next charge would exceed what the plan allows; nothing was drawn."""

    exit_code = 6


class PlanDiffersError(FeddpError):
    """The plan of this run is not the one that the ledger was opened with."""

    exit_code = 7


class DiskError(FeddpError):
    """A write or sync failed; the open charge counts as spent."""

    exit_code = 8
