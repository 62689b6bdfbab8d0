"""Every parser of foreign input: random inputs near valid ones, and what may escape."""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from feddp.common.config.run_config import RunConfig, from_flat, load_config, to_flat, to_toml
from feddp.common.data.sources import read_batches
from feddp.common.data.users import Columns, parse_messages, to_example
from feddp.common.errors import (
    ConfigError,
    DataError,
    DiskError,
    LedgerDamagedError,
    LedgerLockedError,
)
from feddp.common.privacy.ledger.history import Charge, History
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.mechanism.events import PoissonGaussianEvent, from_body, to_body
from feddp.common.privacy.plan.plan import plan_from_json
from feddp.common.wire.records import MessageError
from feddp.server.checkpoint import Checkpoint, Checkpoints, RoundState
from fuzz.changes import change_bytes, change_tree
from fuzz.ledgers import HEAD, LEDGER, PLAN, ROWS
from fuzz.messages import MESSAGES, make_message

Make = Callable[[Random], Any]
Parse = Callable[[Any, Path], object]


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
      make: a random input.
      parse: reads it, given a folder for files; asserts what must hold of an accepted input.
      declared: the errors that may escape.
    """

    make: Make
    parse: Parse
    declared: tuple[type[Exception], ...]


# Configuration

FLAT = to_flat(RunConfig())
PARAGRAPHS = to_toml(RunConfig()).split("\n\n")


def make_flat(rng: Random) -> Any:
    """A few of the settings, changed; mostly their values, since an unknown key hides the rest."""
    chosen = {key: FLAT[key] for key in rng.sample(list(FLAT), 5)}
    if rng.random() < 0.2:
        return change_tree(rng, chosen)
    return chosen | {
        key: change_tree(rng, chosen[key]) for key in list(chosen)[: rng.randint(1, 3)]
    }


def make_toml(rng: Random) -> bytes:
    """A few paragraphs of a file, changed."""
    paragraphs = rng.sample(PARAGRAPHS, 2)
    return change_bytes(rng, "\n\n".join(paragraphs).encode())


def parse_toml(content: bytes, folder: Path) -> None:
    path = folder / "config.toml"
    path.write_bytes(content)
    config = load_config(path)
    assert tomllib.loads(to_toml(config))
    assert from_flat(to_flat(config)) == config


def parse_flat(flat: Mapping[str, object], folder: Path) -> None:
    config = from_flat(flat)
    assert from_flat(to_flat(config)) == config


# Messages


def message_target(name: str) -> Target:
    decode, encode = MESSAGES[name]

    def parse(content: Any, folder: Path) -> None:
        # An accepted message says nothing that the contract does not hold.
        again = encode(decode(content))
        assert set(again) == set(content)
        for record, arrays in again.array_records.items():
            assert content.array_records[record]["vector"].data == arrays["vector"].data

    return Target(lambda rng: make_message(rng, name), parse, (MessageError,))


# Ledger


def make_rows(rng: Random) -> list[tuple[str, dict[str, Any]]]:
    rows = [(kind, dict(body)) for kind, body in ROWS]
    for _ in range(rng.randint(1, 3)):
        index = rng.randrange(len(rows))
        kind, body = rows[index]
        match rng.randrange(5):
            case 0:
                del rows[index]
            case 1:
                rows.insert(rng.randrange(len(rows) + 1), (kind, body))
            case 2:
                rows[index] = (rng.choice(["PLAN", "OPEN", "CHARGE", "REFUND", ""]), body)
            case _:
                rows[index] = (kind, change_tree(rng, body))
        if not rows:
            return rows
    return rows


def parse_rows(rows: list[tuple[str, Any]], folder: Path) -> None:
    history = History()
    for kind, body in rows:
        if not isinstance(body, dict):  # the reader of the file refuses these before
            return
        before = (history.head, history.num_rows, len(history.charges), history.open_charge)
        try:
            history.apply(kind, body)
        except LedgerDamagedError:
            found = (history.head, history.num_rows, len(history.charges), history.open_charge)
            assert found == before
            raise
    assert len(history.releases) <= len(history.charges)


def parse_ledger(content: bytes, folder: Path) -> None:
    path = folder / "ledger.sqlite"
    path.write_bytes(content)
    assert Ledger.read(path).head.hex() == HEAD  # no row is invented, changed or lost


# Checkpoint


CHECKPOINTS = Checkpoints(Path(), "a" * 64)


def _checkpoint_bytes() -> bytes:
    values = np.array([0.5, -0.0, 1e-45, 3e38], dtype=np.float32)
    state = RoundState(1, values, {"first": np.arange(4.0)}, 0.5)
    return CHECKPOINTS.to_bytes(Checkpoint(state, 1, "a" * 64))


CHECKPOINT = _checkpoint_bytes()
SEALED_CHECKPOINT = CHECKPOINTS.parse(CHECKPOINT, Charge(1, 1))


def make_checkpoint(rng: Random) -> bytes:
    if rng.random() < 0.5:
        return change_bytes(rng, CHECKPOINT)
    size = int.from_bytes(CHECKPOINT[:8], "little")
    header = change_tree(rng, json.loads(CHECKPOINT[8 : 8 + size]))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + CHECKPOINT[8 + size :]


def parse_sealed(content: bytes, folder: Path) -> None:
    found = CHECKPOINTS.parse(content, Charge(1, 1))
    assert SEALED_CHECKPOINT is not None
    if found is not None:
        assert found.state.adapter.tobytes() == SEALED_CHECKPOINT.state.adapter.tobytes()
        assert (found.state.round, found.attempt) == (1, 1)
    else:
        raise ValueError("refused")


# Plan and events

PLAN_JSON = PLAN.to_json().encode()
HONEST = json.loads(PLAN_JSON) | {"reasons": {}}
EVENT = to_body(PoissonGaussianEvent(0.01, 1.0, 4))


def make_plan_text(rng: Random) -> bytes:
    if rng.random() < 0.3:
        return change_bytes(rng, PLAN_JSON)
    return json.dumps(change_tree(rng, json.loads(PLAN_JSON))).encode()


def parse_plan(content: bytes, folder: Path) -> None:
    path = folder / "plan.json"
    path.write_bytes(content)
    plan = plan_from_json(path.read_text(encoding="utf-8"))
    kept = json.loads(plan.to_json()) | {"reasons": {}}
    # What differs has another hash, which the ledger refuses.
    assert (plan.sha256 == PLAN.sha256) == (json.dumps(kept) == json.dumps(HONEST))


def parse_event(body: Any, folder: Path) -> None:
    assert to_body(from_body(body)) == body


# Users

JSONL = b"".join(
    json.dumps(row).encode() + b"\n"
    for row in (
        {"user_id": "ann", "text": 'a "quoted", text', "chat": [{"role": "user", "content": "Hi"}]},
        {"user_id": 7, "text": "two\nlines", "chat": []},
        {"user_id": "b\u0107b", "text": "\u2603", "chat": None},
    )
)
CSV = (
    'user_id,text,chat\nann,"a ""quoted"", text",\n7,"two\nlines",x\nb\u0107b,\u2603,[]\n'.encode()
)
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def parse_users(suffix: str) -> Parse:
    columns = Columns(user="user_id", text="text", messages="chat")

    def parse(content: bytes, folder: Path) -> None:
        path = folder / f"rows.{suffix}"
        path.write_bytes(content)
        for batch in read_batches(path, columns, 2):
            for row in batch.to_pylist():
                assert row["user_id"]
                to_example(row, columns)

    return parse


def make_jsonl(rng: Random) -> bytes:
    if rng.random() < 0.6:
        return change_bytes(rng, JSONL)
    rows = change_tree(rng, [json.loads(line) for line in JSONL.splitlines()])
    lines = rows if isinstance(rows, list) else [rows]
    return "\n".join(json.dumps(row) for row in lines).encode("utf-8", "surrogatepass")


def parse_chat(turns: object, folder: Path) -> None:
    for turn in parse_messages(turns):
        assert set(turn) == {"role", "content"}
        assert all(isinstance(text, str) for text in turn.values())


def make_chat(rng: Random) -> object:
    if rng.random() < 0.5:
        return change_bytes(rng, json.dumps(CHAT).encode()).decode("utf-8", "replace")
    return change_tree(rng, CHAT)


LEDGER_ERRORS = (LedgerDamagedError, LedgerLockedError, DiskError)
TARGETS: Mapping[str, Target] = {
    "config.toml": Target(make_toml, parse_toml, (ConfigError,)),
    "run config": Target(make_flat, parse_flat, (ConfigError,)),
    **{name: message_target(name) for name in MESSAGES},
    "ledger rows": Target(make_rows, parse_rows, (LedgerDamagedError,)),
    "ledger file": Target(lambda rng: change_bytes(rng, LEDGER), parse_ledger, LEDGER_ERRORS),
    "checkpoint": Target(make_checkpoint, parse_sealed, (ValueError,)),
    "plan.json": Target(make_plan_text, parse_plan, (ValueError, TypeError, KeyError)),
    "event": Target(lambda rng: change_tree(rng, EVENT), parse_event, (ValueError,)),
    "users.jsonl": Target(make_jsonl, parse_users("jsonl"), (DataError,)),
    "users.csv": Target(lambda rng: change_bytes(rng, CSV), parse_users("csv"), (DataError,)),
    "chat turns": Target(make_chat, parse_chat, ()),
}
