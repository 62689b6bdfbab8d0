"""Trackers: metrics.jsonl always; TensorBoard, MLflow, Weights & Biases, trackio by name."""

import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feddp.common.disk import PUBLIC, Disk
from feddp.common.errors import ConfigError


@dataclass(frozen=True)
class Tracker:
    """Somewhere that public metrics go.

    Attributes:
      log: records the metrics of a round, by name; a second call for a round replaces the first.
      close: flushes.
    """

    log: Callable[[int, Mapping[str, float]], None]
    close: Callable[[], None] = lambda: None


def json_lines(path: Path) -> Tracker:
    """metrics.jsonl: one line a round. Resuming drops the lines of rounds that are run again."""

    def log(round: int, metrics: Mapping[str, float]) -> None:
        """Appends one line; a round that is already there is replaced."""
        kept = [line for line in read_metrics(path) if line["round"] < round]
        lines = [*kept, {"round": round, **metrics}]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        Disk().replace(path, text.encode(), mode=PUBLIC)

    return Tracker(log)


def _tensorboard(_: str, folder: Path, config: Mapping[str, Any]) -> Tracker:
    """Scalars for TensorBoard, without the times that its own writer puts on each of them."""
    make_event = importlib.import_module("tensorboard.compat.proto.event_pb2").Event
    module = importlib.import_module("tensorboard.summary.writer.record_writer")
    path = folder / "tensorboard" / "events.out.tfevents.0.feddp"
    path.parent.mkdir(exist_ok=True)
    is_new = not path.exists()
    file = path.open("ab")
    records = module.RecordWriter(file)

    def write(event: Any) -> None:
        """Appends an event, for whoever reads meanwhile."""
        records.write(event.SerializeToString())
        file.flush()

    def log(round: int, metrics: Mapping[str, float]) -> None:
        """One scalar per metric; the one that is written last counts."""
        event = make_event(step=round)
        for name, value in metrics.items():
            event.summary.value.add(tag=name, simple_value=value)
        write(event)

    if is_new:
        write(make_event(file_version="brain.Event:2"))
    return Tracker(log, file.close)


def _mlflow(_: str, folder: Path, config: Mapping[str, Any]) -> Tracker:
    """A run of the MLflow server that the environment names."""
    mlflow = importlib.import_module("mlflow")
    mlflow.set_experiment("feddp")
    mlflow.start_run(run_name=folder.name)
    mlflow.log_params(dict(config))
    return Tracker(
        lambda round, metrics: mlflow.log_metrics(dict(metrics), step=round), mlflow.end_run
    )


def _wandb(module: str, folder: Path, config: Mapping[str, Any]) -> Tracker:
    """Weights & Biases, or trackio, which speaks the same interface."""
    wandb = importlib.import_module(module)
    wandb.init(project="feddp", name=folder.name, config=dict(config))
    return Tracker(lambda round, metrics: wandb.log(dict(metrics), step=round), wandb.finish)


TRACKERS = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb, "trackio": _wandb}


def tracker_problems(report_to: str) -> list[str]:
    """What keeps the named trackers from being used, one line each."""
    problems = []
    for name in _names(report_to):
        if name not in TRACKERS:
            allowed = ", ".join(TRACKERS)
            problems.append(f'tracking.report-to = "{name}": must be one of {allowed}.')
        elif importlib.util.find_spec(name) is None:
            problems.append(f'tracking.report-to = "{name}": not installed; `pip install {name}`.')
    return problems


def open_trackers(report_to: str, *, folder: Path, config: Mapping[str, Any]) -> Sequence[Tracker]:
    """metrics.jsonl in `folder`, and the trackers named in `report_to`.

    Raises:
      ConfigError: an unknown tracker, or one that is not installed.
    """
    if problems := tracker_problems(report_to):
        raise ConfigError(problems)
    named = [TRACKERS[name](name, folder, config) for name in _names(report_to)]
    return [json_lines(folder / "metrics.jsonl"), *named]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; none when there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _names(report_to: str) -> list[str]:
    return [name.strip() for name in report_to.split(",") if name.strip()]
