"""The ledger's key: one person reads it, and what it signed nobody else can have written."""

import json
import os
import stat
from pathlib import Path

import pytest
from ledger_rows import (
    SHA256,
    Died,
    DyingDisk,
    chained,
    key_of,
    new_ledger,
    open_ledger,
    rewrite,
    start_of,
    stored_rows,
    three_charges,
)

from feddp.common.disk import Disk
from feddp.common.errors import ConfigError, LedgerDamagedError, RolledBackError
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.remembered_head import anchor_of, write_anchor
from feddp.common.privacy.ledger.signing import create_key, default_key_path, is_signed, load_key


def test_a_new_key_is_its_owners_alone_and_reads_back(tmp_path: Path) -> None:
    made = create_key(tmp_path / "key", Disk())
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert load_key(tmp_path / "key").public == made.public
    assert is_signed(made.public, b"head", made.sign(b"head"))
    assert not is_signed(made.public, b"tail", made.sign(b"head"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = three_charges(tmp_path)
    default_key_path(path).chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:o}"):
        open_ledger(path)


@pytest.mark.parametrize("content", ["", "00", "xyz", "é" * 32])
def test_a_file_without_a_key_is_named(tmp_path: Path, content: str) -> None:
    path = three_charges(tmp_path)
    default_key_path(path).write_text(content)
    with pytest.raises(ConfigError, match="holds no Ed25519 key"):
        open_ledger(path)


def test_verifying_needs_no_private_key(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    default_key_path(path).unlink()
    assert len(Ledger.read(path).charges) == 3
    with pytest.raises(ConfigError, match="cannot be read"):
        open_ledger(path)


def test_a_ledger_refuses_the_key_of_another(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    create_key(default_key_path(path), Disk())
    with pytest.raises(LedgerDamagedError, match="is not the key of this ledger"):
        open_ledger(path)


def test_no_error_shows_the_private_key(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    secret = default_key_path(path).read_text().strip()
    assert secret not in repr(key_of(path))
    assert secret.encode() not in path.read_bytes()


def test_a_rewritten_history_with_a_right_chain_is_found_by_the_signature(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    honest = [(kind, json.loads(text)) for _, kind, text, *_ in stored_rows(path)]
    forger = create_key(tmp_path / "forged", Disk())
    forged = chained(honest[:4], forger)  # a charge less, in a chain that holds together
    kept = json.loads(stored_rows(path)[0][2])["public_key"]
    assert json.loads(forged[0][2])["public_key"] != kept
    rewrite(path, forged)
    with pytest.raises(LedgerDamagedError, match="somebody else has written this ledger"):
        open_ledger(path)  # the forger's key in the plan does not pass for the writer's


def test_rows_that_another_key_signed_are_refused(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    rows, forger = stored_rows(path), create_key(tmp_path / "forged", Disk())
    for number in range(len(rows)):
        forged = [(*row[:5], forger.sign(row[4])) if row[0] > number else row for row in rows]
        rewrite(path, forged)
        for use in (open_ledger, Ledger.read):
            with pytest.raises(LedgerDamagedError, match=f"row {number + 1}: not signed"):
                use(path)


def test_an_anchor_finds_a_history_that_a_stolen_key_rewrote(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    content = Ledger.read_content(path)
    write_anchor(tmp_path / "anchor", anchor_of(content.history, content.signature), Disk())
    honest = [(kind, json.loads(text)) for _, kind, text, *_ in stored_rows(path)]
    honest[1][1]["run"] = "other"
    rewrite(path, chained(honest[:2], key_of(path)))
    open_ledger(path).__exit__(None, None, None)  # chain and signature are right
    with pytest.raises(RolledBackError):
        Ledger.open(path, anchor_path=tmp_path / "anchor")


# Rotation


def test_after_a_rotation_the_new_key_signs_and_the_old_one_is_refused(tmp_path: Path) -> None:
    path = three_charges(tmp_path)
    old = default_key_path(path).read_bytes()
    with open_ledger(path) as ledger:
        ledger.rotate()
        ledger.open_run(start_of())
        ledger.burn(ledger.open_charge, "crash")  # type: ignore[arg-type]
        ledger.release(ledger.charge(4), SHA256)
    kinds = [kind for _, kind, *_ in stored_rows(path)]
    assert kinds[7] == "KEY"
    assert Ledger.read(path).public_key == key_of(path).public
    default_key_path(path).write_bytes(old)
    with pytest.raises(LedgerDamagedError, match="is not the key of this ledger"):
        open_ledger(path)


@pytest.mark.parametrize("moment", ["before KEY", "after KEY"])
def test_a_rotation_that_a_crash_cut_off_is_finished_or_forgotten(
    tmp_path: Path, moment: str
) -> None:
    path, disk = new_ledger(tmp_path), DyingDisk()
    disk.dies_at = moment
    with Ledger.open(path, disk=disk) as ledger, pytest.raises(Died):
        ledger.rotate()
    for _ in range(2):
        with open_ledger(path) as ledger:
            ledger.rotate()
            ledger.open_run(start_of())
    assert Ledger.read(path).num_opened == 2


def test_the_key_file_is_never_wider_than_its_owner(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open_ledger(new_ledger(tmp_path)) as ledger:
            ledger.rotate()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*.key*")}
    assert modes == {"ledger.sqlite.key": 0o600}
