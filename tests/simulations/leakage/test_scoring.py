"""Losses of tokens, beside the base model's own and under an adapter that moved."""

import numpy as np
import pytest
import torch

from feddp.common.assembly import load_model
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.data.users import Example
from feddp.common.model.lora import save_adapter
from feddp.simulations.leakage.scoring import Scorer, sensitive_mask

TEXTS = (
    "Hello, my order SO-120077 has not come.",
    "",
    "Thanks!",
    "Please call me at 555-0123-4567. " * 12,
)
EXAMPLES = [Example(text=text) for text in TEXTS]


@pytest.fixture(scope="module", params=["ffa-lora", "full"])
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    folder = tmp_path_factory.mktemp("adapter")
    base, layout = load_model(from_flat({"adapter.kind": request.param}))
    rng = np.random.default_rng(0)
    moved = layout.start + rng.normal(0, 0.05, layout.dimension).astype(np.float32)
    save_adapter(folder, moved, layout, base)
    return Scorer(load_model(RunConfig())[0], folder, max_tokens=48)


def base_losses(text: str) -> np.ndarray:
    """Straight from the base model, the whole text in one row."""
    base, _ = load_model(RunConfig())
    tokenizer = base.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = [i for i in [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id] if i is not None]
    with torch.inference_mode():
        logits = base.model(input_ids=torch.tensor([ids])).logits[0, :-1].float()
    found = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
    return found.numpy()


def test_losses_without_the_adapter_are_the_base_models_own(scorer: Scorer) -> None:
    before = scorer.score(EXAMPLES[:1], is_base=True)[0]
    scorer.score(EXAMPLES[:1], is_base=False)
    scorer.base_scores.clear()  # else the base would not be asked again
    after = scorer.score(EXAMPLES[:1], is_base=True)[0]
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(before.losses, base_losses(TEXTS[0]), rtol=1e-4, atol=1e-5)
    assert np.array_equal(before.losses, after.losses)
    assert before.loss == pytest.approx(before.losses.mean())


def test_the_base_is_asked_once_for_each_example(scorer: Scorer) -> None:
    scorer.base_scores.clear()
    first = scorer.score([EXAMPLES[2], EXAMPLES[0], EXAMPLES[2]], is_base=True)
    assert len(scorer.base_scores) == 2
    again = scorer.score([EXAMPLES[0], EXAMPLES[1]], is_base=True)
    assert again[0] is first[1]
    assert again[1] is None or again[1].losses.size


def test_an_adapter_that_moved_changes_the_losses(scorer: Scorer) -> None:
    base, adapted = (scorer.score(EXAMPLES[:1], is_base=is_base)[0] for is_base in (True, False))
    assert base is not None
    assert adapted is not None
    assert base.losses.shape == adapted.losses.shape
    assert abs(base.loss - adapted.loss) > 1e-3


def test_scores_come_in_the_order_of_the_examples_and_none_where_nothing_is_predicted(
    scorer: Scorer,
) -> None:
    together = scorer.score(EXAMPLES, is_base=False)
    apart = [scorer.score([example], is_base=False)[0] for example in EXAMPLES]
    assert [score is None for score in together] == [False, True, False, False]
    for one, other in zip(together, apart, strict=True):
        if one is not None and other is not None:
            np.testing.assert_allclose(one.losses, other.losses, rtol=1e-4, atol=1e-5)


def test_a_text_longer_than_a_row_is_scored_token_by_token_once(scorer: Scorer) -> None:
    (score,) = scorer.score(EXAMPLES[3:], is_base=True)
    assert score is not None
    assert len(score.losses) == len(base_losses(TEXTS[3])) > 48


def test_probabilities_of_the_next_token_sum_to_one_and_give_its_loss(scorer: Scorer) -> None:
    (score,) = scorer.score(EXAMPLES[:1], is_base=False)
    tokenizer = scorer.tokenizer
    ids = tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    ids = [i for i in [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id] if i is not None]
    found = scorer.next_log_probabilities([ids[:-1], ids[:-1]], is_base=False)
    assert np.exp(found).sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert score is not None
    assert -found[0, ids[-1]] == pytest.approx(score.losses[-1], abs=1e-4)


def test_the_mask_marks_the_tokens_of_a_secret_as_they_are_scored(scorer: Scorer) -> None:
    (score,) = scorer.score(EXAMPLES[:1], is_base=True)
    mask = sensitive_mask(TEXTS[0], scorer.tokenizer)
    assert score is not None
    assert len(mask) == len(score.losses)
    assert 0 < mask.sum() < len(mask)
    assert not sensitive_mask("Thanks!", scorer.tokenizer).any()
