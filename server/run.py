"""A run: creates its folder, opens its ledger, runs its missing rounds."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feddp.common.assembly import config_sha256
from feddp.common.config.run_config import (
    BEFORE,
    RETIRED,
    RunConfig,
    from_flat,
    read_flat,
    to_flat,
    to_toml,
)
from feddp.common.disk import Disk, remove_times
from feddp.common.errors import BudgetSpentError, ConfigError, DiskError, PlanDiffersError
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import AdapterLayout
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.release_protocol import read_released
from feddp.common.privacy.mechanism.cohorts import EXAMPLE
from feddp.common.privacy.mechanism.encoding import Identity
from feddp.common.privacy.mechanism.noise import check_entropy
from feddp.common.privacy.plan.ledger_entries import start_of
from feddp.common.privacy.plan.plan import PrivacyPlan, plan_from_json
from feddp.common.tracking import read_metrics
from feddp.server.checkpoint import Checkpoints, RoundState
from feddp.server.metrics import MeasuredDisk, Metrics, MetricsServer, run_checks
from feddp.server.nodes import Nodes
from feddp.server.noise_segment import SECRETS_NAME, Segment, open_segment
from feddp.server.optimizer import ServerOptimizer
from feddp.server.publisher import METRICS_NAME, Publisher
from feddp.server.release import Training, resume_state
from feddp.server.rounds import RoundReport, evaluate, is_due, run_rounds
from feddp.server.run_ledger import (
    anchor_path,
    create_or_check_ledger,
    ledger_path,
    open_ledger,
)
from feddp.server.run_secrets import (
    LEDGER_KEY,
    destroy_secrets,
    make_secrets_folder,
    secret_path,
    secrets_folder,
)

CONFIG_NAME, PLAN_NAME = "config.toml", "plan.json"
CHECKPOINTS_NAME = "checkpoints"
FINGERPRINTS = {"config_sha256", "base_sha256", "layout_sha256"}
DEFAULT_EVALUATIONS = 10
PREFIX = "evaluation_"  # of the evaluation's numbers in metrics.jsonl


@dataclass(frozen=True)
class Run:
    """A run folder with its configuration and plan."""

    path: Path
    config: RunConfig
    plan: PrivacyPlan

    @property
    def name(self) -> str:
        """The run's name in its ledger, even if the folder is moved."""
        return self.config.run.name or self.path.name

    @property
    def ledger_path(self) -> Path:
        """Its own ledger, or its population's."""
        return ledger_path(self.path, self.config)

    @property
    def checkpoints(self) -> Checkpoints:
        """The run's checkpoints."""
        return Checkpoints(self.path / CHECKPOINTS_NAME, self.plan.sha256)


def create_run(
    config: RunConfig,
    plan: PrivacyPlan,
    *,
    add_secrets: Callable[[Path, str], None] = lambda folder, name: None,
) -> Run:
    """Makes the run folder with configuration, plan and ledger: completely, or not at all.

    A run of a named population makes no ledger: its population's must exist and have room.

    `add_secrets`: adds to the run's secrets before its folder appears; called with their folder and
    the run's name.

    Raises:
      ConfigError: the folder exists.
      BudgetSpentError, PlanDiffersError: the population's ledger refuses the run.
      DiskError: it cannot be written.
    """
    parent = Path(config.run.output_dir)
    disk = Disk()
    name = config.run.name or time.strftime("%Y%m%d-%H%M%S-") + os.urandom(2).hex()
    path = parent / name
    if path.exists():
        raise ConfigError(
            f"run.name: {path} exists, and a run never overwrites another. Continue it with "
            f"`feddp simulate --resume {path}`, or choose another name."
        )
    config = replace(config, run=replace(config.run, name=name))
    try:
        parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
        try:
            disk.write(making / CONFIG_NAME, to_toml(config).encode())
            disk.write(making / PLAN_NAME, plan.to_json().encode())
            (making / CHECKPOINTS_NAME).mkdir()
            secrets = make_secrets_folder(path)
            create_or_check_ledger(making, path, config, plan, disk)
            add_secrets(secrets, name)
            disk.place_folder(making, path)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            if not path.exists():
                destroy_secrets(path)
            raise
    except OSError as error:
        raise DiskError(
            f"{path}: cannot be written ({error.strerror}). Nothing was spent."
        ) from error
    return Run(path, config, plan)


