"""The grid of a comparison: what each cell changes in the configuration, and how it is run."""

import contextlib
import functools
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from feddp.common.assembly import load_model, load_users, pin_threads, plan_from_config
from feddp.common.config.run_config import RunConfig, from_flat, to_flat
from feddp.common.disk import PUBLIC, Disk
from feddp.common.errors import FeddpError
from feddp.common.evaluation import metrics_of
from feddp.common.privacy.accounting.epsilon import COARSE, epsilon
from feddp.common.privacy.accounting.group import black_box_group_epsilon
from feddp.common.privacy.mechanism.events import ADD_OR_REMOVE_ONE, PoissonGaussianEvent
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.server.run import load_run
from feddp.simulations.leakage.evaluate import Extent, measure_adapter, train_to_folder
from feddp.simulations.leakage.scoring import BaseScores
from feddp.simulations.run.terminal import show_resumption, show_simulation

NONE, EXAMPLE, ELS, ULS, FEDERATED = "none", "example", "els", "uls", "federated"
METHODS = (NONE, EXAMPLE, ELS, ULS, FEDERATED)
CELL_EXTENT = Extent(num_users=150, num_secrets=12, num_unknown_digits=2)
_ONE_SIZE = (NONE, EXAMPLE, FEDERATED)  # run only at the largest group size


@dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    Attributes:
      method: "none", "example", "els", "uls" or "federated".
      epsilon: target, per user ("example": per example); 0 without privacy.
      group_size: G, most examples of one user in a round.
      seed: of the run; seeded runs are labelled not private.
      adapter: its kind; "" means the configuration's.
    """

    method: str
    epsilon: float
    group_size: int
    seed: int
    adapter: str = ""

    @property
    def name(self) -> str:
        """Stem of its file names."""
        kind = f"-{self.adapter}" if self.adapter else ""
        return f"{self.method}{kind}-epsilon{self.epsilon:g}-G{self.group_size}-seed{self.seed}"


@dataclass(frozen=True)
class Grid:
    """The compared values, and the compute that all cells share.

    Attributes:
      examples_per_round: B, expected, counting the real number of users with fewer than G.
      adapters: kinds of adapters; ("",) means only the configuration's.
      learning_rates: the server's, by kind of adapter; others use the configuration's.
      num_examples: by G, declared examples of all users with at most G each.
      local_passes: of "federated"; its cohort is smaller by that factor.
      seconds_per_cell: an estimate, only for the announcement.
    """

    methods: tuple[str, ...]
    epsilons: tuple[float, ...]
    group_sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    examples_per_round: float
    adapters: tuple[str, ...] = ("",)
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    num_examples: Mapping[int, int] = field(default_factory=dict)
    local_passes: int = 2
    seconds_per_cell: float = 60.0

    def cells(self) -> list[Cell]:
        """Every cell once: epsilon varies only with privacy, and G only where it matters.

        At G = 1 both units are the same, so ULS is run and ELS is left out.
        """
        found = [
            Cell(
                method,
                0.0 if method == NONE else target,
                max(self.group_sizes) if method in _ONE_SIZE else size,
                seed,
                adapter,
            )
            for adapter in self.adapters
            for seed in self.seeds
            for target in self.epsilons
            for method in self.methods
            for size in self.group_sizes
            if not (method == ELS and size == 1 and ULS in self.methods)
        ]
        return list(dict.fromkeys(found))


def cell_config(config: RunConfig, grid: Grid, cell: Cell, folder: Path) -> RunConfig:
    """The configuration of one cell; the examples per round are the same for every unit."""
    mean = mean_examples(config, grid, cell.group_size)
    drawn = {EXAMPLE: 1.0, ELS: 1.0, FEDERATED: mean * grid.local_passes}
    changes: dict[str, object] = {
        "run.seed": cell.seed,
        "run.name": cell.name,
        "run.output-dir": str(folder),
        "nodes.threads": 1,
        "data.max-examples-per-user": cell.group_size,
        "sampling.expected-cohort-size": grid.examples_per_round / drawn.get(cell.method, mean),
    }
    if cell.adapter:
        changes["adapter.kind"] = cell.adapter
    if cell.adapter in grid.learning_rates:
        changes["server.learning-rate"] = grid.learning_rates[cell.adapter]
    if cell.method != NONE:
        changes["privacy.target-epsilon"] = cell.epsilon
    if cell.method in (EXAMPLE, ELS):
        changes["sampling.unit"] = "example"
    if cell.method == ELS and cell.group_size in grid.num_examples:
        changes["privacy.num-examples"] = grid.num_examples[cell.group_size]
    if cell.method == EXAMPLE:
        changes["privacy.unit"] = "example"
        changes["data.selection"] = "random"  # examples are not bounded here
    if cell.method == FEDERATED:
        changes["local.epochs"] = grid.local_passes
    return from_flat({**to_flat(config), **changes})


def mean_examples(config: RunConfig, grid: Grid, group_size: int) -> float:
    """Mean examples used per user, at most G of each: many users have fewer than G.

    Counted for generated users; otherwise as declared, or G if not declared.
    """
    if config.is_generated:
        return _mean_generated(config.evaluation_one_in, group_size)
    if group_size in grid.num_examples and config.privacy.num_users is not None:
        return grid.num_examples[group_size] / config.privacy.num_users
    return float(group_size)


@functools.cache
def _mean_generated(evaluation_users: int, group_size: int) -> float:
    data = replace(RunConfig().data, evaluation_users=evaluation_users)
    users, _ = load_users(replace(RunConfig(), data=data))
    return float(np.minimum(users.counts, group_size).mean())


def run_cell(config: RunConfig, grid: Grid, cell: Cell, folder: Path) -> dict[str, Any]:
    """Runs one cell unless its file exists, and returns the file's content.

    Its time is CPU seconds, which other load does not distort. A cell that cannot be run records
    the reason in its file and row, and is tried again next time.
    """
    path = folder / f"{cell.name}.json"
    if path.is_file():
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["status"] == "done":
            return content
    started = time.process_time()
    try:
        result = _train(cell_config(config, grid, cell, folder / "runs"), cell, folder)
    except FeddpError as error:
        result = {"status": "not available", "reason": str(error)}
    if result["status"] == "done":
        # Expected, if every example filled a row: derived from the plan, not from data.
        result["tokens"] = result["rounds"] * grid.examples_per_round * config.model.max_tokens
    content = {"cell": asdict(cell), **result, "seconds": round(time.process_time() - started, 1)}
    text = json.dumps(content, indent=2) + "\n"
    Disk().replace(path, text.encode(), mode=PUBLIC)
    return content


def _train(config: RunConfig, cell: Cell, folder: Path) -> dict[str, Any]:
    pin_threads(config)
    log_path = folder / f"{cell.name}.log"
    with log_path.open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        if cell.method == NONE:
            adapter_path = folder / f"{cell.name}-adapter"
            plan, metrics = _without_privacy(config, adapter_path)
        else:
            adapter_path = folder / "runs" / cell.name / "adapter"
            plan, metrics = _with_privacy(config, adapter_path.parent)
        return {
            "status": "done",
            "rounds": plan.num_rounds,
            "promise": None if cell.method == NONE else promise_of(plan, cell),
            "metrics": metrics,
            "leakage": _leakage(config, cell, adapter_path),
        }


def _without_privacy(config: RunConfig, folder: Path) -> tuple[PrivacyPlan, Any]:
    training, evaluation = load_users(config)
    base, layout = load_model(config)
    plan = plan_from_config(config, trust="simulation", base=base, layout=layout)
    evaluated = train_to_folder(
        config,
        training,
        evaluation,
        folder,
        num_rounds=plan.num_rounds,
        probability=plan.sampling_probability,
    )
    return plan, metrics_of(evaluated, task=config.model.task)


def _with_privacy(config: RunConfig, path: Path) -> tuple[PrivacyPlan, Any]:
    if not (path / "ledger.sqlite").is_file():
        show_simulation(config, is_comparing=False, non_private_path=None)
    elif not (path / "result.json").is_file():
        show_resumption(path)  # an earlier call was stopped in the middle of this cell
    results = json.loads((path / "result.json").read_text(encoding="utf-8"))
    return load_run(path).plan, results["private"]


def promise_of(plan: PrivacyPlan, cell: Cell) -> Mapping[str, float | str | None]:
    """A planned run's epsilon of a user with G examples and of one example, and its noise."""
    size = cell.group_size
    q, z, count = plan.sampling_probability, plan.noise_multiplier, plan.num_charges
    found: dict[str, float | str | None] = {
        "unit": plan.unit,
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "noise_multiplier": z,
        "sampling_probability": q,
        "noise_to_signal": plan.mechanism.noise_norm / plan.clipping_norm,
        "user_epsilon": plan.epsilon,
        "example_epsilon": plan.epsilon,
        "black_box_epsilon": None,
    }
    if plan.population.sampling_unit != "example":
        return found
    charges = {coins: [(PoissonGaussianEvent(q, z, coins), count)] for coins in {1, size}}
    for name, coins in (("user_epsilon", size), ("example_epsilon", 1)):
        found[name] = epsilon(
            charges[coins], delta=plan.accounting_delta, relation=ADD_OR_REMOVE_ONE
        )
    bound = black_box_group_epsilon(
        charges[1], size, delta=plan.accounting_delta, relation=ADD_OR_REMOVE_ONE, interval=COARSE
    )
    found["black_box_epsilon"] = bound if math.isfinite(bound) else None
    return found


def _leakage(config: RunConfig, cell: Cell, adapter_path: Path) -> dict[str, Any]:
    """The leakage of a cell; each seed chooses its own users, so intervals cover that choice."""
    found = measure_adapter(
        config,
        adapter_path,
        replace(CELL_EXTENT, seed=cell.seed),
        has_control=False,
        base_scores=_base_scores(config.model.base, config.model.max_tokens),
    )
    return asdict(found["private"])


@functools.cache
def _base_scores(base: str, max_tokens: int) -> BaseScores:
    """The base's scores, once per process instead of once per cell."""
    return {}
