"""Rows and files of a small ledger, for tests."""

import sqlite3
from dataclasses import replace
from pathlib import Path

from feddp.common.disk import Disk, host_id
from feddp.common.privacy.accounting import renyi_filter
from feddp.common.privacy.ledger.charge_terms import UPDATE, Planned, Slot, schedule_to_body
from feddp.common.privacy.ledger.history import (
    GENESIS,
    SCHEMA,
    Body,
    Charge,
    canonical,
    charge_body,
    row_digest,
    row_hash,
)
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.run_start import Start
from feddp.common.privacy.ledger.signing import LedgerKey, default_key_path, load_key
from feddp.common.privacy.ledger.store import Row
from feddp.common.privacy.mechanism.events import PoissonGaussianEvent

PLAN_SHA256 = "a" * 64
SHA256 = "b" * 64
NUM_ROUNDS = 100  # more than any run of the tests ends, but where it says so
SLOT = Slot(UPDATE, PoissonGaussianEvent(0.2, 1.5), dimension=4, noise_scale=1 << 20)
EVALUATION = Slot("evaluation", PoissonGaussianEvent(0.2, 5.0), dimension=1, noise_scale=1 << 20)
TERMS: dict[str, str | int] = {
    "unit": "user",
    "relation": "add-or-remove-one",
    "trust": "simulation",
    "seeded": "no",
    "num_users": 100,
}


def plan_of(num_charges: int = 5, num_evaluations: int = 0) -> Body:
    """The PLAN row of a run's own ledger."""
    schedule = [
        Planned(slot, count, count)
        for slot, count in ((SLOT, num_charges), (EVALUATION, num_evaluations))
    ]
    return {
        "schema": SCHEMA,
        "population": "r",
        "scope": "run",
        **TERMS,
        "mode": "fixed-schedule",
        "accountant": "pld 0.6",
        "target_epsilon": "8.0",
        "target_delta": "1e-05",
        "accounting_delta": "9.9e-06",
        "schedule": schedule_to_body(schedule[: 1 + (num_evaluations > 0)]),
        "alpha": "",
        "budget": "",
        "plan_sha256": PLAN_SHA256,
    }


ALPHA = 4.0
COST = repr(renyi_filter.cost(SLOT.event, ALPHA, "add-or-remove-one"))


def adaptive_plan(budget: str | None = None) -> Body:
    """The PLAN row of a population with a filter."""
    whole = repr(renyi_filter.budget(8.0, 9.9e-6, ALPHA))
    filtered = {"mode": "adaptive", "schedule": [], "alpha": repr(ALPHA), "plan_sha256": ""}
    scope = {"scope": "population", "population": "people"}
    return {**plan_of(), **scope, **filtered, "budget": budget or whole}


PLAN = plan_of()
PUBLIC_KEY = "11" * 32
SIGNED_PLAN: Body = {**PLAN, "public_key": PUBLIC_KEY}  # for histories, which read no signature


def start_of(
    run: str = "r",
    *,
    num_charges: int = 5,
    num_rounds: int = NUM_ROUNDS,
    plan_sha256: str = PLAN_SHA256,
    slot: Slot = SLOT,
) -> Start:
    return Start(run, slot, num_charges, num_rounds, TERMS, plan_sha256)


def open_body(
    epoch: int,
    plan_sha256: str = PLAN_SHA256,
    *,
    run: str = "r",
    num_charges: int = 5,
    num_rounds: int = NUM_ROUNDS,
) -> Body:
    return {
        "run": run,
        "epoch": epoch,
        "host": host_id(),
        "slot": SLOT.to_body(),
        "num_charges": num_charges,
        "num_rounds": num_rounds,
        "plan_sha256": plan_sha256,
        "config_sha256": "",
        "base_sha256": "",
        "layout_sha256": "",
        "seal_pubkey": "",
    }


def charged_body(
    round: int, attempt: int, *, run: str = "r", slot: Slot = SLOT, cost: str = ""
) -> Body:
    return charge_body(run, Charge(round, attempt, slot.purpose), slot, cost)


def answer(kind: str, round: int, attempt: int) -> Body:
    release = {"sha256": SHA256, "next_clipping_norm": ""}
    last = release if kind == "RELEASE" else {"cause": "crash"}
    return {"round": round, "attempt": attempt, **last}


def with_scale(scale: int) -> Slot:
    return replace(SLOT, noise_scale=scale)


def new_ledger(folder: Path, plan: Body = PLAN) -> Path:
    path = folder / "ledger.sqlite"
    Ledger.create(path, plan)
    return path


def open_ledger(path: Path, disk: Disk | None = None) -> Ledger:
    return Ledger.open(path, disk=disk)


def key_of(path: Path) -> LedgerKey:
    return load_key(default_key_path(path))


def stored_rows(path: Path) -> list[Row]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT * FROM event ORDER BY seq").fetchall()
    finally:
        connection.close()


def chained(rows: list[tuple[str, Body]], key: LedgerKey) -> list[Row]:
    """What the file must hold, computed from the specification alone."""
    previous, expected = GENESIS, []
    for seq, (kind, body) in enumerate(rows, start=1):
        if kind == "PLAN":
            body = {**body, "public_key": key.public.hex()}
        text = canonical(body)
        head = row_hash(previous, row_digest(kind, text))
        expected.append((seq, kind, text, previous, head, key.sign(head)))
        previous = head
    return expected


def three_charges(folder: Path) -> Path:
    """A ledger with one release, one burn and one open charge."""
    path = new_ledger(folder)
    with open_ledger(path) as ledger:
        ledger.open_run(start_of())
        ledger.release(ledger.charge(1), SHA256)
        ledger.burn(ledger.charge(2), "disk")
        ledger.charge(3)
    return path


def tamper(path: Path, *statements: str) -> None:
    """Runs SQL as somebody who knows SQLite would: triggers dropped, and put back after."""
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
    ).fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    for _, sql in triggers:
        connection.execute(sql)
    connection.close()


def rewrite(path: Path, rows: list[Row]) -> None:
    """Puts other rows into the file, triggers and all."""
    tamper(path, "DELETE FROM event")
    connection = sqlite3.connect(path)
    connection.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()


class Died(BaseException):
    """The process is gone."""


class DyingDisk(Disk):
    """Dies at a named moment of the protocol."""

    dies_at = ""

    def point(self, name: str) -> None:
        if name == self.dies_at:
            raise Died