def load_run(path: Path) -> Run:
    """Reads a run folder back and checks that its parts belong together.

    Raises:
      ConfigError: there is no run in that folder.
      PlanDiffersError: plan.json or config.toml is not the one the ledger was made with.
    """
    if not (path / PLAN_NAME).is_file():
        raise ConfigError(f"{path}: no run here (no {PLAN_NAME}).")
    config, config_digest = _kept_config(path / CONFIG_NAME)
    try:
        plan = plan_from_json((path / PLAN_NAME).read_text(encoding="utf-8"))
        if not plan.details.keys() >= FINGERPRINTS:
            raise ValueError("a fingerprint is missing")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PlanDiffersError(f"{path / PLAN_NAME}: missing or damaged.") from error
    if plan.details["config_sha256"] != config_digest:
        raise PlanDiffersError(
            f"{path / CONFIG_NAME} was changed after the plan was made. A run keeps its plan: undo "
            "the change, or start a new run."
        )
    return Run(path, config, plan)


def _kept_config(path: Path) -> tuple[RunConfig, str]:
    """A run's settings, and the hash that its plan has of them; retired keys have one alone."""
    kept = read_flat(path)
    config = from_flat(BEFORE | {key: kept[key] for key in kept if key not in RETIRED})
    known = to_flat(config)
    return config, config_sha256({key: known.get(key, value) for key, value in kept.items()})


