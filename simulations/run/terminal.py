"""A run on the command line: its output and exit code."""

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from feddp.common.config.run_config import RunConfig
from feddp.common.privacy.plan.plan import PrivacyPlan, planned_curve
from feddp.common.privacy.plan.statement import epsilon_text, guarantee_line
from feddp.server.rounds import RoundReport
from feddp.server.run import burned_text
from feddp.simulations.run.console import plan_lines, result_lines
from feddp.simulations.run.progress import Bar, Listener, Meter
from feddp.simulations.run.run import Run
from feddp.simulations.run.simulate import resume, simulate

INTERRUPTED = 130


def show_simulation(
    config: RunConfig, *, is_comparing: bool, non_private_path: Path | None, command: str = ""
) -> int:
    """Calls `simulate`, and prints the plan, the progress and the table.

    Returns:
      The exit code: 0 if all rounds are released, 130 if the run was stopped.
    """
    non_private: dict[str, float] = {}
    started = time.monotonic()
    run = simulate(
        config,
        progress=replace(TERMINAL, on_non_private=non_private.update),
        is_comparing=is_comparing,
        non_private_path=non_private_path,
        command=command,
    )
    return _show_end(run, time.monotonic() - started, non_private)


def show_resumption(path: Path, *, is_new_segment: bool = False, command: str = "") -> int:
    """Calls `resume`, and prints as `show_simulation` does."""
    started = time.monotonic()
    run = resume(path, progress=TERMINAL, is_new_segment=is_new_segment, command=command)
    return _show_end(run, time.monotonic() - started)


def _show_plan(plan: PrivacyPlan) -> None:
    print("\n".join(["Plan", *plan_lines(plan), "", guarantee_line(plan), ""]), flush=True)


def _show_resumed(path: Path, plan: PrivacyPlan) -> None:
    print(f"Resuming {path}\n{guarantee_line(plan)}\n", flush=True)


def _show_stopping() -> None:
    print("\nStopping after this round's bookkeeping; Ctrl-C again: at once.", flush=True)


def _show_comparing() -> None:
    print("\nThe same rounds without privacy, to compare ...", flush=True)


def _show_end(run: Run, seconds: float, non_private: Mapping[str, float] | None = None) -> int:
    """Prints the table of a finished run, or how to continue; returns the exit code.

    `non_private`: on real data these metrics are in no file of the run.
    """
    plan = run.plan.privacy_plan
    if not run.is_complete:
        print(
            f"Stopped after round {run.last_round} of {plan.num_rounds}. Continue with `feddp "
            f"simulate --resume {run.path}`; the promise stays epsilon <= "
            f"{epsilon_text(plan.epsilon)}."
        )
        return INTERRUPTED
    results = run.results if not non_private else {**run.results, "non_private": non_private}
    print("\n".join(["", *result_lines(results, plan)]))
    if burned := burned_text(run.num_burned, plan.num_rounds):
        print(f"\n  {burned}")
    print(f"\n  {run.path}  ({seconds:.0f} s)")
    print(f"  try: feddp chat {run.path}")
    return 0


class Lines:
    """Prints a line per evaluated round, with loss, epsilon so far, and time left."""

    def __init__(self, plan: PrivacyPlan) -> None:
        self._plan, self._curve = plan, planned_curve(plan).tolist()
        self._first: tuple[int, float] | None = None  # round and time of the first report
        self._last_loss = ""

    def show(self, report: RoundReport, num_charges: int) -> None:
        """Prints a line if the round was evaluated."""
        if report.evaluation is not None:
            self._last_loss = f"loss {report.evaluation.loss:.4f}"
        first_round, since = self._first = self._first or (report.round, time.monotonic())
        if report.evaluation is None and report.round < self._plan.num_rounds:
            return
        spent = self._curve[num_charges - 1] if num_charges else 0.0
        meter = f"epsilon {spent:.2f}/{self._plan.target_epsilon:g}"
        line = f"round {report.round:>4}/{self._plan.num_rounds}  {self._last_loss}  {meter}"
        num_done, num_left = report.round - first_round, self._plan.num_rounds - report.round
        if num_done and num_left:
            line += f"  {(time.monotonic() - since) / num_done * num_left:.0f} s left"
        print(line, flush=True)

    def close(self) -> None:
        """Does nothing."""


def open_meter(plan: PrivacyPlan) -> Meter:
    """A bar on a terminal, plain lines elsewhere."""
    return Bar(plan) if sys.stderr.isatty() else Lines(plan)


TERMINAL = Listener(
    on_plan=_show_plan,
    on_resume=_show_resumed,
    meter=open_meter,
    on_stopping=_show_stopping,
    on_comparing=_show_comparing,
)
