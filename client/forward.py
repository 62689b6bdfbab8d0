"""Forward and backward of one pass: many users' rows through one frozen base."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.blocks import PrefixCache, compile_blocks, find_blocks, recompute
from client.lean import make_lean
from client.loss import ROW_MULTIPLE, LinearCrossEntropy, score_positions, select_positions, widen
from client.passes import PassRow, padded_length
from client.stacked import install
from common.adapter import AdapterLayout
from common.model import BaseModel, place_model
from common.tokens import IGNORE, TokenRow

log = logging.getLogger("feddp.node")


class StackedForward:
    """Loss, gradients and scores of rows, each with an adapter of its own.

    Replaces the target modules of `base` in place.
    """

    def __init__(
        self,
        base: BaseModel,
        layout: AdapterLayout,
        *,
        device: str,
        num_threads: int,
        is_recomputing: bool,
        is_compiled: bool,
    ):
        self.device = torch.device(device)
        self._model = place_model(base.model, device)
        self._layout = layout
        self._is_causal = base.task == "causal-lm"
        self._pad = int(base.tokenizer.pad_token_id or 0)
        keep = SimpleNamespace if num_threads == 1 else threading.local
        if not is_compiled:  # a compiler sees to norms and rotations itself
            make_lean(self._model)
        self._modules = install(self._model, layout, keep)
        self._blocks = find_blocks(self._model, layout)
        self._prefix: PrefixCache | None = None
        if self._blocks is None and (is_recomputing or is_compiled):
            log.warning("nodes.checkpointing, nodes.compile: adapters lie outside of the blocks")
        if is_compiled and self._blocks is not None:
            compile_blocks(self._blocks)
        if is_recomputing and self._blocks is not None:
            recompute(self._blocks)
        self._sizes = [entry.size for entry in layout.entries]
        self.num_ids = len(self._model.get_input_embeddings().weight)
        self.longest: int | None = getattr(self._model.config, "max_position_embeddings", None)
        # A classifier's head sees one position per row, so its rows have to come in full multiples.
        self.row_multiple = 1 if self._is_causal else ROW_MULTIPLE

    def cache_prefix(self, max_bytes: int) -> bool:
        """Keeps what enters the first adapted block, row by row; 0 stops it.

        Returns:
          Whether anything is kept: there have to be blocks below the first adapter.
        """
        if self._prefix is not None:
            self._prefix.is_on = False
        self._prefix = None
        if max_bytes == 0 or self._blocks is None or not self._blocks.below:
            return False
        self._prefix = PrefixCache(
            self._blocks,
            max_bytes=max_bytes,
            row_multiple=self.row_multiple,
        )
        return True

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
            logits = widen(self._classify(rows, inputs, mask))
            losses = nn.functional.cross_entropy(logits, targets[:, 0], reduction="none")
            return losses, logits.argmax(1) == targets[:, 0]
        keep = targets != IGNORE
        weight, bias, softcap = self._output()
        return score_positions(
            self._hidden(rows, inputs)[keep], weight, bias, targets[keep], softcap
        )

    @torch.no_grad()
    def logits(self, row: TokenRow, adapter: Tensor) -> NDArray[np.float32]:
        """Logits of one row: (tokens, vocabulary), or (labels,) for a classifier; adapter (P,)."""
        self._bind(self.split(adapter[None]))
        inputs, mask, _ = self._batch([row])
        if not self._is_causal:
            return np.asarray(self._classify([row], inputs, mask)[0].float().cpu().numpy())
        hidden = self._hidden([row], inputs)[0, : len(row.input_ids)]
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
                widen(self._classify(rows, inputs, mask)), targets[:, 0], reduction="none"
            )
            return (losses * weights).sum()
        weight, bias, softcap = self._output()
        hidden, kept, shares = select_positions(
            self._hidden(rows, inputs), targets, weights, ignore=IGNORE
        )
        loss: Tensor = LinearCrossEntropy.apply(hidden, weight, bias, kept, shares, softcap)  # type: ignore[no-untyped-call]
        return loss

    def _hidden(self, rows: Sequence[TokenRow], inputs: Tensor) -> Tensor:
        """Last hidden states (rows, tokens, hidden). Right padding needs no mask: attention is
        causal, so no real position ever looks at padding."""

        def run(part: list[int] | slice) -> Any:
            return self._model.base_model(input_ids=inputs[part], use_cache=False)

        with self._entered(rows, inputs, run):
            hidden: Tensor = run(slice(None)).last_hidden_state
        return hidden

    def _classify(self, rows: Sequence[TokenRow], inputs: Tensor, mask: Tensor) -> Tensor:
        def run(part: list[int] | slice) -> Any:
            return self._model(input_ids=inputs[part], attention_mask=mask[part])

        with self._entered(rows, inputs, run):
            logits: Tensor = run(slice(None)).logits
        return logits

    def _entered(
        self, rows: Sequence[TokenRow], inputs: Tensor, run: Callable[[list[int]], object]
    ) -> AbstractContextManager[None]:
        if self._prefix is None:
            return nullcontext()
        return self._prefix.entered(rows, inputs.shape[1], run)

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
