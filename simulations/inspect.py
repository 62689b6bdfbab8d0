"""feddp plan, check and ledger: look before anything is spent, and after."""

import json
from pathlib import Path

from common.build import load_model, load_users
from common.config import RunConfig
from common.demo import num_demo_users
from common.errors import ConfigError, LedgerDamagedError, PlanDiffersError, ProblemsError
from common.model import BaseModel
from common.privacy.accounting import epsilon
from common.privacy.bridge import bridge_cost
from common.privacy.ledger import Ledger
from common.privacy.plan import PrivacyPlan
from common.privacy.rows import History
from common.privacy.statement import delta_text, epsilon_text, guarantee_line, privacy_record
from common.tracking import tracker_problems
from common.users import Users
from server.run import LEDGER_NAME, epsilon_curve_of, load_run, plan_from_config, plan_row
from simulations.console import curve_lines, plan_lines
from simulations.planner import Setting, planner_lines, predict
from simulations.problems import data_problems

# What privacy.json has to repeat of the plan, exactly.
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


def show_plan(config: RunConfig, *, is_grouping: bool = False) -> int:
    """Prints the derived plan and the curve of epsilon; loads the base model but no data."""
    base, layout = load_model(config)
    num_users = config.privacy.num_users or num_demo_users(config.data.evaluation_users)
    trust = config.privacy.trust
    plan = plan_from_config(config, num_users=num_users, trust=trust, base=base, layout=layout)
    print("\n".join(["Plan", *plan_lines(plan), "", "Epsilon over the charges"]))
    print("\n".join(curve_lines(epsilon_curve_of(plan).tolist(), plan)))
    if is_grouping:
        setting = Setting(
            num_users=plan.num_users,
            num_rounds=plan.num_charges,
            examples_per_round=plan.expected_cohort_size
            * (config.data.max_examples_per_user if plan.sampling_unit == "user" else 1),
            target_epsilon=plan.target_epsilon,
            target_delta=plan.accounting_delta,
        )
        print("\n".join(["", *planner_lines(setting, predict(setting))]))
    return 0


def check(config: RunConfig, *, is_counting: bool) -> int:
    """Prints that everything fits, or raises with all problems of model, plan and data at once."""
    problems = tracker_problems(config.tracking.report_to)
    base: BaseModel | None = None
    users: Users | None = None
    try:
        base, layout = load_model(config)
        num_users = config.privacy.num_users or num_demo_users(config.data.evaluation_users)
        trust = config.privacy.trust
        plan_from_config(config, num_users=num_users, trust=trust, base=base, layout=layout)
    except ProblemsError as error:
        problems += error.problems
    try:
        users, evaluation_users = load_users(config)
        if base is not None:
            problems += data_problems(config, users, evaluation_users, base)
    except ProblemsError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    print("Config, model and data fit together.")
    if is_counting and users is not None:
        print(
            f"Training users in the data: {users.num_users}. This count is private: declare as "
            "privacy.num-users a number that is public already, or that may be."
        )
    return 0


def show_ledger(path: Path, *, is_verifying: bool) -> int:
    """Prints what a run has spent; `is_verifying` recomputes epsilon from the recorded events.

    Raises:
      LedgerDamagedError: the ledger does not verify, or privacy.json promises something else.
      PlanDiffersError: the folder's plan is not the ledger's.
    """
    run = load_run(path)
    history = Ledger.read(path / LEDGER_NAME)
    _check_plan(path, history, run.plan)
    num_released = len(history.releases)
    num_open = history.open_charge is not None
    print(f"{path / LEDGER_NAME}: {history.num_rows} rows, every hash in its place")
    print(f"  plan      {run.plan.sha256[:16]}  {guarantee_line(run.plan)}")
    print(f"  starts    {history.num_opened}")
    print(
        f"  charges   {len(history.charges)} of {run.plan.num_charges}: {num_released} released, "
        f"{len(history.charges) - num_released - num_open} burned, {int(num_open)} open"
    )
    print(f"  head      {history.head.hex()}")
    if is_verifying:
        _verify_record(path, run.plan)
        _verify_epsilon(path, history, run.plan)
    return 0


def _check_plan(path: Path, history: History, plan: PrivacyPlan) -> None:
    """Refuses a plan that says anything else than the ledger's first row; versions may differ."""
    expected = plan_row(plan)
    for name, value in history.plan.items():
        if name != "accountant" and value != expected[name]:
            raise PlanDiffersError(
                f"{path}: {name} of plan.json is not the ledger's ({expected[name]} against "
                f"{value}). Restore the file."
            )


def _verify_epsilon(path: Path, history: History, plan: PrivacyPlan) -> None:
    """Recomputes epsilon of the recorded charges, and of all that the plan allows.

    Reading the ledger has refused every charge that is not the plan's one event.
    """
    so_far, whole = (_promise(plan, count) for count in (len(history.charges), plan.num_charges))
    if whole > min(plan.epsilon * (1 + 1e-9), plan.target_epsilon):
        raise LedgerDamagedError(
            f"{path}: plan.json promises epsilon {epsilon_text(plan.epsilon)}, and its "
            f"{plan.num_charges} charges cost {epsilon_text(whole)}. Do not publish this run."
        )
    print(
        f"  verified  epsilon <= {epsilon_text(so_far)} for the {len(history.charges)} charges so "
        f"far, <= {epsilon_text(whole)} for all {plan.num_charges} planned (upper bounds at delta "
        f"{delta_text(plan.delta)}); the promise is the planned one"
    )


def _promise(plan: PrivacyPlan, num_charges: int) -> float:
    """Epsilon of so many charges, with what the discrete noise adds."""
    spent = epsilon(
        plan.charges_after(num_charges), delta=plan.accounting_delta, relation=plan.relation
    )
    added, _ = bridge_cost(
        num_charges=num_charges,
        dimension=plan.dimension,
        noise_scale=plan.mechanism.noise_scale,
        epsilon=spent,
        delta=plan.delta,
    )
    return spent + added


def _verify_record(path: Path, plan: PrivacyPlan) -> None:
    """Refuses a privacy.json that promises anything else than the plan; without one, does nothing.

    The file is there once all rounds are released.
    """
    record_path = path / "privacy.json"
    if not record_path.is_file():
        return
    try:
        found = json.loads(record_path.read_text(encoding="utf-8"))
        head = str(found["ledger_head"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerDamagedError(
            f"{record_path}: damaged. `feddp simulate --resume {path}` writes it anew."
        ) from error
    expected = privacy_record(plan, ledger_head=head, not_covered=())
    for name in PROMISED:
        if found.get(name) != expected[name]:
            raise LedgerDamagedError(
                f"{record_path}: {name} = {found.get(name)}, and the ledger's plan says "
                f"{expected[name]}. `feddp simulate --resume {path}` writes it anew."
            )
    print("  verified  privacy.json promises what the plan does")
