"""Noise of attempts: a round that is tried again never gets the noise that it had before."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from crash_rules import quick_folder
from numpy.typing import NDArray
from small_ledger import DIMENSION, small_plan
from small_run import IntegerNodes, create, live

from feddp.common.disk import PRIVATE, Disk
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.noise import BitStream
from feddp.common.privacy.mechanism.summation import UpdateSum


class DiedError(BaseException):
    """The process is gone."""


class DyingDisk(Disk):
    """Dies once, when the checkpoint of the first attempt is about to be written."""

    def write(self, path: Path, content: bytes, mode: int = PRIVATE) -> None:
        raise DiedError(signal.SIGKILL)


class StillNodes(IntegerNodes):
    """Everybody sends zero, so that what is drawn is all that is released."""

    def train(self, request):
        return []


def noise_of_two_attempts(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.int64]]:
    """The noise drawn before a crash, and after it for the same round."""
    drawn: list[NDArray[np.int64]] = []
    add = GaussianMechanism.add_noise

    def watched(self: GaussianMechanism, total: UpdateSum, *, bits: BitStream):
        noised = add(self, total, bits=bits)
        drawn.append(noised.total - total.total)
        return noised

    monkeypatch.setattr(GaussianMechanism, "add_noise", watched)
    plan = small_plan()
    with quick_folder() as folder:
        run_path = create(folder / "run", plan)
        with pytest.raises(DiedError):
            live(run_path, plan, nodes=StillNodes(), disk=DyingDisk())
        live(run_path, plan, nodes=StillNodes(), is_stopped=lambda: len(drawn) > 1)
    return drawn[:2]


def test_a_second_attempt_draws_other_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = noise_of_two_attempts(monkeypatch)
    assert first.shape == second.shape == (DIMENSION,)
    assert np.sum(first == second) < 3


def test_a_second_attempt_draws_other_noise_even_under_equal_entropy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a machine that was restored from a snapshot between the two attempts."""
    monkeypatch.setattr(os, "urandom", lambda size: b"\x2a" * size)
    first, second = noise_of_two_attempts(monkeypatch)
    assert np.sum(first == second) < 3
