"""A node's memory of ledgers, against real ledgers that grow, go back and part ways."""

import logging
import shutil
from pathlib import Path

import pytest
from small_ledger import HeadedLedger

from feddp.client.refusal import RefusedError
from feddp.client.service.known_ledgers import KnownLedgers
from feddp.common.errors import LedgerDamagedError
from feddp.common.privacy.ledger.remembered_head import HeadClaim


def refusal(known_ledgers: KnownLedgers, claim: HeadClaim | None) -> str:
    with pytest.raises(RefusedError) as error:
        known_ledgers.accept(claim)
    return error.value.code


def test_a_run_that_goes_on_is_accepted_round_by_round_and_after_restarts(tmp_path: Path) -> None:
    ledger = HeadedLedger(tmp_path / "ledger.sqlite")
    for _ in range(4):
        KnownLedgers(tmp_path).accept(ledger.claim())
        ledger.grow(1)


def test_an_older_copy_of_the_ledger_is_refused_until_it_is_the_newer_one_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = HeadedLedger(tmp_path / "ledger.sqlite")
    ledger.grow(1)
    shutil.copy(ledger.path, tmp_path / "old")
    ledger.grow(2)
    known_ledgers = KnownLedgers(tmp_path)
    newest = ledger.claim()
    known_ledgers.accept(newest)
    shutil.copy(tmp_path / "old", ledger.path)
    with caplog.at_level(logging.WARNING, logger="feddp.node"):
        assert refusal(known_ledgers, ledger.claim()) == "rolled-back"
    assert "rolled back" in caplog.text
    assert f"row {newest.seq}, which this node has seen" in caplog.text
    ledger.grow(5, value="other")  # longer than what was seen, and another history
    assert refusal(known_ledgers, ledger.claim()) == "rolled-back"
    known_ledgers.accept(newest)


def test_a_node_that_missed_rounds_is_accepted_as_far_as_the_proof_reaches_back(
    tmp_path: Path,
) -> None:
    ledger = HeadedLedger(tmp_path / "ledger.sqlite")
    known_ledgers = KnownLedgers(tmp_path)
    known_ledgers.accept(ledger.claim())
    ledger.grow(3)  # two rows and one of the start each
    assert refusal(known_ledgers, ledger.claim(num_rows=8)) == "rolled-back"
    known_ledgers.accept(ledger.claim(num_rows=9))
    ledger.grow(3)
    known_ledgers.accept(ledger.claim())


def test_populations_are_remembered_apart(tmp_path: Path) -> None:
    one, two = (HeadedLedger(tmp_path / f"{name}.sqlite", run=name) for name in ("one", "two"))
    one.grow(3)
    known_ledgers = KnownLedgers(tmp_path)
    for ledger in (one, two, one):
        known_ledgers.accept(ledger.claim())
    assert len(list(tmp_path.glob("head-*.json"))) == 2


def test_a_pinned_key_is_the_only_one_that_is_believed(tmp_path: Path) -> None:
    ledger, other = (HeadedLedger(tmp_path / f"{name}.sqlite") for name in ("one", "two"))
    known_ledgers = KnownLedgers(tmp_path, ledger.public_key)
    assert (
        refusal(known_ledgers, other.claim()) == "rolled-back"
    )  # also where nothing is remembered yet
    known_ledgers.accept(ledger.claim())
    assert refusal(known_ledgers, other.claim()) == "rolled-back"


def test_a_request_that_says_nothing_of_its_ledger_is_refused(tmp_path: Path) -> None:
    assert refusal(KnownLedgers(tmp_path), None) == "no-head"


def test_a_damaged_memory_is_not_forgotten(tmp_path: Path) -> None:
    ledger = HeadedLedger(tmp_path / "ledger.sqlite")
    KnownLedgers(tmp_path).accept(ledger.claim())
    (memory,) = tmp_path.glob("head-*.json")
    memory.write_text("{}")
    with pytest.raises(LedgerDamagedError):
        KnownLedgers(tmp_path).accept(ledger.claim())
