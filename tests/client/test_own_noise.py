"""A node that adds the noise itself: its own plan, its own ledger, one answer per round."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from flat_plan import changed, flat_plan

from feddp.client.own_noise import OwnNoise, answer_round, open_own_noise
from feddp.client.refusal import RefusedError
from feddp.common.disk import PRIVATE, Disk
from feddp.common.errors import DiskError, LedgerDamagedError, PlanDiffersError
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.mechanism.gaussian import NoisedSum
from feddp.common.privacy.mechanism.quantile import QuantileClipping
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.plan.ledger_entries import plan_row, start_of
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.wire.messages import TrainRequest
from feddp.server.aggregation import add_noised_replies

P = 64
LAYOUT = "a" * 64


@functools.cache
def own_plan(
    *, seed: int | None = None, dimension: int = P, spare: int = 2, is_adaptive: bool = False
) -> PrivacyPlan:
    quantile = QuantileClipping(0.5, 0.2, 1.0, 0.1, 2.0)
    return flat_plan(
        num_users=40,
        target_epsilon=20.0,
        target_delta=1e-3,
        noise_multiplier=1.0,
        clipping_norm=0.5,
        num_rounds=3,
        expected_cohort_size=10.0,
        spare_attempts=spare,
        dimension=dimension,
        trust="node",
        is_noised_by_nodes=True,
        quantile=(lambda cohort: quantile) if is_adaptive else None,
        seed=seed,
        details={"layout_sha256": LAYOUT},
    )


PLAN = own_plan()


def request(plan: PrivacyPlan = PLAN, round: int = 1, value: float = 0.0) -> TrainRequest:
    return TrainRequest(
        round=round,
        adapter=np.full(plan.dimension, value, dtype=np.float32),
        layout_sha256=LAYOUT,
        draw=plan.draw,
        clipping_norm=plan.clipping_norm,
        grid_steps=plan.noise.grid_steps,
        bit_steps=plan.mechanism.bit_steps,
        noise_scale=plan.mechanism.noise_scale,
        seed=plan.seed,
    )


def zeros(plan: PrivacyPlan = PLAN) -> UpdateSum:
    return UpdateSum.zeros(plan.sum_dimension)


def forbidden() -> UpdateSum:
    raise AssertionError("a round that was answered is not trained again")


@contextmanager
def node(
    folder: Path, plan: PrivacyPlan = PLAN, *, disk: Disk | None = None, name: str = "a"
) -> Iterator[tuple[OwnNoise, Ledger]]:
    """One life of a node; its ledger is made at its first."""
    path = folder / "own.sqlite"
    if not path.exists():
        Ledger.create(path, plan_row(plan, "r"))
    with Ledger.open(path, disk=disk) as ledger:
        ledger.open_run(start_of("r", plan))
        yield OwnNoise(plan, ledger, folder / "answer", name=name, disk=disk), ledger


def refusal(own: OwnNoise, asked: TrainRequest) -> str:
    with pytest.raises(RefusedError) as error:
        own.answer(asked, zeros)
    return error.value.code


def test_the_same_request_gets_the_same_bytes_also_after_a_restart(tmp_path: Path) -> None:
    with node(tmp_path) as (own, ledger):
        first = own.answer(request(), zeros)
        again = own.answer(request(), forbidden)
        assert ledger.num_charges == 1
    with node(tmp_path) as (own, ledger):
        restarted = own.answer(request(), forbidden)
        assert (ledger.num_charges, ledger.open_charge) == (1, None)
    assert first.total.any()
    for other in (again, restarted):
        np.testing.assert_array_equal(first.total, other.total)


def test_another_adapter_for_an_answered_round_and_earlier_rounds_are_refused(
    tmp_path: Path,
) -> None:
    with node(tmp_path) as (own, ledger):
        own.answer(request(round=2), zeros)
        assert refusal(own, request(round=2, value=1.0)) == "answered"
        assert refusal(own, request(round=1)) == "answered"
        own.answer(request(round=3, value=1.0), zeros)
        assert refusal(own, request(round=2)) == "answered"
        assert ledger.num_charges == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_scale": 0},
        {"noise_scale": PLAN.mechanism.noise_scale - 1},
        {"draw": Draw(min(1.0, PLAN.sampling_probability * 2))},
        {"grid_steps": PLAN.noise.grid_steps * 2},
        {"bit_steps": 8},
        {"clipping_norm": 1.0},
        {"seed": 5},
        {"round": 0},
        {"round": PLAN.num_rounds + 1},
        {"adapter": np.zeros(P + 1, dtype=np.float32)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_request_that_is_not_of_the_nodes_own_plan_is_refused_and_costs_nothing(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    with node(tmp_path) as (own, ledger):
        asked = dataclasses.replace(request(), **changes)  # type: ignore[arg-type]
        assert refusal(own, asked) == "another-plan"
        assert ledger.num_charges == 0


def test_an_adaptive_norm_may_move_within_its_bounds(tmp_path: Path) -> None:
    plan = own_plan(is_adaptive=True)
    with node(tmp_path, plan) as (own, _):
        moved = dataclasses.replace(request(plan), clipping_norm=0.7)
        assert own.answer(moved, lambda: zeros(plan)).total.any()
        for norm in (0.05, 3.0, float("nan")):
            beyond = dataclasses.replace(request(plan, round=2), clipping_norm=norm)
            assert refusal(own, beyond) == "another-plan"


@pytest.mark.parametrize("factor", [2 / 3, 1.0, 3 / 2])
def test_what_leaves_has_noise_of_the_promised_scale(tmp_path: Path, factor: float) -> None:
    """Two-sided: with 20,000 numbers the deviation is known to half a percent (one sigma)."""
    plan = own_plan(dimension=20_000)
    with node(tmp_path, plan) as (own, _):
        noised = own.answer(request(plan), lambda: zeros(plan))
    deviation = float(np.std(noised.total)) / (factor * plan.mechanism.noise_scale)
    assert (abs(deviation - 1) < 0.02) == (factor == 1.0)


def test_the_sum_is_inside_the_noise(tmp_path: Path) -> None:
    total = zeros()
    total.add(np.full(P, 1 << 40))
    with node(tmp_path) as (own, _):
        noised = own.answer(request(), lambda: total)
    assert abs(int(noised.total.mean()) - (1 << 40)) < 6 * PLAN.mechanism.noise_scale


def test_seeded_nodes_repeat_themselves_and_differ_from_each_other(tmp_path: Path) -> None:
    plan, totals = own_plan(seed=3), []
    for i, name in enumerate(("a", "a", "b")):
        (tmp_path / str(i)).mkdir()
        with node(tmp_path / str(i), plan, name=name) as (own, _):
            totals.append(own.answer(request(plan), lambda: zeros(plan)).total)
    np.testing.assert_array_equal(totals[0], totals[1])
    assert np.count_nonzero(totals[0] == totals[2]) < P // 4


def test_a_node_whose_budget_is_spent_answers_no_more_and_the_round_still_ends(
    tmp_path: Path,
) -> None:
    plan = own_plan(spare=0)
    ledger_path = tmp_path / "own.sqlite"
    Ledger.create(ledger_path, plan_row(plan, "r"))
    with Ledger.open(ledger_path) as ledger:  # three crashes, and nothing is left
        ledger.open_run(start_of("r", plan))
        for _ in range(plan.num_charges):
            ledger.burn(ledger.charge(ledger.next_round), "crash")
    with node(tmp_path, plan) as (own, _):
        assert refusal(own, request(plan)) == "budget-spent"
    noised = add_noised_replies([], request(plan))
    assert not noised.total.any()


def test_a_request_for_noise_is_refused_by_a_node_without_and_a_bare_one_by_a_node_with(
    tmp_path: Path,
) -> None:
    with pytest.raises(RefusedError, match="no-own-noise"):
        answer_round(request(), None, forbidden)
    bare = dataclasses.replace(request(), noise_scale=0)
    assert answer_round(bare, None, zeros).total == zeros()
    with node(tmp_path) as (own, _):
        with pytest.raises(RefusedError, match="another-plan"):
            answer_round(bare, own, forbidden)
        assert isinstance(answer_round(request(), own, zeros).total, NoisedSum)


class Died(BaseException):
    """A crash of the process, as far as code can notice one."""


class DyingDisk(Disk):
    """Dies at the n-th step: named points, and both sides of every file operation."""

    def __init__(self, dies_at: int):
        self.num_steps, self._dies_at = 0, dies_at

    def point(self, name: str) -> None:
        self._step()

    def write(self, path: Path, content: bytes, mode: int = PRIVATE) -> None:
        path.write_bytes(content[: len(content) // 2])
        self._step()
        super().write(path, content, mode)
        self._step()

    def fsync(self, path: Path) -> None:
        self._step()

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)
        self._step()

    def fsync_folder(self, path: Path) -> None:
        self._step()

    def _step(self) -> None:
        self.num_steps += 1
        if self.num_steps == self._dies_at:
            raise Died


def steps_of_an_answer(folder: Path, dies_at: int) -> int:
    """Runs a second round on a disk that dies; how many steps it came to."""
    disk = DyingDisk(dies_at)
    try:
        with node(folder, disk=disk) as (own, _):
            own.answer(request(round=2), zeros)
    except Died:
        pass
    return disk.num_steps


def test_a_crash_at_any_step_leaves_one_answer_per_charge(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    num_steps = steps_of_an_answer(tmp_path / "whole", dies_at=0)
    assert num_steps > 10
    burned, adopted = 0, 0
    for step in range(1, num_steps + 1):
        folder = tmp_path / str(step)
        folder.mkdir()
        with node(folder) as (own, _):
            own.answer(request(), zeros)
        steps_of_an_answer(folder, dies_at=step)
        left = (folder / "answer").read_bytes()
        with node(folder) as (own, ledger):
            answered = own.answer(request(round=2), zeros)
            is_burned = ledger.num_charges == 3
            assert ledger.num_charges in (2, 3)
            assert [release.attempt for release in ledger.releases] == [1, 1 + is_burned]
            content = (folder / "answer").read_bytes()
            assert ledger.releases[-1].sha256 == hashlib.sha256(content).hexdigest()
            assert refusal(own, request(round=2, value=1.0)) == "answered"
        if left != content:  # nothing had been durable, so nothing of it may be repeated
            assert answered.total.tobytes() not in left
        burned, adopted = burned + is_burned, adopted + (left == content)
    assert burned
    assert adopted


def test_a_failed_write_keeps_the_charge_and_the_next_request_takes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with node(tmp_path) as (own, ledger):
        with monkeypatch.context() as broken:
            broken.setattr(Disk, "rename", lambda self, source, target: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                own.answer(request(), zeros)
        own.answer(request(), zeros)
        assert ledger.num_charges == 2


def test_the_noise_of_an_answer_that_was_never_durable_is_not_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with node(tmp_path) as (own, _):
        with monkeypatch.context() as broken:
            broken.setattr(Disk, "rename", lambda self, source, target: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                own.answer(request(), zeros)
        left = (tmp_path / "answer.tmp").read_bytes()
        assert own.answer(request(), zeros).total.tobytes() not in left


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Disk, source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with node(tmp_path) as (own, _):
        monkeypatch.setattr(Disk, "rename", full)
        with pytest.raises(DiskError, match="stays spent"):
            own.answer(request(), zeros)


@pytest.mark.parametrize("content", [None, b"", b"torn"])
def test_a_lost_answer_is_refused_at_the_start(tmp_path: Path, content: bytes | None) -> None:
    with node(tmp_path) as (own, _):
        own.answer(request(), zeros)
    (tmp_path / "answer").unlink()
    if content is not None:
        (tmp_path / "answer").write_bytes(content)
    with pytest.raises(LedgerDamagedError, match="answered once"), node(tmp_path):
        pass


def test_the_ledger_of_a_node_takes_no_other_plan(tmp_path: Path) -> None:
    path = tmp_path / "own.sqlite"
    Ledger.create(path, plan_row(PLAN, "r"))
    weaker = own_plan(spare=5)
    with (
        pytest.raises(PlanDiffersError),
        open_own_noise(weaker, ledger_path=path, run="r", name="a"),
    ):
        pass
    with open_own_noise(PLAN, ledger_path=path, run="r", name="a") as own:
        assert own.answer(request(), zeros).total.any()
    with pytest.raises(LedgerDamagedError, match="missing"):
        open_own_noise(PLAN, ledger_path=tmp_path / "no", run="r", name="a").__enter__()


def test_a_plan_without_noise_of_the_nodes_has_no_own_noise(tmp_path: Path) -> None:
    plan = changed(PLAN, is_noised_by_nodes=False)
    with pytest.raises(ValueError, match="no noise"), node(tmp_path, plan):
        pass
