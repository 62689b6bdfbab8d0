"""The master key: private on the disk, silent in the program, one stream per answer."""

import copy
import os
import pickle

import numpy as np
import pytest

from feddp.common.disk import Disk
from feddp.common.errors import FeddpError
from feddp.common.privacy.mechanism.master_key import MasterKey, create_master_key, load_master_key
from feddp.common.privacy.mechanism.summation import UpdateSum

SECRET = bytes(range(32))
KEY = MasterKey(SECRET, run=b"run")


def sum_of(*values):
    return UpdateSum(np.array(values, dtype=np.int64))


def first_words(key, row, attempt, nonce):
    bits = key.noise_bits(row=row, attempt=attempt, nonce=nonce)
    return tuple(bits.below(1 << 62, 4).tolist())


def test_no_two_of_run_row_attempt_and_nonce_share_a_stream():
    keys = [KEY, MasterKey(SECRET, run=b"other"), MasterKey(bytes(32), run=b"run")]
    nonces = [bytes(32), bytes([1]) * 32]
    made = [
        first_words(key, row, attempt, nonce)
        for key in keys
        for row in range(1, 40)
        for attempt in range(1, 5)
        for nonce in nonces
    ]
    assert len(set(made)) == len(made)


def test_a_stream_is_the_same_again():
    again = MasterKey(SECRET, run=b"run")
    assert first_words(KEY, 3, 2, bytes(32)) == first_words(again, 3, 2, bytes(32))


def test_nonces_differ_with_entropy_place_and_sum():
    asked = {"total": sum_of(1, 2), "row": 1, "attempt": 1, "entropy": bytes(32)}
    others = [
        {"total": sum_of(2, 1)},
        {"total": sum_of(1, 2, 0)},
        {"row": 2},
        {"attempt": 2},
        {"entropy": bytes([1]) * 32},
    ]
    made = [KEY.nonce(asked["total"], row=1, attempt=1, entropy=bytes(32))]
    for change in others:
        arguments = {**asked, **change}
        made.append(KEY.nonce(arguments.pop("total"), **arguments))
    assert len(set(made)) == len(made)
    assert made[0] == KEY.nonce(sum_of(1, 2), row=1, attempt=1, entropy=bytes(32))
    assert made[0] != MasterKey(bytes(32), run=b"run").nonce(
        sum_of(1, 2), row=1, attempt=1, entropy=bytes(32)
    )


def test_key_shows_itself_nowhere():
    assert repr(KEY) == str(KEY) == "MasterKey(secret)"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="secret"):
            leak(KEY)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_and_nonces_of_other_lengths_are_refused(size):
    with pytest.raises(ValueError, match="32 bytes"):
        MasterKey(bytes(size), run=b"run")
    with pytest.raises(ValueError, match="32 bytes"):
        KEY.noise_bits(row=1, attempt=1, nonce=bytes(size))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys" / "noise.key"


def test_created_key_is_private_and_is_read_back(path):
    before = os.umask(0)
    try:
        made = create_master_key(path, run=b"run", disk=Disk())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["noise.key"]
    read = load_master_key(path, run=b"run")
    assert first_words(made, 1, 1, bytes(32)) == first_words(read, 1, 1, bytes(32))
    other = load_master_key(path, run=b"other")
    assert first_words(made, 1, 1, bytes(32)) != first_words(other, 1, 1, bytes(32))


def test_keys_are_drawn_afresh(tmp_path):
    made = [
        create_master_key(tmp_path / name / "key", run=b"run", disk=Disk()) for name in ("a", "b")
    ]
    assert first_words(made[0], 1, 1, bytes(32)) != first_words(made[1], 1, 1, bytes(32))


def test_a_key_is_never_replaced(path):
    create_master_key(path, run=b"run", disk=Disk())
    content = path.read_bytes()
    with pytest.raises(FeddpError, match="never replaced"):
        create_master_key(path, run=b"run", disk=Disk())
    assert path.read_bytes() == content


def test_a_torn_creation_leaves_no_key_and_can_be_repeated(path):
    class DyingDisk(Disk):
        def rename(self, source, target):
            raise OSError("power cut")

    with pytest.raises(OSError, match="power cut"):
        create_master_key(path, run=b"run", disk=DyingDisk())
    with pytest.raises(FeddpError, match="no master key"):
        load_master_key(path, run=b"run")
    create_master_key(path, run=b"run", disk=Disk())
    load_master_key(path, run=b"run")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_open_to_others_is_refused(path, mode):
    create_master_key(path, run=b"run", disk=Disk())
    path.chmod(mode)
    with pytest.raises(FeddpError, match="owner alone"):
        load_master_key(path, run=b"run")


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777])
def test_a_folder_open_to_others_is_refused(path, mode):
    create_master_key(path, run=b"run", disk=Disk())
    path.parent.chmod(mode)
    with pytest.raises(FeddpError, match="folder"):
        load_master_key(path, run=b"run")
    with pytest.raises(FeddpError, match="folder"):
        create_master_key(path.with_name("second"), run=b"run", disk=Disk())


def test_what_is_not_a_key_file_is_refused(path):
    with pytest.raises(FeddpError, match="cannot be read"):
        load_master_key(path, run=b"run")
    path.parent.mkdir(mode=0o700)
    with pytest.raises(FeddpError, match="no master key"):
        load_master_key(path, run=b"run")
    for content in (b"", SECRET[:-1], SECRET + b"\n"):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(FeddpError, match="damaged") as caught:
            load_master_key(path, run=b"run")
        assert repr(content[:8]) not in str(caught.value) or not content
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(FeddpError, match="must be a file"):
        load_master_key(path, run=b"run")


def test_a_link_is_refused(path, tmp_path):
    create_master_key(tmp_path / "other" / "key", run=b"run", disk=Disk())
    path.parent.mkdir(mode=0o700)
    path.symlink_to(tmp_path / "other" / "key")
    with pytest.raises(FeddpError, match="no master key"):
        load_master_key(path, run=b"run")
    with pytest.raises(FeddpError, match="never replaced"):
        create_master_key(path, run=b"run", disk=Disk())
