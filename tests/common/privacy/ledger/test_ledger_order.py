"""Any order of calls, restarts, crashes and restored copies, against an exact rational model."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ledger_rows import (
    COST,
    EVALUATION,
    SHA256,
    SLOT,
    Died,
    DyingDisk,
    adaptive_plan,
    answer,
    chained,
    charged_body,
    key_of,
    new_ledger,
    open_body,
    plan_of,
    start_of,
    stored_rows,
)

from feddp.common.errors import (
    BudgetSpentError,
    FeddpError,
    LedgerDamagedError,
    LedgerLockedError,
    RolledBackError,
)
from feddp.common.privacy.ledger.charge_terms import Slot
from feddp.common.privacy.ledger.history import Body, Charge
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.remembered_head import read_anchor
from feddp.common.privacy.ledger.signing import LedgerKey

MEMORY = Path("/dev/shm")  # hundreds of commits; this test is not about the disk
QUOTAS = {"a": 3, "b": 2}
ROUNDS = {"a": 2, "b": 2}
DEATHS = st.sampled_from(["", "", "before", "after"])


class LedgerMachine(RuleBasedStateMachine):
    """Two runs of one population against a list of rows."""

    @initialize(updates=st.integers(0, 6), evaluations=st.integers(0, 2), is_adaptive=st.booleans())
    def create(self, updates: int, evaluations: int, is_adaptive: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self.is_adaptive = is_adaptive
        shared = {"scope": "population", "population": "people", "plan_sha256": ""}
        plan = {**plan_of(updates, evaluations), **shared}
        if is_adaptive:
            self.left = updates * Fraction(COST) + Fraction(1, 10**9)
            plan = adaptive_plan(repr(float(self.left)))
            self.left = Fraction(plan["budget"])
        self.slots_left = {SLOT: updates, EVALUATION: evaluations}
        self.path = new_ledger(self.folder, plan)
        self.anchor_path = self.folder / "anchor"
        self.rows: list[tuple[str, Body]] = [("PLAN", plan)]
        self.keys: list[LedgerKey] = [key_of(self.path)]
        self.disk, self.run, self.started = DyingDisk(), "", False
        self.old: tuple[int, bytes] | None = None
        self.ledger = self.opened()

    def opened(self) -> Ledger:
        return Ledger.open(self.path, anchor_path=self.anchor_path, disk=self.disk)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.__exit__(None, None, None)
            shutil.rmtree(self.folder)

    # The model

    def of_run(self, kind: str, run: str = "", purpose: str = "") -> list[Body]:
        """Charges of a run that are followed by `kind`; all of them for CHARGE."""
        found = []
        charge: Body = {}
        for name, body in self.rows:
            charge = body if name == "CHARGE" else charge
            is_meant = charge.get("run") == (run or self.run)
            if name == kind and is_meant and purpose in ("", charge["purpose"]):
                found.append(charge)
        return found

    def open_charge(self) -> Body | None:
        kind, body = [row for row in self.rows if row[0] not in ("OPEN", "KEY")][-1]
        return body if kind == "CHARGE" else None

    def next_charge(self, slot: Slot) -> Charge:
        last: Body = {}
        charged = [body["round"] for body in self.of_run("CHARGE") if body["purpose"] == "update"]
        released = [body["round"] for body in self.of_run("RELEASE") if body["purpose"] == "update"]
        attempts = 0
        for kind, body in self.rows:
            if kind == "CHARGE":
                last = body
                attempts += body["run"] == self.run and body["purpose"] == slot.purpose
            elif kind == "RELEASE" and (last["run"], last["purpose"]) == (self.run, "update"):
                attempts = 0
        last_released = max(released, default=0)
        if slot.purpose != "update":
            return Charge(last_released, attempts + 1, slot.purpose)
        if QUOTAS[self.run] > ROUNDS[self.run]:  # as all plans were once
            return Charge(last_released + 1, attempts + 1)
        return Charge(max(charged, default=0) + 1, 1)

    def cost(self, slot: Slot) -> str:
        assert self.ledger.history.budget is not None
        return self.ledger.history.budget.cost(slot)

    def fits(self, slot: Slot, count: int, run: str) -> bool:
        if self.is_adaptive:
            return count * Fraction(self.cost(slot)) <= self.left
        return count <= self.slots_left[slot] - (self.kept_for_others(run) if slot == SLOT else 0)

    def kept_for_others(self, run: str) -> int:
        """What the other run has begun with and not charged yet, unless it has ended."""
        kept = 0
        for other in {body["run"] for kind, body in self.rows if kind == "OPEN"} - {run}:
            ended = len(self.of_run("RELEASE", other, "update")) >= ROUNDS[other]
            kept += 0 if ended else QUOTAS[other] - len(self.of_run("CHARGE", other))
        return kept

    def spend(self, slot: Slot) -> None:
        if self.is_adaptive:
            self.left -= Fraction(self.cost(slot))
        else:
            self.slots_left[slot] -= 1

    def attempt(self, kind: str, body: Body, call: Callable[[], object], dies: str) -> bool:
        """Makes a legal call; `dies` is "", "before" or "after". Whether the row is there."""
        self.disk.dies_at = f"{dies} {kind}"
        try:
            call()
        except Died:
            self.restart()
        self.disk.dies_at = ""
        if dies != "before":
            self.rows.append((kind, body))
        return dies != "before"

    def refuse(self, call: Callable[[], object], error: type[FeddpError]) -> None:
        before = self.path.read_bytes()
        with pytest.raises(error):
            call()
        assert self.path.read_bytes() == before

    # What may happen

    @rule()
    def restart(self) -> None:
        self.ledger.__exit__(None, None, None)
        self.ledger, self.started = self.opened(), False

    @rule(dies=DEATHS, run=st.sampled_from("ab"))
    def open_run(self, dies: str, run: str) -> None:
        asked = {"num_charges": QUOTAS[run], "num_rounds": ROUNDS[run]}
        start = start_of(run, **asked)
        is_new = all(body["run"] != run for kind, body in self.rows if kind == "OPEN")
        if is_new and not self.fits(SLOT, QUOTAS[run], run):
            self.refuse(lambda: self.ledger.open_run(start), BudgetSpentError)
            return
        epoch = 1 + sum(kind == "OPEN" for kind, _ in self.rows)
        body = open_body(epoch, run=run, **asked)
        left_open = self.open_charge()
        if not self.attempt("OPEN", body, lambda: self.ledger.open_run(start), dies):
            return
        self.run, self.started = run, not dies
        if left_open and left_open["run"] != run and not dies:
            self.rows.append(("BURN", answer("BURN", left_open["round"], left_open["attempt"])))

    @rule(dies=DEATHS, is_next=st.sampled_from([1, 1, 0]), slot=st.sampled_from([SLOT, EVALUATION]))
    def charge(self, dies: str, is_next: int, slot: Slot) -> None:
        if not self.started:
            self.refuse(lambda: self.ledger.charge(1, slot), LedgerDamagedError)
            return
        charge = self.next_charge(slot)
        call = lambda: self.ledger.charge(charge.round, slot)  # noqa: E731
        if len(self.of_run("CHARGE")) >= QUOTAS[self.run] or not self.fits(slot, 1, self.run):
            self.refuse(call, BudgetSpentError)
        elif not is_next:
            self.refuse(lambda: self.ledger.charge(charge.round + 1, slot), LedgerDamagedError)
        elif self.open_charge() is not None:
            self.refuse(call, LedgerDamagedError)
        else:
            body = charged_body(
                charge.round, charge.attempt, run=self.run, slot=slot, cost=self.cost(slot)
            )
            if self.attempt("CHARGE", body, call, dies):
                self.spend(slot)

    @rule(
        dies=DEATHS,
        kind=st.sampled_from(["RELEASE", "BURN"]),
        shift=st.sampled_from([(0, 0), (0, 0), (0, 1), (1, 0)]),
    )
    def answer(self, dies: str, kind: str, shift: tuple[int, int]) -> None:
        charge = self.open_charge() or {"round": 1, "attempt": 1, "run": ""}
        asked = Charge(charge["round"] + shift[0], charge["attempt"] + shift[1])

        def call() -> None:
            if kind == "RELEASE":
                self.ledger.release(asked, SHA256)
            else:
                self.ledger.burn(asked, "crash")

        is_its = self.open_charge() is not None and shift == (0, 0)
        if is_its and (kind == "BURN" or charge["run"] == self.run):
            self.attempt(kind, answer(kind, asked.round, asked.attempt), call, dies)
        else:
            self.refuse(call, LedgerDamagedError)

    @rule(dies=DEATHS)
    def rotate(self, dies: str) -> None:
        self.disk.dies_at = f"{dies} KEY"
        try:
            self.ledger.rotate()
        except Died:
            self.restart()
        self.disk.dies_at = ""
        if dies != "before":
            self.keys += [self.keys[-1]] * (len(self.rows) + 1 - len(self.keys))
            self.keys.append(key_of(self.path))
            self.rows.append(("KEY", {"new_public_key": self.keys[-1].public.hex()}))

    @rule()
    def open_twice(self) -> None:
        self.refuse(self.opened, LedgerLockedError)

    @rule()
    def copy(self) -> None:
        self.old = (len(self.rows), self.path.read_bytes())

    @precondition(lambda self: getattr(self, "old", None) is not None)
    @rule()
    def restore_the_copy(self) -> None:
        assert self.old is not None
        anchor = read_anchor(self.anchor_path)
        now = self.path.read_bytes()
        self.ledger.__exit__(None, None, None)
        self.path.write_bytes(self.old[1])
        if anchor and anchor.seq > self.old[0]:
            self.refuse(self.opened, RolledBackError)
        self.path.write_bytes(now)
        self.ledger, self.started = self.opened(), False

    @rule(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    def flip(self, place: float, bit: int) -> None:
        content = bytearray(self.path.read_bytes())
        content[int(place * len(content))] ^= 1 << bit
        copy = self.folder / "flipped.sqlite"
        copy.write_bytes(content)
        with contextlib.suppress(FeddpError):
            assert Ledger.read(copy).head.hex() == self.ledger.head
        for leftover in self.folder.glob("flipped.sqlite*"):
            leftover.unlink()

    @precondition(lambda self: hasattr(self, "rows"))
    @invariant()
    def agrees(self) -> None:
        found = stored_rows(self.path)
        self.keys += [self.keys[-1]] * (len(self.rows) + 1 - len(self.keys))
        expected = chained(self.rows, self.keys[0])
        for row, (*kept, _), key in zip(found, expected, self.keys, strict=False):
            assert row == (*kept, key.sign(row[4]))
        assert len(found) == len(expected)
        assert Ledger.read(self.path).head.hex() == self.ledger.head
        assert self.left >= 0 if self.is_adaptive else min(self.slots_left.values()) >= 0
        charge = self.open_charge()
        known = self.ledger.open_charge
        assert (known is None) == (charge is None)
        if self.started:
            assert self.ledger.num_charges == len(self.of_run("CHARGE"))
            assert self.ledger.next_round == self.next_charge(SLOT).round


SHORT = settings(max_examples=40, stateful_step_count=30, deadline=None)
LONG = settings(
    max_examples=500,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
LedgerMachine.TestCase.settings = SHORT
TestAnyOrderOfCallsAndCrashes = LedgerMachine.TestCase


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))  # in parts: Hypothesis remembers all that it tried
def test_ten_thousand_sequences_never_overspend(part: int) -> None:
    run_state_machine_as_test(seed(part)(partial(LedgerMachine)), settings=LONG)
