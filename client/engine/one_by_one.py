"""Trains any part of any base model, one unit at a time: for what cannot be stacked."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from feddp.client.engine.local_state import LocalState, Stacks
from feddp.client.engine.loss import Scores, widen
from feddp.client.engine.protocol import STOPS, LocalMethod, LocalWork, Minibatches, Sink
from feddp.common.data.tokens import IGNORE, TokenRow
from feddp.common.evaluation import Evaluation
from feddp.common.model.base import BaseModel, place_model
from feddp.common.model.layout import AdapterLayout
from feddp.common.model.other_kinds import trained_parameters


class UnitLoop:
    """The engine for the kinds of `common.model.other_kinds`. Changes `base.model` in place.

    Slower than the cohort engine because of its small batches; otherwise equivalent.
    """

    def __init__(self, base: BaseModel, layout: AdapterLayout, *, device: str = "cpu"):
        self._device = torch.device(device)
        place_model(base.model, self._device)
        self._model, self._parameters = trained_parameters(base, layout)
        self._layout, self._is_causal = layout, base.task == "causal-lm"
        self._sizes = [entry.size for entry in layout.entries]
        self._pad = int(base.tokenizer.pad_token_id or 0)
        embeddings: Any = base.model.get_input_embeddings()  # type: ignore[operator]
        self._num_ids = len(embeddings.weight)

    def train(
        self,
        start: NDArray[np.float32],
        work: Iterable[LocalWork],
        *,
        method: LocalMethod,
        sink: Sink,
    ) -> None:
        """Same contract as `Engine.train`."""
        first = torch.from_numpy(start).to(self._device)
        stacks = Stacks.like(first, 1, num_kept=method.num_kept)
        for unit in work:
            state = stacks.begin(0)
            try:
                self._train_unit(first, state, unit.steps(), method)
                update = method.update(state).cpu().numpy().copy()
            except STOPS:
                raise
            except BaseException:  # a failing user contributes zero
                update = np.zeros_like(start)
            sink(unit.key, update)

    @torch.no_grad()
    def evaluate(self, adapter: NDArray[np.float32], rows: Sequence[TokenRow]) -> Evaluation:
        """Same contract as `Engine.evaluate`."""
        self._write(torch.from_numpy(adapter).to(self._device))
        total = Evaluation()
        for row in rows:
            logits, labels = self._logits([row])
            keep = labels != IGNORE
            total += Scores.of(logits[keep], labels[keep]).sums()
        return total

    def gradients(
        self, adapters: NDArray[np.float32], rows: Sequence[TokenRow]
    ) -> NDArray[np.float32]:
        """Same contract as `CohortEngine.gradients`, one row at a time."""
        found = []
        for adapter, row in zip(adapters, rows, strict=True):
            self._write(torch.from_numpy(adapter).to(self._device))
            found.append(self._gradient([row]).cpu().numpy())
        return np.stack(found)

    def _train_unit(
        self, first: Tensor, state: LocalState, steps: Minibatches, method: LocalMethod
    ) -> None:
        """All local steps of one unit."""
        for number, step in enumerate(filter(len, steps), start=1):
            self._write(first + state.delta)
            state.gradient.copy_(self._gradient(step))
            method.step(state, number)

    def _gradient(self, step: Sequence[TokenRow]) -> Tensor:
        """Gradient of a step's mean loss at the numbers last written, shape (P,)."""
        with torch.enable_grad():
            logits, labels = self._logits(step)
            loss = functional.cross_entropy(
                logits, labels, ignore_index=IGNORE, reduction="sum"
            ) / max(int((labels != IGNORE).sum()), 1)
            gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        parts = [  # None: the forward never reads it
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(self._parameters, gradients, strict=True)
        ]
        return torch.cat([part.reshape(-1).float() for part in parts])

    def _logits(self, rows: Sequence[TokenRow]) -> tuple[Tensor, Tensor]:
        """Logits (positions or rows, classes) and labels; rows are padded to the longest."""
        ids = [torch.from_numpy(row.input_ids) for row in rows]
        if any(int(part.min()) < 0 or int(part.max()) >= self._num_ids for part in ids):
            raise ValueError("unknown token id")
        inputs = pad_sequence(ids, batch_first=True, padding_value=self._pad)
        mask = pad_sequence([torch.ones_like(part) for part in ids], batch_first=True)
        labels = pad_sequence(
            [torch.from_numpy(row.labels) for row in rows], batch_first=True, padding_value=IGNORE
        )
        output = self._model(
            input_ids=inputs.to(self._device), attention_mask=mask.to(self._device)
        )
        logits = widen(output.logits)
        if self._is_causal:  # virtual tokens come before the row's own
            logits = logits[:, -inputs.shape[1] :].flatten(0, 1)
        return logits, labels.to(self._device).reshape(-1)

    @torch.no_grad()
    def _write(self, vector: Tensor) -> None:
        parts = torch.split(vector, self._sizes)
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.copy_(part.view_as(parameter))
