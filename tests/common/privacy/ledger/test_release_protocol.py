"""The release protocol over texts: whoever follows it brings nothing but the files."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_ledger import small_plan

from feddp.common.disk import PRIVATE, Disk
from feddp.common.errors import BudgetSpentError, DiskError, LedgerDamagedError
from feddp.common.privacy.ledger.charge_terms import Slot
from feddp.common.privacy.ledger.history import Charge, Release
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.release_protocol import (
    charge_and_release,
    read_released,
    recover,
)
from feddp.common.privacy.plan.ledger_entries import plan_row, slot_of, start_of

PLAN = small_plan()


@dataclass(frozen=True)
class Texts:
    """An answer is a text; its file says which charge it answers, and how long it is."""

    file_path: Path
    remedy: str = "Restore it."

    def path(self, charge: Charge | Release) -> Path:
        return self.file_path

    def to_bytes(self, answer: str) -> bytes:
        return f"{len(answer)} {answer}".encode()

    def parse(self, content: bytes, charge: Charge | Release) -> str | None:
        size, _, text = content.decode().partition(" ")
        is_its = text.startswith(f"{charge.round}/{charge.attempt} ")
        return text if is_its and len(text) == int(size) else None

    def next_clipping_norm(self, answer: str) -> str:
        return "0.25"


class EventDisk(Disk):
    def __init__(self) -> None:
        self.events: list[str] = []

    def point(self, name: str) -> None:
        self.events.append(name)

    def write(self, path: Path, content: bytes, mode: int = PRIVATE) -> None:
        self.events.append("write")
        super().write(path, content, mode)

    def rename(self, source: Path, target: Path) -> None:
        self.events.append("rename")
        super().rename(source, target)

    def fsync(self, path: Path) -> None:
        self.events.append("fsync")
        super().fsync(path)

    def fsync_folder(self, path: Path) -> None:
        self.events.append("fsync_folder")
        super().fsync_folder(path)


@pytest.fixture
def disk() -> EventDisk:
    return EventDisk()


@pytest.fixture
def ledger(tmp_path: Path, disk: EventDisk) -> Iterator[Ledger]:
    path = tmp_path / "ledger.sqlite"
    Ledger.create(path, plan_row(PLAN))
    with Ledger.open(path, disk=disk) as opened:
        opened.open_run(start_of("r", PLAN))
        disk.events.clear()
        yield opened


@pytest.fixture
def files(tmp_path: Path) -> Texts:
    return Texts(tmp_path / "answer")


def drawer(disk: EventDisk, text: str = "noise") -> Callable[[Charge], str]:
    def draw(charge: Charge) -> str:
        disk.events.append("drawn")
        return f"{charge.round}/{charge.attempt} {text}"

    return draw


def test_an_answer_is_charged_drawn_written_and_released_in_this_order(
    ledger: Ledger, files: Texts, disk: EventDisk
) -> None:
    assert charge_and_release(ledger, files, disk, drawer(disk)) == "1/1 noise"
    assert disk.events == [
        "before CHARGE",
        "after CHARGE",
        "drawn",
        "write",
        "rename",
        "fsync_folder",
        "before RELEASE",
        "after RELEASE",
    ]
    content = files.file_path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert ledger.last_release == Release(1, 1, digest, "0.25")
    assert read_released(files, ledger.last_release) == "1/1 noise"


def test_without_budget_nothing_is_drawn(ledger: Ledger, files: Texts, disk: EventDisk) -> None:
    for _ in range(PLAN.num_charges):
        charge_and_release(ledger, files, disk, drawer(disk))
    disk.events.clear()
    with pytest.raises(BudgetSpentError):
        charge_and_release(ledger, files, disk, drawer(disk))
    assert disk.events == []


def test_a_draw_that_fails_leaves_its_charge_to_be_burned(
    ledger: Ledger, files: Texts, disk: EventDisk
) -> None:
    with pytest.raises(ZeroDivisionError):
        charge_and_release(ledger, files, disk, lambda charge: str(1 / 0))
    assert ledger.open_charge == Charge(1, 1)
    recover(ledger, files, disk)
    assert (ledger.open_charge, ledger.last_release, ledger.num_charges) == (None, None, 1)
    assert charge_and_release(ledger, files, disk, drawer(disk)) == "2/1 noise"


def test_a_whole_answer_is_synced_again_and_adopted(
    ledger: Ledger, files: Texts, disk: EventDisk
) -> None:
    ledger.charge(1)
    before = files.to_bytes("1/1 noise")
    files.file_path.write_bytes(before)
    disk.events.clear()
    recover(ledger, files, disk)
    assert disk.events == ["fsync", "fsync_folder", "before RELEASE", "after RELEASE"]
    digest = hashlib.sha256(before).hexdigest()
    assert ledger.last_release == Release(1, 1, digest, "0.25")
    assert files.file_path.read_bytes() == before


@pytest.mark.parametrize("content", [None, b"9 1/1 nois", b"9 1/2 noise", b"9 2/1 noise"])
def test_without_a_whole_answer_of_its_own_a_charge_is_burned(
    ledger: Ledger, files: Texts, disk: EventDisk, content: bytes | None
) -> None:
    ledger.charge(1)
    if content is not None:
        files.file_path.write_bytes(content)
    if content is None:
        files = Texts(files.file_path.with_name("empty"))
        files.file_path.write_bytes(b"0 ")
    recover(ledger, files, disk)
    assert (ledger.open_charge, ledger.last_release, ledger.num_charges) == (None, None, 1)


def test_a_charge_that_was_not_for_an_update_is_burned(
    ledger: Ledger, files: Texts, disk: EventDisk
) -> None:
    charge_and_release(ledger, files, disk, drawer(disk))
    slot = slot_of(PLAN)
    ledger._history.budget._left[Slot("metric", slot.event, slot.dimension, slot.noise_scale)] = 1
    ledger.charge(1, Slot("metric", slot.event, slot.dimension, slot.noise_scale))
    recover(ledger, files, disk)  # round and attempt are those of the answer that is there
    assert disk.events[-2:] == ["before BURN", "after BURN"]
    assert len(ledger.releases) == 1


def test_with_no_charge_open_recovery_touches_nothing(
    ledger: Ledger, files: Texts, disk: EventDisk
) -> None:
    charge_and_release(ledger, files, disk, drawer(disk))
    disk.events.clear()
    recover(ledger, files, disk)
    assert disk.events == []


@pytest.mark.parametrize("content", [None, b"9 1/1 nois", b"9 1/1 other", b"9 1/2 noise"])
def test_only_the_released_bytes_are_read_back(
    ledger: Ledger, files: Texts, disk: EventDisk, content: bytes | None
) -> None:
    charge_and_release(ledger, files, disk, drawer(disk))
    files.file_path.unlink()
    if content is not None:
        files.file_path.write_bytes(content)
    assert ledger.last_release is not None
    with pytest.raises(LedgerDamagedError, match=r"what the ledger says was released\. Restore it"):
        read_released(files, ledger.last_release)


def test_a_disk_that_fails_is_told_and_the_charge_stays_spent(
    ledger: Ledger, files: Texts, disk: EventDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Disk, source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(EventDisk, "rename", full)
        with pytest.raises(DiskError, match="stays spent"):
            charge_and_release(ledger, files, disk, drawer(disk))
    assert (ledger.open_charge, ledger.num_charges) == (Charge(1, 1), 1)
