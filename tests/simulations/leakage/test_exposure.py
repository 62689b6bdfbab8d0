import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from feddp.simulations.leakage.exposure import digit_ids, digits_of_order, secret_rank
from feddp.simulations.leakage.scoring import sensitive_mask, sensitive_spans


def toy_model(rows: list[list[int]]) -> NDArray[np.float32]:
    """Log-probabilities that are a fixed pseudo-random function of the whole prefix."""
    logits = np.array([np.random.default_rng([7, *row]).normal(size=12) for row in rows])
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)


@pytest.mark.parametrize("secret", [[0, 0, 0], [2, 1, 3], [3, 3, 0]])
def test_pruned_rank_is_the_rank_of_an_exhaustive_search(secret: list[int]) -> None:
    def total(digits: tuple[int, ...]) -> float:
        return sum(float(toy_model([[5, *digits[:i]]])[0, digit]) for i, digit in enumerate(digits))

    everyone = list(itertools.product(range(4), repeat=3))
    expected = 1 + sum(total(other) > total(tuple(secret)) + 1e-6 for other in everyone)
    assert secret_rank([5], secret, range(4), toy_model) == expected


def test_the_most_likely_secret_has_rank_one() -> None:
    def sure(rows: list[list[int]]) -> NDArray[np.float32]:
        table = np.full((len(rows), 4), -9.0, dtype=np.float32)
        table[:, 2] = 0.0
        return table

    assert secret_rank([0], [2, 2], range(4), sure) == 1
    assert secret_rank([0], [0, 0], range(4), sure) == 8  # all that have a 2 in them


def test_the_demo_tokenizer_writes_digits_one_by_one(demo_tokenizer) -> None:
    assert len(set(digit_ids(demo_tokenizer))) == 10


def test_the_unknown_digits_follow_their_context(demo_tokenizer) -> None:
    context, secret = digits_of_order("my order SO-120077 is late", demo_tokenizer, num_unknown=3)
    assert demo_tokenizer.decode(secret) == "077"
    assert demo_tokenizer.decode(context).endswith("SO-120")
    assert digits_of_order("no order here", demo_tokenizer, num_unknown=3) is None


def test_sensitive_mask_covers_the_secret_and_nothing_else(demo_tokenizer) -> None:
    text = "Hi, order SO-120077 is late."
    mask = sensitive_mask(text, demo_tokenizer)
    ids = demo_tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(mask) == len(ids) + 1
    assert demo_tokenizer.decode(np.array([*ids, 2])[mask]).strip() == "SO-120077"


def test_personal_stretches_are_tagged_where_no_generator_knows_them() -> None:
    kinds = [s.kind for s in sensitive_spans("ann@mail.org, +49 30 123456, case AB-99120X")]
    assert kinds == ["mail", "phone", "identifier"]
    assert sensitive_spans("nothing here") == ()


@pytest.fixture(scope="module")
def demo_tokenizer():  # type: ignore[no-untyped-def]
    from transformers import AutoTokenizer

    from feddp.common.model.base import demo_model_path

    return AutoTokenizer.from_pretrained(str(demo_model_path()))
