"""Rows and files of a small ledger, for tests."""

import sqlite3
from pathlib import Path

from common.privacy.disk import Disk
from common.privacy.ledger import Ledger
from common.privacy.rows import GENESIS, SCHEMA, Body, canonical, row_hash

PLAN_SHA256 = "a" * 64
PLAN: Body = {
    "schema": SCHEMA,
    "unit": "user",
    "relation": "add or remove one user",
    "trust": "simulation",
    "mode": "fixed-schedule",
    "seeded": "no",
    "accountant": "pld 0.6",
    "target_epsilon": "8.0",
    "accounting_delta": "9.9e-06",
    "num_users": 100,
    "sampling_probability": "0.2",
    "noise_multiplier": "1.5",
    "clipping_norm": "0.5",
    "grid_steps": 1024,
    "dimension": 4,
    "num_rounds": 3,
    "num_charges": 5,
    "plan_sha256": PLAN_SHA256,
}


def open_body(epoch: int, plan_sha256: str = PLAN_SHA256) -> Body:
    return {"run": "r", "epoch": epoch, "plan_sha256": plan_sha256}


def answer(kind: str, round: int, attempt: int) -> Body:
    last = {"sha256": "b" * 64} if kind == "RELEASE" else {"cause": "crash"}
    return {"round": round, "attempt": attempt, **last}


SHA256 = "b" * 64
Row = tuple[int, str, str, bytes, bytes]


def new_ledger(folder: Path, plan: Body = PLAN) -> Path:
    path = folder / "ledger.sqlite"
    Ledger.create(path, plan)
    return path


def open_ledger(path: Path, disk: Disk | None = None) -> Ledger:
    return Ledger.open(path, plan_sha256=PLAN_SHA256, disk=disk)


def stored_rows(path: Path) -> list[Row]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT * FROM event ORDER BY seq").fetchall()
    finally:
        connection.close()


def chained(rows: list[tuple[str, Body]]) -> list[Row]:
    """What the file must hold, computed from the specification alone."""
    previous, expected = GENESIS, []
    for seq, (kind, body) in enumerate(rows, start=1):
        text = canonical(body)
        digest = row_hash(previous, kind, text)
        expected.append((seq, kind, text, previous, digest))
        previous = digest
    return expected


def three_charges(folder: Path) -> Path:
    """A ledger with one release, one burn and one open charge."""
    path = new_ledger(folder)
    with open_ledger(path) as ledger:
        ledger.open_run("r")
        ledger.release(ledger.charge(1), SHA256)
        ledger.burn(ledger.charge(2), "disk")
        ledger.charge(2)
    return path
