"""Checks that a ledger, its run's plan and its run's promise agree."""

import json
from pathlib import Path

from feddp.common.errors import LedgerDamagedError, PlanDiffersError
from feddp.common.privacy.ledger.history import History
from feddp.common.privacy.plan.ledger_entries import plan_row
from feddp.common.privacy.plan.shared_population import planned_epsilon
from feddp.common.privacy.plan.statement import epsilon_text, privacy_record
from feddp.server.run import Run

# Fields of privacy.json that must equal the plan's.
PROMISED = (
    "unit",
    "neighboring_relation",
    "trust",
    "epsilon",
    "delta",
    "noise_multiplier",
    "clipping_norm",
    "sampling_probability",
    "num_users",
    "num_charges",
    "accounting_delta",
    "bridge_epsilon",
    "bridge_delta",
    "seeded",
    "plan_sha256",
)


def check_plan(run: Run, history: History) -> None:
    """Refuses a plan that differs from the ledger in more than versions.

    Raises:
      PlanDiffersError: it is another plan.
      LedgerDamagedError: it promises less than its charges cost.
    """
    known = history.runs.get(run.name)
    if history.plan["scope"] == "population":
        if known is not None and known.opened["plan_sha256"] != run.plan.sha256:
            raise PlanDiffersError(f"{run.path}: plan.json is not the one that charged the ledger.")
        return
    expected = plan_row(run.plan)
    for name, value in history.plan.items():
        if name not in ("accountant", "population", "public_key") and value != expected[name]:
            raise PlanDiffersError(
                f"{run.path}: {name} of plan.json is not the ledger's ({expected[name]} against "
                f"{value}). Restore the file."
            )
    whole = planned_epsilon(history.plan)
    if whole > run.plan.epsilon * (1 + 1e-9):
        raise LedgerDamagedError(
            f"{run.path}: plan.json promises epsilon {epsilon_text(run.plan.epsilon)}, and its "
            f"{run.plan.num_charges} charges cost {epsilon_text(whole)}. Do not publish this run."
        )


def check_epsilon(path: Path, history: History) -> float:
    """Epsilon of all planned charges, recomputed; reading refuses charges beyond the plan.

    Raises:
      LedgerDamagedError: they cost more than the plan promises.
    """
    whole, target = planned_epsilon(history.plan), float(history.plan["target_epsilon"])
    if whole > target:
        raise LedgerDamagedError(
            f"{path}: promises epsilon {epsilon_text(target)}, and its planned charges cost "
            f"{epsilon_text(whole)}. Do not publish what it released."
        )
    return whole


def check_record(run: Run) -> bool:
    """Refuses a privacy.json whose promise differs from the plan.

    Returns:
      Whether the file exists: it is written once all rounds are released.

    Raises:
      LedgerDamagedError: it is damaged, or promises something else.
    """
    record_path = run.path / "privacy.json"
    if not record_path.is_file():
        return False
    try:
        found = json.loads(record_path.read_text(encoding="utf-8"))
        head = str(found["ledger_head"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerDamagedError(
            f"{record_path}: damaged. `feddp simulate --resume {run.path}` writes it anew."
        ) from error
    expected = privacy_record(run.plan, ledger_head=head, not_covered=())
    for name in PROMISED:
        if found.get(name) != expected[name]:
            raise LedgerDamagedError(
                f"{record_path}: {name} = {found.get(name)}, and the ledger's plan says "
                f"{expected[name]}. `feddp simulate --resume {run.path}` writes it anew."
            )
    return True
