"""The engine against a plain loop over users with PEFT's own modules, and its isolation claims."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from plain_loop import (
    User,
    layout_of,
    loop_loss,
    loop_updates,
    make_row,
    make_users,
    nonzero_start,
    relative,
)

from feddp.client.engine.cohort import CohortEngine
from feddp.client.engine.methods.adamw import AdamW
from feddp.client.engine.methods.sgd import SGD
from feddp.client.engine.protocol import LocalMethod, LocalWork
from feddp.common.data.tokens import IGNORE
from feddp.common.privacy.mechanism.clipping import clip_to_grid

# Each in every variant.
CASES = [
    ("llama", "causal-lm", "auto"),
    ("gpt2", "causal-lm", "auto"),
    ("bert", "classification", "mean"),
]
# The other architectures, each once, and in every variant where slow tests run.
MORE = [
    *((name, "causal-lm", "auto") for name in sorted({*tiny.CAUSAL} - {"llama", "gpt2"})),
    *((name, "classification", "auto") for name in sorted(tiny.CLASSIFIERS)),
]


@pytest.fixture(scope="session")
def models_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    for name, task in {(name, task) for name, task, _ in [*CASES, *MORE]}:
        tiny.save(name, path, task=task)
    return path


def engine_updates(
    engine: CohortEngine,
    start: NDArray[np.floating],
    users: Sequence[User],
    method: LocalMethod,
) -> NDArray[np.floating]:
    """Updates by user; one that is never handed out stays NaN."""
    found = np.full((len(users), len(start)), np.nan, dtype=start.dtype)

    def sink(key: int, update: NDArray[np.floating]) -> None:
        assert np.isnan(found[key]).all()
        found[key] = update

    work = [LocalWork(key, lambda user=user: user) for key, user in enumerate(users)]
    engine.train(start, work, method=method, sink=sink)
    return found


@pytest.mark.parametrize(
    ("name", "task", "pooling"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
)
@pytest.mark.parametrize(
    ("kind", "method"),
    [("ffa-lora", SGD(0.3)), ("lora", AdamW(0.01))],
    ids=["ffa-lora-sgd", "lora-adamw"],
)
def test_engine_equals_the_plain_loop(
    models_path: Path, name: str, task: str, pooling: str, kind: str, method: LocalMethod
) -> None:
    users = make_users(task)
    base = tiny.load(models_path / f"{name}-{task}", task=task, pooling=pooling)
    layout = layout_of(base, kind)
    start = nonzero_start(layout)
    expected = loop_updates(base, layout, start, users, method)
    engine = CohortEngine(base, layout, slots=3, pass_tokens=96)
    found = engine_updates(engine, start, users, method)
    # Adam divides by the root of tiny second moments, which magnifies float32 rounding.
    tolerance = 1e-5 if isinstance(method, SGD) else 2e-3
    for user in range(len(users)):
        if not users[user] or not np.abs(expected[user]).max() > 0:
            assert not found[user].any()
            continue
        assert relative(found[user], expected[user]) < tolerance
    rolled = np.roll(found, 1, axis=0)
    assert relative(rolled[:7], expected[:7]) > 0.1


@pytest.mark.parametrize(("name", "task", "pooling"), MORE)
def test_every_architecture_equals_the_plain_loop(
    models_path: Path, name: str, task: str, pooling: str
) -> None:
    users = make_users(task, seed=8)[:3]
    method = SGD(0.05)
    base = tiny.load(models_path / f"{name}-{task}", task=task, pooling=pooling)
    layout = layout_of(base, "lora")
    start = nonzero_start(layout)
    expected = loop_updates(base, layout, start, users, method)
    found = engine_updates(CohortEngine(base, layout), start, users, method)
    for user in range(len(users)):
        assert relative(found[user], expected[user]) < 1e-5


def test_updates_on_bfloat16_weights_are_near_those_on_float32(models_path: Path) -> None:
    users, found = make_users("causal-lm")[:7], []
    for dtype in (torch.float32, torch.bfloat16):
        base = tiny.load(models_path / "llama-causal-lm")
        base.model.to(dtype)
        layout = layout_of(base, "lora")
        start, method = nonzero_start(layout), SGD(0.05)
        found.append(engine_updates(CohortEngine(base, layout), start, users, method))
    for exact, rounded in zip(*found, strict=True):
        assert 0 < relative(rounded, exact) < 0.05


@pytest.mark.parametrize("method", [SGD(0.05), AdamW(0.05)])
def test_engine_equals_the_loop_to_rounding_in_float64(
    models_path: Path, method: SGD | AdamW
) -> None:
    users = make_users("causal-lm")
    base = tiny.load(models_path / "gpt2-causal-lm")  # its norms keep float64, unlike Llama's
    base.model.double()
    layout = layout_of(base, "lora")
    start = nonzero_start(layout, np.float64)
    expected = loop_updates(base, layout, start, users, method)
    engine = CohortEngine(base, layout, slots=3, pass_tokens=96)
    found = engine_updates(engine, start, users, method)
    assert relative(found, expected) < 1e-10
    other = engine_updates(engine, start, users, replace(method, learning_rate=0.05005))
    assert relative(other, expected) > 5e-4


@pytest.fixture(scope="module", params=[("llama", "causal-lm"), ("bert", "classification")])
def ready(
    request: pytest.FixtureRequest, models_path: Path
) -> tuple[str, Callable[..., CohortEngine], NDArray[np.floating]]:
    name, task = request.param
    place = models_path / f"{name}-{task}"
    layout = layout_of(tiny.load(place, task=task), "ffa-lora")

    def make(**options: int) -> CohortEngine:
        return CohortEngine(tiny.load(place, task=task), layout, **options)

    return task, make, nonzero_start(layout)


def test_a_users_point_has_the_same_bits_whoever_shares_its_passes(
    ready: tuple[str, Callable[..., CohortEngine], NDArray[np.floating]],
) -> None:
    task, make, start = ready
    method = SGD(0.3)
    users = make_users(task, seed=1)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [engine_updates(make(), start, [user], method)[0] for user in users]
        for others, num_threads, options in [
            (users, 1, {"slots": 16}),
            (users, 2, {"slots": 2, "pass_tokens": 64}),
            (users[::-1], 1, {"slots": 5, "pass_tokens": 4096}),
            (users + make_users(task, seed=2), 2, {"slots": 64, "pass_tokens": 512}),
        ]:
            torch.set_num_threads(num_threads)
            found = engine_updates(make(**options), start, others, method)
            place = {id(user): index for index, user in enumerate(others)}
            for user, update in zip(users, alone, strict=True):
                assert found[place[id(user)]].tobytes() == update.tobytes()
    finally:
        torch.set_num_threads(threads)
    points = [clip_to_grid(u, clipping_norm=0.5, grid_steps=1 << 20) for u in alone]
    assert any(point.any() for point in points)


def test_short_rows_of_every_padded_length_keep_their_bits_in_company(models_path: Path) -> None:
    rng, method = np.random.default_rng(6), SGD(0.3)
    layout = layout_of(tiny.load(models_path / "llama-causal-lm"), "lora")
    users = [[[make_row(rng, "causal-lm", length)]] for length in range(2, 65, 3) for _ in range(5)]
    engine = CohortEngine(tiny.load(models_path / "llama-causal-lm"), layout, slots=128)
    start = nonzero_start(layout)
    together = engine_updates(engine, start, users, method)
    for index in range(0, len(users), 7):
        (alone,) = engine_updates(engine, start, users[index : index + 1], method)
        assert alone.any()
        assert together[index].tobytes() == alone.tobytes()


def broken_steps() -> User:
    raise RuntimeError("the file is gone")


class Panic(BaseException):
    """What a library in Rust raises: no Exception."""


def panicking_steps() -> User:
    raise Panic("index out of bounds")


def test_an_interrupt_is_no_users_fault(
    ready: tuple[str, Callable[..., CohortEngine], NDArray[np.floating]],
) -> None:
    def interrupted() -> User:
        raise KeyboardInterrupt

    _, make, start = ready
    with pytest.raises(KeyboardInterrupt):
        make().train(start, [LocalWork(0, interrupted)], method=SGD(0.3), sink=lambda k, u: None)


def test_one_users_fault_zeroes_that_user_alone(
    ready: tuple[str, Callable[..., CohortEngine], NDArray[np.floating]],
) -> None:
    task, make, start = ready
    method = SGD(0.3)
    users = make_users(task, seed=3)[:7]
    good = engine_updates(make(), start, users, method)
    row = make_row(np.random.default_rng(0), task, 12)
    bad: list[User] = [
        [[replace(row, input_ids=np.full(12, tiny.VOCABULARY))]],
        [[replace(row, input_ids=np.full(12, -1))]],
        [[replace(row, labels=np.full_like(row.labels, 10**6))]],
    ]
    updates: dict[int, NDArray[np.floating]] = {}
    work = [LocalWork(key, lambda user=user: user) for key, user in enumerate(users)]
    faulty = [broken_steps, panicking_steps, *(lambda steps=steps: steps for steps in bad)]
    for key, steps in enumerate(faulty, start=90):
        work.insert(2 * (key - 90), LocalWork(key, steps))
    make(slots=4).train(start, work, method=method, sink=lambda k, u: updates.__setitem__(k, u))
    for key in range(90, 95):
        assert not updates.pop(key).any()
    for key, expected in enumerate(good):
        assert updates[key].tobytes() == expected.tobytes()


def test_a_user_who_diverges_is_not_finite_alone_and_clips_to_zero(
    ready: tuple[str, Callable[..., CohortEngine], NDArray[np.floating]],
) -> None:
    task, make, start = ready
    users = make_users(task, seed=4)[:4]
    method = SGD(0.3)
    good = engine_updates(make(), start, users, method)

    class Exploding(CohortEngine):
        """Multiplies the gradient of the user in slot 0 until it is not finite."""

        def _row_gradients(self, part, first, delta):  # type: ignore[no-untyped-def]
            owners, gradients = super()._row_gradients(part, first, delta)
            for gradient in gradients:
                gradient[owners == 0] *= float("inf")
            return owners, gradients

    engine = make()
    engine.__class__ = Exploding
    found = engine_updates(engine, start, users, method)
    assert not np.isfinite(found[0]).all()
    assert not clip_to_grid(found[0], clipping_norm=0.5, grid_steps=1 << 20).any()
    assert found[1:].tobytes() == good[1:].tobytes()


def test_interrupts_are_not_swallowed(
    ready: tuple[str, Callable[..., CohortEngine], NDArray[np.floating]],
) -> None:
    _, make, start = ready

    def interrupted() -> User:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make().train(
            start,
            [LocalWork(0, interrupted)],
            method=SGD(0.1),
            sink=lambda _key, _update: None,
        )


@pytest.mark.parametrize(("name", "task", "pooling"), [*CASES[::2], *MORE[-1:]])
def test_evaluation_equals_the_librarys_own_forward(
    models_path: Path, name: str, task: str, pooling: str
) -> None:
    base = tiny.load(models_path / f"{name}-{task}", task=task, pooling=pooling)
    layout = layout_of(base, "ffa-lora")
    plain = copy.deepcopy(base.model)
    rows = [row for user in make_users(task) for step in user for row in step]
    engine = CohortEngine(base, layout, pass_tokens=128)
    found = engine.evaluate(layout.initial(), rows)
    with torch.no_grad():
        expected = sum(
            float(loop_loss(plain, task, [row])) * int((row.labels != IGNORE).sum()) for row in rows
        )
    assert found.num_targets == sum(int((row.labels != IGNORE).sum()) for row in rows)
    assert found.loss_sum == pytest.approx(expected, rel=1e-5)
    assert 0 <= found.num_correct <= found.num_targets


def test_memory_is_bounded_by_slots_and_not_by_users(models_path: Path) -> None:
    base = tiny.load(models_path / "llama-causal-lm")
    layout = layout_of(base, "ffa-lora")
    engine = CohortEngine(base, layout, slots=4)
    waiting = 0

    def steps() -> User:
        nonlocal waiting
        waiting += 1
        assert waiting <= 4
        return [[make_row(np.random.default_rng(0), "causal-lm", 5)]]

    def sink(_key: int, _update: NDArray[np.floating]) -> None:
        nonlocal waiting
        waiting -= 1

    work = (LocalWork(key, steps) for key in range(50))
    engine.train(layout.start, work, method=SGD(0.1), sink=sink)
    assert waiting == 0
