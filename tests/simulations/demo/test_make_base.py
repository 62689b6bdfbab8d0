"""The demo's base model: small, loadable, at home in public text and a stranger to the users'."""

import hashlib
import math
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from feddp.common.data.demo import demo_messages
from feddp.simulations.demo import make_base
from feddp.simulations.demo.public_text import public_paragraphs

FOLDER = make_base.MODEL_FOLDER
HELD_OUT_SEED = make_base.SEED + 1


@pytest.fixture(scope="module")
def base():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


def mean_loss(model, tokenizer, texts: list[str]) -> float:
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            total += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return total / count


def users_texts(num_users: int) -> list[str]:
    return [message for _, messages in demo_messages(num_users) for message in messages]


def test_the_folder_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5_000_000


def test_the_folder_holds_no_pickle_and_no_code():
    assert {path.suffix for path in FOLDER.iterdir()} <= {".json", ".safetensors"}


def test_the_weights_are_stored_as_float16():
    stored = AutoModelForCausalLM.from_pretrained(FOLDER, dtype="auto")
    assert {p.dtype for p in stored.parameters()} == {torch.float16}


def test_model_and_tokenizer_agree_on_vocabulary_and_special_tokens(base, tokenizer):
    assert base.config.vocab_size == len(tokenizer) == make_base.VOCABULARY
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "<s>", "</s>"]
    config = base.config
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)


def test_a_text_starts_with_the_first_token_and_comes_back_unchanged(tokenizer):
    text = 'Hi, my order SO-120077 cost $19.99... "why", 你好? Zoë '
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text


def test_every_digit_is_a_token(tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("555-2041-7739")["input_ids"])
    assert tokens == ["<s>", *"555-2041-7739"]


def test_the_base_model_knows_public_text_and_not_the_users(base, tokenizer):
    public = mean_loss(base, tokenizer, list(islice(public_paragraphs(HELD_OUT_SEED), 60)))
    users = mean_loss(base, tokenizer, users_texts(40))
    assert math.isfinite(users)
    assert public < 3.0
    assert public + 1.0 < users < math.log(len(tokenizer))


def test_making_the_base_twice_gives_the_same_files(tmp_path: Path, capsys):
    threads = torch.get_num_threads()
    try:
        for name in ("a", "b"):
            make_base.main(["--steps", "2", "--output", str(tmp_path / name)])
    finally:
        torch.set_num_threads(threads)
    digests = [
        {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / name).iterdir()}
        for name in ("a", "b")
    ]
    assert digests[0] == digests[1]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= digests[0].keys()
    assert "loss on unseen public text" in capsys.readouterr().out
