"""Anchors: a shorter or other history is refused by whoever remembers a longer one."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_rows import (
    SHA256,
    adaptive_plan,
    key_of,
    new_ledger,
    open_ledger,
    start_of,
    three_charges,
)

from feddp.common.disk import Disk
from feddp.common.errors import DiskError, LedgerDamagedError, RolledBackError
from feddp.common.privacy.ledger.history import GENESIS
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.remembered_head import (
    HeadClaim,
    HeadMemory,
    KnownHead,
    anchor_of,
    claim_of,
    extends,
    fold,
    read_anchor,
    write_anchor,
)

# The operator's file


def anchored(folder: Path) -> tuple[Path, Path]:
    """A ledger of three charges, and an anchor at its head."""
    path = three_charges(folder)
    content = Ledger.read_content(path)
    write_anchor(folder / "anchor", anchor_of(content.history, content.signature), Disk())
    return path, folder / "anchor"


def test_an_anchor_reads_back(tmp_path: Path) -> None:
    path, file = anchored(tmp_path)
    content = Ledger.read_content(path)
    assert read_anchor(file) == anchor_of(content.history, content.signature)
    assert read_anchor(tmp_path / "none") is None


def test_a_ledger_that_grew_extends_its_anchor_and_moves_it(tmp_path: Path) -> None:
    path, file = anchored(tmp_path)
    with Ledger.open(path, anchor_path=file) as ledger:
        for _ in range(3):
            ledger.open_run(start_of())
            anchor = read_anchor(file)
            assert anchor is not None
            assert (anchor.head, anchor.seq) == (ledger.head, ledger.history.num_rows)


@pytest.mark.parametrize("num_kept", [1, 2, 5, 6])
def test_a_cut_tail_is_found_by_the_anchor_alone(tmp_path: Path, num_kept: int) -> None:
    from ledger_rows import rewrite, stored_rows

    path, file = anchored(tmp_path)
    rewrite(path, stored_rows(path)[:num_kept])
    open_ledger(path).__exit__(None, None, None)  # every row is right
    with pytest.raises(RolledBackError, match=f"ends at row {num_kept}"):
        Ledger.open(path, anchor_path=file)
    with pytest.raises(RolledBackError):
        Ledger.read(path, anchor_path=file)


def test_an_old_backup_that_grew_again_is_another_history(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    shutil.copy(path, tmp_path / "backup")
    file = tmp_path / "anchor"
    with open_ledger(path) as ledger:
        ledger.open_run(start_of())
        ledger.burn(ledger.open_charge, "crash")  # type: ignore[arg-type]
    content = Ledger.read_content(path)
    write_anchor(file, anchor_of(content.history, content.signature), Disk())
    shutil.copy(tmp_path / "backup", path)
    with open_ledger(path) as ledger:
        for _ in range(4):
            ledger.open_run(start_of())
    with pytest.raises(RolledBackError, match="has another history"):
        Ledger.open(path, anchor_path=file)


def test_the_anchor_of_another_population_is_refused(tmp_path: Path) -> None:
    _, file = anchored(tmp_path)
    (tmp_path / "other").mkdir()
    other = new_ledger(tmp_path / "other", adaptive_plan())
    with pytest.raises(RolledBackError, match="'people'"):
        Ledger.open(other, anchor_path=file)


def test_a_lost_anchor_is_refused_unless_nothing_was_ever_charged(tmp_path: Path) -> None:
    path = new_ledger(tmp_path)
    with Ledger.open(path, anchor_path=tmp_path / "anchor") as ledger:
        ledger.open_run(start_of())
    (tmp_path / "anchor").unlink()
    with pytest.raises(RolledBackError, match="missing"):
        Ledger.open(path, anchor_path=tmp_path / "anchor")


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "\x00", '{"seq": 1}', "[" * 100_000, '{"head": 1}']
)
def test_a_damaged_anchor_is_refused(tmp_path: Path, content: str) -> None:
    path, file = anchored(tmp_path)
    file.write_text(content)
    with pytest.raises(LedgerDamagedError, match="damaged"):
        Ledger.open(path, anchor_path=file)


@pytest.mark.parametrize("name", ["seq", "epoch", "head", "population"])
def test_an_anchor_with_a_wrong_value_is_refused(tmp_path: Path, name: str) -> None:
    path, file = anchored(tmp_path)
    for value in (-1, True, None, 1.5, "zz"):
        file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
        with pytest.raises((LedgerDamagedError, RolledBackError)):
            Ledger.open(path, anchor_path=file)


def test_an_anchor_that_cannot_be_written_stops_the_ledger(tmp_path: Path) -> None:
    path = new_ledger(tmp_path)
    (tmp_path / "far").mkdir()
    file = tmp_path / "far" / "anchor"
    with Ledger.open(path, anchor_path=file) as ledger:
        file.unlink()
        (tmp_path / "far").rmdir()
        with pytest.raises(DiskError):
            ledger.open_run(start_of())
        with pytest.raises(DiskError, match="failed before"):
            ledger.open_run(start_of())
    assert Ledger.read(path).charges == []


# Nodes


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> list[HeadClaim]:
    """What one ledger says of itself after 1, 2, ... 8 rows."""
    path = new_ledger(tmp_path_factory.mktemp("ledger"))
    with open_ledger(path) as ledger:
        found = [ledger.claim()]
        steps = [lambda: ledger.open_run(start_of())]
        for number in (1, 2, 3):
            steps.append(lambda number=number: charges.append(ledger.charge(number)))
            steps.append(lambda: ledger.release(charges[-1], SHA256))
        charges: list = []
        for step in steps:
            step()
            found.append(ledger.claim())
        key.append(key_of(path).public)
    return found


key: list[bytes] = []


def memory(folder: Path, claims: list[HeadClaim]) -> HeadMemory:
    return HeadMemory(folder / "head", population="r", public_key=key[0])


def known(claim: HeadClaim) -> KnownHead:
    return KnownHead(claim.population, claim.epoch, claim.seq, claim.head)


def test_a_head_extends_every_earlier_one_and_no_later_one(claims: list[HeadClaim]) -> None:
    for i, earlier in enumerate(claims):
        for j, later in enumerate(claims):
            assert extends(later, known(earlier)) == (i <= j)


def test_a_proof_folds_from_nothing_to_the_head(claims: list[HeadClaim]) -> None:
    assert all(fold(GENESIS, claim.proof) == claim.head for claim in claims)


def test_a_short_proof_serves_whoever_missed_few_rows(claims: list[HeadClaim]) -> None:
    short = dataclasses.replace(claims[-1], proof=claims[-1].proof[-2:])
    assert [extends(short, known(claim)) for claim in claims[-4:]] == [False, True, True, True]


@given(st.data())
def test_any_change_of_a_needed_digest_breaks_a_proof(
    claims: list[HeadClaim], data: st.DataObject
) -> None:
    index = data.draw(st.integers(2, len(claims) - 1))
    bit = data.draw(st.integers(0, 255))
    digest = bytearray(claims[-1].proof[index])
    digest[bit // 8] ^= 1 << bit % 8
    proof = list(claims[-1].proof)
    proof[index] = bytes(digest)
    changed = dataclasses.replace(claims[-1], proof=tuple(proof))
    assert not extends(changed, known(claims[1]))


@pytest.mark.parametrize("change", [{"population": "q"}, {"epoch": 0}, {"head": bytes(32)}])
def test_another_population_an_older_epoch_or_head_is_refused(
    claims: list[HeadClaim], tmp_path: Path, change: dict
) -> None:
    node = memory(tmp_path, claims)
    node.accept(claims[2])
    before = (tmp_path / "head").read_bytes()
    with pytest.raises(RolledBackError):
        node.accept(dataclasses.replace(claims[4], **change))
    assert (tmp_path / "head").read_bytes() == before
    assert node.known == known(claims[2])


def test_digests_of_a_wrong_length_are_refused(claims: list[HeadClaim]) -> None:
    joined = dataclasses.replace(claims[-1], proof=(b"".join(claims[-1].proof),) * 9)
    assert not extends(joined, known(claims[1]))


def test_a_node_remembers_across_its_own_restarts(claims: list[HeadClaim], tmp_path: Path) -> None:
    memory(tmp_path, claims).accept(claims[5])
    node = memory(tmp_path, claims)
    assert node.known == known(claims[5])
    for older in claims[:5]:
        with pytest.raises(RolledBackError, match="does not extend row 6"):
            node.accept(older)
    node.accept(claims[5])
    node.accept(claims[7])
    assert memory(tmp_path, claims).known == known(claims[7])


def test_a_head_that_the_ledgers_key_did_not_sign_is_refused(
    claims: list[HeadClaim], tmp_path: Path
) -> None:
    node = memory(tmp_path, claims)
    with pytest.raises(RolledBackError, match="not signed"):
        node.accept(dataclasses.replace(claims[3], signature=claims[4].signature))
    assert node.known.seq == 0


def test_a_memory_of_another_population_or_a_damaged_one_is_refused(
    claims: list[HeadClaim], tmp_path: Path
) -> None:
    memory(tmp_path, claims).accept(claims[1])
    with pytest.raises(LedgerDamagedError, match="another population"):
        HeadMemory(tmp_path / "head", population="q", public_key=key[0])
    (tmp_path / "head").write_text("{}")
    with pytest.raises(LedgerDamagedError, match="damaged"):
        memory(tmp_path, claims)


def test_a_head_that_cannot_be_remembered_is_not_accepted(
    claims: list[HeadClaim], tmp_path: Path
) -> None:
    class Full(Disk):
        def rename(self, source: Path, target: Path) -> None:
            raise OSError(28, "No space left on device")

    node = HeadMemory(tmp_path / "head", population="r", public_key=key[0], disk=Full())
    with pytest.raises(DiskError, match="No space"):
        node.accept(claims[1])
    assert node.known.seq == 0


def test_a_claim_carries_no_more_rows_than_asked(tmp_path: Path) -> None:
    content = Ledger.read_content(three_charges(tmp_path))
    claim = claim_of(content.history, content.signature, num_rows=3)
    assert claim.proof == tuple(content.history.digests[-3:])
