"""The round loop: its order, its stops, its resumption, and what replies cannot do to it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sketch import Sketch
from small_ledger import DIMENSION, LAYOUT_SHA256, NUM_USERS, small_plan
from small_run import INITIAL, IntegerNodes, create, live, training_of

from feddp.common.disk import PRIVATE, Disk
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.noise import BitStream, discrete_gaussian, seeded_key
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.plan.ledger_entries import start_of
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.wire.messages import TrainReply, TrainRequest
from feddp.server.checkpoint import RoundState
from feddp.server.release import resume_state
from feddp.server.rounds import RoundReport, run_rounds

SEEDED = small_plan(seed=7)
Change = Callable[[TrainRequest, list[TrainReply]], Sequence[TrainReply]]


def final_bytes(folder: Path, nodes: IntegerNodes, plan: PrivacyPlan = SEEDED) -> bytes:
    return live(create(folder, plan), plan, nodes=nodes).adapter.tobytes()


class EventDisk(Disk):
    """Tells of every point and of every file operation."""

    def __init__(self, events: list[str]):
        self.events = events

    def point(self, name: str) -> None:
        self.events.append(name)

    def write(self, path: Path, content: bytes, mode: int = PRIVATE) -> None:
        super().write(path, content, mode)
        self.events.append("checkpoint written")

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.events.append("checkpoint renamed")

    def fsync_folder(self, path: Path) -> None:
        super().fsync_folder(path)
        self.events.append(f"{path.name} synced")


# Order


def test_what_is_released_is_decoded_before_the_step(tmp_path: Path) -> None:
    """A sketch of half as many numbers: nodes are asked for those, and the adapter moves in all."""
    plan = small_plan(seed=7, dimension=DIMENSION // 2)
    folder, asked = create(tmp_path / "run", plan), []

    def keep(request: TrainRequest, replies: list[TrainReply]) -> list[TrainReply]:
        asked.append(request.sum_dimension)
        return replies

    with Ledger.open(folder / "ledger.sqlite") as ledger:
        ledger.open_run(start_of("small", plan))
        training = training_of(folder, plan, ledger, IntegerNodes(change=keep), Disk())
        training = replace(training, encoding=Sketch(DIMENSION, DIMENSION // 2))
        moved = run_rounds(
            training,
            resume_state(training, INITIAL),
            on_round=lambda report: None,
            is_stopped=lambda: ledger.next_round > 1,
        )
    assert asked == [DIMENSION // 2]
    assert moved.adapter.shape == INITIAL.shape
    assert (moved.adapter != INITIAL).all()


def test_a_round_is_charged_drawn_checkpointed_released_and_only_then_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    draw = GaussianMechanism.add_noise

    def watched(self: GaussianMechanism, total: UpdateSum, **how: Any) -> object:
        events.append("drawn")
        return draw(self, total, **how)

    monkeypatch.setattr(GaussianMechanism, "add_noise", watched)
    nodes = IntegerNodes(lambda kind, *words: events.append(kind))
    live(
        create(tmp_path / "run", SEEDED),
        SEEDED,
        nodes=nodes,
        disk=EventDisk(events),
        on_round=lambda report: events.append(f"published {report.round}"),
    )
    one_round = [
        "request",
        "before CHARGE",
        "after CHARGE",
        "drawn",
        "checkpoint written",
        "checkpoint renamed",
        "checkpoints synced",
        "before RELEASE",
        "after RELEASE",
        "evaluated",
    ]
    expected = ["before OPEN", "after OPEN", "evaluated", "published 0"]
    for round in (1, 2, 3):
        expected += [*one_round, f"published {round}"]
    assert events == expected


@pytest.mark.parametrize("plan", [SEEDED, small_plan()], ids=["seeded", "unseeded"])
def test_nodes_are_asked_with_the_numbers_of_the_plan(tmp_path: Path, plan: PrivacyPlan) -> None:
    requests: list[TrainRequest] = []

    def keep(request: TrainRequest, replies: list[TrainReply]) -> list[TrainReply]:
        requests.append(request)
        return replies

    final_bytes(tmp_path / "run", IntegerNodes(change=keep), plan)
    assert [request.round for request in requests] == [1, 2, 3]
    for request in requests:
        assert request.layout_sha256 == LAYOUT_SHA256
        assert request.seed == plan.seed  # None: the nodes' coins are fresh
        assert request.draw == Draw(plan.sampling_probability)
        assert request.clipping_norm == plan.clipping_norm
        assert request.grid_steps == plan.noise.grid_steps


# Stops


def test_a_stop_before_a_round_asks_nobody(tmp_path: Path) -> None:
    asked: list[object] = []
    nodes = IntegerNodes(lambda *words: asked.append(words[0]))
    folder = create(tmp_path / "run", SEEDED)
    state = live(folder, SEEDED, nodes=nodes, is_stopped=lambda: True)
    assert state.round == 0
    assert "request" not in asked


def test_a_stop_while_nodes_train_costs_nothing(tmp_path: Path) -> None:
    answers = iter([False, True])
    folder = create(tmp_path / "run", SEEDED)
    state = live(folder, SEEDED, is_stopped=lambda: next(answers))
    assert state.round == 0
    assert Ledger.read(folder / "ledger.sqlite").charges == []


@pytest.mark.parametrize("late", ["before CHARGE", "after CHARGE", "checkpoint renamed"])
def test_a_stop_after_the_charge_finishes_the_round_first(tmp_path: Path, late: str) -> None:
    is_stopped, published = [False], []

    class Stopping(EventDisk):
        def point(self, name: str) -> None:
            is_stopped[0] |= name == late

        def rename(self, source: Path, target: Path) -> None:
            super().rename(source, target)
            is_stopped[0] |= late == "checkpoint renamed"

    folder = create(tmp_path / "run", SEEDED)
    state = live(
        folder,
        SEEDED,
        disk=Stopping([]),
        on_round=lambda report: published.append(report.round),
        is_stopped=lambda: is_stopped[0],
    )
    assert state.round == 1
    assert published == [0, 1]
    history = Ledger.read(folder / "ledger.sqlite")
    assert (len(history.charges), len(history.releases)) == (1, 1)
    assert history.open_charge is None


# Resumption


@pytest.mark.parametrize("stops_after", [0, 1, 2, 3])
def test_a_run_that_was_stopped_ends_like_the_straight_run(
    tmp_path: Path, stops_after: int
) -> None:
    straight = live(create(tmp_path / "straight", SEEDED), SEEDED)
    folder = create(tmp_path / "run", SEEDED)
    reports: list[RoundReport] = []
    stopped = live(
        folder,
        SEEDED,
        on_round=reports.append,
        is_stopped=lambda: reports[-1].round >= stops_after,
    )
    assert stopped.round == stops_after
    state = live(folder, SEEDED)
    assert state.round == 3
    assert state.adapter.tobytes() == straight.adapter.tobytes()
    for name, values in straight.moments.items():
        assert state.moments[name].tobytes() == values.tobytes()


def test_a_finished_run_charges_nothing_more(tmp_path: Path) -> None:
    folder = create(tmp_path / "run", SEEDED)
    state = live(folder, SEEDED)
    again = live(folder, SEEDED)
    assert again.adapter.tobytes() == state.adapter.tobytes()
    assert len(Ledger.read(folder / "ledger.sqlite").charges) == 3


def test_unseeded_runs_never_share_their_noise(tmp_path: Path) -> None:
    plan = small_plan()
    first, second = (final_bytes(tmp_path / name, IntegerNodes(), plan) for name in "ab")
    assert first != second


def test_evaluations_come_when_due_and_at_the_end(tmp_path: Path) -> None:
    plan = small_plan(seed=7, num_rounds=5)
    folder = create(tmp_path / "run", plan)
    reports: list[RoundReport] = []
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        ledger.open_run(start_of("r", plan))
        training = training_of(folder, plan, ledger, IntegerNodes(), Disk())
        training = replace(training, evaluate_every=2)
        state = resume_state(training, INITIAL)
        run_rounds(training, state, on_round=reports.append, is_stopped=lambda: False)
    assert [report.round for report in reports if report.evaluation] == [2, 4, 5]


# Replies


def first_step(folder: Path, change: Change) -> np.ndarray:
    """What one round adds to the adapter under fedavg with learning rate 1."""
    with Ledger.open(create(folder, SEEDED) / "ledger.sqlite") as ledger:
        ledger.open_run(start_of("r", SEEDED))
        training = training_of(folder, SEEDED, ledger, IntegerNodes(change=change), Disk())
        plain = replace(training.optimizer, kind="fedavg", learning_rate=1.0)
        training = replace(training, optimizer=plain)
        start = RoundState(0, np.zeros(DIMENSION, dtype=np.float32), {}, SEEDED.clipping_norm)
        stops = iter([False, False, True])
        state = run_rounds(
            training, start, on_round=lambda report: None, is_stopped=lambda: next(stops)
        )
    return state.adapter


def expected_step(total: np.ndarray) -> np.ndarray:
    """(sum + the seeded noise of round 1) * C / K / (q N), from the plan's numbers alone."""
    scale = SEEDED.mechanism.noise_scale
    noise = discrete_gaussian(BitStream(seeded_key(7, 1)), scale, DIMENSION)
    step = SEEDED.clipping_norm / SEEDED.noise.grid_steps / SEEDED.expected_cohort_size
    values: np.ndarray = ((total + noise) * step).astype(np.float32)
    return values


