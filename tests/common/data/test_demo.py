"""The demo's users: reproducible, heavy-tailed, and each the only owner of its secrets."""

import hashlib
import re
import statistics
from itertools import pairwise

import pytest

from feddp.common.data.demo import (
    DEMO_NUM_USERS,
    MOST_MESSAGES,
    Secrets,
    demo_messages,
    demo_secrets,
    demo_users,
    fresh_messages,
    num_demo_users,
    secret_spans,
    user_messages,
)
from feddp.common.errors import DataError


@pytest.fixture(scope="module")
def everyone() -> list[tuple[str, list[str]]]:
    return demo_messages()


def test_the_same_seed_gives_the_same_users_and_another_seed_gives_others(everyone):
    assert demo_messages(50) == everyone[:50]
    other = demo_messages(50, seed=1)
    assert all(a[1] != b[1] for a, b in zip(everyone, other, strict=False))


def test_the_users_are_those_of_the_first_release(everyone):
    text = "\n".join(f"{user_id}\t{m}" for user_id, messages in everyone for m in messages)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "bea4855119797f2b"


def test_a_user_does_not_depend_on_how_many_or_which_others_are_made(everyone):
    for index in (7, 3, DEMO_NUM_USERS - 1):
        assert user_messages(index) == everyone[index][1]


def test_one_user_in_ten_held_out_leaves_three_thousand_for_training():
    assert num_demo_users(10) == 3_000
    assert num_demo_users(0) == DEMO_NUM_USERS


@pytest.mark.parametrize("one_in", [0, 2, 10])
def test_the_number_of_training_users_is_what_the_table_of_users_leaves(one_in):
    held_out = demo_users().held_out(one_in)
    assert num_demo_users(one_in) == int((~held_out).sum())


def test_messages_per_user_have_a_heavy_tail(everyone):
    counts = sorted(len(messages) for _, messages in everyone)
    assert counts[0] == 1
    assert counts[-1] == MOST_MESSAGES
    assert 3 <= statistics.median(counts) <= 4
    assert statistics.mean(counts) > 1.4 * statistics.median(counts)
    tenth = counts[-len(counts) // 10 :]
    assert sum(tenth) > 0.3 * sum(counts)


def test_messages_are_short(everyone):
    lengths = [len(message.split()) for _, messages in everyone for message in messages]
    assert min(lengths) >= 4
    assert max(lengths) <= 40
    assert 12 <= statistics.mean(lengths) <= 20


def test_no_two_users_share_a_secret(everyone):
    secrets = [demo_secrets(user_id) for user_id, _ in everyone]
    assert len({s.phone for s in secrets}) == len({s.order_id for s in secrets}) == len(everyone)


def test_every_sensitive_span_is_the_secret_of_the_user_who_wrote_it(everyone):
    told = 0
    for user_id, messages in everyone:
        own = demo_secrets(user_id)
        for message in messages:
            for span in secret_spans(message):
                assert message[span.start : span.end] == getattr(own, span.kind)
                told += 1
    assert told > len(everyone)


def test_no_digits_outside_the_spans_look_like_a_secret(everyone):
    for _, messages in everyone:
        for message in messages:
            rest = message
            for span in reversed(secret_spans(message)):
                rest = rest[: span.start] + rest[span.end :]
            assert not re.search(r"\d{4}|555|SO-", rest)


def test_a_secret_is_in_the_messages_of_its_owner_alone(everyone):
    owner = {}
    for user_id, _ in everyone:
        own = demo_secrets(user_id)
        owner |= {own.phone: user_id, own.order_id: user_id}
    for user_id, messages in everyone:
        found = {m[span.start : span.end] for m in messages for span in secret_spans(m)}
        assert {owner[secret] for secret in found} <= {user_id}


def test_users_who_write_much_repeat_both_secrets(everyone):
    for user_id, messages in everyone:
        if len(messages) >= 30:
            own, text = demo_secrets(user_id), "\n".join(messages)
            assert text.count(own.order_id) >= 2
            assert text.count(own.phone) >= 1


def test_users_have_a_style_of_their_own(everyone):
    """Two messages of one user share the greeting far more often than messages of two users."""
    greetings = [[m.split(",")[0] for m in messages] for _, messages in everyone]
    many = [g for g in greetings if len(g) >= 4]
    same = statistics.mean(g[0] == g[1] for g in many)
    different = statistics.mean(a[0] == b[0] for a, b in pairwise(many))
    assert same > 2 * different


@pytest.mark.parametrize("user_id", ["", "user-1", "someone", "user-00001 ", "USER-00001"])
def test_secrets_of_someone_else_are_refused(user_id):
    with pytest.raises(DataError, match="not a user of the demo"):
        demo_secrets(user_id)


def test_more_users_than_there_are_order_ids_are_refused():
    assert isinstance(demo_secrets("user-999999"), Secrets)
    with pytest.raises(DataError, match="1000000 users at most"):
        demo_secrets("user-1000000")


def test_demo_users_hold_the_messages(everyone):
    users = demo_users(20)
    assert users.num_users == 20
    found = [[example.text for example in users.examples(user)] for user in range(20)]
    assert sorted(found) == sorted(messages for _, messages in everyone[:20])


def test_fresh_messages_are_other_messages_of_the_same_user(everyone):
    user_id, messages = everyone[7]
    fresh = fresh_messages(user_id, 40)
    assert fresh == fresh_messages(user_id, 40)
    assert len(set(fresh) & set(messages)) < len(messages)
    found = {fresh_text[s.start : s.end] for fresh_text in fresh for s in secret_spans(fresh_text)}
    secrets = demo_secrets(user_id)
    assert found == {secrets.phone, secrets.order_id}
