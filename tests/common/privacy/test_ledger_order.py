"""Any order of calls, restarts and crashes of the ledger, against an exact model."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger_rows import (
    PLAN,
    SHA256,
    answer,
    chained,
    new_ledger,
    open_body,
    open_ledger,
    stored_rows,
)

from common.errors import (
    BudgetSpentError,
    FeddpError,
    LedgerDamagedError,
    LedgerLockedError,
)
from common.privacy.disk import Disk
from common.privacy.ledger import Ledger
from common.privacy.rows import Body, Charge, charge_body

MEMORY = Path("/dev/shm")  # hundreds of commits; this test is not about the disk


class Died(BaseException):
    """The process is gone."""


class DyingDisk(Disk):
    dies_at = ""

    def point(self, name: str) -> None:
        if name == self.dies_at:
            raise Died


class LedgerMachine(RuleBasedStateMachine):
    """Any order of calls, restarts and crashes against a list of rows."""

    @initialize(num_charges=st.integers(0, 4))
    def create(self, num_charges: int) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self.plan = {**PLAN, "num_charges": num_charges}
        self.path = new_ledger(self.folder, self.plan)
        self.rows: list[tuple[str, Body]] = [("PLAN", self.plan)]
        self.disk = DyingDisk()
        self.ledger = open_ledger(self.path, self.disk)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.__exit__(None, None, None)
            shutil.rmtree(self.folder)

    def bodies(self, kind: str) -> list[Body]:
        return [body for found, body in self.rows if found == kind]

    def open_charge(self) -> Charge | None:
        kinds = [(kind, body) for kind, body in self.rows if kind != "OPEN"]
        kind, body = kinds[-1]
        return Charge(int(body["round"]), int(body["attempt"])) if kind == "CHARGE" else None

    def next_charge(self) -> Charge:
        round = 1 + len(self.bodies("RELEASE"))
        return Charge(round, 1 + sum(body["round"] == round for body in self.bodies("CHARGE")))

    def attempt(self, kind: str, body: Body, call: Callable[[], object], dies: str) -> None:
        """Makes a legal call; `dies` is "", "before" or "after"."""
        self.disk.dies_at = f"{dies} {kind}"
        try:
            call()
        except Died:
            self.restart()
        self.disk.dies_at = ""
        if dies != "before":
            self.rows.append((kind, body))

    def refuse(self, call: Callable[[], object], error: type[FeddpError]) -> None:
        before = self.path.read_bytes()
        with pytest.raises(error):
            call()
        assert self.path.read_bytes() == before

    @rule()
    def restart(self) -> None:
        self.ledger.__exit__(None, None, None)
        self.ledger = open_ledger(self.path, self.disk)

    @rule(dies=st.sampled_from(["", "before", "after"]))
    def open_run(self, dies: str) -> None:
        body = open_body(1 + len(self.bodies("OPEN")))
        self.attempt("OPEN", body, lambda: self.ledger.open_run("r"), dies)

    @rule(dies=st.sampled_from(["", "", "before", "after"]), is_next=st.sampled_from([1, 1, 0]))
    def charge(self, dies: str, is_next: int) -> None:
        charge = self.next_charge()
        if len(self.bodies("CHARGE")) >= int(self.plan["num_charges"]):
            self.refuse(lambda: self.ledger.charge(charge.round), BudgetSpentError)
        elif not is_next:
            self.refuse(lambda: self.ledger.charge(charge.round + 1), LedgerDamagedError)
        elif self.open_charge() is not None or not self.bodies("OPEN"):
            self.refuse(lambda: self.ledger.charge(charge.round), LedgerDamagedError)
        else:
            body = charge_body(self.plan, charge)
            self.attempt("CHARGE", body, lambda: self.ledger.charge(charge.round), dies)

    @rule(
        dies=st.sampled_from(["", "", "before", "after"]),
        kind=st.sampled_from(["RELEASE", "BURN"]),
        shift=st.sampled_from([(0, 0), (0, 0), (0, 1), (1, 0)]),
    )
    def answer(self, dies: str, kind: str, shift: tuple[int, int]) -> None:
        charge = self.open_charge() or Charge(1, 1)
        asked = Charge(charge.round + shift[0], charge.attempt + shift[1])

        def call() -> None:
            if kind == "RELEASE":
                self.ledger.release(asked, SHA256)
            else:
                self.ledger.burn(asked, "crash")

        if asked == self.open_charge():
            self.attempt(kind, answer(kind, asked.round, asked.attempt), call, dies)
        else:
            self.refuse(call, LedgerDamagedError)

    @rule()
    def open_twice(self) -> None:
        self.refuse(lambda: open_ledger(self.path), LedgerLockedError)

    @precondition(lambda self: hasattr(self, "rows"))
    @invariant()
    def agrees(self) -> None:
        assert stored_rows(self.path) == chained(self.rows)
        assert Ledger.read(self.path).head.hex() == self.ledger.head
        assert self.ledger.num_charges == len(self.bodies("CHARGE"))
        assert self.ledger.open_charge == self.open_charge()
        assert self.ledger.next_round == self.next_charge().round


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestAnyOrderOfCallsAndCrashes = LedgerMachine.TestCase
