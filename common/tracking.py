"""Trackers: metrics.jsonl always; TensorBoard, MLflow, Weights & Biases, trackio by name."""

import importlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from feddp.common.disk import PUBLIC, Disk
from feddp.common.errors import ConfigError

TRACKERS = {
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
    "wandb": "wandb",
    "trackio": "trackio",
}


class Tracker(Protocol):
    """Somewhere that public metrics go."""

    def log(self, round: int, metrics: Mapping[str, float]) -> None:
        """Records the public metrics of one round; a second call for a round replaces the first."""
        ...

    def close(self) -> None:
        """Flushes."""
        ...


class JsonLinesTracker:
    """metrics.jsonl: one line a round. Resuming drops the lines of rounds that are run again."""

    def __init__(self, path: Path):
        self._path = path

    def log(self, round: int, metrics: Mapping[str, float]) -> None:
        """Appends one line; a round that is already there is replaced."""
        kept = [line for line in read_metrics(self._path) if line["round"] < round]
        lines = [*kept, {"round": round, **metrics}]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        Disk().replace(self._path, text.encode(), mode=PUBLIC)

    def close(self) -> None:
        """Nothing is buffered."""


class TensorBoardTracker:
    """Scalars for TensorBoard, without the times that its own writer puts on each of them."""

    def __init__(self, folder: Path):
        event = importlib.import_module("tensorboard.compat.proto.event_pb2").Event
        records = importlib.import_module("tensorboard.summary.writer.record_writer").RecordWriter
        self._event = event
        path = folder / "tensorboard" / "events.out.tfevents.0.feddp"
        path.parent.mkdir(exist_ok=True)
        is_new = not path.exists()
        self._file = path.open("ab")
        self._records = records(self._file)
        if is_new:
            self._write(event(file_version="brain.Event:2"))

    def log(self, round: int, metrics: Mapping[str, float]) -> None:
        """One scalar per metric; the one that is written last counts."""
        made = self._event(step=round)
        for name, value in metrics.items():
            made.summary.value.add(tag=name, simple_value=value)
        self._write(made)

    def close(self) -> None:
        """Closes the event file."""
        self._file.close()

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()


class MlflowTracker:
    """A run of the MLflow server that the environment names."""

    def __init__(self, name: str, config: Mapping[str, Any]):
        self._mlflow = importlib.import_module("mlflow")
        self._mlflow.set_experiment("feddp")
        self._mlflow.start_run(run_name=name)
        self._mlflow.log_params(dict(config))

    def log(self, round: int, metrics: Mapping[str, float]) -> None:
        """All metrics at one step."""
        self._mlflow.log_metrics(dict(metrics), step=round)

    def close(self) -> None:
        """Ends the MLflow run."""
        self._mlflow.end_run()


class WandbTracker:
    """Weights & Biases, or trackio, which speaks the same interface."""

    def __init__(self, module: str, name: str, config: Mapping[str, Any]):
        self._module = importlib.import_module(module)
        self._module.init(project="feddp", name=name, config=dict(config))

    def log(self, round: int, metrics: Mapping[str, float]) -> None:
        """All metrics at one step."""
        self._module.log(dict(metrics), step=round)

    def close(self) -> None:
        """Ends the run."""
        self._module.finish()


def tracker_problems(report_to: str) -> list[str]:
    """What keeps the named trackers from being used, one line each."""
    problems = []
    for name in _names(report_to):
        if name not in TRACKERS:
            allowed = ", ".join(TRACKERS)
            problems.append(f'tracking.report-to = "{name}": must be one of {allowed}.')
        elif importlib.util.find_spec(TRACKERS[name]) is None:
            problems.append(f'tracking.report-to = "{name}": not installed; `pip install {name}`.')
    return problems


def open_trackers(report_to: str, *, folder: Path, config: Mapping[str, Any]) -> Sequence[Tracker]:
    """metrics.jsonl in `folder`, and the trackers named in `report_to`.

    Raises:
      ConfigError: an unknown tracker, or one that is not installed.
    """
    if problems := tracker_problems(report_to):
        raise ConfigError(problems)
    trackers: list[Tracker] = [JsonLinesTracker(folder / "metrics.jsonl")]
    for name in _names(report_to):
        if name == "tensorboard":
            trackers.append(TensorBoardTracker(folder))
        elif name == "mlflow":
            trackers.append(MlflowTracker(folder.name, config))
        else:
            trackers.append(WandbTracker(name, folder.name, config))
    return trackers


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; none when there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _names(report_to: str) -> list[str]:
    return [name.strip() for name in report_to.split(",") if name.strip()]
