"""Lean norms and rotations against the library's, for every architecture that has them."""

import copy
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from feddp.client.engine.fused_norms import ROTATION, fuse_norms, is_root_mean_square, rotate

# Modules of two blocks: two norms and an attention each, and a last norm; Qwen 3 norms q and k too.
NUM_CHANGED = {
    "llama": 7,
    "mistral": 7,
    "qwen2": 7,
    "qwen3": 11,
    "gemma": 2,
    "gemma3": 2,
    "phi": 2,
    "phi3": 7,
    "gpt-neox": 2,
    "gpt2": 0,
    "opt": 0,
}


def hidden_and_gradient(model: nn.Module) -> tuple[Tensor, Tensor]:
    ids = torch.arange(3, 27).view(2, 12)
    inputs = model.get_input_embeddings()(ids).detach().requires_grad_()
    hidden = model.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    slope = torch.linspace(-1, 1, hidden.numel(), dtype=hidden.dtype).view_as(hidden)
    (gradient,) = torch.autograd.grad(hidden, inputs, slope)
    return hidden.detach(), gradient


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in NUM_CHANGED),
        ("llama", torch.float64),
        ("llama", torch.bfloat16),
    ],
)
def test_a_fused_model_has_the_hidden_states_and_gradients_of_its_own(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    tiny.save(name, tmp_path, task="causal-lm")
    model = tiny.load(tmp_path / f"{name}-causal-lm", task="causal-lm").model.to(dtype)
    fused = copy.deepcopy(model)
    assert fuse_norms(fused) == NUM_CHANGED[name]
    tolerance = 100 * torch.finfo(dtype).eps
    for expected, found in zip(hidden_and_gradient(model), hidden_and_gradient(fused), strict=True):
        error = (found - expected).double().norm() / expected.double().norm()
        assert error <= tolerance
        assert found.dtype == dtype


def test_other_models_of_the_process_keep_the_function_of_the_library(tmp_path: Path) -> None:
    before = getattr(modeling_llama, ROTATION)
    tiny.save("llama", tmp_path, task="causal-lm")
    model = tiny.load(tmp_path / "llama-causal-lm", task="causal-lm").model
    fuse_norms(model)
    assert getattr(modeling_llama, ROTATION) is before is not rotate
    assert "forward" not in vars(modeling_llama.LlamaRMSNorm(8))


def test_a_copy_of_a_fused_model_uses_its_own_weights() -> None:
    model = nn.Sequential(LlamaRMSNorm(8))
    fuse_norms(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.zero_()
    x = torch.ones(1, 2, 8)
    assert not other(x).any()
    assert model(x).all()


def test_a_norm_of_another_formula_is_left_alone() -> None:
    class ShiftedRMSNorm(LlamaRMSNorm):
        def forward(self, hidden_states: Tensor) -> Tensor:
            shifted: Tensor = super().forward(hidden_states) + 1e-3
            return shifted

    class DetachedRMSNorm(LlamaRMSNorm):
        def forward(self, hidden_states: Tensor) -> Tensor:
            factor = hidden_states.square().mean(-1, keepdim=True) + self.variance_epsilon
            return self.weight * hidden_states * torch.rsqrt(factor).detach()

    assert is_root_mean_square(LlamaRMSNorm(8))
    for other in (ShiftedRMSNorm(8), DetachedRMSNorm(8), GemmaRMSNorm(8), nn.LayerNorm(8)):
        assert not is_root_mean_square(other)


@pytest.mark.parametrize("width", [8, 10, 24, 96])
def test_a_row_of_a_fused_norm_and_rotation_has_the_same_bits_wherever_it_is(width: int) -> None:
    torch.manual_seed(width)
    norm = LlamaRMSNorm(width)
    holder = nn.ModuleList([norm])
    assert fuse_norms(holder) == 1
    x, slope = torch.randn(7, 8, width), torch.randn(7, 8, width)
    cos, sin = torch.randn(1, 8, width), torch.randn(1, 8, width)

    def of(rows: slice) -> tuple[Tensor, ...]:
        live = x[rows].clone().requires_grad_()
        normed = norm(live)
        heads = live.view(len(live), 8, 1, width).transpose(1, 2)
        rotated, _ = rotate(heads, heads, cos, sin)
        gradients = [
            torch.autograd.grad(out, live, slope[rows].view_as(out))[0] for out in (normed, rotated)
        ]
        return (normed, rotated, *gradients)

    whole = of(slice(None))
    for row in range(7):
        for all_rows, alone in zip(whole, of(slice(row, row + 1)), strict=True):
            assert torch.equal(all_rows[row : row + 1], alone)
