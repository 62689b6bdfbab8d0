"""The ledger: append-only, chained, signed, crash-safe record of what a population has spent.

One SQLite file, one writer. A charge is durable before its noise is drawn; its release row is
written after the noised result is durable. Rows are never changed. Epsilon is not stored: it is
recomputed from the charges.
"""

import os
import sqlite3
from pathlib import Path
from types import TracebackType

from feddp.common.disk import Disk, disk_errors
from feddp.common.errors import BudgetSpentError, DiskError, LedgerDamagedError, PlanDiffersError
from feddp.common.privacy.ledger import store
from feddp.common.privacy.ledger.budget import Shortage
from feddp.common.privacy.ledger.charge_terms import Slot
from feddp.common.privacy.ledger.history import (
    Body,
    Charge,
    History,
    Release,
    RunHistory,
    charge_body,
)
from feddp.common.privacy.ledger.remembered_head import (
    MAX_PROOF_ROWS,
    HeadClaim,
    anchor_of,
    check_anchor_file,
    claim_of,
    write_anchor,
)
from feddp.common.privacy.ledger.run_start import Start
from feddp.common.privacy.ledger.signing import (
    LedgerKey,
    create_key,
    default_key_path,
    load_key,
    new_key_path,
    replace_key,
    writer_key,
)

_UNOPENED = {"num_charges": 0, "num_rounds": 0}


