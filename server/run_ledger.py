"""The ledger that a run charges: its own, or its population's."""

from pathlib import Path

from feddp.common.config.run_config import RunConfig
from feddp.common.disk import Disk
from feddp.common.errors import ConfigError
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.ledger_entries import plan_row, start_of
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.server.run_secrets import LEDGER_KEY, secret_path

LEDGER_NAME = "ledger.sqlite"


def ledger_path(run_path: Path, config: RunConfig) -> Path:
    """Path of the ledger that a run charges."""
    shared = config.privacy.ledger
    return Path(shared) if shared else run_path / LEDGER_NAME


def key_path(run_path: Path, config: RunConfig) -> Path | None:
    """Path of the ledger's private key: among the run's secrets; None: beside a shared ledger."""
    if config.privacy.ledger_key:
        return Path(config.privacy.ledger_key)
    return None if config.privacy.ledger else secret_path(run_path, LEDGER_KEY)


def anchor_path(config: RunConfig) -> Path | None:
    """Path of the operator's anchor; None if there is none."""
    return Path(config.privacy.anchor) if config.privacy.anchor else None


def open_ledger(run_path: Path, config: RunConfig, *, disk: Disk | None = None) -> Ledger:
    """The ledger that a run charges, with its key and its anchor.

    Raises:
      ConfigError: it is the ledger of another population.
      LedgerDamagedError, LedgerLockedError, RolledBackError, DiskError: see `Ledger.open`.
    """
    path = ledger_path(run_path, config)
    ledger = Ledger.open(
        path, key_path=key_path(run_path, config), anchor_path=anchor_path(config), disk=disk
    )
    population = ledger.history.plan["population"]
    if config.privacy.population and population != config.privacy.population:
        ledger.__exit__(None, None, None)
        raise ConfigError(
            f"privacy.population = {config.privacy.population!r}: {path} is the ledger of "
            f"{population!r}. Name the right one."
        )
    return ledger


def create_or_check_ledger(
    making: Path, run_path: Path, config: RunConfig, plan: PrivacyPlan, disk: Disk
) -> None:
    """Creates a new run's own ledger, or checks that its population's ledger has room for the run.

    Args:
      making: the folder that becomes the run's.
      run_path: which it becomes, with the run's name.
      config: of the run.
      plan: of the run.
      disk: where they lie.

    Raises:
      ConfigError: the population has a run of that name.
      BudgetSpentError, PlanDiffersError: the run does not fit; nothing is written.
      LedgerDamagedError, LedgerLockedError, RolledBackError, DiskError: see `Ledger.open`.
    """
    run = run_path.name
    if not config.privacy.ledger:
        key = key_path(run_path, config)
        Ledger.create(making / LEDGER_NAME, plan_row(plan, run), key_path=key, disk=disk)
        return
    with open_ledger(making, config, disk=disk) as ledger:
        if run in ledger.history.runs:
            raise ConfigError(
                f"run.name = {run!r}: a run of that name has charged {config.privacy.ledger}. "
                "Continue it with `feddp simulate --resume`, or choose another name."
            )
        ledger.check_start(start_of(run, plan))