def check_run_model(run: Run, *, base: BaseModel, layout: AdapterLayout) -> None:
    """Refuses to continue a run on another base model or adapter layout.

    Raises:
      PlanDiffersError: a fingerprint differs.
    """
    found = {"base_sha256": base.fingerprint, "layout_sha256": layout.sha256}
    for name, fingerprint in found.items():
        if run.plan.details[name] != fingerprint:
            raise PlanDiffersError(
                f"{run.path}: {name.removesuffix('_sha256')} is not the one of the plan "
                f"({fingerprint[:12]} against {run.plan.details[name][:12]}). Restore it, or start "
                "a new run."
            )


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
      is_complete: all planned rounds are over, and the adapter is exported.
      num_burned: rounds that crashes burned: charged, and never released.
      state: after the last release.
      results: metrics of "base" and "private"; None where there are no evaluation users.
    """

    is_complete: bool
    num_burned: int
    state: RoundState
    results: Mapping[str, Mapping[str, float] | None]


def train(
    run: Run,
    nodes: Nodes,
    *,
    initial: NDArray[np.float32],
    show: Callable[[RoundReport, int], None],
    is_stopped: Callable[[], bool],
    is_new_segment: bool = False,
    measure_nodes: Callable[[Metrics], None] = lambda metrics: None,
) -> Outcome:
    """Opens the ledger, recovers from a crash, and runs the rounds that are missing.

    Args:
      run: made by `create_run` or read back by `load_run`.
      initial: float32, shape (P,), the adapter of round 0.
      show: called with every released round and the number of charges so far.
      is_stopped: asked between the steps of a round; see `run_rounds`.
      is_new_segment: the master key of correlated noise is lost; see `open_segment`.
      measure_nodes: called with the metrics after the start and after every released round.

    Raises:
      LedgerDamagedError, LedgerLockedError, PlanDiffersError, DiskError.
      BudgetSpentError: crashes burned every round, so that there is nothing to release.
    """
    check_entropy()
    metrics = Metrics(run.name, run.plan.epsilon, run.path, run.config.metrics.operator)
    disk = MeasuredDisk(metrics)
    with ExitStack() as stack:
        stack.callback(remove_times, run.path)
        if (outcome := ended(run, is_new_segment=is_new_segment)) is not None:
            return outcome
        ledger = stack.enter_context(open_ledger(run.path, run.config, disk=disk))
        ledger.open_run(start_of(run.name, run.plan))
        run.checkpoints.recover(ledger, disk)
        segment = open_segment(
            secret_path(run.path, SECRETS_NAME),
            run.plan,
            run.checkpoints.released_rows(ledger.releases) if run.plan.noise.matrix else [],
            next_row=ledger.next_round,
            starts_anew=is_new_segment,
            disk=disk,
        )
        training = _training(run, ledger, nodes, segment, disk)
        state = resume_state(training, initial)
        publisher = Publisher(run.path, run.config, run.plan, ledger, metrics, show)
        stack.callback(publisher.close)
        publisher.measure(state.round)
        measure_nodes(metrics)
        if run.config.metrics.port:
            stack.enter_context(_metrics_server(run, metrics, state))
        _publish_missing(training, state, run.path, publisher.publish)

        def on_round(report: RoundReport) -> None:
            """Publishes a released round and what is known of the nodes."""
            publisher.publish(report)
            measure_nodes(metrics)

        state = run_rounds(training, state, on_round=on_round, is_stopped=is_stopped)
        is_complete = ledger.next_round > run.plan.num_rounds
        num_burned = ledger.num_burned
    if is_complete:
        destroy_secrets(run.path)
    if is_complete and state.round == 0:
        raise _all_burned(run)
    return Outcome(is_complete, num_burned, state, measured(run.path, state.round))


def _all_burned(run: Run) -> BudgetSpentError:
    return BudgetSpentError(
        f"{run.path}: every one of the {run.plan.num_rounds} rounds was burned by a crash: "
        "charged, and never released. There is no adapter; start a new run."
    )


def ended(run: Run, *, is_new_segment: bool = False) -> Outcome | None:
    """The outcome of a run that is over and has no secrets any more; None while it goes on.

    Its ledger is read alone, and no node is asked for anything.

    Raises:
      ConfigError: a new segment of its noise is asked for.
      LedgerDamagedError, RolledBackError: see `Ledger.read`.
      BudgetSpentError: crashes burned every round.
    """
    if secrets_folder(run.path).exists() or secret_path(run.path, LEDGER_KEY).exists():
        return None
    history = Ledger.read(run.ledger_path, anchor_path=anchor_path(run.config)).runs.get(run.name)
    if history is None or history.next_round <= run.plan.num_rounds:
        return None
    if not history.releases:
        raise _all_burned(run)
    keys, row = secret_path(run.path, SECRETS_NAME), history.next_round
    open_segment(keys, run.plan, [], next_row=row, starts_anew=is_new_segment, disk=Disk())
    destroy_secrets(run.path)
    state = read_released(run.checkpoints, history.releases[-1]).state
    return Outcome(True, history.num_burned, state, measured(run.path, state.round))


def burned_text(num_burned: int, num_rounds: int) -> str:
    """What crashes cost a run, in a sentence; "" if they cost nothing."""
    if not num_burned:
        return ""
    return (
        f"Crashes burned {num_burned} of {num_rounds} rounds: charged, and never released. The "
        "promise is the planned one."
    )


def measured(path: Path, last_round: int) -> dict[str, Mapping[str, float] | None]:
    """Metrics of round 0 ("base") and of the last round ("private"), from metrics.jsonl."""
    by_round = {
        line["round"]: {
            name.removeprefix(PREFIX): value
            for name, value in line.items()
            if name.startswith(PREFIX)
        }
        for line in read_metrics(path / METRICS_NAME)
    }
    return {
        "base": by_round.get(0) or None,
        "private": by_round.get(last_round) or None,
        "non_private": None,
    }


def optimizer_from_config(config: RunConfig) -> ServerOptimizer:
    """The server optimizer of a configuration."""
    server = config.server
    return ServerOptimizer(
        kind=server.optimizer,
        learning_rate=server.learning_rate,
        momentum=server.momentum,
        second_momentum=server.second_momentum,
        adaptivity=server.adaptivity,
    )


def _training(
    run: Run, ledger: Ledger, nodes: Nodes, segment: Segment | None, disk: Disk
) -> Training:
    every = run.config.evaluation.every
    return Training(
        plan=run.plan,
        encoding=Identity(run.plan.dimension),
        max_units_per_node=max_units_per_node(run.plan, run.config.nodes.users_per_node),
        segment=segment,
        layout_sha256=run.plan.details["layout_sha256"],
        ledger=ledger,
        nodes=nodes,
        optimizer=optimizer_from_config(run.config),
        checkpoints=run.checkpoints,
        evaluate_every=every or max(1, run.plan.num_rounds // DEFAULT_EVALUATIONS),
        disk=disk,
    )


def _metrics_server(run: Run, metrics: Metrics, state: RoundState) -> MetricsServer:
    num_arrays = 1 + 2 * len(state.moments)
    checks = run_checks(
        run.path, run.ledger_path, checkpoint_bytes=num_arrays * state.adapter.nbytes
    )
    section = run.config.metrics
    return MetricsServer(metrics, checks, port=section.port, host=section.host)


def max_units_per_node(plan: PrivacyPlan, users_per_node: int | None) -> int:
    """Most units of one node with `users_per_node` registered users; None: with all users.

    A user is as many units as the plan allows. If examples are the unit, nothing bounds a user's
    number of them, and a limit that honest nodes exceed would let one example decide whether a
    node's others count. In a simulation one node holds all users, and none is hostile.
    """
    if users_per_node is None or plan.unit == EXAMPLE or plan.trust.model == "simulation":
        return plan.population.num_units
    return users_per_node * (plan.population.max_examples_per_user or 1)


def _publish_missing(
    training: Training, state: RoundState, path: Path, publish: Callable[[RoundReport], None]
) -> None:
    """Publishes the last release, or the base, if a crash prevented that.

    Where the rounds after it were burned it is the last of all, and is evaluated as that.
    """
    lines = [line for line in read_metrics(path / METRICS_NAME) if line["round"] == state.round]
    ledger = training.ledger
    is_cut_short = ledger.num_burned > 0 and ledger.next_round > training.plan.num_rounds
    is_evaluated = any(name.startswith(PREFIX) for line in lines for name in line)
    if not lines or (is_cut_short and not is_evaluated):
        wants = is_cut_short or is_due(training, state.round)
        publish(RoundReport(state.round, 0.0, evaluate(training, state) if wants else None))
