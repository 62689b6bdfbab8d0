import re

import pytest

from feddp.simulations.demo.public_words import WORDS


@pytest.mark.parametrize("slot", sorted(WORDS))
def test_every_word_is_printable_and_asks_only_for_slots_that_exist(slot: str) -> None:
    assert WORDS[slot]
    for word in WORDS[slot]:
        assert word == word.strip()
        assert set(re.findall(r"{(\w+)}", word)) <= set(WORDS)


def test_verbs_have_their_forms_in_the_same_order() -> None:
    forms = [WORDS[slot] for slot in ("do", "does", "doing", "did_any", "done")]
    assert len({len(each) for each in forms}) == 1
    by_base = {row[0]: row[1:] for row in zip(*forms, strict=True)}
    regular = {base: row for base, row in by_base.items() if row[2] == base + "ed"}
    assert len(regular) > 5
    assert all(
        row == (base + "s", base + "ing", base + "ed", base + "ed")
        for base, row in regular.items()
        if not base.endswith(("sh", "ch", "ss", "x"))
    )


def test_no_word_is_a_phone_number_or_an_order() -> None:
    words = [word.lower() for slot in WORDS.values() for word in slot]
    assert not any(re.search(r"555-|so-\d", word) for word in words)
