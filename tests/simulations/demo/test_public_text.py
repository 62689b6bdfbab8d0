"""The public text that the demo's base model learns: reproducible, and free of the users."""

import re
from itertools import islice

from feddp.common.data.demo import demo_messages
from feddp.simulations.demo.make_base import SEED
from feddp.simulations.demo.public_text import KEPT, public_paragraphs
from feddp.simulations.demo.public_words import WORDS


def six_words(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[\w$-]+", text.lower())
    return {tuple(words[i : i + 6]) for i in range(len(words) - 5)}


def test_no_user_is_in_the_public_text():
    paragraphs = list(islice(public_paragraphs(SEED), 20_000))
    assert not any(re.search(r"555-|so-\d", text.lower()) for text in paragraphs)
    public = set().union(*map(six_words, paragraphs))
    users = [text for _, messages in demo_messages(1_000) for text in messages]
    written = set().union(*map(six_words, users))
    assert len(written) > 5_000
    assert not public & written


def test_public_text_is_reproducible_and_follows_the_seed():
    first = list(islice(public_paragraphs(5), 50))
    assert first == list(islice(public_paragraphs(5), 50))
    assert not set(first) & set(islice(public_paragraphs(6), 50))


def test_no_slot_is_left_open_and_every_kept_one_is_filled_once() -> None:
    assert set(WORDS) >= KEPT
    assert not any(re.search(r"[{}]", text) for text in islice(public_paragraphs(1), 500))
