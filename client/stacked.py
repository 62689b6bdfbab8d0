"""Stacked adapters: many users' trained weights through one shared frozen base.

A pass holds rows of many users, in the order of its stack: with `copies` adapters in the stack,
each owns an equal number of adjacent rows. No term crosses rows of different adapters.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class StackedLoRA(nn.Module):
    """y = base(x) + scale (x A^T) B^T with one A and B per copy, or one frozen A for all.

    Attributes:
      a: (copies, rank, in) or, frozen, (rank, in).
      b: (copies, out, rank).
    """

    frozen_a: Tensor | None

    def __init__(self, base: nn.Linear | Conv1D, scale: float, frozen_a: Tensor | None):
        super().__init__()
        self.base, self.scale = base, scale
        self.register_buffer("frozen_a", frozen_a, persistent=False)
        self.a: Tensor | None = None
        self.b: Tensor | None = None

    def bind(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the stacked tensors of the next pass, by role."""
        self.a, self.b = tensors.get("lora_A"), tensors["lora_B"]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        assert self.b is not None
        copies = len(self.b)
        if self.frozen_a is not None:
            low = nn.functional.linear(x, self.frozen_a.to(x.dtype))
            low = low.reshape(copies, -1, low.shape[-1])
        else:
            assert self.a is not None
            low = torch.bmm(x.reshape(copies, -1, x.shape[-1]), self.a.mT.to(x.dtype))
        stacked = y.reshape(copies, -1, y.shape[-1])
        return torch.baddbmm(stacked, low, self.b.mT.to(x.dtype), alpha=self.scale).view(y.shape)


class StackedLinear(nn.Module):
    """A trained linear layer (of a head) with one weight and bias per copy.

    Attributes:
      weight: (copies, out, in).
      bias: (copies, out), or None.
    """

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.out_features, self.in_features = base.out_features, base.in_features
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def bind(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the stacked tensors of the next pass, by role."""
        self.weight, self.bias = tensors["weight"], tensors.get("bias")

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        copies = len(self.weight)
        y = torch.bmm(x.reshape(copies, -1, x.shape[-1]), self.weight.mT.to(x.dtype))
        if self.bias is not None:
            y = y + self.bias[:, None].to(x.dtype)
        return y.reshape(*x.shape[:-1], self.out_features)
