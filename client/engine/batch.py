"""The tensors of one pass: rows padded to one length, or packed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feddp.client.engine.packing import Groups, group_lengths
from feddp.client.engine.passes import padded_length
from feddp.common.data.tokens import IGNORE, TokenRow


@dataclass(frozen=True)
class Batch:
    """Right-padded rows. "(rows, tokens)" below is (1, tokens) if the pass is packed.

    Attributes:
      lengths: padded tokens of each row.
      inputs: int64, (rows, tokens).
      mask: int64, (rows, tokens), 1 where `inputs` is not padding.
      positions: int64, (1, tokens), of each token in its row; shared by all rows unless packed.
      targets: int64, (rows, tokens), or (rows, 1) for a classifier.
    """

    rows: Sequence[TokenRow]
    lengths: Sequence[int]
    groups: Groups | None
    inputs: Tensor
    mask: Tensor
    positions: Tensor
    targets: Tensor

    def spread(self, weights: Tensor) -> Tensor:
        """The weight of each position, shaped like `targets`, from one weight per row (rows,)."""
        lengths = torch.tensor(self.lengths, device=weights.device)
        return torch.repeat_interleave(weights, lengths).view_as(self.targets)


def make_batch(
    rows: Sequence[TokenRow],
    *,
    longest: int | None,
    pad: int,
    is_causal: bool,
    is_packed: bool,
    device: torch.device,
) -> Batch:
    """The tensors of a pass.

    Args:
      longest: positions that the base model has; None is no limit. Where packed rows must be padded
        beyond it, the last position is repeated.
      is_causal: one target per token instead of one per row.
    """
    lengths = [padded_length(row, None if is_packed else longest) for row in rows]
    groups = group_lengths(lengths) if is_packed else None
    if not is_packed:
        lengths = [max(lengths)] * len(rows)
    inputs = np.full(sum(lengths), pad, dtype=np.int64)
    mask = np.zeros_like(inputs)
    targets = np.full(sum(lengths) if is_causal else len(rows), IGNORE, dtype=np.int64)
    ends = np.cumsum(lengths)[:-1]
    parts = (np.split(inputs, ends), np.split(mask, ends))
    own_targets = np.split(targets, ends if is_causal else np.arange(1, len(rows)))
    for row, ids, seen, goals in zip(rows, *parts, own_targets, strict=True):
        ids[: len(row.input_ids)] = row.input_ids
        seen[: len(row.input_ids)] = 1
        goals[: len(row.labels)] = row.labels  # raises if there are too many
    is_flat = groups is not None and len(groups) > 1
    sizes = [len(row.input_ids) for row in rows]
    places = zip(sizes, lengths, strict=True) if is_flat else [(max(sizes), lengths[0])]
    positions = np.concatenate([_positions(size, length, longest) for size, length in places])
    shape = (1 if is_flat else len(rows), -1)
    arrays = (inputs.reshape(shape), mask.reshape(shape), positions[None], targets.reshape(shape))
    tensors = [torch.from_numpy(array).to(device) for array in arrays]
    return Batch(rows, lengths, groups, *tensors)


def _positions(size: int, length: int, longest: int | None) -> NDArray[np.int64]:
    """Positions of a row of `size` tokens and its padding, all of which the model has."""
    return np.minimum(np.arange(length), max(size, longest or length) - 1)
