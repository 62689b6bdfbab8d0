"""feddp plan and check: look before anything is spent."""

from feddp.common.assembly import load_model, load_users, plan_from_config
from feddp.common.config.run_config import RunConfig
from feddp.common.data.users import Users
from feddp.common.errors import ConfigError, ProblemsError
from feddp.common.model.base import BaseModel
from feddp.common.privacy.accounting.edgeworth import cross_check_lines
from feddp.common.privacy.mechanism.mechanisms import MECHANISMS
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.tracking import tracker_problems
from feddp.server.run import epsilon_curve_of
from feddp.simulations.group_size.planner import Setting, planner_lines, predict
from feddp.simulations.run.console import curve_lines, plan_lines
from feddp.simulations.run.data_problems import data_problems


def show_plan(
    config: RunConfig, *, is_grouping: bool = False, proxy_path: str | None = None
) -> int:
    """Prints the derived plan and the curve of epsilon; loads the base model but no private data.

    Args:
      config: the run.
      is_grouping: also choose the unit, the group size and the clipping norm; see `grouping`.
      proxy_path: users who are declared public and stand in for the private ones there.
    """
    if is_grouping:
        _check_grouping(config)
    base, layout = load_model(config)
    trust = config.privacy.trust
    plan = plan_from_config(config, trust=trust, base=base, layout=layout)
    print("\n".join(["Plan", *plan_lines(plan), "", "Epsilon over the charges"]))
    print("\n".join(curve_lines(epsilon_curve_of(plan).tolist(), plan)))
    if config.privacy.cross_check == "edgeworth":
        lines = cross_check_lines(plan.charges, delta=plan.accounting_delta, relation=plan.relation)
        print("\n".join(["", *lines]))
    if is_grouping:
        print("\n".join(["", *_grouping(config, plan, proxy_path)]))
    return 0


def _grouping(config: RunConfig, plan: PrivacyPlan, proxy_path: str | None) -> list[str]:
    """What to draw and how much of a user: chosen on public users, tabled where there are none."""
    draws_users = plan.population.sampling_unit == "user"
    most = config.data.max_examples_per_user if draws_users else 1
    setting = Setting(
        num_users=plan.num_users,
        num_rounds=plan.num_charges,
        examples_per_round=plan.expected_cohort_size * most,
        target_epsilon=plan.target_epsilon,
        target_delta=plan.accounting_delta,
    )
    if proxy_path is None and config.model.task == "classification":
        advice = "  Name public users in the columns of data to have it chosen: --proxy FILE."
        return [*planner_lines(setting, predict(setting)), advice]
    # Heavy, and needed here alone.
    from feddp.simulations.group_size.choice import choose_grouping

    return choose_grouping(config, setting, most=most, proxy_path=proxy_path)


def _check_grouping(config: RunConfig) -> None:
    """Group sizes are compared for a promise to users and for coins of each round."""
    privacy, problems = config.privacy, []
    if privacy.unit != "user":
        problems.append(
            f'--group-size: privacy.unit = "{privacy.unit}" promises nothing to users, whose group '
            'size it is. Set privacy.unit = "user".'
        )
    if not MECHANISMS[privacy.mechanism].has_independent_rounds:
        problems.append(
            f'--group-size: predicts a coin per unit; privacy.mechanism = "{privacy.mechanism}" '
            'has none. Set privacy.mechanism = "poisson".'
        )
    if problems:
        raise ConfigError(problems)


def check(config: RunConfig, *, is_counting: bool) -> int:
    """Prints that everything fits, or raises with all problems of model, plan and data at once."""
    problems = tracker_problems(config.tracking.report_to)
    base: BaseModel | None = None
    users: Users | None = None
    try:
        base, layout = load_model(config)
        trust = config.privacy.trust
        plan_from_config(config, trust=trust, base=base, layout=layout)
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
