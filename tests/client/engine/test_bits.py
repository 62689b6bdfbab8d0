"""A user's update has the same bits alone and in any company, over architectures and ranks."""

from pathlib import Path

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray

from feddp.client.engine.cohort import CohortEngine
from feddp.client.engine.methods.sgd import SGD
from feddp.client.engine.protocol import LocalWork
from feddp.common.data.tokens import IGNORE, TokenRow
from feddp.common.model.lora import lay_out

NUM_USERS, NUM_COMPANIES = 12, 3
KINDS = [
    *((name, "causal-lm") for name in tiny.CAUSAL),
    *((name, "classification") for name in tiny.CLASSIFIERS),
]
QUICK = [("llama", "causal-lm", 1), ("gpt2", "causal-lm", 3), ("llama", "classification", 2)]


def make_row(rng: np.random.Generator, task: str) -> TokenRow:
    """Up to 100 tokens; three in ten rows are short ones."""
    length = int(rng.integers(2, 100 if rng.random() < 0.7 else 12))
    ids = rng.integers(3, tiny.VOCABULARY, size=length + 1)
    if task == "classification":
        return TokenRow(ids[:-1], rng.integers(0, len(tiny.LABELS), size=1))
    labels = ids[1:].copy()
    labels[: length // 4] = IGNORE
    return TokenRow(ids[:-1], labels)


@pytest.mark.parametrize(
    ("name", "task", "rank"),
    [
        *QUICK,
        *(
            pytest.param(*kind, rank, marks=pytest.mark.slow)
            for kind in KINDS
            for rank in (1, 2, 3, 8)
            if (*kind, rank) not in QUICK
        ),
    ],
)
@pytest.mark.parametrize("kind", ["lora", "ffa-lora"])
def test_a_user_has_the_same_bits_alone_and_in_company(
    tmp_path: Path, name: str, task: str, rank: int, kind: str
) -> None:
    tiny.save(name, tmp_path, task=task)
    base = tiny.load(tmp_path / f"{name}-{task}", task=task)
    layout = lay_out(base, kind=kind, rank=rank, alpha=2.0 * rank, target_modules=None)
    rng = np.random.default_rng(rank)
    start = (layout.start + rng.normal(size=layout.dimension) * 0.05).astype(np.float32)
    users = [
        [[make_row(rng, task) for _ in range(int(rng.integers(1, 4)))]] for _ in range(NUM_USERS)
    ]
    engine = CohortEngine(base, layout)

    def train(who: list[int]) -> dict[int, NDArray[np.float32]]:
        found: dict[int, NDArray[np.float32]] = {}
        engine.train(
            start,
            [LocalWork(user, lambda user=user: users[user]) for user in who],  # type: ignore[misc]
            method=SGD(0.3),
            sink=found.__setitem__,
        )
        return found

    alone = {user: train([user])[user] for user in range(NUM_USERS)}
    assert all(update.any() for update in alone.values())
    for _ in range(NUM_COMPANIES):
        company = rng.permutation(NUM_USERS)[: int(rng.integers(2, NUM_USERS + 1))].tolist()
        for user, update in train(company).items():
            assert update.tobytes() == alone[user].tobytes()