class Ledger:
    """One population's record, held by one process.

    **Guarantee:** opening verifies every row and refuses anything unexpected; a charge beyond the
    plan, or a second one while one is open, is refused before anything is written; after any write
    error the object refuses all further use.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        content: store.Content,
        key: LedgerKey,
        disk: Disk,
    ):
        self._path = path
        self._connection = connection
        self._history = content.history
        self._signature = content.signature
        self._key = key
        self._disk = disk
        self._lock: int | None = None
        self._anchor_path: Path | None = None
        self._start: Start | None = None
        self._is_failed = False

    @classmethod
    def create(
        cls, path: Path, plan: Body, *, key_path: Path | None = None, disk: Disk | None = None
    ) -> None:
        """Makes a new ledger whose first row is the plan, and its key unless there is one.

        Args:
          path: of the ledger.
          plan: the PLAN row without its public key.
          key_path: of the private key; None: beside the ledger.
          disk: where both are kept.

        Raises:
          DiskError: it exists already, or cannot be written.
          LedgerDamagedError: the row is not a PLAN row.
          ConfigError: the key that is there cannot be used.
        """
        disk, key_path = disk or Disk(), key_path or default_key_path(path)
        History().apply("PLAN", {**plan, "public_key": "00" * 32})  # before anything is written
        if path.exists():
            raise DiskError(f"{path}: exists already; a ledger is never overwritten.")
        with disk_errors(key_path):
            store.check_local(path.parent, disk)
            key = load_key(key_path) if key_path.exists() else create_key(key_path, disk)
        history, body = History(), {**plan, "public_key": key.public.hex()}
        signature = key.sign(history.apply("PLAN", body))
        store.create_file(path, store.new_row(history, "PLAN", body, signature), disk)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        key_path: Path | None = None,
        anchor_path: Path | None = None,
        disk: Disk | None = None,
    ) -> "Ledger":
        """Takes the writer's lock and verifies every row. Use as a context manager.

        Args:
          path: of the ledger.
          key_path: of the private key; None: beside the ledger.
          anchor_path: of the operator's anchor, which is followed from now on; None: none.
          disk: where they are kept.

        Raises:
          LedgerLockedError: another process holds it.
          LedgerDamagedError: it does not verify, or the key is not this ledger's.
          RolledBackError: it does not extend the anchor.
          ConfigError: the key cannot be read, or others can read it.
          DiskError: it cannot be read, or a half commit in it cannot be undone.
        """
        disk, path = disk or Disk(), path.resolve()  # one lock, whatever name led here
        if not path.is_file():
            raise LedgerDamagedError(f"{path}: missing. A lost ledger counts as a spent budget.")
        store.check_local(path.parent, disk)
        lock = store.take_lock(path)
        try:
            connection, content = store.read_file(path, disk)
            try:
                check_anchor_file(path, content.history, anchor_path)
                key = writer_key(
                    key_path or default_key_path(path), content.history.public_key, disk
                )
            except BaseException:
                connection.close()
                raise
        except BaseException:
            os.close(lock)
            raise
        ledger = cls(path, connection, content, key, disk)
        ledger._lock, ledger._anchor_path = lock, anchor_path
        if anchor_path is not None and not anchor_path.exists():
            ledger._anchor()  # before the first OPEN: after it, a missing anchor is refused
        return ledger

    @classmethod
    def read(cls, path: Path, *, anchor_path: Path | None = None) -> History:
        """Verifies every row without lock or private key, and returns what they say.

        Raises:
          LedgerLockedError: another process is writing just now.
          LedgerDamagedError: it does not verify.
          RolledBackError: it does not extend the anchor.
          DiskError: it cannot be read, or a half commit in it cannot be undone.
        """
        history = cls.read_content(path).history
        check_anchor_file(path, history, anchor_path)
        return history

    @classmethod
    def read_content(cls, path: Path) -> store.Content:
        """Like `read`, with the rows as they are stored."""
        connection, content = store.read_file(path, Disk())
        connection.close()
        return content

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        if self._lock is not None:
            os.close(self._lock)  # also frees the lock
            self._lock = None

    @property
    def head(self) -> str:
        """Hash of the last row, hex."""
        return self._history.head.hex()

    @property
    def history(self) -> History:
        """What all rows say, of every run."""
        return self._history

    @property
    def next_round(self) -> int:
        """The round that this run charges next."""
        return self._run.next_round

    @property
    def num_burned(self) -> int:
        """Rounds of this run that were charged and never released."""
        return self._run.num_burned

    @property
    def num_rows(self) -> int:
        """Rows so far; never falls."""
        return self._history.num_rows

    @property
    def num_charges(self) -> int:
        """Charges of this run so far, released, burned or open."""
        return self._run.num_charges

    @property
    def open_charge(self) -> Charge | None:
        """The charge that a crash left without an answer."""
        return self._history.open_charge

    @property
    def last_release(self) -> Release | None:
        """The newest release of this run."""
        return self._run.releases[-1] if self._run.releases else None

    @property
    def releases(self) -> list[Release]:
        """All releases of this run, in the order of their rounds."""
        return list(self._run.releases)

    def claim(self, *, num_rows: int = MAX_PROOF_ROWS) -> HeadClaim:
        """What a request tells its nodes about the head; see `remembered_head.HeadMemory`."""
        return claim_of(self._history, self._signature, num_rows=num_rows)

    def open_run(self, start: Start) -> None:
        """Writes the OPEN row of a start; its commit also hardens every row that was just read.

        A charge that another run left open is burned: its answer was never published.

        Raises:
          PlanDiffersError: the run's terms or plan are not the ledger's.
          BudgetSpentError: a new run does not fit. Nothing is written.
        """
        self.check_start(start)
        self._append("OPEN", start.to_body(self._history.num_opened + 1))
        self._start = start
        charge = self.open_charge
        if charge is not None and self._history.charges[-1]["run"] != start.run:
            self.burn(charge, "crash")

    def check_start(self, start: Start) -> None:
        """Whether `open_run` would take a start; writes nothing.

        Raises:
          PlanDiffersError, BudgetSpentError: it would not.
        """
        plan, known = self._history.plan, self._history.runs.get(start.run)
        for name, value in start.terms.items():
            if plan[name] != value:
                raise PlanDiffersError(
                    f"{self._path}: {name} = {plan[name]} for this population, and this run's is "
                    f"{value}. A ledger keeps its plan."
                )
        found = known.opened["plan_sha256"] if known else plan["plan_sha256"]
        if found not in ("", start.plan_sha256):
            raise PlanDiffersError(
                f"{self._path}: made for plan {found[:12]}, and this run's is "
                f"{start.plan_sha256[:12]}. A ledger keeps its plan: start a new run for another "
                "one."
            )
        if known is None:
            self._check_fit(start)

    def _check_fit(self, start: Start) -> None:
        """Refuses a new run that does not fit beside what other runs have begun."""
        slot, count = start.slot, start.num_charges
        kept = self._history.kept_for_others(slot, start.run)
        if shortage := self._shortage(slot, count, kept):
            others = (
                f"{kept} charges are kept for runs that have begun and not ended: continue those. "
                if kept
                else ""
            )
            raise BudgetSpentError(
                f"The population's budget is spent. {shortage} {others}Nothing was charged: plan "
                "fewer or less costly rounds."
            )

    def charge(self, round: int, slot: Slot | None = None) -> Charge:
        """Spends a slot, by default of the run's updates; durable when this returns.

        Args:
          round: an update's own; for another purpose, the last released one.
          slot: what is paid for.

        Raises:
          BudgetSpentError: the run's or the population's budget does not hold it. Nothing is
            written.
          LedgerDamagedError: not the next round, or a charge is open.
        """
        if self._start is None:
            raise LedgerDamagedError("A charge needs an open run.")
        slot = slot or self._start.slot
        if (num_left := self._start.num_charges - self.num_charges) <= 0:
            raise BudgetSpentError(
                f"The plan of this run allows {self._start.num_charges} charges and all are spent. "
                f"Requested 1, remaining {num_left}, difference {1 - num_left}. {self._last()}."
            )
        kept = self._history.kept_for_others(slot, self._start.run)
        if shortage := self._shortage(slot, 1, kept):
            raise BudgetSpentError(f"The population's budget is spent. {shortage} {self._last()}.")
        charge = self._run.next_charge(slot.purpose)
        if round != charge.round or self.open_charge is not None:
            raise LedgerDamagedError(f"A charge for round {round} cannot follow.")
        assert self._history.budget is not None  # the PLAN row set it
        cost = self._history.budget.cost(slot)
        self._append("CHARGE", charge_body(self._start.run, charge, slot, cost))
        return charge

    def release(self, charge: Charge, sha256: str, *, next_clipping_norm: str = "") -> None:
        """Records the one answer of a charge; the file with that digest is durable already.

        Args:
          charge: the open one.
          sha256: of the file that holds the answer.
          next_clipping_norm: exact decimal of the next round's, where it is adaptive.
        """
        row = {
            "round": charge.round,
            "attempt": charge.attempt,
            "sha256": sha256,
            "next_clipping_norm": next_clipping_norm,
        }
        self._append("RELEASE", row)

    def burn(self, charge: Charge, cause: str) -> None:
        """Records that a charge got no answer: "crash", "disk" or "operator". It stays spent."""
        self._append("BURN", {"round": charge.round, "attempt": charge.attempt, "cause": cause})

    def rotate(self, key_path: Path | None = None) -> None:
        """Replaces the key: the old one signs the new one, which signs all rows from then on.

        Raises:
          DiskError: the new key or its row cannot be written.
        """
        key_path = key_path or default_key_path(self._path)
        with disk_errors(key_path):
            new = create_key(new_key_path(key_path), self._disk)
        self._append("KEY", {"new_public_key": new.public.hex()})
        with disk_errors(key_path):
            replace_key(key_path, self._disk)
        self._key = new

    @property
    def _run(self) -> RunHistory:
        return self._history.runs[self._start.run] if self._start else RunHistory(_UNOPENED)

    def _last(self) -> str:
        return f"The adapter of round {self._run.last_released} is the last"

    def _shortage(self, slot: Slot, count: int, kept: int) -> Shortage | None:
        assert self._history.budget is not None  # the PLAN row set it
        return self._history.budget.shortage(slot, count, kept=kept)

    def _append(self, kind: str, body: Body) -> None:
        if self._is_failed:
            raise DiskError(f"{self._path}: a write failed before; open the ledger again.")
        head = self._history.apply(kind, body)
        signature = self._key.sign(head)
        row = store.new_row(self._history, kind, body, signature)
        self._is_failed = True  # until the commit is known to be durable
        self._disk.point(f"before {kind}")
        with disk_errors(self._path):
            store.append_row(self._connection, row)
        self._signature = signature
        self._disk.point(f"after {kind}")
        self._anchor()
        self._is_failed = False

    def _anchor(self) -> None:
        if self._anchor_path is not None:
            write_anchor(self._anchor_path, anchor_of(self._history, self._signature), self._disk)
