import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feddp.common.data.users import (
    Columns,
    Example,
    InMemoryUsers,
    Users,
    UsersView,
    bound_contributions,
    is_zero_modulo,
    keys_of,
    num_characters,
    partition,
    to_example,
    user_digest,
)

USER_IDS = st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=12)
LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=12)


def users_of(ids: list[str]) -> InMemoryUsers:
    return InMemoryUsers([(name, [Example(text=name)] * (1 + i % 3)) for i, name in enumerate(ids)])


def texts_of(users: Users) -> list[list[str]]:
    return [[row.text for row in users.examples(user)] for user in range(users.num_users)]


def as_integer(user_id: str) -> int:
    return int(hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest(), 16)


def dev_data() -> Path:
    beside = Path(__file__).parents[3].parent / "shared"
    return Path(os.environ.get("FEDDP_TEST_DATA", beside)) / "data"


@given(USER_IDS, st.randoms())
def test_order_of_users_depends_on_their_ids_alone(ids: list[str], random: object) -> None:
    shuffled = list(ids)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    rows = {name: [Example(text=name)] for name in ids}
    found = InMemoryUsers([(name, rows[name]) for name in shuffled])
    assert texts_of(found) == [[name] for name in sorted(ids, key=as_integer)]
    assert found.keys.tolist() == [as_integer(name) >> 192 for name in sorted(ids, key=as_integer)]


def test_rows_of_a_user_who_is_named_twice_are_one_users_rows() -> None:
    users = InMemoryUsers([("u", [Example("a")]), ("v", []), ("u", [Example("b")])])
    assert users.num_users == 2
    assert sorted(texts_of(users)) == [[], ["a", "b"]]


@given(USER_IDS, st.integers(1, 2**55 - 1) | st.integers(1, 12))
def test_held_out_is_the_whole_digest_modulo_the_number(ids: list[str], one_in: int) -> None:
    digests = b"".join(user_digest(name) for name in ids)
    table = np.frombuffer(bytearray(digests), dtype=np.uint8).reshape(-1, 32)
    expected = [as_integer(name) % one_in == 0 for name in ids]
    assert is_zero_modulo(table, one_in).tolist() == expected
    assert not is_zero_modulo(table, 0).any()


@given(st.integers(1, 2**200), st.integers(2, 2**55 - 1))
def test_a_multiple_of_the_number_is_held_out(factor: int, one_in: int) -> None:
    def digest(value: int) -> np.ndarray:  # type: ignore[type-arg]
        return np.frombuffer(value.to_bytes(32, "big"), dtype=np.uint8).reshape(1, 32)

    assert is_zero_modulo(digest(factor * one_in), one_in).all()
    assert not is_zero_modulo(digest(factor * one_in + 1), one_in).any()


def test_a_number_that_would_overflow_is_refused() -> None:
    with pytest.raises(ValueError, match="2\\^55"):
        is_zero_modulo(np.zeros((1, 32), dtype=np.uint8), 2**55)


def test_keys_are_the_first_eight_bytes_of_the_digest() -> None:
    table = np.frombuffer(user_digest("a") + user_digest("b"), dtype=np.uint8).reshape(-1, 32)
    assert keys_of(table).tolist() == [as_integer("a") >> 192, as_integer("b") >> 192]
    assert keys_of(table).dtype == np.uint64


@given(USER_IDS, st.integers(1, 4))
def test_held_out_and_parts_are_disjoint_and_together_everyone(ids: list[str], parts: int) -> None:
    users = users_of(ids)
    is_held_out = users.held_out(3)
    sides = [UsersView(users, np.flatnonzero(side)) for side in (is_held_out, ~is_held_out)]
    found = [
        tuple(texts)
        for side in sides
        for part in range(parts)
        for texts in texts_of(partition(side, part, parts))
    ]
    assert Counter(found) == Counter(tuple(texts) for texts in texts_of(users))
    assert sides[0].held_out(3).all()
    assert not sides[1].held_out(3).any()


@given(USER_IDS, st.data())
def test_a_view_of_a_view_shows_the_same_users(ids: list[str], data: st.DataObject) -> None:
    users = users_of(ids)
    first = data.draw(st.lists(st.integers(0, len(ids) - 1), unique=True) if ids else st.just([]))
    outer = UsersView(users, np.sort(np.asarray(first, dtype=np.int64)))
    inner = UsersView(outer, np.arange(0, outer.num_users, 2))
    everyone = texts_of(users)
    assert texts_of(inner) == [everyone[user] for user in sorted(first)[::2]]
    assert inner.keys.tolist() == users.keys[sorted(first)[::2]].tolist()
    assert inner.counts.tolist() == [len(texts) for texts in texts_of(inner)]


