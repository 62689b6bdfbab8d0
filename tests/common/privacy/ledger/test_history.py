"""The order of rows, against an exact model written from the specification."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_rows import PLAN, SIGNED_PLAN, answer, charged_body, open_body

from feddp.common.errors import LedgerDamagedError
from feddp.common.privacy.ledger.history import (
    FIELDS,
    GENESIS,
    Body,
    Charge,
    History,
    Release,
    canonical,
    row_digest,
    row_hash,
)

EVENT = charged_body(1, 1)["event"]


def history_of(*rows: tuple[str, Body]) -> History:
    history = History()
    for kind, body in rows:
        history.apply(kind, body)
    return history


def charged() -> History:
    return history_of(("PLAN", SIGNED_PLAN), ("OPEN", open_body(1)), ("CHARGE", charged_body(1, 1)))


def snapshot(history: History) -> tuple[object, ...]:
    return (
        history.head,
        history.num_rows,
        history.open_charge,
        list(history.charges),
        list(history.releases),
        history.num_opened,
        {name: (run.num_charges, dict(run.attempts)) for name, run in history.runs.items()},
        history.public_key,
    )


def assert_refused(history: History, kind: str, body: Body) -> None:
    before = snapshot(history)
    with pytest.raises(LedgerDamagedError):
        history.apply(kind, body)
    assert snapshot(history) == before


def test_one_round_is_charged_released_and_counted() -> None:
    history = charged()
    history.apply("RELEASE", answer("RELEASE", 1, 1))
    assert history.releases == [Release(1, 1, "b" * 64)]
    assert history.open_charge is None
    assert history.runs["r"].next_charge("update") == Charge(2, 1)


def test_a_burned_charge_stays_spent_and_is_its_round() -> None:
    history = charged()
    history.apply("BURN", answer("BURN", 1, 1))
    assert len(history.charges) == 1
    assert history.runs["r"].next_charge("update") == Charge(2, 1)
    assert history.runs["r"].num_burned == 1
    history.apply("CHARGE", charged_body(2, 1))
    history.apply("RELEASE", answer("RELEASE", 2, 1))
    assert history.runs["r"].next_charge("update") == Charge(3, 1)
    assert history.runs["r"].num_burned == 1


def test_with_spare_attempts_a_burned_round_gets_the_next_attempt() -> None:
    opened = open_body(1, num_charges=5, num_rounds=3)
    history = history_of(("PLAN", SIGNED_PLAN), ("OPEN", opened), ("CHARGE", charged_body(1, 1)))
    history.apply("BURN", answer("BURN", 1, 1))
    assert len(history.charges) == 1
    assert history.runs["r"].next_charge("update") == Charge(1, 2)
    assert_refused(history, "CHARGE", charged_body(2, 1))


def test_a_ledger_in_which_a_burned_round_was_charged_again_still_verifies() -> None:
    history = charged()
    history.apply("BURN", answer("BURN", 1, 1))
    history.apply("CHARGE", charged_body(1, 2))
    history.apply("RELEASE", answer("RELEASE", 1, 2))
    assert_refused(history, "CHARGE", charged_body(1, 3))
    history.apply("CHARGE", charged_body(2, 1))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("OPEN", open_body(1)),
        ("CHARGE", charged_body(1, 1)),
        ("RELEASE", answer("RELEASE", 1, 1)),
        ("PLAN", {**SIGNED_PLAN, "schema": "feddp-ledger-2"}),
    ],
)
def test_only_a_plan_of_this_schema_comes_first(kind: str, body: Body) -> None:
    assert_refused(History(), kind, body)


def test_a_charge_needs_an_open_run() -> None:
    assert_refused(history_of(("PLAN", SIGNED_PLAN)), "CHARGE", charged_body(1, 1))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("PLAN", SIGNED_PLAN),
        ("OPEN", open_body(1)),
        ("OPEN", open_body(3)),
        ("OPEN", open_body(2, "c" * 64)),
        ("CHARGE", charged_body(1, 2)),
        ("CHARGE", charged_body(2, 1)),
        ("RELEASE", answer("RELEASE", 1, 2)),
        ("RELEASE", answer("RELEASE", 2, 1)),
        ("BURN", answer("BURN", 1, 2)),
        ("BURN", {"round": 1, "attempt": 1, "cause": "bored"}),
    ],
)
def test_after_a_charge_only_its_own_answer_or_the_next_start_follows(
    kind: str, body: Body
) -> None:
    assert_refused(charged(), kind, body)


@pytest.mark.parametrize("kind", ["RELEASE", "BURN"])
def test_a_charge_has_one_answer(kind: str) -> None:
    for first in ("RELEASE", "BURN"):
        history = charged()
        history.apply(first, answer(first, 1, 1))
        assert_refused(history, kind, answer(kind, 1, 1))


@pytest.mark.parametrize(
    "change",
    [
        {"event": {"event": "gaussian", "noise_multiplier": "1.5"}},
        {"event": {**EVENT, "noise_multiplier": "1.6"}},
        {"event": {**EVENT, "sampling_probability": "0.1"}},
        {"event": {**EVENT, "class": "os.system"}},
        {"event": {**EVENT, "num_coins": True}},
        {"purpose": "evaluation"},
        {"purpose": "anything"},
        {"dimension": 5},
        {"noise_scale": 1},
        {"cost": "0.1"},
        {"run": "other"},
    ],
)
def test_a_charge_costs_what_the_plan_says(change: Body) -> None:
    history = history_of(("PLAN", SIGNED_PLAN), ("OPEN", open_body(1)))
    assert_refused(history, "CHARGE", {**charged_body(1, 1), **change})


def test_the_last_planned_charge_is_taken_and_the_next_is_refused() -> None:
    history = history_of(("PLAN", SIGNED_PLAN), ("OPEN", open_body(1)))
    for attempt in range(1, 6):
        history.apply("CHARGE", charged_body(1, attempt))
        history.apply("BURN", answer("BURN", 1, attempt))
    assert_refused(history, "CHARGE", charged_body(1, 6))


@pytest.mark.parametrize("kind", sorted(FIELDS))
def test_a_field_more_less_or_of_another_type_is_refused(kind: str) -> None:
    bodies: dict[str, Body] = {
        "PLAN": SIGNED_PLAN,
        "OPEN": open_body(1),
        "CHARGE": charged_body(1, 1),
        "RELEASE": answer("RELEASE", 1, 1),
        "BURN": answer("BURN", 1, 1),
        "KEY": {"new_public_key": "22" * 32},
    }
    body = bodies[kind]
    before: dict[str, list[tuple[str, Body]]] = {
        "PLAN": [],
        "OPEN": [("PLAN", SIGNED_PLAN)],
        "CHARGE": [("PLAN", SIGNED_PLAN), ("OPEN", open_body(1))],
    }
    rows = before.get(kind, [*before["CHARGE"], ("CHARGE", bodies["CHARGE"])])
    history_of(*rows, (kind, body))  # what is refused below is refused for its change alone
    assert_refused(history_of(*rows), kind, {**body, "extra": "x"})
    for name, kept in FIELDS[kind].items():
        assert_refused(history_of(*rows), kind, {k: v for k, v in body.items() if k != name})
        other: str | int = 1 if kept is str else str(body[name])
        assert_refused(history_of(*rows), kind, {**body, name: other})
        if kept is int:
            assert_refused(history_of(*rows), kind, {**body, name: body[name] == 1})


def test_an_unknown_kind_is_refused() -> None:
    assert_refused(charged(), "REFUND", answer("BURN", 1, 1))


def test_the_hash_binds_history_kind_and_body() -> None:
    text = canonical(answer("BURN", 1, 1))
    hashes = {
        row_hash(GENESIS, row_digest("OPEN", text)),
        row_hash(b"\x01" + GENESIS[1:], row_digest("OPEN", text)),
        row_hash(GENESIS, row_digest("BURN", text)),
        row_hash(GENESIS, row_digest("OPEN", canonical(answer("BURN", 1, 2)))),
    }
    assert len(hashes) == 4


def test_the_hash_is_the_one_of_the_specification() -> None:
    text = canonical(answer("BURN", 1, 1))
    digest = hashlib.sha256(b"feddp-ledger-1\nBURN\n" + text.encode()).digest()
    chained = hashlib.sha256(b"feddp-ledger-1 chain\n" + bytes(32) + digest).digest()
    assert row_hash(GENESIS, row_digest("BURN", text)) == chained
    # Golden: sha256sum of the first text, by coreutils.
    assert digest.hex()[:16] == "5c20445571c38c89"


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers())))
def test_canonical_text_reads_back_and_is_one_line_of_ascii(body: Body) -> None:
    text = canonical(body)
    assert json.loads(text) == body
    assert canonical(json.loads(text)) == text
    assert text.isascii()
    assert "\n" not in text


@given(st.permutations(sorted(PLAN)))
def test_canonical_text_does_not_depend_on_the_order_of_fields(names: list[str]) -> None:
    assert canonical({name: PLAN[name] for name in names}) == canonical(PLAN)
