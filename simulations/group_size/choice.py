"""feddp plan --group-size on public users: measures, predicts, chooses, and plots."""

from dataclasses import replace
from pathlib import Path

from feddp.common.assembly import pin_threads
from feddp.common.config.run_config import RunConfig
from feddp.simulations.group_size.grouping import (
    choose,
    crossings,
    grouping_lines,
    nu_of_examples,
    nu_of_users,
)
from feddp.simulations.group_size.pictures import draw_nu
from feddp.simulations.group_size.planner import Setting, predict
from feddp.simulations.group_size.proxy import (
    clipping_norm_of,
    measure_proxy,
    public_users,
    warm_adapter,
)
from feddp.simulations.run.pictures import save

PICTURE_FOLDER, PICTURE_NAME = "plan", "group-size"


def choose_grouping(
    config: RunConfig, setting: Setting, *, most: int, proxy_path: str | None
) -> list[str]:
    """Lines that explain the choice; saves its plot in the folder of runs.

    Args:
      setting: what is promised; its examples per round assume `most` per user.
      most: examples of one unit of the cohort.
      proxy_path: of public users; None: generated ones.

    Raises:
      ConfigError, DataError: see `public_users` and `measure_proxy`.
    """
    pin_threads(config)
    users = public_users(config, proxy_path)
    adapter = warm_adapter(config, users)
    proxy = measure_proxy(config, users, adapter)
    fair = replace(
        setting, examples_per_round=setting.examples_per_round / most * proxy.mean_examples(most)
    )
    predictions = predict(fair, mean_examples=proxy.mean_examples)
    choice = choose(predictions, proxy)
    norm = 0.0
    if choice is not None:
        norm = clipping_norm_of(
            config, users, adapter, unit=choice.unit, group_size=choice.group_size
        )
    source = f"users declared public, {proxy_path}" if proxy_path else "generated users of the demo"
    lines = grouping_lines(
        fair, predictions, proxy, source=source, choice=choice, clipping_norm=norm
    )
    if choice is None:
        return lines
    folder = Path(config.run.output_dir) / PICTURE_FOLDER
    figure = draw_nu(
        [
            (p.group_size, nu_of_users(p, proxy), nu_of_examples(p, proxy))
            for p in predictions
            if p.crossover is not None
        ],
        crossings=crossings(predictions, proxy),
        chosen=(choice.group_size, choice.noise),
        title=f"epsilon {fair.target_epsilon:g}, {fair.examples_per_round:.4g} examples a round",
    )
    save(figure, folder, PICTURE_NAME)
    return [*lines, "", f"  drawn: {folder / PICTURE_NAME}.svg and .png"]
