"""Shows the progress of a run: not at all, as a bar, or through a listener."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import TqdmWarning

from feddp.common.privacy.plan.plan import PrivacyPlan, planned_curve
from feddp.server.rounds import RoundReport

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # a notebook without widgets shows a text bar
    from tqdm.auto import tqdm


class Meter(Protocol):
    """Shows how far a run is."""

    def show(self, report: RoundReport, num_charges: int) -> None:
        """Called when a round is released and durable (0 is the base)."""
        ...

    def close(self) -> None:
        """Called when the rounds are over, for whatever reason."""
        ...


def ignore(*_: object) -> None:
    """Does nothing."""


def never() -> bool:
    """No stop is requested."""
    return False


@dataclass(frozen=True)
class Listener:
    """Callbacks for the events of a run, with public values only; by default none.

    Attributes:
      on_plan: a new run is about to be made.
      on_resume: an existing run continues.
      meter: makes the meter of the rounds; None shows nothing.
      on_stopping: a stop was requested; it happens after the bookkeeping of the round.
      on_comparing: the private rounds are done; those without privacy follow.
      on_non_private: metrics of the model without privacy.
    """

    on_plan: Callable[[PrivacyPlan], None] = ignore
    on_resume: Callable[[Path, PrivacyPlan], None] = ignore
    meter: Callable[[PrivacyPlan], Meter | None] = ignore
    on_stopping: Callable[[], None] = ignore
    on_comparing: Callable[[], None] = ignore
    on_non_private: Callable[[Mapping[str, float]], None] = ignore


class Bar:
    """A bar on a terminal or in a notebook, with loss, epsilon so far and its target."""

    def __init__(self, plan: PrivacyPlan):
        self._curve, self._target = planned_curve(plan).tolist(), plan.target_epsilon
        self._last_loss = ""
        self._bar: Any = tqdm(total=plan.num_rounds, unit="round", dynamic_ncols=True)

    def show(self, report: RoundReport, num_charges: int) -> None:
        """One released round."""
        if report.evaluation is not None:
            self._last_loss = f"loss {report.evaluation.loss:.4f}, "
        spent = self._curve[num_charges - 1] if num_charges else 0.0
        self._bar.set_postfix_str(f"{self._last_loss}epsilon {spent:.2f}/{self._target:g}")
        self._bar.update(report.round - self._bar.n)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()
