"""Broken versions of the protocol; each is put in place inside a forked process alone."""

import hashlib
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import small_run
from crash_disk import OutsideLog
from small_run import write_checkpoint

from feddp.common.disk import Disk
from feddp.common.privacy.ledger.charge_terms import UPDATE
from feddp.common.privacy.ledger.history import Charge, History, charge_body
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.store import NO_DELETE, SELECT, check_row
from feddp.common.privacy.mechanism.noise import BitStream, fresh_key, seeded_key
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.messages import EvaluateRequest
from feddp.server import release as server_release
from feddp.server import rounds
from feddp.server.checkpoint import Checkpoint, Checkpoints, RoundState
from feddp.server.optimizer import Moments
from feddp.server.release import Training


@dataclass(frozen=True)
class Mutant:
    """How to break the code, and the rule that must notice.

    Attributes:
      mutate: called in the forked process.
      breaks: part of the broken rule's text.
      is_seeded: whether the run is seeded.
    """

    mutate: Callable[[OutsideLog], None]
    breaks: str
    is_seeded: bool = False


def draw(
    training: Training, state: RoundState, total: UpdateSum, charge: Charge
) -> tuple[Checkpoint, RoundState]:
    """Noise and step of a round, without any bookkeeping."""
    plan = training.plan
    context = f"{charge.round}/{charge.attempt}".encode()
    seed = plan.seed
    key = fresh_key(context, total) if seed is None else seeded_key(seed, charge.round)
    released = plan.mechanism.release(total, bits=BitStream(key))
    adapter, moments = training.optimizer.step(state.adapter, released, state.moments)
    after = RoundState(charge.round, adapter, moments, plan.clipping_norm)
    return Checkpoint(after, charge.attempt, plan.sha256), after


def publish(training: Training, state: RoundState) -> None:
    training.nodes.evaluate(EvaluateRequest(state.adapter, training.layout_sha256))


def use_release(release: Callable[[Training, RoundState, UpdateSum], RoundState]) -> None:
    rounds.release = release


def no_mutation(log: OutsideLog) -> None:
    """The control: the same steps, put together by hand, in the right order."""

    def release(training: Training, state: RoundState, total: UpdateSum) -> RoundState:
        charge = training.ledger.charge(training.ledger.next_round)
        checkpoint, state = draw(training, state, total, charge)
        digest = write_checkpoint(training.checkpoints.folder, checkpoint, training.disk)
        training.ledger.release(charge, digest)
        publish(training, state)
        return state

    use_release(release)


def release_before_checkpoint(log: OutsideLog) -> None:
    def release(training: Training, state: RoundState, total: UpdateSum) -> RoundState:
        charge = training.ledger.charge(training.ledger.next_round)
        checkpoint, state = draw(training, state, total, charge)
        with tempfile.TemporaryDirectory() as elsewhere:
            digest = write_checkpoint(Path(elsewhere), checkpoint, Disk())
        training.ledger.release(charge, digest)
        write_checkpoint(training.checkpoints.folder, checkpoint, training.disk)
        return state

    use_release(release)


def publish_before_charge(log: OutsideLog) -> None:
    def release(training: Training, state: RoundState, total: UpdateSum) -> RoundState:
        charge = training.ledger._run.next_charge(UPDATE)
        checkpoint, state = draw(training, state, total, charge)
        publish(training, state)
        training.ledger.charge(charge.round)
        digest = write_checkpoint(training.checkpoints.folder, checkpoint, training.disk)
        training.ledger.release(charge, digest)
        return state

    use_release(release)


def publish_before_checkpoint(log: OutsideLog) -> None:
    def release(training: Training, state: RoundState, total: UpdateSum) -> RoundState:
        charge = training.ledger.charge(training.ledger.next_round)
        checkpoint, state = draw(training, state, total, charge)
        publish(training, state)
        digest = write_checkpoint(training.checkpoints.folder, checkpoint, training.disk)
        training.ledger.release(charge, digest)
        return state

    use_release(release)


def draw_before_charge(log: OutsideLog) -> None:
    def release(training: Training, state: RoundState, total: UpdateSum) -> RoundState:
        charge = training.ledger._run.next_charge(UPDATE)
        checkpoint, state = draw(training, state, total, charge)
        digest = write_checkpoint(training.checkpoints.folder, checkpoint, training.disk)
        training.ledger.release(training.ledger.charge(charge.round), digest)
        return state

    use_release(release)


