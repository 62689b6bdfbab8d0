"""What the allocator keeps of freed memory, by its own count."""

import os
import platform
import subprocess
import sys

import pytest

from feddp.common.allocator import keep_freed_memory

TURN_BYTES = 24 << 20
USE_TWICE = """
import ctypes, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from feddp.common.allocator import keep_freed_memory

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    _fields_ = [(name, ctypes.c_size_t) for name in names]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Info

def held():
    found = library.mallinfo2()
    return found.arena + found.hblkhd

def use(_):
    return np.ones(8 << 20, dtype=np.uint8).sum() + np.ones(16 << 20, dtype=np.uint8).sum()

if sys.argv[1] == "keep":
    assert keep_freed_memory()
use(0)
first = held()
for _ in range(3):
    with ThreadPoolExecutor(1) as threads:
        list(threads.map(use, range(2)))
print(first, held())
"""

has_count = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc"
    or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 33),
    reason="no glibc with mallinfo2",
)


def bytes_held(mode: str) -> tuple[int, int]:
    """What the process holds after its own turn, and after the turns of three threads."""
    gives_back = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", USE_TWICE, mode],
        env=os.environ | gives_back,
        capture_output=True,
        text=True,
        check=True,
    )
    first, last = map(int, done.stdout.split())
    return first, last


@has_count
def test_memory_that_was_freed_is_kept_and_is_there_for_every_thread() -> None:
    first, last = bytes_held("keep")
    assert first > TURN_BYTES / 2
    assert last - first < TURN_BYTES / 2


@has_count
def test_otherwise_it_goes_back_to_the_system() -> None:
    first, last = bytes_held("leave")
    assert max(first, last) < TURN_BYTES / 2


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory()
