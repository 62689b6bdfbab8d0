"""Forward and backward of one pass: many users' rows through one frozen base."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from feddp.client.engine.batch import Batch, make_batch
from feddp.client.engine.blocks import PrefixCache, compile_blocks, find_blocks, recompute
from feddp.client.engine.fused_norms import fuse_norms
from feddp.client.engine.loss import (
    ROW_MULTIPLE,
    LinearCrossEntropy,
    Scores,
    score_positions,
    select_positions,
    widen,
)
from feddp.client.engine.packing import Group, Groups, may_pack, needs_no_mask, set_packed
from feddp.client.engine.passes import PassRow
from feddp.client.engine.stacked import StackedLoRA, install
from feddp.common.data.tokens import IGNORE, TokenRow
from feddp.common.model.base import BaseModel, place_model
from feddp.common.model.layout import AdapterLayout

log = logging.getLogger("feddp.node")

# Two rows, the first without padding, and replacements; their ids exist in any vocabulary.
TRIAL_ROWS = tuple(
    TokenRow(ids, ids)
    for ids in (np.arange(n, dtype=np.int64) % 7 + shift for shift in (1, 2) for n in (8, 13))
)
TRIAL_ERROR = 0.02  # relative, for half precision; wrong positions give far more


class StackedForward:
    """Loss, gradients and scores of rows, each with its own adapter.

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
        # Such a model never gets a mask: the library makes none for a pass without padding, so the
        # kernel that runs would depend on who shares the pass.
        self._needs_no_mask = needs_no_mask(self._model)
        self._pad = int(base.tokenizer.pad_token_id or 0)
        keep = SimpleNamespace if num_threads == 1 else threading.local
        if not is_compiled:  # the compiler fuses norms and rotations itself
            fuse_norms(self._model)
        self._modules = install(self._model, layout, keep)
        self._blocks = find_blocks(self._model, layout)
        self._prefix: PrefixCache | None = None
        if self._blocks is None and (is_recomputing or is_compiled):
            log.warning("nodes.checkpointing, nodes.compile: adapters lie outside of the blocks")
        if is_compiled and self._blocks is not None:
            compile_blocks(self._blocks)
        if is_recomputing and self._blocks is not None:
            recompute(self._blocks)
        self._is_compiled = is_compiled
        self._sizes = [entry.size for entry in layout.entries]
        self.num_ids = len(self._model.get_input_embeddings().weight)
        self._num_positions: int | None = getattr(
            self._model.config, "max_position_embeddings", None
        )
        # A classifier's head sees one position per row, so rows must come in full multiples.
        self.row_multiple = 1 if self._is_causal else ROW_MULTIPLE
        self.is_packed = False
        self._pack()

    @property
    def longest(self) -> int | None:
        """Largest padded length of a row; None is no limit."""
        return None if self.is_packed else self._num_positions

    def cache_prefix(self, max_bytes: int) -> bool:
        """Caches what enters the first adapted block, row by row; 0 turns the cache off.

        Returns whether anything can be cached: there must be blocks below the first adapter.
        """
        if self._prefix is not None:
            self._prefix.is_on = False
        self._prefix = None
        if max_bytes == 0 or self._blocks is None or not self._blocks.below:
            self._pack()
            return False
        if self.is_packed:  # the cache needs passes of one length
            self._set_packed(False)
        self._prefix = PrefixCache(
            self._blocks, max_bytes=max_bytes, row_multiple=self.row_multiple
        )
        return True

    def gradients(self, part: Sequence[PassRow], adapters: Tensor) -> Sequence[Tensor]:
        """The gradient of each row's loss at its own adapter (rows, P), by tensor (rows, ...)."""
        live = [tensor.detach().requires_grad_() for tensor in self.split(adapters)]
        batch = self._batch([item.row for item in part])
        self._bind(live, batch.groups)
        weights = adapters.new_tensor([item.weight for item in part])
        with torch.enable_grad():
            return torch.autograd.grad(self._loss(batch, weights), live)

    @torch.no_grad()
    def score(self, rows: Sequence[TokenRow], adapter: Tensor) -> Scores:
        """The scores of every predicted position (causal-lm) or row; adapter (P,)."""
        batch = self._batch(rows)
        self._bind_one(adapter, batch)
        if not self._is_causal:
            return Scores.of(widen(self._classify(batch)), batch.targets[:, 0])
        keep = batch.targets != IGNORE
        weight, bias, softcap = self._output()
        return score_positions(
            self._hidden(batch)[keep], weight, bias, batch.targets[keep], softcap
        )

    def split(self, stack: Tensor) -> list[Tensor]:
        """The trained tensors in a stack (copies, P); views (copies, ...)."""
        parts = torch.split(stack, self._sizes, dim=1)
        return [
            part.view(len(stack), *entry.shape)
            for part, entry in zip(parts, self._layout.entries, strict=True)
        ]

    def _bind(self, live: Sequence[Tensor], groups: Groups | None) -> None:
        """Hands each module its stacked tensors."""
        parts: dict[str, dict[str, Tensor]] = {}
        for entry, stacked in zip(self._layout.entries, live, strict=True):
            parts.setdefault(entry.module, {})[entry.role] = stacked
        for path, tensors in parts.items():
            self._modules[path].bind(tensors, groups)

    def _bind_one(self, adapter: Tensor, batch: Batch) -> None:
        """Hands each module one adapter (P,) shared by all rows."""
        groups = None if batch.groups is None else (Group(1, batch.inputs.numel()),)
        self._bind(self.split(adapter[None]), groups)

    def _loss(self, batch: Batch, weights: Tensor) -> Tensor:
        """Sum over rows of weight times loss; no term mixes users."""
        if not self._is_causal:
            losses = nn.functional.cross_entropy(
                widen(self._classify(batch)), batch.targets[:, 0], reduction="none"
            )
            return (losses * weights).sum()
        weight, bias, softcap = self._output()
        hidden, kept, shares = select_positions(
            self._hidden(batch), batch.targets, batch.spread(weights), ignore=IGNORE
        )
        loss: Tensor = LinearCrossEntropy.apply(hidden, weight, bias, kept, shares, softcap)  # type: ignore[no-untyped-call]
        return loss

    def _hidden(self, batch: Batch) -> Tensor:
        """Last hidden states, (rows, tokens, hidden). Right padding needs no mask: attention is
        causal, so no real position ever attends to padding."""
        packed: dict[str, Any] = {}
        if batch.groups is not None:
            packed = {"position_ids": batch.positions, "packed_groups": batch.groups}

        def run(part: list[int] | slice) -> Any:
            """The backbone over some rows of the batch."""
            return self._model.base_model(input_ids=batch.inputs[part], use_cache=False, **packed)

        with self._entered(batch, run):
            hidden: Tensor = run(slice(None)).last_hidden_state
        return hidden

    def _classify(self, batch: Batch) -> Tensor:
        def run(part: list[int] | slice) -> Any:
            """The model over some rows of the batch."""
            mask = None if self._needs_no_mask else batch.mask[part]
            return self._model(input_ids=batch.inputs[part], attention_mask=mask)

        with self._entered(batch, run):
            logits: Tensor = run(slice(None)).logits
        return logits

    def _entered(
        self, batch: Batch, run: Callable[[list[int]], object]
    ) -> AbstractContextManager[None]:
        if self._prefix is None:
            return nullcontext()
        return self._prefix.entered(batch.rows, batch.inputs.shape[1], run)

    def _output(self) -> tuple[Tensor, Tensor | None, float | None]:
        """Weight, bias and soft cap of the output layer."""
        layer = self._model.get_output_embeddings()
        softcap = getattr(self._model.config, "final_logit_softcapping", None)
        return layer.weight, getattr(layer, "bias", None), softcap

    def _batch(self, rows: Sequence[TokenRow]) -> Batch:
        return make_batch(
            rows,
            longest=self._num_positions,
            pad=self._pad,
            is_causal=self._is_causal,
            is_packed=self.is_packed,
            device=self.device,
        )

    def _set_packed(self, is_packed: bool) -> None:
        set_packed(self._model, is_packed)
        self.is_packed = is_packed

    def _pack(self) -> None:
        """Packs passes from now on, if public rows give the same results packed and alone."""
        are_adapters = all(isinstance(module, StackedLoRA) for module in self._modules.values())
        if self._is_compiled or not (self._is_causal and are_adapters and may_pack(self._model)):
            return
        try:
            is_sound = self._keeps_apart(*TRIAL_ROWS)
        except (TypeError, ValueError, RuntimeError):  # attention called otherwise
            is_sound = False
        self._set_packed(is_sound)

    def _keeps_apart(
        self, first: TokenRow, second: TokenRow, other_first: TokenRow, other_second: TokenRow
    ) -> bool:
        """Whether each packed row gives what it gives alone, bit-identical whatever the other is.

        Bits are compared because even a tiny leak into the next row must be excluded.
        """
        alone = torch.cat([self._trial(first), self._trial(second)])
        self._set_packed(True)
        together, cut = self._trial(first, second), len(first.input_ids)
        return bool(
            (together - alone).norm() < TRIAL_ERROR * alone.norm()
            and torch.equal(self._trial(other_first, second)[cut:], together[cut:])
            and torch.equal(self._trial(first, other_second)[:cut], together[:cut])
        )

    @torch.no_grad()
    def _trial(self, *rows: TokenRow) -> Tensor:
        """Hidden states of the real tokens, (tokens, hidden), with an adapter of zeros."""
        batch = self._batch(rows)
        self._bind_one(torch.zeros(sum(self._sizes), device=self.device), batch)
        return self._hidden(batch)[batch.mask == 1].float()
