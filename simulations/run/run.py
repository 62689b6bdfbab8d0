"""A run's folder as an object: what it promises, what it measured, and its adapter."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feddp.common import assembly
from feddp.common.config.run_config import RunConfig
from feddp.common.errors import ConfigError
from feddp.common.model.base import BaseModel, load_tokenizer
from feddp.common.model.other_kinds import file_name, load_trained
from feddp.common.privacy.ledger.history import History
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.statement import guarantee_line
from feddp.common.tracking import read_metrics
from feddp.server import run as folder
from feddp.server.export import RESULT_NAME
from feddp.server.publisher import METRICS_NAME
from feddp.simulations.run.console import result_lines, result_rows
from feddp.simulations.run.html import html_table
from feddp.simulations.run.plan import Plan, describe_plan

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMISE_NAME = "privacy.json"


@dataclass(frozen=True, repr=False)
class Run:
    """A run: a view of its folder, read on demand.

    Attributes:
      path: the run folder.
      config: of the run.
      plan: what it promises.
    """

    path: Path
    config: RunConfig
    plan: Plan

    @property
    def is_complete(self) -> bool:
        """All planned rounds are over, and the adapter is exported."""
        return (self.path / RESULT_NAME).is_file()

    @property
    def adapter(self) -> Path:
        """Folder of the exported adapter, in PEFT's format where PEFT has the kind.

        Raises:
          ConfigError: the run is not finished.
        """
        path = self.path / "adapter"
        if not (path / file_name(self.config.adapter.kind)).is_file():
            raise ConfigError([self._unfinished(f"{path}: no adapter yet")])
        return path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One entry per released round: round (0: the base), epsilon so far, and evaluation.

        Losses are in nats per token; public values only.
        """
        return read_metrics(self.path / METRICS_NAME)

    @property
    def last_round(self) -> int:
        """The last released round; 0 is the base."""
        metrics = self.metrics
        return int(metrics[-1]["round"]) if metrics else 0

    @property
    def num_burned(self) -> int:
        """Rounds that crashes burned: charged, and never released.

        Raises:
          LedgerDamagedError: the ledger does not verify.
        """
        return self.ledger.runs[self._folder.name].num_burned

    @property
    def results(self) -> Mapping[str, Mapping[str, float] | None]:
        """Metrics of "base", "private" and "non_private"; None if not measured.

        Raises:
          ConfigError: the run is not finished.
        """
        return self._read(RESULT_NAME)

    @property
    def privacy(self) -> Mapping[str, Any]:
        """The machine-readable promise, enough to recompute epsilon without feddp.

        Raises:
          ConfigError: the run is not finished.
        """
        return self._read(PROMISE_NAME)

    @property
    def ledger(self) -> History:
        """The rows of the run's ledger, or of its population's, verified.

        Raises:
          LedgerDamagedError: it does not verify.
        """
        return Ledger.read(self._folder.ledger_path)

    def load_model(self) -> Any:
        """The trained model, in eval mode: a `PeftModel`, or the model itself for "head", "full".

        Every call loads a new one.

        Raises:
          ConfigError: the run is not finished.
          ModelError: the base model cannot be loaded.
        """
        return load_whole(self)[0]

    def load_tokenizer(self) -> "PreTrainedTokenizerBase":
        """The base model's tokenizer, with a padding token."""
        return load_tokenizer(self.config.model.base)

    def __repr__(self) -> str:
        if self.is_complete:
            lines = result_lines(self.results, self.plan.privacy_plan)
            return "\n".join([self._head, "", *lines])
        return "\n".join([self._head, "", f"  {guarantee_line(self.plan.privacy_plan)}"])

    def _repr_html_(self) -> str:
        promise = escape(guarantee_line(self.plan.privacy_plan))
        table = ""
        if self.is_complete:
            head, rows = result_rows(self.results, self.plan.privacy_plan)
            table = html_table(rows, head=head) if rows else ""
        return f"<p>{escape(self._head)}</p>{table}<p>{promise}</p>"

    @property
    def _folder(self) -> folder.Run:
        return folder.Run(self.path, self.config, self.plan.privacy_plan)

    @property
    def _head(self) -> str:
        done = f"{self.last_round} of {self.plan.num_rounds} rounds"
        return f"Run {self.path.name}: {done}, in {self.path}"

    def _unfinished(self, problem: str) -> str:
        return f"{problem}. Finish the run: `feddp simulate --resume {self.path}`."

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not self.is_complete or not path.is_file():
            raise ConfigError([self._unfinished(f"{path}: not there yet")])
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content


def load_run(path: Path | str) -> Run:
    """Reads a run folder, finished or not, and checks that its parts belong together.

    Raises:
      ConfigError: there is no run in that folder.
      PlanDiffersError: plan.json or config.toml is not the one the run was made with.
    """
    return describe_run(folder.load_run(Path(path)))


def describe_run(run: folder.Run) -> Run:
    """The public view of a run folder."""
    return Run(run.path, run.config, describe_plan(run.plan, run.config))


def path_of(run: Run | Path | str) -> Path:
    """The folder of a run."""
    return run.path if isinstance(run, Run) else Path(run)


def load_whole(run: Run) -> tuple[Any, BaseModel]:
    """The trained model, and its base, for tokenizer and labels."""
    adapter_path = run.adapter
    base, _ = assembly.load_model(run.config)
    return load_trained(adapter_path, base), base
