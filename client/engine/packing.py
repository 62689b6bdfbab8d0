"""Packed passes: rows of several padded lengths as one sequence, separated where tokens interact.

Except for attention and adapters, a decoder treats each token separately. So a pass need not hold
rows of one length: its rows follow one another in a sequence of (1, tokens), and attention and
adapters split it into groups of adjacent rows of one padded length. Each group is computed as in
a pass of its own, so a row keeps its bits.
"""

from collections.abc import Iterable
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

ATTENTION = "feddp_packed"
# Decoders that tests compare with the plain loop, bit by bit. Others may use masks that `attend`
# does not see, or mix tokens elsewhere.
DECODERS = frozenset(
    {
        *("gemma", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral"),
        *("opt", "phi", "phi3", "qwen2", "qwen3"),
    }
)
KINDS_OF_LAYERS = frozenset({"full_attention", "sliding_attention"})
# The others depend on the largest position of a pass, which may be another user's.
ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})


class Group(NamedTuple):
    """Adjacent rows of one padded length."""

    rows: int
    length: int

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows, padding included."""
        return self.rows * self.length


Groups = tuple[Group, ...]


def group_lengths(lengths: Iterable[int]) -> Groups:
    """The groups of adjacent rows with these padded lengths.

    >>> group_lengths([16, 16, 8])
    (Group(rows=2, length=16), Group(rows=1, length=8))
    """
    return tuple(Group(len(list(same)), length) for length, same in groupby(lengths))


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_groups: Groups,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The library's attention within each row; registered in the library as `ATTENTION`.

    Rows are padded on the right and attention is causal, so padding needs no mask.

    Args:
      query, key, value: (1, heads, tokens, width); (rows, heads, tokens, width) for one group.
      attention_mask: always None for attention of this name.
      sliding_window: tokens that a token sees, itself included.

    Returns:
      (1, tokens, heads, width), or (rows, tokens, heads, width), and no attention weights.

    Raises:
      ValueError: the model made a mask of its own.
    """
    if attention_mask is not None:
        raise ValueError("a mask of the model's own, which packed rows cannot have")

    def within(group: Group, *rows: Tensor) -> Tensor:
        """Attention of the rows of one group."""
        mask = _window(group.length, sliding_window, query.device)
        output: Tensor = AttentionInterface()["sdpa"](module, *rows, mask, **options)[0]
        return output

    if len(packed_groups) == 1:
        return within(packed_groups[0], query, key, value), None
    sizes = [group.num_tokens for group in packed_groups]
    parts = zip(*(torch.split(x, sizes, 2) for x in (query, key, value)), strict=True)
    outputs = []
    for group, part in zip(packed_groups, parts, strict=True):
        rows = [x.reshape(x.shape[1], *group, x.shape[3]).transpose(0, 1) for x in part]
        outputs.append(within(group, *rows).flatten(0, 1))
    return torch.cat(outputs)[None], None


def _window(length: int, width: int | None, device: torch.device) -> Tensor | None:
    """Which token sees which, (length, length) bool; None if each sees all before it."""
    if width is None or length <= width:
        return None
    seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return seen.triu(1 - width)


def may_pack(model: PreTrainedModel) -> bool:
    """Whether `attend` may replace a model's attention; a check must still confirm it."""
    layers = set(getattr(model.config, "layer_types", None) or KINDS_OF_LAYERS)
    return bool(
        model.config.model_type in DECODERS
        and model.config._attn_implementation == "sdpa"
        and layers <= KINDS_OF_LAYERS
        and _rope_types(model) <= ROPE_TYPES
    )


def _rope_types(model: PreTrainedModel) -> set[str]:
    """How rotary positions are scaled, over the modules and kinds of layers that have them."""
    found = [getattr(module, "rope_type", {}) for module in model.modules()]
    return {
        kind for each in found for kind in (each.values() if isinstance(each, dict) else [each])
    }


def needs_no_mask(model: PreTrainedModel) -> bool:
    """Whether a classifier is causal and takes its answer from the last real token."""
    is_own_head = type(model).__name__.endswith("ForSequenceClassification")
    return is_own_head and model.config.model_type in DECODERS


def set_packed(model: PreTrainedModel, is_packed: bool) -> None:
    """Chooses between `attend` and the library's attention."""
    model.set_attn_implementation(ATTENTION if is_packed else "sdpa")


class GroupedLoRA(torch.autograd.Function):
    """y + scale (x A^T) B^T with one A and B per row, group by group; y is changed in place."""

    @staticmethod
    def forward(
        context: Any,
        y: Tensor,  # (tokens, out)
        x: Tensor,  # (tokens, in)
        a: Tensor,  # (rows, rank, in), or (rank, in) for all
        b: Tensor,  # (rows, out, rank)
        scale: float,
        groups: Groups,
    ) -> Tensor:
        """y with every row's low-rank product added, in place; shape (tokens, out)."""
        if sum(g.num_tokens for g in groups) != len(x) or sum(g.rows for g in groups) != len(b):
            raise ValueError("not the tokens or the adapters of these groups")
        low = x.new_empty(len(x), b.shape[2])
        for tokens, rows, group in _places(groups):
            low_part = low[tokens].view(*group, -1)
            if a.dim() == 2:
                torch.mm(x[tokens], a.mT, out=low[tokens])
            else:
                torch.bmm(x[tokens].view(*group, -1), a[rows].mT, out=low_part)
            y[tokens].view(*group, -1).baddbmm_(low_part, b[rows].mT, alpha=scale)
        context.save_for_backward(x, a, b, low)
        context.scale, context.groups = scale, groups
        context.mark_dirty(y)
        return y

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of `y`, `x`, `a` and `b`."""
        x, a, b, low = context.saved_tensors
        gradient = gradient.contiguous()
        of_x = torch.empty_like(x) if context.needs_input_grad[1] else None
        of_a = torch.empty_like(a) if context.needs_input_grad[2] else None
        of_b = torch.empty_like(b)
        for tokens, rows, group in _places(context.groups):
            gradient_part = gradient[tokens].view(*group, -1)
            low_part = low[tokens].view(*group, -1)
            torch.bmm(gradient_part.mT, low_part, out=of_b[rows])
            of_low = torch.bmm(gradient_part, b[rows]).mul_(context.scale)
            if of_a is not None:
                torch.bmm(of_low.mT, x[tokens].view(*group, -1), out=of_a[rows])
            if of_x is not None and a.dim() == 2:
                torch.mm(of_low.flatten(0, 1), a, out=of_x[tokens])
            elif of_x is not None:
                torch.bmm(of_low, a[rows], out=of_x[tokens].view(*group, -1))
        return gradient, of_x, of_a, of_b.mul_(context.scale), None, None


def _places(groups: Groups) -> Iterable[tuple[slice, slice, Group]]:
    """The tokens and rows of each group."""
    token, row = 0, 0
    for group in groups:
        yield slice(token, token + group.num_tokens), slice(row, row + group.rows), group
        token, row = token + group.num_tokens, row + group.rows


AttentionInterface.register(ATTENTION, attend)
