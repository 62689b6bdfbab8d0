"""Packed passes: rows of several lengths in one sequence, of which none sees another."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from feddp.client.engine.batch import make_batch
from feddp.client.engine.cohort import CohortEngine
from feddp.client.engine.forward import StackedForward
from feddp.client.engine.packing import (
    Group,
    GroupedLoRA,
    attend,
    group_lengths,
    may_pack,
    needs_no_mask,
)
from feddp.common.data.tokens import IGNORE, TokenRow
from feddp.common.model.base import BaseModel
from feddp.common.model.lora import lay_out

GROUPS = (Group(2, 6), Group(1, 3), Group(2, 4))
TOKENS = sum(group.num_tokens for group in GROUPS)
HEADS, WIDTH = 4, 8


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("window", [None, 3, 100])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_attention_looks_back_within_its_row_and_window_alone(
    key_heads: int, window: int | None
) -> None:
    module = nn.Module()
    module.num_key_value_groups = HEADS // key_heads  # type: ignore[assignment]
    query = numbers(1, HEADS, TOKENS, WIDTH)
    key, value = numbers(1, key_heads, TOKENS, WIDTH), numbers(1, key_heads, TOKENS, WIDTH)
    found, _ = attend(
        module, query, key, value, None, packed_groups=GROUPS, sliding_window=window, scaling=0.5
    )
    row = torch.tensor([g for g, n in enumerate(lengths()) for _ in range(n)])
    place = torch.arange(TOKENS)
    distance = place[:, None] - place[None, :]
    seen = (row[:, None] == row[None, :]) & (distance >= 0) & (distance < (window or TOKENS))
    wide_key, wide_value = (x.repeat_interleave(HEADS // key_heads, dim=1) for x in (key, value))
    scores = (0.5 * query @ wide_key.mT).masked_fill(~seen, -torch.inf)
    expected = (scores.softmax(-1) @ wide_value).transpose(1, 2)
    torch.testing.assert_close(found, expected)


def lengths() -> list[int]:
    return [group.length for group in GROUPS for _ in range(group.rows)]


@pytest.mark.parametrize("is_frozen", [True, False])
def test_grouped_adapters_add_what_each_row_owns_and_have_its_gradients(is_frozen: bool) -> None:
    rows = len(lengths())
    x, y, b = numbers(TOKENS, 5), numbers(TOKENS, 7), numbers(rows, 7, 2)
    a = numbers(2, 5).detach() if is_frozen else numbers(rows, 2, 5)

    def run(x: torch.Tensor, y: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = GroupedLoRA.apply(y.clone(), x, a, b, 0.3, GROUPS)
        return found

    parts = x.split(lengths())
    own = [a] * rows if is_frozen else list(a)
    added = [0.3 * part @ low.T @ high.T for part, low, high in zip(parts, own, b, strict=True)]
    torch.testing.assert_close(run(x, y, a, b), y + torch.cat(added))
    assert torch.autograd.gradcheck(run, (x, y, a, b))


def test_adjacent_rows_of_one_length_are_a_group() -> None:
    assert group_lengths(lengths()) == GROUPS
    assert group_lengths([8, 16, 8]) == (Group(1, 8), Group(1, 16), Group(1, 8))


def forward_of(base: BaseModel, *, is_compiled: bool = False) -> StackedForward:
    layout = lay_out(base, kind="lora", rank=2, alpha=4.0, target_modules=None)
    return StackedForward(
        base, layout, device="cpu", num_threads=1, is_recomputing=False, is_compiled=is_compiled
    )


@pytest.mark.parametrize("name", sorted(tiny.CAUSAL))
def test_every_decoder_with_the_librarys_fast_attention_is_packed(
    tmp_path: Path, name: str
) -> None:
    tiny.save(name, tmp_path, task="causal-lm")
    forward = forward_of(tiny.load(tmp_path / f"{name}-causal-lm"))
    assert forward.is_packed == (name != "gemma2")  # its scores have a soft cap


class Mixing(nn.Module):
    """A block that adds a little of each token to a later one, `distance` tokens on."""

    def __init__(self, block: nn.Module, distance: int):
        super().__init__()
        self.block, self.distance = block, distance

    def forward(self, hidden: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        shifted = hidden.roll(self.distance, dims=1)
        if self.distance > 0:
            shifted[:, : self.distance] = 0
        output: torch.Tensor = self.block(hidden + 1e-4 * shifted, *args, **kwargs)
        return output

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)


def test_a_model_that_mixes_the_end_of_a_row_into_the_next_is_not_packed(tmp_path: Path) -> None:
    tiny.save("llama", tmp_path, task="causal-lm")
    base = tiny.load(tmp_path / "llama-causal-lm")
    layers = base.model.model.layers  # type: ignore[union-attr]
    layers[0] = Mixing(layers[0], distance=2)  # type: ignore[index,operator,arg-type]
    assert not forward_of(base).is_packed


def test_a_decoder_that_is_not_under_test_is_not_packed(tmp_path: Path) -> None:
    tiny.save("llama", tmp_path, task="causal-lm")
    base = tiny.load(tmp_path / "llama-causal-lm")
    base.model.config.model_type = "another"
    assert not forward_of(base).is_packed


@pytest.mark.parametrize("rope_type", ["longrope", "dynamic", {"full_attention": "dynamic"}])
def test_rotary_positions_that_depend_on_the_longest_row_are_not_packed(
    tmp_path: Path, rope_type: object
) -> None:
    tiny.save("llama", tmp_path, task="causal-lm")
    base = tiny.load(tmp_path / "llama-causal-lm")
    base.model.model.rotary_emb.rope_type = rope_type  # type: ignore[union-attr,assignment]
    assert not may_pack(base.model)
    base.model.model.rotary_emb.rope_type = "llama3"  # type: ignore[union-attr,assignment]
    assert may_pack(base.model)


def test_a_mask_of_the_models_own_is_refused() -> None:
    x = numbers(1, HEADS, TOKENS, WIDTH)
    with pytest.raises(ValueError, match="mask of the model's own"):
        attend(nn.Module(), x, x, x, torch.ones(1, 1, TOKENS, TOKENS), packed_groups=GROUPS)


def test_groups_that_leave_tokens_or_adapters_over_are_refused() -> None:
    x, y, a = numbers(TOKENS + 1, 5), numbers(TOKENS + 1, 7).detach(), numbers(5, 2, 5)
    with pytest.raises(ValueError, match="not the tokens"):
        GroupedLoRA.apply(y, x, a, numbers(5, 7, 2), 0.3, GROUPS)
    with pytest.raises(ValueError, match="not the tokens"):
        GroupedLoRA.apply(y[1:], x[1:], a, numbers(4, 7, 2), 0.3, GROUPS)


def test_only_decoders_that_answer_from_their_last_token_classify_without_a_mask(
    tmp_path: Path,
) -> None:
    for name, pooling, expected in (
        ("llama", "auto", True),
        ("llama", "mean", False),
        ("bert", "auto", False),
    ):
        tiny.save(name, tmp_path / pooling, task="classification")
        place = tmp_path / pooling / f"{name}-classification"
        base = tiny.load(place, task="classification", pooling=pooling)
        assert needs_no_mask(base.model) == expected


def test_a_kind_of_layer_that_masks_more_than_packing_knows_is_not_packed(tmp_path: Path) -> None:
    tiny.save("llama", tmp_path, task="causal-lm")
    base = tiny.load(tmp_path / "llama-causal-lm")
    base.model.config.layer_types = ["full_attention", "chunked_attention"]
    assert not forward_of(base).is_packed


def test_padding_beyond_the_positions_of_a_model_has_its_last_one() -> None:
    row = TokenRow(np.arange(3, 16), np.arange(4, 17))
    batch = make_batch(
        [row, row], longest=13, pad=0, is_causal=True, is_packed=True, device=torch.device("cpu")
    )
    assert batch.groups == (Group(2, 16),)
    assert batch.positions.tolist() == [[*range(13), 12, 12, 12]]
    assert batch.inputs.tolist() == [[*range(3, 16), 0, 0, 0]] * 2
    assert batch.targets.tolist() == [[*range(4, 17), *[IGNORE] * 3]] * 2


def test_tokens_beyond_the_positions_of_a_model_have_their_own() -> None:
    rows = [TokenRow(np.arange(3, 3 + n), np.arange(4, 4 + n)) for n in (15, 8, 7)]
    batch = make_batch(
        rows, longest=13, pad=0, is_causal=True, is_packed=True, device=torch.device("cpu")
    )
    assert batch.positions.tolist() == [[*range(15), 14, *range(8), *range(8)]]


@pytest.mark.parametrize("is_causal", [True, False])
def test_labels_that_do_not_fit_a_row_never_reach_the_next(is_causal: bool) -> None:
    rows = [TokenRow(np.arange(3, 11), np.arange(4, 22)), TokenRow(np.arange(3, 16), np.array([1]))]
    with pytest.raises(ValueError, match="could not broadcast"):
        make_batch(
            rows,
            longest=None,
            pad=0,
            is_causal=is_causal,
            is_packed=is_causal,
            device=torch.device("cpu"),
        )


def test_groups_are_packed_one_after_the_other_each_row_from_position_zero() -> None:
    rows = [TokenRow(np.arange(3, 3 + n), np.arange(4, 4 + n)) for n in (13, 8)]
    batch = make_batch(
        rows, longest=13, pad=0, is_causal=True, is_packed=True, device=torch.device("cpu")
    )
    assert batch.groups == (Group(1, 16), Group(1, 8))
    assert batch.positions.tolist() == [[*range(13), 12, 12, 12, *range(8)]]
    assert batch.inputs.tolist() == [[*range(3, 16), 0, 0, 0, *range(3, 11)]]
    assert batch.mask.tolist() == [[*[1] * 13, 0, 0, 0, *[1] * 8]]
    assert batch.spread(torch.tensor([2.0, 3.0])).tolist() == [[*[2.0] * 16, *[3.0] * 8]]


def test_a_kept_prefix_takes_rows_of_one_length(tmp_path: Path) -> None:
    tiny.save("llama", tmp_path, task="causal-lm")
    base = tiny.load(tmp_path / "llama-causal-lm")
    layout = lay_out(base, kind="lora", rank=2, alpha=4.0, target_modules=("layers.1.mlp.up_proj",))
    engine = CohortEngine(base, layout)
    assert engine.cache_prefix(1 << 20)
    assert not engine._forward.is_packed
    assert not engine.cache_prefix(0)
    assert engine._forward.is_packed


def test_compiled_blocks_take_rows_of_one_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feddp.client.engine.forward.compile_blocks", lambda blocks: None)
    tiny.save("llama", tmp_path, task="causal-lm")
    assert not forward_of(tiny.load(tmp_path / "llama-causal-lm"), is_compiled=True).is_packed
