"""Passes: rows from any users computed together, and how passes run concurrently."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from feddp.common.data.tokens import IGNORE, TokenRow

# Finer steps for short rows, where padding is a larger share.
FINE_STEP, LENGTH_STEP, FINE_LENGTH = 8, 16, 64
MIN_PASS_TOKENS = 512

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PassRow:
    """One row of a pass: its user's slot, and the weight of each of its positions."""

    slot: int
    row: TokenRow
    weight: float


def weigh_rows(slot: int, step: Sequence[TokenRow]) -> list[PassRow]:
    """The rows of a local step, weighted so that its loss is the mean over all predictions."""
    num_targets = sum(int((row.labels != IGNORE).sum()) for row in step)
    return [PassRow(slot, row, 1 / max(num_targets, 1)) for row in step]


def padded_length(row: TokenRow, longest: int | None) -> int:
    """Length of a row that is not empty, with padding: a function of the row alone.

    `longest`: positions that the base model has; None is no limit.

    >>> import numpy as np
    >>> row = TokenRow(np.ones(20, dtype=np.int64), np.ones(20, dtype=np.int64))
    >>> padded_length(row, None), padded_length(row, 30)
    (24, 24)
    >>> padded_length(row, 22)
    22
    """
    num_tokens = len(row.input_ids)
    step = FINE_STEP if num_tokens <= FINE_LENGTH else LENGTH_STEP
    length = -(-num_tokens // step) * step
    return length if longest is None else max(num_tokens, min(length, longest))


def cut_passes(
    rows: Iterable[PassRow],
    *,
    longest: int | None,
    pass_tokens: int,
    num_threads: int,
    row_multiple: int = 1,
    is_packed: bool = False,
) -> list[list[PassRow]]:
    """Passes, longest rows first: each of one padded length or, packed, of several.

    A pass holds at most `pass_tokens` tokens (or `row_multiple` rows); fewer if that gives every
    thread work and keeps all threads together within `pass_tokens`. All passes of a length except
    its last hold full multiples of `row_multiple` rows.
    """
    by_length: dict[int, list[PassRow]] = {}
    for item in rows:
        by_length.setdefault(padded_length(item.row, longest), []).append(item)
    total = sum(length * len(group) for length, group in by_length.items())
    share = -(-min(total, pass_tokens) // num_threads)
    limit = min(pass_tokens, max(MIN_PASS_TOKENS, share))
    if is_packed:
        # If all rows run at once, none is left over for another pass.
        slack = max(by_length, default=0) if total <= pass_tokens else 0
        return _fill(by_length, min(pass_tokens, limit + slack))
    passes = []
    for length in sorted(by_length, reverse=True):
        size = max(1, limit // length // row_multiple) * row_multiple
        group = by_length[length]
        passes += [group[start : start + size] for start in range(0, len(group), size)]
    return passes


def _fill(by_length: Mapping[int, Sequence[PassRow]], limit: int) -> list[list[PassRow]]:
    """Passes of mixed lengths, each filled with up to `limit` tokens, or with one row."""
    passes: list[list[PassRow]] = []
    room = 0
    for length in sorted(by_length, reverse=True):
        for item in by_length[length]:
            if length > room:
                passes.append([])
                room = limit
            passes[-1].append(item)
            room -= length
    return passes


class _Inline(Executor):
    """Runs each call at once in the caller's thread."""

    def submit(  # type: ignore[override]
        self, function: Callable[[Item], Result], item: Item, /
    ) -> Future[Result]:
        """A finished call."""
        future: Future[Result] = Future()
        try:
            future.set_result(function(item))
        except BaseException as error:  # as in a thread: it is raised where the result is asked for
            future.set_exception(error)
        return future


@contextlib.contextmanager
def pass_threads(num_threads: int) -> Iterator[Executor]:
    """Threads for passes; no operation is itself split over threads.

    Torch cuts an elementwise operation into one piece per thread, and computes the elements at a
    cut with other instructions. Where the cuts fall depends on the size of the pass, so a user's
    bits would depend on who shares it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if num_threads == 1:  # this thread's allocator gives less memory back
            yield _Inline()
            return
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as e:
            yield e
    finally:
        torch.set_num_threads(before)


def run_in_order(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, num_ahead: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Finished calls in the order of the items; at most `num_ahead` are running or waiting."""
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        waiting.append((item, executor.submit(function, item)))
        if len(waiting) >= num_ahead:
            yield waiting.popleft()
    yield from waiting
