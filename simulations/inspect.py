"""feddp plan, check and ledger: look before anything is spent, and after."""

import json
from pathlib import Path

from common.build import load_model, load_users
from common.config import RunConfig
from common.demo import num_demo_users
from common.errors import ConfigError, LedgerDamagedError, PlanDiffersError, ProblemsError
from common.model import BaseModel
from common.privacy.accounting import epsilon
from common.privacy.ledger import Ledger
from common.privacy.plan import PrivacyPlan
from common.privacy.rows import History
from common.privacy.statement import guarantee_line
from common.tokens import tokenize_example
from common.tracking import tracker_problems
from common.users import Users
from server.run import LEDGER_NAME, epsilon_curve_of, load_run, plan_from_config
from simulations.console import curve_lines, plan_lines

SAMPLED_USERS = 200


def show_plan(config: RunConfig) -> int:
    """Prints the derived plan and the curve of epsilon; loads the base model but no data."""
    base, layout = load_model(config)
    num_users = config.privacy.num_users or num_demo_users(config.data.evaluation_users)
    trust = config.privacy.trust
    plan = plan_from_config(config, num_users=num_users, trust=trust, base=base, layout=layout)
    print("\n".join(["Plan", *plan_lines(plan), "", "Epsilon over the charges"]))
    print("\n".join(curve_lines(epsilon_curve_of(plan).tolist(), plan)))
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


def data_problems(
    config: RunConfig, users: Users, evaluation_users: Users, base: BaseModel
) -> list[str]:
    """What keeps these users from being trained or evaluated on; no user's content, no count.

    Looks at a bounded sample of the users.
    """
    problems = []
    path = config.data.path
    if users.num_users < 2:
        problems.append(
            f'data.path = "{path}": one user only, or none; there is nobody to hide among. '
            "User-level privacy needs many users."
        )
    evaluates = config.data.evaluation_path or config.data.evaluation_users
    if evaluates and evaluation_users.num_users == 0:
        problems.append(
            f"data.evaluation-users = {config.data.evaluation_users}: no user falls into it. Use a "
            "smaller number, or 0 for a run without evaluation."
        )
    if users.num_users and not _has_rows(config, users, base):
        wanted = (
            f'a text and one of the labels "{config.data.labels}"'
            if config.model.task == "classification"
            else "text to learn from"
        )
        problems.append(f'data.path = "{path}": no row among the first users has {wanted}.')
    return problems


def _has_rows(config: RunConfig, users: Users, base: BaseModel) -> bool:
    """Whether any row of a sample survives tokenisation."""
    return any(
        tokenize_example(
            example,
            base.tokenizer,
            task=config.model.task,
            max_tokens=config.model.max_tokens,
            labels=config.labels,
        )
        for user in range(min(SAMPLED_USERS, users.num_users))
        for example in users.examples(user)
    )


def show_ledger(path: Path, *, is_verifying: bool) -> int:
    """Prints what a run has spent; `is_verifying` recomputes epsilon from the recorded events.

    Raises:
      LedgerDamagedError: the ledger does not verify, or privacy.json claims less than it.
      PlanDiffersError: the folder's plan is not the ledger's.
    """
    run = load_run(path)
    history = Ledger.read(path / LEDGER_NAME)
    if history.plan["plan_sha256"] != run.plan.sha256:
        raise PlanDiffersError(f"{path}: plan.json is not the plan of the ledger.")
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
        _verify_epsilon(path, history, run.plan)
    return 0


def _verify_epsilon(path: Path, history: History, plan: PrivacyPlan) -> None:
    """Recomputes epsilon of the recorded charges and of the whole plan."""
    row = history.plan
    delta = float(row["accounting_delta"])
    planned = epsilon(
        sampling_probability=float(row["sampling_probability"]),
        noise_multiplier=float(row["noise_multiplier"]),
        num_charges=int(row["num_charges"]),
        delta=delta,
    )
    spent = epsilon(
        sampling_probability=float(row["sampling_probability"]),
        noise_multiplier=float(row["noise_multiplier"]),
        num_charges=len(history.charges),
        delta=delta,
    )
    claims = [plan.epsilon]
    if (path / "privacy.json").is_file():
        claims.append(json.loads((path / "privacy.json").read_text(encoding="utf-8"))["epsilon"])
    if any(claim < planned * (1 - 1e-9) for claim in claims) or planned > plan.target_epsilon:
        raise LedgerDamagedError(
            f"{path}: claims epsilon {min(claims):.6f}, and its ledger's plan costs {planned:.6f}."
        )
    print(
        f"  verified  the {len(history.charges)} charges so far cost epsilon {spent:.4f}, all "
        f"{plan.num_charges} planned ones {planned:.4f} <= {plan.target_epsilon:g} (at delta "
        f"{plan.delta:g}); the promise is the planned value"
    )
