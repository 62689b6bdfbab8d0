"""A small valid ledger, as rows and as the bytes of its file."""

import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from small_ledger import small_plan

from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.ledger_entries import plan_row, start_of

PLAN = small_plan()


def _write(path: Path) -> str:
    """One release, one burn and one open charge; returns the head."""
    Ledger.create(path, plan_row(PLAN))
    with Ledger.open(path) as ledger:
        ledger.open_run(start_of("r", PLAN))
        ledger.release(ledger.charge(1), "b" * 64)
        ledger.burn(ledger.charge(2), "crash")
        ledger.charge(3)
        return ledger.head


def _make() -> tuple[str, bytes, list[tuple[str, dict[str, Any]]]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        head = _write(path)
        connection = sqlite3.connect(path)
        rows = connection.execute("SELECT kind, body FROM event ORDER BY seq").fetchall()
        connection.close()
        return head, path.read_bytes(), [(kind, json.loads(body)) for kind, body in rows]


HEAD, LEDGER, ROWS = _make()
