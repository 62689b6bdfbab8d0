"""What a plan says of itself in a ledger: its PLAN row, its slots, its start."""

from feddp.common.privacy.ledger.budget import FIXED_SCHEDULE
from feddp.common.privacy.ledger.charge_terms import UPDATE, Planned, Slot, schedule_to_body
from feddp.common.privacy.ledger.history import SCHEMA, Body
from feddp.common.privacy.ledger.run_start import Start
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.privacy.plan.statement import accountant_version


def terms_of(plan: PrivacyPlan) -> dict[str, str | int]:
    """What must be the same in a plan and in the PLAN row of its ledger."""
    return {
        "unit": plan.unit,
        "relation": plan.relation,
        "trust": plan.trust.model,
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
        "accountant": f"{plan.schedule.accountant} {accountant_version()}",
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
        num_rounds=plan.num_rounds,
        terms=terms_of(plan),
        plan_sha256=plan.sha256,
        config_sha256=plan.details.get("config_sha256", ""),
        base_sha256=plan.details.get("base_sha256", ""),
        layout_sha256=plan.details.get("layout_sha256", ""),
    )
