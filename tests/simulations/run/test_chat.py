"""feddp chat: what a model says to a prompt."""

from pathlib import Path

import pytest
import tiny
import torch

from feddp.common.errors import ConfigError
from feddp.simulations.run.chat import _classify, _generate, chat


def test_a_prompt_is_continued_with_the_most_likely_tokens_at_temperature_0(
    tmp_path: Path,
) -> None:
    base = tiny.load(tiny.save("llama", tmp_path))
    text = _generate(base.model, base, "w5 w9", 4, 0.0)
    ids = [base.tokenizer.bos_token_id, 5, 9]
    for _ in range(4):
        ids.append(int(base.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert text == base.tokenizer.decode(ids[3:], skip_special_tokens=True).strip()


def test_a_classifier_ranks_its_labels_by_their_shares(tmp_path: Path) -> None:
    place = tiny.save("bert", tmp_path, task="classification")
    base = tiny.load(place, task="classification")
    words = _classify(base.model, base, "w5 w9").split("  ")
    labels, shares = zip(*(word.rsplit(" ", 1) for word in words), strict=True)
    assert set(labels) == set(tiny.LABELS)
    assert sorted(shares, reverse=True) == list(shares)
    assert sum(map(float, shares)) == pytest.approx(1.0, abs=0.002)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run here"):
        chat(tmp_path, prompt="Hello", max_new_tokens=1, temperature=0.0)
