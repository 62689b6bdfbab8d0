"""Stacked adapters: many users' trained weights through one shared frozen base.

A pass holds rows of many users, in the order of its stack: with `copies` adapters in the stack,
each owns an equal number of adjacent rows. No term crosses rows of different adapters. Tensors are
bound to a module per thread if passes run concurrently (`threading.local`), otherwise for all
threads (`SimpleNamespace`): an accelerator's backward may run in its own thread.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from feddp.client.engine.packing import GroupedLoRA, Groups
from feddp.common.model.layout import AdapterLayout

Keep = Callable[[], Any]
# Smaller products, or products with a vector, use kernels whose bits depend on the memory address.
MIN_ROWS, MIN_RANK = 8, 2


class StackedLoRA(nn.Module):
    """y = base(x) + scale (x A^T) B^T with one A and B per copy, or one frozen A for all.

    Shapes: A (copies, rank, in) or, frozen, (rank, in); B (copies, out, rank).
    """

    frozen_a: Tensor | None

    def __init__(self, base: nn.Linear | Conv1D, scale: float, frozen_a: Tensor | None, keep: Keep):
        super().__init__()
        self.base, self.scale = base, scale
        self.register_buffer("frozen_a", frozen_a, persistent=False)
        self._bound: Any = keep()

    def bind(self, tensors: Mapping[str, Tensor], groups: Groups | None = None) -> None:
        """Sets the stacked tensors of this thread's next pass, by role, and its groups."""
        self._bound.tensors, self._bound.groups = tensors, groups

    def forward(self, x: Tensor) -> Tensor:
        """The frozen layer, and every row's own low-rank product."""
        a, b = self._factors(x.dtype)
        groups: Groups | None = self._bound.groups
        rows = _by_copy(x, len(b)) if groups is None else x.flatten(0, -2)
        y: Tensor = self.base(rows)
        # In place: the gradient of a frozen layer does not need the layer's output.
        if groups is not None:
            y = GroupedLoRA.apply(y, rows, a, b, self.scale, groups)  # type: ignore[no-untyped-call]
        else:
            low = nn.functional.linear(rows, a) if a.dim() == 2 else torch.bmm(rows, a.mT)
            y = y.baddbmm_(low, b.mT, alpha=self.scale)
        return y.view(*x.shape[:-1], y.shape[-1])

    def _factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A and B of this pass, padded to at least rank 2."""
        tensors: Mapping[str, Tensor] = self._bound.tensors
        a = tensors["lora_A"] if self.frozen_a is None else self.frozen_a
        b = tensors["lora_B"]
        missing = max(0, MIN_RANK - b.shape[-1])
        if missing:
            a, b = nn.functional.pad(a, (0, 0, 0, missing)), nn.functional.pad(b, (0, missing))
        return a.to(dtype), b.to(dtype)


class StackedLinear(nn.Module):
    """A trained linear layer (of a head) with one weight and bias per copy.

    Shapes: weight (copies, out, in); bias, where there is one, (copies, out).
    """

    def __init__(self, base: nn.Linear, keep: Keep):
        super().__init__()
        self.out_features, self.in_features = base.out_features, base.in_features
        self._bound: Any = keep()

    def bind(self, tensors: Mapping[str, Tensor], groups: Groups | None = None) -> None:
        """Sets the stacked tensors of this thread's next pass, by role; it is never packed."""
        assert groups is None
        self._bound.tensors = tensors

    def forward(self, x: Tensor) -> Tensor:
        """Every row times its own weights."""
        tensors: Mapping[str, Tensor] = self._bound.tensors
        weight, bias = tensors["weight"], tensors.get("bias")
        rows = _by_copy(x, len(weight))
        missing = -rows.shape[1] % MIN_ROWS
        padded = nn.functional.pad(rows, (0, 0, 0, missing))
        y = torch.bmm(padded, weight.mT.to(x.dtype))[:, : rows.shape[1]]
        if bias is not None:
            y = y + bias[:, None].to(x.dtype)
        return y.reshape(*x.shape[:-1], self.out_features)


def install(
    model: nn.Module, layout: AdapterLayout, keep: Keep = threading.local
) -> dict[str, StackedLoRA | StackedLinear]:
    """Replaces the trained modules of a model with stacked ones; returns them by path."""
    modules: dict[str, StackedLoRA | StackedLinear] = {}
    device = next(model.parameters()).device
    for path in dict.fromkeys(entry.module for entry in layout.entries):
        old: Any = model.get_submodule(path)
        if path in layout.adapted:
            a = layout.frozen.get(path)
            frozen_a = None if a is None else torch.from_numpy(a).to(device)
            modules[path] = StackedLoRA(old, layout.scale, frozen_a, keep)
        else:
            modules[path] = StackedLinear(old, keep)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, modules[path])
    return modules


def _by_copy(x: Tensor, copies: int) -> Tensor:
    """(rows, ..., width) -> (copies, rows per copy, width)."""
    if len(x) % copies:
        raise ValueError(f"{len(x)} rows for {copies} adapters: not the same number for each")
    return x.reshape(copies, -1, x.shape[-1])
