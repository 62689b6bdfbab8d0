"""Forward and backward of one pass: many users' rows through one frozen base."""

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.loss import LinearCrossEntropy, score_positions, select_positions, widen
from client.passes import PassRow, padded_length
from client.stacked import install
from common.adapter import AdapterLayout
from common.model import BaseModel
from common.tokens import IGNORE, TokenRow


class StackedForward:
    """Loss, gradients and scores of rows, each with an adapter of its own.

    Replaces the target modules of `base` in place.
    """

    def __init__(self, base: BaseModel, layout: AdapterLayout, *, device: str, num_threads: int):
        self.device = torch.device(device)
        model: Any = base.model
        self._model = model.to(self.device)
        self._layout = layout
        self._is_causal = base.task == "causal-lm"
        self._pad = int(base.tokenizer.pad_token_id or 0)
        keep = SimpleNamespace if num_threads == 1 else threading.local
        self._modules = install(self._model, layout, keep)
        self._sizes = [entry.size for entry in layout.entries]
        self.num_ids = len(self._model.get_input_embeddings().weight)
        self.longest: int | None = getattr(self._model.config, "max_position_embeddings", None)
        # A classifier's head sees one position per row, so its rows have to come in full multiples.
        self.has_row_multiple = not self._is_causal

    def slopes(self, part: Sequence[PassRow], adapters: Tensor) -> Sequence[Tensor]:
        """The gradient of each row's weighted loss, tensor by tensor (rows, ...).

        Args:
          part: the rows.
          adapters: (rows, P), of each row.
        """
        live = [tensor.detach().requires_grad_() for tensor in self.split(adapters)]
        self._bind(live)
        weights = adapters.new_tensor([item.weight for item in part])
        with torch.enable_grad():
            loss = self._loss([item.row for item in part], weights)
            return torch.autograd.grad(loss, live)

    @torch.no_grad()
    def score(self, rows: Sequence[TokenRow], adapter: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and correctness of every predicted position (causal-lm) or row; adapter (P,)."""
        self._bind(self.split(adapter[None]))
        inputs, mask, targets = self._batch(rows)
        if not self._is_causal:
            logits = widen(self._classify(inputs, mask))
            losses = nn.functional.cross_entropy(logits, targets[:, 0], reduction="none")
            return losses, logits.argmax(1) == targets[:, 0]
        keep = targets != IGNORE
        weight, bias, softcap = self._output()
        return score_positions(self._hidden(inputs)[keep], weight, bias, targets[keep], softcap)

    @torch.no_grad()
    def logits(self, row: TokenRow, adapter: Tensor) -> NDArray[np.float32]:
        """Logits of one row: (tokens, vocabulary), or (labels,) for a classifier; adapter (P,)."""
        self._bind(self.split(adapter[None]))
        inputs, mask, _ = self._batch([row])
        if not self._is_causal:
            return np.asarray(self._classify(inputs, mask)[0].float().cpu().numpy())
        hidden = self._hidden(inputs)[0, : len(row.input_ids)]
        weight, bias, softcap = self._output()
        logits = nn.functional.linear(hidden, weight, bias).float()
        if softcap is not None:
            logits = torch.tanh(logits / softcap) * softcap
        return np.asarray(logits.cpu().numpy())

    def split(self, stack: Tensor) -> list[Tensor]:
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
        length = max(padded_length(row, self.longest) for row in rows)
        inputs = np.full((len(rows), length), self._pad, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        width = length if self._is_causal else 1
        targets = np.full((len(rows), width), IGNORE, dtype=np.int64)
        for index, row in enumerate(rows):
            inputs[index, : len(row.input_ids)] = row.input_ids
            mask[index, : len(row.input_ids)] = 1
            targets[index, : len(row.labels)] = row.labels
        return tuple(torch.from_numpy(a).to(self.device) for a in (inputs, mask, targets))  # type: ignore[return-value]
