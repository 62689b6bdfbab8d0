"""A run of one round over a tiny model and twenty users, as a person starts it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tiny

import feddp
from feddp.common.config.run_config import RunConfig, from_flat

NUM_USERS = 20


def rows_of_users(num_users: int = NUM_USERS, *, name: str = "user") -> list[tuple[str, str]]:
    """(user, text): two texts of a few words of the tiny vocabulary for each user."""
    rng = np.random.default_rng(7)
    words = rng.integers(3, tiny.VOCABULARY, size=(num_users, 2, 8))
    return [
        (f"{name}-{number}", " ".join(f"w{word}" for word in text))
        for number, texts in enumerate(words)
        for text in texts
    ]


def write_jsonl(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """The rows as JSON Lines."""
    lines = [json.dumps({"user_id": user, "text": text}) for user, text in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def small_config(path: Path, *, model: str = "llama", **changes: object) -> RunConfig:
    """A round over `rows_of_users`; `privacy__mechanism="x"` changes privacy.mechanism."""
    public = write_jsonl(path / "public.jsonl", rows_of_users(3, name="public"))
    flat: dict[str, object] = {
        "run.rounds": 1,
        "run.seed": 11,
        "run.name": "small",
        "run.output-dir": str(path),
        "model.base": str(tiny.save(model, path)),
        "model.max-tokens": 16,
        "data.path": str(write_jsonl(path / "users.jsonl", rows_of_users())),
        "data.evaluation-users": 0,
        "data.evaluation-path": str(public),
        "privacy.num-users": NUM_USERS,
        "privacy.noise-multiplier": 1.0,
        "privacy.target-epsilon": 50.0,
    }
    flat |= {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    return from_flat(flat)


def run(config: RunConfig) -> Path:
    """The folder of the finished run."""
    made = feddp.simulate(config)
    assert made.is_complete
    return made.path