def reuse_open_charge(log: OutsideLog) -> None:
    def release(training: Training, state: RoundState, total: UpdateSum) -> RoundState:
        ledger = training.ledger
        charge = ledger.open_charge or ledger.charge(ledger.next_round)
        checkpoint, state = draw(training, state, total, charge)
        digest = write_checkpoint(training.checkpoints.folder, checkpoint, training.disk)
        ledger.release(charge, digest)
        return state

    def next_round(ledger: Ledger) -> int:
        return ledger.open_charge.round if ledger.open_charge else ledger._run.next_round

    use_release(release)
    small_run.recover = lambda *parts: None
    Ledger.next_round = property(next_round)  # type: ignore


def refund_open_charge(log: OutsideLog) -> None:
    """On recovery, the charge without an answer is taken out of the ledger."""

    def recover(ledger: Ledger, checkpoints: Checkpoints, disk: Disk) -> None:
        if ledger.open_charge is None:
            return
        connection: sqlite3.Connection = ledger._connection
        connection.execute("DROP TRIGGER no_delete")
        connection.execute("DELETE FROM event WHERE seq >= (SELECT max(seq) - 1 FROM event)")
        connection.execute(NO_DELETE)
        ledger._history = server_history(connection)
        ledger.open_run(ledger._start)

    small_run.recover = recover


def server_history(connection: sqlite3.Connection) -> History:
    """The history of the rows that are left."""
    history = History()
    for row in connection.execute(SELECT):
        check_row(history, row)
    return history


def allow_one_charge_more(log: OutsideLog) -> None:
    """A burned round is charged again, beyond the budget."""

    def charge(ledger: Ledger, round: int) -> Charge:
        history, start = ledger._history, ledger._start
        budget, run, slot = history.budget, ledger._run, start.slot
        honest, planned = run.opened, run.opened["num_charges"]
        if run.num_charges > planned:
            raise AssertionError("far beyond the plan")
        next_charge = Charge(round, run.attempts.get(UPDATE, 0) + 1)
        run.opened = {**honest, "num_charges": planned + 1}
        budget._left[slot] += 1
        try:
            ledger._append("CHARGE", charge_body(start.run, next_charge, slot, ""))
        finally:
            run.opened = honest
            budget._left[slot] -= 1
        return next_charge

    Ledger.charge = charge  # type: ignore[method-assign]
    Ledger.next_round = property(lambda ledger: ledger._run.last_released + 1)  # type: ignore


def forget_moments(log: OutsideLog) -> None:
    """A checkpoint that lacks the state of the server optimizer."""
    honest = server_release.read_released

    def read_released(*parts: object) -> Checkpoint:
        checkpoint = honest(*parts)  # type: ignore[arg-type]
        zeros: Moments = {name: value * 0 for name, value in checkpoint.state.moments.items()}
        return replace(checkpoint, state=replace(checkpoint.state, moments=zeros))

    server_release.read_released = read_released  # type: ignore[assignment]


def redraw_a_release(log: OutsideLog) -> None:
    """A released file is written again on every start, with fresh noise."""
    honest = server_release.read_released

    def read_released(checkpoints: Checkpoints, release: object) -> Checkpoint:
        checkpoint = honest(checkpoints, release)  # type: ignore[arg-type]
        state = replace(checkpoint.state, adapter=checkpoint.state.adapter + 1)
        other = replace(checkpoint, state=state)
        write_checkpoint(checkpoints.folder, other, Disk())
        return other

    server_release.read_released = read_released  # type: ignore[assignment]


def adopt_any_file(log: OutsideLog) -> None:
    """Recovery adopts the temporary file, whole or torn."""

    def recover(ledger: Ledger, checkpoints: Checkpoints, disk: Disk) -> None:
        charge = ledger.open_charge
        if charge is None:
            return
        path = checkpoints.path(charge)
        temporary = path.with_name(path.name + ".tmp")
        if temporary.exists():
            temporary.rename(path)
        if path.exists():
            ledger.release(charge, hashlib.sha256(path.read_bytes()).hexdigest())
        else:
            ledger.burn(charge, "crash")

    small_run.recover = recover


MUTANTS = {
    "release row before checkpoint": Mutant(release_before_checkpoint, "missing"),
    "publish before charge": Mutant(publish_before_charge, "unrecorded adapter"),
    "publish before checkpoint": Mutant(publish_before_checkpoint, "unrecorded adapter"),
    "draw before charge": Mutant(draw_before_charge, "without a charge"),
    "open charge answered again": Mutant(reuse_open_charge, "two answers"),
    "refund": Mutant(refund_open_charge, "two answers"),
    "one charge too many": Mutant(allow_one_charge_more, "does not verify"),
    "moments forgotten": Mutant(forget_moments, "another final adapter", is_seeded=True),
    "release drawn again": Mutant(redraw_a_release, "another file"),
    "torn file adopted": Mutant(adopt_any_file, "ended with 3"),
}
