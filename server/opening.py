"""How a run comes to its ledger: its own, made with its folder, or its population's."""

from pathlib import Path

from common.config import RunConfig
from common.errors import ConfigError
from common.privacy.budget import FIXED_SCHEDULE
from common.privacy.disk import Disk
from common.privacy.ledger import Ledger, Start
from common.privacy.plan import PrivacyPlan
from common.privacy.rows import SCHEMA, Body
from common.privacy.slots import UPDATE, Planned, Slot, schedule_to_body
from common.privacy.statement import accountant_version

LEDGER_NAME = "ledger.sqlite"


def ledger_path(run_path: Path, config: RunConfig) -> Path:
    """Of the ledger that a run charges."""
    shared = config.privacy.ledger
    return Path(shared) if shared else run_path / LEDGER_NAME


def key_path(config: RunConfig) -> Path | None:
    """Of the ledger's private key; None: beside the ledger."""
    return Path(config.privacy.ledger_key) if config.privacy.ledger_key else None


def anchor_path(config: RunConfig) -> Path | None:
    """Of the operator's anchor; None: none is kept."""
    return Path(config.privacy.anchor) if config.privacy.anchor else None


def terms_of(plan: PrivacyPlan) -> dict[str, str | int]:
    """What must be the same in a plan and in the PLAN row of its ledger."""
    return {
        "unit": plan.unit,
        "relation": plan.relation,
        "trust": plan.trust,
        "seeded": "no" if plan.seed is None else "yes",
        "num_users": plan.num_users,
    }


def slot_of(plan: PrivacyPlan) -> Slot:
    """What each round's update costs."""
    return Slot(UPDATE, plan.event, plan.sum_dimension, plan.mechanism.noise_scale)


def planned_of(plan: PrivacyPlan) -> Planned:
    """All charges of a run."""
    ((_, num_events),) = plan.charges
    return Planned(slot_of(plan), plan.num_charges, num_events)


def plan_row(plan: PrivacyPlan, run: str = "") -> Body:
    """The PLAN row of a run's own ledger; its public key is added when it is written."""
    return {
        "schema": SCHEMA,
        "population": run,
        "scope": "run",
        **terms_of(plan),
        "mode": FIXED_SCHEDULE,
        "accountant": f"{plan.accountant} {accountant_version()}",
        "target_epsilon": repr(plan.target_epsilon),
        "target_delta": repr(plan.delta),
        "accounting_delta": repr(plan.accounting_delta),
        "schedule": schedule_to_body([planned_of(plan)]),
        "alpha": "",
        "budget": "",
        "plan_sha256": plan.sha256,
    }


def start_of(run: str, plan: PrivacyPlan) -> Start:
    """What a run says when it opens its ledger."""
    return Start(
        run=run,
        slot=slot_of(plan),
        num_charges=plan.num_charges,
        terms=terms_of(plan),
        plan_sha256=plan.sha256,
        config_sha256=plan.details.get("config_sha256", ""),
        base_sha256=plan.details.get("base_sha256", ""),
        layout_sha256=plan.details.get("layout_sha256", ""),
    )


def open_ledger(run_path: Path, config: RunConfig, *, disk: Disk | None = None) -> Ledger:
    """The ledger that a run charges, with its key and its anchor.

    Raises:
      ConfigError: it is the ledger of another population.
      LedgerDamagedError, LedgerLockedError, RolledBackError, DiskError: see `Ledger.open`.
    """
    path = ledger_path(run_path, config)
    ledger = Ledger.open(
        path, key_path=key_path(config), anchor_path=anchor_path(config), disk=disk
    )
    population = ledger.history.plan["population"]
    if config.privacy.population and population != config.privacy.population:
        ledger.__exit__(None, None, None)
        raise ConfigError(
            [
                f"privacy.population = {config.privacy.population!r}: {path} is the ledger of "
                f"{population!r}. Name the right one."
            ]
        )
    return ledger


def create_or_check_ledger(
    run_path: Path, config: RunConfig, plan: PrivacyPlan, run: str, disk: Disk
) -> None:
    """A new run's own ledger in its folder; or the proof that its population's has room for it.

    Raises:
      ConfigError: the population knows a run of that name.
      BudgetSpentError, PlanDiffersError: it does not fit. Nothing is written.
      LedgerDamagedError, LedgerLockedError, RolledBackError, DiskError: see `Ledger.open`.
    """
    if not config.privacy.ledger:
        key = key_path(config)
        Ledger.create(run_path / LEDGER_NAME, plan_row(plan, run), key_path=key, disk=disk)
        return
    with open_ledger(run_path, config, disk=disk) as ledger:
        if run in ledger.history.runs:
            raise ConfigError(
                [
                    f"run.name = {run!r}: a run of that name has charged {config.privacy.ledger}. "
                    "Continue it with `feddp simulate --resume`, or choose another name."
                ]
            )
        ledger.check_start(start_of(run, plan))