@given(LENGTHS, st.integers(1, 6), st.sampled_from(["random", "longest", "shortest"]))
def test_bound_contributions_keeps_order_and_the_bound(
    lengths: list[int], bound: int, selection: str
) -> None:
    rows = [Example(text="x" * n, label=str(i)) for i, n in enumerate(lengths)]

    def choose(seed: int) -> list[Example]:
        rng = np.random.default_rng(seed)
        return bound_contributions(rows, max_examples=bound, selection=selection, rng=rng)

    kept = choose(0)
    assert len(kept) == min(bound, len(rows))
    places = [int(str(row.label)) for row in kept]
    assert places == sorted(set(places))
    assert kept == choose(0)
    if selection == "random":
        return
    assert kept == choose(1)
    left = [n for i, n in enumerate(lengths) if i not in places]
    sizes = [lengths[i] for i in places]
    if left and selection == "longest":
        assert min(sizes) >= max(left)
    if left and selection == "shortest":
        assert max(sizes) <= min(left)


def test_random_selection_uses_all_rows_equally_often() -> None:
    rows = [Example(text=str(i)) for i in range(5)]
    rng = np.random.default_rng(0)
    counts = Counter(
        row.text
        for _ in range(2000)
        for row in bound_contributions(rows, max_examples=2, selection="random", rng=rng)
    )
    # Binomial(2000, 0.4): standard deviation 22; five of them leave a chance below 1e-5.
    assert all(abs(counts[str(i)] - 800) < 110 for i in range(5))


def test_a_selection_that_does_not_rank_by_length_is_refused_here() -> None:
    rows = [Example(text=str(i)) for i in range(5)]
    with pytest.raises(ValueError, match="perplexity-low"):
        bound_contributions(
            rows, max_examples=2, selection="perplexity-low", rng=np.random.default_rng(0)
        )


def test_characters_count_prompt_and_every_turn() -> None:
    turns = ({"role": "user", "content": "ab"}, {"role": "assistant", "content": "cde"})
    assert num_characters(Example(text="x", prompt="yz", messages=turns)) == 8


TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None}]


@pytest.mark.parametrize("value", [TURNS, json.dumps(TURNS)])
def test_messages_are_a_list_or_its_json(value: object) -> None:
    expected = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""})
    assert to_example({"m": value}, Columns(messages="m")).messages == expected


@pytest.mark.parametrize("value", [None, "", "no json", "{}", "[1]", '["a"]', "[" * 5000])
def test_broken_messages_are_no_turns(value: object) -> None:
    assert to_example({"m": value}, Columns(messages="m")).messages == ()


def test_turns_that_are_not_text_are_no_turns() -> None:
    picture = [{"role": "user", "content": [{"type": "image"}]}]
    assert to_example({"m": picture}, Columns(messages="m")).messages == ()


def test_a_missing_value_is_empty_and_a_missing_label_is_none() -> None:
    columns = Columns(prompt="p", completion="c", label="l")
    assert to_example({"p": None, "c": "yes", "l": None}, columns) == Example(text="yes")
    assert to_example({"p": "q", "c": None, "l": 3}, columns) == Example(prompt="q", label="3")


def test_used_columns_are_each_named_once() -> None:
    assert Columns(user="id", text="t", label="t").used() == ("id", "t")


def test_nobody_is_a_set_of_users_too() -> None:
    nobody = InMemoryUsers([])
    assert (nobody.num_users, nobody.keys.tolist(), nobody.held_out(10).tolist()) == (0, [], [])
    assert partition(nobody, 1, 3).num_users == 0


def test_one_airline_user_in_ten_holds_1365_posts() -> None:
    path = dev_data() / "airline.jsonl"
    if not path.exists():
        pytest.skip("needs the airline data in FEDDP_TEST_DATA")
    posts: dict[str, int] = Counter()
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            posts[str(json.loads(line)["user_id"])] += 1
    users = InMemoryUsers([(name, [Example()] * count) for name, count in posts.items()])
    held_out = UsersView(users, np.flatnonzero(users.held_out(10)))
    assert held_out.counts.sum() == 1365
