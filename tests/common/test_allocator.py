"""What the allocator keeps, counted in pages that the system had to clear again."""

import os
import platform
import subprocess
import sys

import pytest

from feddp.common.allocator import keep_freed_memory

TOUCH_AGAIN = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import torch
from feddp.common.allocator import keep_freed_memory

def touch(_):
    return float(torch.ones(1 << 21).sum() + torch.ones(1 << 22).sum())  # 8 and 16 MB

if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.set_num_threads(1)
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        with ThreadPoolExecutor(1) as threads:
            list(threads.map(touch, range(2)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

only_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")


def pages_cleared(mode: str) -> int:
    gives_back = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", TOUCH_AGAIN, mode],
        env=os.environ | gives_back,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@only_glibc
def test_memory_that_a_thread_freed_is_there_for_the_next_thread() -> None:
    pages_of_one_turn = (3 << 23) // 4096
    assert pages_cleared("keep") < pages_of_one_turn
    assert pages_cleared("leave") > 10 * pages_of_one_turn


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory()
