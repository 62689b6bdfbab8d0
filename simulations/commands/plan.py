"""feddp plan and check: what to look at before anything is spent."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feddp.common.errors import ConfigError, ProblemsError
from feddp.deploy.commands import option
from feddp.simulations.commands.config_options import Config, OutputDir, Settings, config_of

if TYPE_CHECKING:
    from feddp.common.config.run_config import RunConfig
    from feddp.common.model.base import BaseModel
    from feddp.common.privacy.plan.plan import PrivacyPlan


def add_to(app: typer.Typer) -> None:
    """Adds `feddp plan` and `check`."""
    for command in (plan, check):
        app.command(rich_help_panel="Train")(command)


def plan(
    config: Config = None,
    settings: Settings = None,
    output_dir: OutputDir = None,
    group_size: Annotated[
        bool,
        typer.Option(
            "--group-size",
            help="also choose what to draw, how many examples of a user, and where to clip",
        ),
    ] = False,
    proxy: Annotated[
        str | None,
        option(
            "with --group-size: users declared PUBLIC, in the columns of data; default: generated",
            "FILE",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="also draw what more would buy, as .png or .svg",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Shows what a run would promise, and what more would buy; reads no private data."""
    run_config = config_of(config, settings, output_dir=output_dir)
    if proxy is not None and not group_size:
        raise ConfigError(["--proxy: only --group-size reads it. Add --group-size."])
    if group_size:
        _check_grouping(run_config)
    from feddp.common.assembly import load_model, plan_from_config
    from feddp.common.privacy.accounting.edgeworth import cross_check_lines
    from feddp.common.privacy.plan.plan import planned_curve
    from feddp.simulations.run.alternatives import (
        alternative_lines,
        alternatives,
        draw_alternatives,
    )
    from feddp.simulations.run.console import curve_lines, plan_lines

    base, layout = load_model(run_config)
    made = plan_from_config(run_config, trust=run_config.privacy.trust, base=base, layout=layout)
    print("\n".join(["Plan", *plan_lines(made), "", "Epsilon over the charges"]))
    print("\n".join(curve_lines(planned_curve(made).tolist(), made)))
    found = alternatives(made, _dimensions(run_config, base), run_config.adapter.rank)
    print("\n".join(["", *alternative_lines(made, found)]))
    if picture is not None:
        draw_alternatives(made, found, picture)
    if run_config.privacy.cross_check == "edgeworth":
        lines = cross_check_lines(made.charges, delta=made.accounting_delta, relation=made.relation)
        print("\n".join(["", *lines]))
    if group_size:
        print("\n".join(["", *_grouping(run_config, made, proxy)]))


def _dimensions(config: "RunConfig", base: "BaseModel") -> dict[int, int]:
    """Trained numbers of half, twice and four times the rank, where the adapter has one."""
    from feddp.common.assembly import layout_of

    rank = config.adapter.rank
    asked = {max(1, rank // 2), 2 * rank, 4 * rank}
    found = {r: layout_of(replace(config.adapter, rank=r), base).dimension for r in asked}
    own = layout_of(config.adapter, base).dimension
    return {r: dimension for r, dimension in found.items() if dimension != own}


def check(
    config: Config = None,
    settings: Settings = None,
    output_dir: OutputDir = None,
    keys: Annotated[bool, typer.Option("--keys", help="list every setting")] = False,
    count_users: Annotated[
        bool,
        typer.Option(
            "--count-users", help="print how many users the data holds; for their owner's eyes"
        ),
    ] = False,
) -> None:
    """Looks for all problems in config and data."""
    if keys:
        _print_settings()
        return
    run_config = config_of(config, settings, output_dir=output_dir)
    from feddp.common.assembly import load_model, load_users, plan_from_config
    from feddp.common.tracking import tracker_problems
    from feddp.simulations.run.data_problems import data_problems

    problems = tracker_problems(run_config.tracking.report_to)
    base = users = None
    try:
        base, layout = load_model(run_config)
        trust = run_config.privacy.trust
        plan_from_config(run_config, trust=trust, base=base, layout=layout)
    except ProblemsError as error:
        problems += error.problems
    try:
        users, evaluation_users = load_users(run_config)
        if base is not None:
            problems += data_problems(run_config, users, evaluation_users, base)
    except ProblemsError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    print("Config, model and data fit together.")
    if count_users and users is not None:
        print(
            f"Training users in the data: {users.num_users}. This count is private: declare as "
            "privacy.num-users a number that is public already, or that may be."
        )


def _print_settings() -> None:
    from feddp.common.config.run_config import RunConfig, settings, to_flat

    defaults = to_flat(RunConfig())
    for key, about in settings().items():
        print(f"{key} = {defaults[key]!r}\n    {about.doc}; {about.allowed()}")


def _grouping(config: "RunConfig", plan: "PrivacyPlan", proxy_path: str | None) -> list[str]:
    """The unit and group size, chosen on public users; a table if there are none."""
    from feddp.simulations.group_size.planner import Setting, planner_lines, predict

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
    # Slow to import.
    from feddp.simulations.group_size.choice import choose_grouping

    return choose_grouping(config, setting, most=most, proxy_path=proxy_path)


def _check_grouping(config: "RunConfig") -> None:
    """Group sizes are compared only for user-level promises with Poisson sampling."""
    from feddp.common.privacy.mechanism.mechanisms import MECHANISMS

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
