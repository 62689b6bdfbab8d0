"""A node's memory of ledgers, against real ledgers that grow, go back and part ways."""

import logging
import shutil
from pathlib import Path

import pytest
from small_ledger import HeadedLedger

from feddp.client.refusal import RefusedError
from feddp.client.service.known_ledgers import Heads
from feddp.common.errors import LedgerDamagedError
from feddp.common.privacy.ledger.remembered_head import HeadClaim


def refusal(heads: Heads, claim: HeadClaim | None) -> str:
    with pytest.raises(RefusedError) as error:
        heads.accept(claim)
    return error.value.code


def test_a_run_that_goes_on_is_accepted_round_by_round_and_after_restarts(tmp_path: Path) -> None:
    ledger = HeadedLedger(tmp_path / "ledger.sqlite")
    for _ in range(4):
        Heads(tmp_path).accept(ledger.claim())
        ledger.grow(1)


def test_an_older_copy_of_the_ledger_is_refused_until_it_is_the_newer_one_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = HeadedLedger(tmp_path / "ledger.sqlite")
    ledger.grow(1)
    shutil.copy(ledger.path, tmp_path / "old")
    ledger.grow(2)
    heads = Heads(tmp_path)
    newest = ledger.claim()
    heads.accept(newest)
    shutil.copy(tmp_path / "old", ledger.path)
    with caplog.at_level(logging.WARNING, logger="feddp.node"):
        assert refusal(heads, ledger.claim()) == "rolled-back"
    assert "rolled back" in caplog.text
    assert f"row {newest.seq}, which this node has seen" in caplog.text
    ledger.grow(5, value="other")  # longer than what was seen, and another history
    assert refusal(heads, ledger.claim()) == "rolled-back"
    heads.accept(newest)


def test_a_node_that_missed_rounds_is_accepted_as_far_as_the_proof_reaches_back(
    tmp_path: Path,
) -> None:
    ledger = HeadedLedger(tmp_path / "ledger.sqlite")
    heads = Heads(tmp_path)
    heads.accept(ledger.claim())
    ledger.grow(3)  # two rows and one of the start each
    assert refusal(heads, ledger.claim(num_rows=8)) == "rolled-back"
    heads.accept(ledger.claim(num_rows=9))
    ledger.grow(3)
    heads.accept(ledger.claim())


def test_populations_are_remembered_apart(tmp_path: Path) -> None:
    one, two = (HeadedLedger(tmp_path / f"{name}.sqlite", run=name) for name in ("one", "two"))
    one.grow(3)
    heads = Heads(tmp_path)
    for ledger in (one, two, one):
        heads.accept(ledger.claim())
    assert len(list(tmp_path.glob("head-*.json"))) == 2


def test_a_pinned_key_is_the_only_one_that_is_believed(tmp_path: Path) -> None:
    ledger, other = (HeadedLedger(tmp_path / f"{name}.sqlite") for name in ("one", "two"))
    heads = Heads(tmp_path, ledger.public_key)
    assert refusal(heads, other.claim()) == "rolled-back"  # also where nothing is remembered yet
    heads.accept(ledger.claim())
    assert refusal(heads, other.claim()) == "rolled-back"


def test_a_request_that_says_nothing_of_its_ledger_is_refused(tmp_path: Path) -> None:
    assert refusal(Heads(tmp_path), None) == "no-head"


def test_a_damaged_memory_is_not_forgotten(tmp_path: Path) -> None:
    ledger = HeadedLedger(tmp_path / "ledger.sqlite")
    Heads(tmp_path).accept(ledger.claim())
    (memory,) = tmp_path.glob("head-*.json")
    memory.write_text("{}")
    with pytest.raises(LedgerDamagedError):
        Heads(tmp_path).accept(ledger.claim())
