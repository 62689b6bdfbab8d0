"""What the stacked forward predicts, position by position: it is scored, and never returned."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from feddp.client.engine.forward import StackedForward
from feddp.common.data.tokens import TokenRow


@torch.no_grad()
def logits_of(forward: StackedForward, row: TokenRow, adapter: Tensor) -> NDArray[np.float32]:
    """Logits of one row: (tokens, vocabulary), or (labels,) for a classifier; adapter (P,)."""
    batch = forward._batch([row])
    forward._bind_one(adapter, batch)
    if not forward._is_causal:
        return np.asarray(forward._classify(batch)[0].float().cpu().numpy())
    hidden = forward._hidden(batch)[0, : len(row.input_ids)]
    weight, bias, softcap = forward._output()
    logits = nn.functional.linear(hidden, weight, bias).float()
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    return np.asarray(logits.cpu().numpy())
