"""The cohort engine: local training of many users in shared passes over one frozen base.

`slots` users are resident at a time, each with a delta from the shared starting adapter. One tick
is one local step of every resident user: the rows of their minibatches are sorted by padded length
and cut into passes; every row is paired with a copy of its user's adapter, and its gradient is
added only to that user's. A finished user's update is emitted and the slot refilled at once, so
memory is bounded by the slots and by the tokens of a pass, never by the cohort.

A user's minibatches, padded lengths and order of additions depend on that user alone. Every pass
runs on one thread, where a row's bits do not depend on the other rows (tests assert that on the
CPU). So an update is bit-identical whoever shares its passes.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feddp.client.engine.forward import StackedForward
from feddp.client.engine.local_state import LocalState, Stacks
from feddp.client.engine.passes import PassRow, cut_passes, pass_threads, run_in_order, weigh_rows
from feddp.client.engine.protocol import STOPS, LocalMethod, LocalWork, Minibatches, Sink
from feddp.client.engine.strict_products import are_products_strict
from feddp.common.allocator import keep_freed_memory
from feddp.common.data.tokens import TokenRow
from feddp.common.evaluation import Evaluation
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import AdapterLayout

_Gradients = tuple[Tensor, Sequence[Tensor]]
_NOT_STRICT = (
    "torch multiplied before feddp was imported, so that one user may move another's update by a "
    "rounding error. Import feddp first."
)


@dataclass
class _Resident:
    """A user in a slot: the remaining steps, last first, and the number of steps done."""

    key: int
    state: LocalState
    rest: list[Sequence[TokenRow]]
    num_done: int = 0
    is_failed: bool = False


class CohortEngine:
    """Trains users' adapters in stacked passes. Replaces the target modules of `base` in place."""

    def __init__(
        self,
        base: BaseModel,
        layout: AdapterLayout,
        *,
        device: str = "cpu",
        slots: int = 64,
        pass_tokens: int = 4096,
        num_threads: int = 1,
        is_recomputing: bool = False,
        is_compiled: bool = False,
    ):
        """Args:
        slots: users who are resident at a time.
        pass_tokens: padded tokens of all concurrent passes.
        num_threads: concurrent passes; 1 on an accelerator.
        is_recomputing: activations inside a block are recomputed in the backward pass.
        is_compiled: blocks are compiled; a user's bits may then depend on who shares the pass.
        """
        is_on_cpu = torch.device(device).type == "cpu"
        if is_on_cpu:
            keep_freed_memory()
            if not are_products_strict():
                warnings.warn(_NOT_STRICT, stacklevel=2)
        self._num_threads = num_threads if is_on_cpu else 1
        self._num_ahead = self._num_threads + 1
        self._forward = StackedForward(
            base,
            layout,
            device=device,
            num_threads=self._num_threads,
            is_recomputing=is_recomputing,
            is_compiled=is_compiled,
        )
        self._dimension, self._slots, self._pass_tokens = layout.dimension, slots, pass_tokens
        self._stacks: Stacks | None = None

    def train(
        self,
        start: NDArray[np.float32],
        work: Iterable[LocalWork],
        *,
        method: LocalMethod,
        sink: Sink,
    ) -> None:
        """Same contract as `Engine.train`; users are taken as slots become free."""
        queue = iter(work)
        residents: dict[int, _Resident] = {}
        first = torch.from_numpy(start).to(self._forward.device)
        stacks = self._take_stacks(first, num_kept=method.num_kept)
        with pass_threads(self._num_threads) as executor:
            while self._fill(residents, queue, sink, stacks):
                self._tick(executor, first, stacks, residents)
                for user in residents.values():
                    user.num_done += 1
                    method.step(user.state, user.num_done)
                    user.state.gradient.zero_()
                for slot in [s for s, user in residents.items() if user.is_failed or not user.rest]:
                    user = residents.pop(slot)
                    update = method.update(user.state).cpu().numpy().copy()
                    sink(user.key, np.zeros_like(update) if user.is_failed else update)
        self._stacks = stacks

    def evaluate(self, adapter: NDArray[np.float32], rows: Sequence[TokenRow]) -> Evaluation:
        """Loss and correct predictions of one adapter over rows, in passes of similar length."""
        trained = torch.from_numpy(adapter).to(self._forward.device)

        def score(part: Sequence[PassRow]) -> Evaluation:
            """Sums over the rows of one pass."""
            return self._forward.score([item.row for item in part], trained).sums()

        passes = self._cut([PassRow(0, row, 1.0) for row in rows])
        total = Evaluation()
        with pass_threads(self._num_threads) as executor:
            for _, future in run_in_order(executor, score, passes, num_ahead=self._num_ahead):
                total += future.result()
        return total

    def cache_prefix(self, max_bytes: int) -> bool:
        """See `StackedForward.cache_prefix`."""
        return self._forward.cache_prefix(max_bytes)

    def gradients(
        self, adapters: NDArray[np.float32], rows: Sequence[TokenRow]
    ) -> NDArray[np.float32]:
        """Gradient of each row's mean loss at its own adapter, all in one pass.

        Both are float32, shape (rows, P). The rows are public: failures are raised as they are.
        """
        start = torch.zeros(self._dimension, device=self._forward.device)
        delta = torch.from_numpy(adapters).to(self._forward.device)
        stacks = Stacks(delta, torch.zeros_like(delta), delta[None, :0])
        part = [item for slot, row in enumerate(rows) for item in weigh_rows(slot, [row])]
        with pass_threads(1):
            self._add(stacks, *self._row_gradients(part, start, delta))
        return np.asarray(stacks.gradient.cpu().numpy())

    def _take_stacks(self, like: Tensor, *, num_kept: int) -> Stacks:
        """The stacks of the last call, to save the system clearing memory again, or new ones."""
        stacks, self._stacks = self._stacks, None  # never shared with a call in progress
        if stacks is None or len(stacks.kept) != num_kept:
            return Stacks.like(like, self._slots, num_kept=num_kept)
        return stacks

    def _fill(
        self,
        residents: dict[int, _Resident],
        queue: Iterator[LocalWork],
        sink: Sink,
        stacks: Stacks,
    ) -> bool:
        """Gives free slots to waiting users; returns whether any user is resident."""
        free = [slot for slot in range(self._slots) if slot not in residents]
        while free and (work := next(queue, None)) is not None:
            steps = self._load(work)
            if steps:
                slot = free.pop(0)
                residents[slot] = _Resident(work.key, stacks.begin(slot), list(steps)[::-1])
            else:
                sink(work.key, np.zeros(self._dimension, dtype=np.float32))
        return bool(residents)

    def _load(self, work: LocalWork) -> Minibatches:
        """A user's minibatches; none if they cannot be read or hold unknown token ids."""
        try:
            steps = [step for step in work.steps() if step]
        except STOPS:
            raise
        except BaseException:
            return []
        ids = [row.input_ids for step in steps for row in step]
        if any(i.min() < 0 or i.max() >= self._forward.num_ids for i in ids):
            return []
        return steps

    def _cut(self, rows: Iterable[PassRow]) -> list[list[PassRow]]:
        return cut_passes(
            rows,
            longest=self._forward.longest,
            pass_tokens=self._pass_tokens,
            num_threads=self._num_threads,
            row_multiple=self._forward.row_multiple,
            is_packed=self._forward.is_packed,
        )

    def _tick(
        self, executor: Executor, first: Tensor, stacks: Stacks, residents: Mapping[int, _Resident]
    ) -> None:
        """Adds up the gradient of every resident's next step."""

        def gradients(part: Sequence[PassRow]) -> _Gradients:
            """Gradients of the rows of one pass."""
            return self._row_gradients(part, first, stacks.delta)

        rows = [i for slot, user in residents.items() for i in weigh_rows(slot, user.rest.pop())]
        passes = self._cut(rows)
        for part, future in run_in_order(executor, gradients, passes, num_ahead=self._num_ahead):
            try:
                self._add(stacks, *future.result())
            except STOPS:
                raise
            except BaseException:
                self._accumulate_apart(part, first, stacks, residents)

    def _accumulate_apart(
        self,
        part: Sequence[PassRow],
        first: Tensor,
        stacks: Stacks,
        residents: Mapping[int, _Resident],
    ) -> None:
        """Reruns a failed pass row by row; a user whose row fails contributes zero."""
        for item in part:
            try:
                self._add(stacks, *self._row_gradients([item], first, stacks.delta))
            except STOPS:
                raise
            except BaseException:
                residents[item.slot].is_failed = True

    def _row_gradients(self, part: Sequence[PassRow], first: Tensor, delta: Tensor) -> _Gradients:
        """One pass: the slot of every row, and its gradient, tensor by tensor (rows, ...)."""
        missing = -len(part) % self._forward.row_multiple
        part = [*part, *[replace(part[-1], weight=0.0)] * missing]
        owners = torch.tensor([item.slot for item in part], device=delta.device)
        adapters = delta.index_select(0, owners).add_(first)
        return owners, self._forward.gradients(part, adapters)

    def _add(self, stacks: Stacks, owners: Tensor, gradients: Sequence[Tensor]) -> None:
        """Adds each row's gradient to its slot's, in the order of the rows."""
        totals = self._forward.split(stacks.gradient)
        for total, gradient in zip(totals, gradients, strict=True):
            total.index_add_(0, owners, gradient)
