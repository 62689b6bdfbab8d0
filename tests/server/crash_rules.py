"""Lives of a small run that end in SIGKILL, and the rules that must hold after each."""

import hashlib
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from crash_disk import CrashDisk, OutsideLog
from small_ledger import small_plan
from small_run import INITIAL, IntegerNodes, array_sha256, create, live

from feddp.common.errors import FeddpError
from feddp.common.privacy.ledger.history import History
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.server.checkpoint import Checkpoints

Mutant = Callable[[OutsideLog], None]
RAISED = 1


class RuleBrokenError(Exception):
    """What went wrong, in one line."""


@contextmanager
def quick_folder() -> Iterator[Path]:
    """In memory where the machine allows it: a killed process needs no disk to remember."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@dataclass
class Trial:
    """A run, the log outside it, and how often it died.

    Attributes:
      folder: empty at first.
      plan: of the run.
      mutate: breaks the code on purpose, in the forked process alone.
    """

    folder: Path
    plan: PrivacyPlan = field(default_factory=small_plan)
    mutate: Mutant | None = None
    num_crashes: int = 0

    def __post_init__(self) -> None:
        self.run_path = create(self.folder / "run", self.plan)
        self.log = OutsideLog(self.folder / "outside.log")

    def live_once(self, dies_at: int | None) -> int:
        """One life in a forked process: its exit status, 0 when it reached the end."""
        child = os.fork()
        if not child:
            status = RAISED
            try:
                if self.mutate:
                    self.mutate(self.log)
                self.run_life(dies_at)
                status = 0
            except FeddpError as error:
                self.log.add("error", type(error).__name__)
                status = error.exit_code
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        self.num_crashes += os.WIFSIGNALED(ended)
        return os.waitstatus_to_exitcode(ended)

    def run_life(self, dies_at: int | None) -> None:
        """The life itself, inside the forked process."""
        nodes = IntegerNodes(self.log.add)
        live(self.run_path, self.plan, nodes=nodes, disk=CrashDisk(self.log, dies_at))

    def check(self) -> History:
        """The rules, on a copy: looking at a run must not repair it.

        Raises:
          RuleBrokenError: one is broken.
        """
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.run_path, copy)
        try:
            history = Ledger.read(copy / "ledger.sqlite")
        except FeddpError as error:
            raise RuleBrokenError(f"the ledger does not verify: {error}") from error
        charges = {(int(body["round"]), int(body["attempt"])) for body in history.charges}
        _check_answers(self.log, charges)
        checkpoints = Checkpoints(copy / "checkpoints", self.plan.sha256)
        _check_published(self.log, _released(checkpoints, history))
        _require(len(history.charges) >= len(history.releases), "more releases than charges")
        num_burned = len(history.charges) - len(history.releases) - bool(history.open_charge)
        _require(num_burned <= self.num_crashes, "more burns than crashes")
        return history

    @property
    def burned(self) -> frozenset[int]:
        """The rounds that were charged and never released."""
        history = Ledger.read(self.run_path / "ledger.sqlite")
        charged = {int(body["round"]) for body in history.charges}
        return frozenset(charged - {release.round for release in history.releases})

    def final_adapter(self) -> bytes:
        """The adapter that the last release row speaks of; empty if all rounds were burned."""
        history = Ledger.read(self.run_path / "ledger.sqlite")
        run = history.runs["small"]
        _require(run.next_round == self.plan.num_rounds + 1, "not finished")
        if not history.releases:
            return b""
        last = history.releases[-1]
        checkpoints = Checkpoints(self.run_path / "checkpoints", self.plan.sha256)
        checkpoint = checkpoints.parse(checkpoints.path(last).read_bytes(), last)
        _require(checkpoint is not None, "not finished")
        assert checkpoint is not None
        return checkpoint.state.adapter.tobytes()

    def survive(self, *steps: int) -> History:
        """Dies at each step in turn, then lives to the end; the rules are checked after each life.

        Raises:
          RuleBrokenError: one is broken.
        """
        for step in steps:
            self.live_once(step)
            self.check()
        status = self.live_once(None)
        _require(status == 0, f"the clean life ended with {status}: {self.log.lines('error')}")
        history = self.check()
        over = history.runs["small"].next_round > self.plan.num_rounds
        _require(over, "rounds are missing")
        num_spare = self.plan.num_charges - self.plan.num_rounds
        most = self.plan.num_rounds + min(num_spare, self.num_crashes)
        _require(len(history.charges) <= most, "more charges than the plan allows")
        return history


def _check_answers(log: OutsideLog, charges: set[tuple[int, int]]) -> None:
    """Every noised result belongs to a charge, and a charge has one."""
    answers = defaultdict(set)
    for name, digest in log.lines("answer"):
        _, round, _, attempt = name.split("-")
        answers[int(round), int(attempt)].add(digest)
    for charge, digests in answers.items():
        _require(charge in charges, f"noise was drawn without a charge: {charge}")
        _require(len(digests) == 1, f"two answers for one charge: {charge}")


def _check_published(log: OutsideLog, adapters: dict[int, str]) -> None:
    """Whatever a node saw is the recorded result of its round."""
    for round, digest in log.lines("request"):
        last = max(released for released in adapters if released < int(round))
        _require(adapters[last] == digest, f"unrecorded adapter in round {round}")
    for (digest,) in log.lines("evaluated"):
        _require(digest in adapters.values(), "an unrecorded adapter was evaluated")


def _released(checkpoints: Checkpoints, history: History) -> dict[int, str]:
    """Digests of the recorded adapters by round."""
    adapters = {0: array_sha256(INITIAL)}
    for release in history.releases:
        path = checkpoints.path(release)
        _require(path.is_file(), f"the file of released round {release.round} is missing")
        content = path.read_bytes()
        is_same = hashlib.sha256(content).hexdigest() == release.sha256
        checkpoint = checkpoints.parse(content, release)
        _require(is_same and checkpoint is not None, f"round {release.round} has another file")
        assert checkpoint is not None
        _require(checkpoint.state.adapter.dtype == np.float32, "not float32")
        adapters[release.round] = array_sha256(checkpoint.state.adapter)
    return adapters


def _require(is_kept: bool, rule: str) -> None:
    if not is_kept:
        raise RuleBrokenError(rule)
