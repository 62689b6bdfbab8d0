import threading

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from feddp.client.engine.stacked import StackedLinear, StackedLoRA

COPIES, ROWS, TOKENS, IN, OUT, RANK = 3, 2, 5, 8, 6, 2


def tensors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("base", [nn.Linear(IN, OUT), Conv1D(OUT, IN)], ids=["linear", "conv1d"])
def test_each_copy_serves_its_own_adjacent_rows(base: nn.Module, is_frozen: bool) -> None:
    base = base.double()
    a, b = tensors(COPIES, RANK, IN), tensors(COPIES, OUT, RANK)
    if is_frozen:
        a = a[:1].expand(COPIES, -1, -1)
    stacked = StackedLoRA(base, 0.5, a[0] if is_frozen else None, threading.local)
    stacked.bind({"lora_B": b} if is_frozen else {"lora_A": a, "lora_B": b})
    x = tensors(COPIES * ROWS, TOKENS, IN)
    with torch.no_grad():
        found = stacked(x)
        for copy in range(COPIES):
            part = x[copy * ROWS : (copy + 1) * ROWS]
            expected = base(part) + 0.5 * part @ a[copy].T @ b[copy].T
            torch.testing.assert_close(found[copy * ROWS : (copy + 1) * ROWS], expected)


def test_one_copy_serves_all_rows() -> None:
    stacked = StackedLoRA(nn.Linear(IN, OUT).double(), 1.0, None, threading.local)
    a, b = tensors(1, RANK, IN), tensors(1, OUT, RANK)
    stacked.bind({"lora_A": a, "lora_B": b})
    x = tensors(7, TOKENS, IN)
    torch.testing.assert_close(stacked(x), stacked.base(x) + x @ a[0].T @ b[0].T)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(COPIES, IN), (COPIES * ROWS, TOKENS, IN)])
def test_stacked_head_is_one_linear_layer_per_copy(shape: tuple[int, ...], has_bias: bool) -> None:
    stacked = StackedLinear(nn.Linear(IN, OUT, bias=has_bias), threading.local)
    weight, bias = tensors(COPIES, OUT, IN), tensors(COPIES, OUT)
    stacked.bind({"weight": weight, "bias": bias} if has_bias else {"weight": weight})
    x = tensors(*shape)
    found, rows = stacked(x), shape[0] // COPIES
    for copy in range(COPIES):
        part = slice(copy * rows, (copy + 1) * rows)
        expected = x[part] @ weight[copy].T + (bias[copy] if has_bias else 0)
        torch.testing.assert_close(found[part], expected)
