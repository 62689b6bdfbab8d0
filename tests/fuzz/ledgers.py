"""A small valid ledger, as rows and as the bytes of its file."""

import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from common.privacy.ledger import Ledger
from common.privacy.opening import plan_row, start_of
from common.privacy.plan import make_plan

PLAN = make_plan(
    num_users=40,
    target_epsilon=20.0,
    target_delta=1e-3,
    noise_multiplier=1.0,
    clipping_norm=0.5,
    num_rounds=3,
    expected_cohort_size=10.0,
    spare_attempts=2,
    dimension=16,
    trust="simulation",
    seed=None,
    details={"layout_sha256": "1" * 64},
)


def _write(path: Path) -> str:
    """One release, one burn and one open charge; returns the head."""
    Ledger.create(path, plan_row(PLAN))
    with Ledger.open(path) as ledger:
        ledger.open_run(start_of("r", PLAN))
        ledger.release(ledger.charge(1), "b" * 64)
        ledger.burn(ledger.charge(2), "crash")
        ledger.charge(2)
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
