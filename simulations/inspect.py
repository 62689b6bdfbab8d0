"""feddp plan, check and ledger: look before anything is spent, and after."""

from pathlib import Path

from client.build import load_model, open_all_users, split_users
from common.config import RunConfig
from common.errors import ConfigError, ProblemsError
from common.privacy.accounting import epsilon, epsilon_curve
from common.privacy.ledger import Ledger
from common.tracking import tracker_problems
from common.users import check_users
from server.run import LEDGER_NAME, plan_from_config, read_plan
from simulations.console import curve_lines, plan_lines


def show_plan(config: RunConfig) -> int:
    """Prints the derived plan and the curve of epsilon; loads the base model but no data."""
    base, layout = load_model(config)
    plan = plan_from_config(config, base=base, layout=layout)
    curve = epsilon_curve(
        sampling_probability=plan.sampling_probability,
        noise_multiplier=plan.noise_multiplier,
        num_charges=plan.num_charges,
        delta=plan.accounting_delta,
    )
    print("\n".join(["Plan", *plan_lines(plan), "", "Epsilon over the charges"]))
    print("\n".join(curve_lines(curve.tolist(), plan)))
    return 0


def check(config: RunConfig, *, is_counting: bool) -> int:
    """Prints that everything fits, or raises with all problems of model, plan and data at once."""
    problems = tracker_problems(config.tracking.report_to)
    users = None
    for part in (lambda: _check_model_and_plan(config), lambda: _check_data(config)):
        try:
            users = part() or users
        except ProblemsError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    print("Config, model and data fit together.")
    if is_counting and users is not None:
        print(
            f"The data holds {users} training users. This count is private: declare a number that "
            "is already public, or that may become so, as privacy.num-users."
        )
    return 0