@pytest.mark.parametrize("num_kept", [0, 1, 2])
def test_missing_replies_lower_neither_the_noise_nor_the_divisor(
    tmp_path: Path, num_kept: int
) -> None:
    totals: list[np.ndarray] = []

    def keep(request: TrainRequest, replies: list[TrainReply]) -> list[TrainReply]:
        totals.extend(reply.total.total for reply in replies[:num_kept])
        return replies[:num_kept]

    step = first_step(tmp_path / "run", keep)
    total = sum(totals, np.zeros(DIMENSION, dtype=np.int64))
    assert step.tobytes() == expected_step(total).tobytes()


def reply_of_norm(request: TrainRequest, norm: int) -> TrainReply:
    total = UpdateSum.zeros(DIMENSION)
    total.add(np.array([norm] + [0] * (DIMENSION - 1), dtype=np.int64))
    return TrainReply(request.round, request.layout_sha256, total)


HOSTILE: dict[str, Callable[[TrainRequest, TrainReply], TrainReply]] = {
    "another layout": lambda request, reply: replace(reply, layout_sha256="2" * 64),
    "an earlier round": lambda request, reply: replace(reply, round=request.round - 1),
    "a later round": lambda request, reply: replace(reply, round=request.round + 1),
    "one step above N K": lambda request, reply: reply_of_norm(
        request, NUM_USERS * request.grid_steps + 1
    ),
    "the largest number": lambda request, reply: reply_of_norm(request, 2**63 - 1),
    "the smallest number": lambda request, reply: reply_of_norm(request, -(2**63)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_reply_contributes_nothing_and_the_round_goes_on(
    tmp_path: Path, name: str
) -> None:
    honest: list[np.ndarray] = []

    def spoil(request: TrainRequest, replies: list[TrainReply]) -> list[TrainReply]:
        honest.append(replies[1].total.total)
        return [HOSTILE[name](request, replies[0]), replies[1]]

    step = first_step(tmp_path / "run", spoil)
    assert step.tobytes() == expected_step(honest[0]).tobytes()


def test_a_reply_of_exactly_the_largest_norm_counts(tmp_path: Path) -> None:
    largest = NUM_USERS * SEEDED.noise.grid_steps
    step = first_step(tmp_path / "run", lambda request, replies: [reply_of_norm(request, largest)])
    total = np.array([largest] + [0] * (DIMENSION - 1))
    assert step.tobytes() == expected_step(total).tobytes()


def test_the_order_of_replies_changes_nothing(tmp_path: Path) -> None:
    turned = IntegerNodes(change=lambda request, replies: replies[::-1])
    assert final_bytes(tmp_path / "a", IntegerNodes()) == final_bytes(tmp_path / "b", turned)
