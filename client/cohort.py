"""The cohort engine: local training of many users in shared passes over one frozen base.

`slots` users are resident, each with its own delta from the adapter that all were sent. One tick
is one local step of every resident user: the rows of their minibatches are grouped by padded length
and cut into passes; every row carries a copy of its user's adapter, and its gradient is added to
its user alone. A finished user is handed out and replaced at once, so memory is bounded by the
slots and by the tokens of a pass, never by the cohort.

A user's minibatches, padded lengths and order of additions depend on that user alone, every pass
runs on one thread, and there each row has the same bits whatever the other rows are (asserted by
tests on the CPU), so an update is bit-identical whoever shares its passes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.loss import (
    ROW_MULTIPLE,
    LinearCrossEntropy,
    score_positions,
    select_positions,
    widen,
)
from client.passes import (
    PassRow,
    cut_passes,
    padded_length,
    pass_threads,
    run_in_order,
    weigh_rows,
)
from client.slots import Stacks
from client.stacked import install
from client.work import Evaluation as Evaluation
from client.work import LocalTraining as LocalTraining
from client.work import LocalWork as LocalWork
from client.work import Minibatches
from client.work import Sink as Sink
from common.adapter import AdapterLayout
from common.model import BaseModel
from common.tokens import IGNORE, TokenRow

_Slopes = tuple[Tensor, Sequence[Tensor]]


@dataclass
class _Resident:
    """A user in a slot: what is left to do, last step first, and the steps done."""

    key: int
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
    ):
        self._device = torch.device(device)
        self._num_threads = num_threads if self._device.type == "cpu" else 1
        model: Any = base.model
        self._model = model.to(self._device)
        self._layout, self._slots, self._pass_tokens = layout, slots, pass_tokens
        self._is_causal = base.task == "causal-lm"
        self._pad = int(base.tokenizer.pad_token_id or 0)
        self._modules = install(self._model, layout)
        self._sizes = [entry.size for entry in layout.entries]
        self._num_ids = len(self._model.get_input_embeddings().weight)
        self._longest: int | None = getattr(self._model.config, "max_position_embeddings", None)

    def train(
        self,
        start: NDArray[np.float32],
        work: Iterable[LocalWork],
        *,
        training: LocalTraining,
        sink: Sink,
    ) -> None:
        """Runs every user's local steps from `start`; calls sink(key, update) once per user.

        **Guarantee:** an update depends on `start`, `training` and the user's own minibatches, not
        on anybody else's. A user whose rows cannot be loaded or whose passes fail gets an update of
        zeros; nobody else's changes.

        Args:
          start: float32, shape (P,).
          work: users, taken as slots become free.
          training: the local optimizer.
          sink: takes float32 (P,), the local adapter minus `start`; may be non-finite.
        """
        queue = iter(work)
        residents: dict[int, _Resident] = {}
        first = torch.from_numpy(start).to(self._device)
        stacks = Stacks.like(first, self._slots, has_moments=training.optimizer == "adamw")
        with pass_threads(self._num_threads) as executor:
            while self._fill(residents, queue, sink, stacks):
                self._tick(executor, first, stacks, residents)
                for slot, user in residents.items():
                    user.num_done += 1
                    stacks.step(slot, user.num_done, training)
                for slot in [s for s, user in residents.items() if user.is_failed or not user.rest]:
                    user = residents.pop(slot)
                    update = stacks.delta[slot].cpu().numpy().copy()
                    sink(user.key, np.zeros_like(update) if user.is_failed else update)

    def evaluate(self, adapter: NDArray[np.float32], rows: Sequence[TokenRow]) -> Evaluation:
        """Loss and correct predictions of one adapter over rows, in passes of similar length."""
        live = self._split(torch.from_numpy(adapter).to(self._device)[None])

        @torch.no_grad()
        def score(part: Sequence[PassRow]) -> tuple[float, int, int]:
            self._bind(live)
            losses, corrects = self._score([item.row for item in part])
            return float(losses.double().sum()), len(losses), int(corrects.sum())

        passes = self._cut([PassRow(0, row, 1.0) for row in rows])
        loss, targets, correct = 0.0, 0, 0
        with pass_threads(self._num_threads) as executor:
            for _, future in run_in_order(executor, score, passes, num_ahead=self._num_ahead):
                part_loss, part_targets, part_correct = future.result()
                loss, targets = loss + part_loss, targets + part_targets
                correct += part_correct
        return Evaluation(loss, targets, correct)

    @torch.no_grad()
    def logits(self, adapter: NDArray[np.float32], row: TokenRow) -> NDArray[np.float32]:
        """Logits of one row: (tokens, vocabulary), or (labels,) for a classifier."""
        self._bind(self._split(torch.from_numpy(adapter).to(self._device)[None]))
        inputs, mask, _ = self._batch([row])
        if not self._is_causal:
            return np.asarray(self._classify(inputs, mask)[0].float().cpu().numpy())
        hidden = self._hidden(inputs)[0, : len(row.input_ids)]
        weight, bias, softcap = self._output()
        logits = nn.functional.linear(hidden, weight, bias).float()
        if softcap is not None:
            logits = torch.tanh(logits / softcap) * softcap
        return np.asarray(logits.cpu().numpy())

    def _fill(
        self,
        residents: dict[int, _Resident],
        queue: Iterator[LocalWork],
        sink: Sink,
        stacks: Stacks,
    ) -> bool:
        """Gives free slots to waiting users; whether anybody is resident."""
        free = [slot for slot in range(self._slots) if slot not in residents]
        while free and (work := next(queue, None)) is not None:
            steps = self._load(work)
            if steps:
                stacks.clear(free[0])
                residents[free.pop(0)] = _Resident(work.key, list(steps)[::-1])
            else:
                sink(work.key, np.zeros(self._layout.dimension, dtype=np.float32))
        return bool(residents)

    def _load(self, work: LocalWork) -> Minibatches:
        """A user's minibatches; none when they cannot be read or hold unknown token ids."""
        try:
            steps = [step for step in work.steps() if step]
        except Exception:
            return []
        ids = [row.input_ids for step in steps for row in step]
        if any(i.min() < 0 or i.max() >= self._num_ids for i in ids):
            return []
        return steps

    @property
    def _num_ahead(self) -> int:
        return self._num_threads + 1

    def _cut(self, rows: Iterable[PassRow]) -> list[list[PassRow]]:
        return cut_passes(
            rows,
            longest=self._longest,
            pass_tokens=self._pass_tokens,
            num_threads=self._num_threads,
        )

    def _tick(
        self,
        executor: Executor,
        first: Tensor,
        stacks: Stacks,
        residents: Mapping[int, _Resident],
    ) -> None:
        """Adds up the gradient of every resident's next step."""

        def slopes(part: Sequence[PassRow]) -> _Slopes:
            return self._slopes(part, first, stacks.delta)

        rows = [i for slot, user in residents.items() for i in weigh_rows(slot, user.rest.pop())]
        passes = self._cut(rows)
        for part, future in run_in_order(executor, slopes, passes, num_ahead=self._num_ahead):
            try:
                self._add(stacks, *future.result())
            except Exception:
                self._accumulate_apart(part, first, stacks, residents)

    def _accumulate_apart(
        self,
        part: Sequence[PassRow],
        first: Tensor,
        stacks: Stacks,
        residents: Mapping[int, _Resident],
    ) -> None:
        """Runs a failed pass again, row by row; whoever fails alone contributes zero."""
        for item in part:
            try:
                self._add(stacks, *self._slopes([item], first, stacks.delta))
            except Exception:
                residents[item.slot].is_failed = True

    def _slopes(self, part: Sequence[PassRow], first: Tensor, delta: Tensor) -> _Slopes:
        """One pass: the slot of every row, and its gradient, tensor by tensor (rows, ...)."""
        if not self._is_causal:
            # A head sees one position per row, so here the rows have to come in full multiples.
            part = [*part, *[replace(part[-1], weight=0.0)] * (-len(part) % ROW_MULTIPLE)]
        owners = torch.tensor([item.slot for item in part], device=self._device)
        stack = delta.index_select(0, owners).add_(first)
        live = [tensor.detach().requires_grad_() for tensor in self._split(stack)]
        self._bind(live)
        weights = stack.new_tensor([item.weight for item in part])
        with torch.enable_grad():
            loss = self._loss([item.row for item in part], weights)
            return owners, torch.autograd.grad(loss, live)

    def _add(self, stacks: Stacks, owners: Tensor, slopes: Sequence[Tensor]) -> None:
        """Adds each row's gradient to its slot's, in the order of the rows."""
        for total, slope in zip(self._split(stacks.gradient), slopes, strict=True):
            total.index_add_(0, owners, slope)

    def _loss(self, rows: Sequence[TokenRow], weights: Tensor) -> Tensor:
        """Sum over rows of weight times loss: no term holds two users."""
        inputs, mask, targets = self._batch(rows)
        if not self._is_causal:
            losses = nn.functional.cross_entropy(
                widen(self._classify(inputs, mask)), targets[:, 0], reduction="none"
            )
            return (losses * weights).sum()
        weight, bias, softcap = self._output()
        hidden, kept, shares = select_positions(
            self._hidden(inputs), targets, weights, ignore=IGNORE
        )
        loss: Tensor = LinearCrossEntropy.apply(hidden, weight, bias, kept, shares, softcap)  # type: ignore[no-untyped-call]
        return loss

    def _score(self, rows: Sequence[TokenRow]) -> tuple[Tensor, Tensor]:
        """Loss and correctness of every predicted position (causal-lm) or row."""
        inputs, mask, targets = self._batch(rows)
        if not self._is_causal:
            logits = widen(self._classify(inputs, mask))
            losses = nn.functional.cross_entropy(logits, targets[:, 0], reduction="none")
            return losses, logits.argmax(1) == targets[:, 0]
        keep = targets != IGNORE
        weight, bias, softcap = self._output()
        return score_positions(self._hidden(inputs)[keep], weight, bias, targets[keep], softcap)

    def _hidden(self, inputs: Tensor) -> Tensor:
        """Last hidden states (rows, tokens, hidden). Right padding needs no mask: attention is
        causal, so no real position ever looks at padding."""
        output = self._model.base_model(input_ids=inputs, use_cache=False)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _classify(self, inputs: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self._model(input_ids=inputs, attention_mask=mask).logits
        return logits

    def _output(self) -> tuple[Tensor, Tensor | None, float | None]:
        """Weight, bias and soft cap of the output layer."""
        layer = self._model.get_output_embeddings()
        softcap = getattr(self._model.config, "final_logit_softcapping", None)
        return layer.weight, getattr(layer, "bias", None), softcap

    def _batch(self, rows: Sequence[TokenRow]) -> tuple[Tensor, Tensor, Tensor]:
        """Right-padded input ids, attention mask and targets, all (rows, padded tokens) int64."""
        length = max(padded_length(row, self._longest) for row in rows)
        inputs = np.full((len(rows), length), self._pad, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        width = length if self._is_causal else 1
        targets = np.full((len(rows), width), IGNORE, dtype=np.int64)
        for index, row in enumerate(rows):
            inputs[index, : len(row.input_ids)] = row.input_ids
            mask[index, : len(row.input_ids)] = 1
            targets[index, : len(row.labels)] = row.labels
        return tuple(torch.from_numpy(a).to(self._device) for a in (inputs, mask, targets))  # type: ignore[return-value]

    def _split(self, stack: Tensor) -> list[Tensor]:
        """The trained tensors in a stack (copies, P); views (copies, ...)."""
        parts = torch.split(stack, self._sizes, dim=1)
        return [
            part.view(len(stack), *entry.shape)
            for part, entry in zip(parts, self._layout.entries, strict=True)
        ]

    def _bind(self, live: Sequence[Tensor]) -> None:
        """Hands each module its stacked tensors."""
        parts: dict[str, dict[str, Tensor]] = {}
        for entry, stacked in zip(self._layout.entries, live, strict=True):
            parts.setdefault(entry.module, {})[entry.role] = stacked
        for path, tensors in parts.items():
            self._modules[path].bind(tensors)
