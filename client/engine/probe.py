"""A start-up check on public random tokens: does the engine train this base model at all?

A failure in a user's pass only zeroes that user's update, so a base model that the engine cannot
train would look like a cohort of users without data. Here failures are raised.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from feddp.common.data.tokens import TokenRow
from feddp.common.errors import ModelError
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import AdapterLayout

SEED = 0
ROW_TOKENS = (5, 12)  # of two padded lengths
SPREAD = 0.02  # of the adapters: B = 0 gives A no gradient, a zero head gives none at all
# Relative, of a whole gradient; a mixed-up row or a missing adapter gives about 1.
TOLERANCE = {torch.float32: 1e-2}
HALF_TOLERANCE = 0.2
Gradients = Callable[[NDArray[np.float32], Sequence[TokenRow]], NDArray[np.float32]]


def probe_rows(base: BaseModel) -> list[TokenRow]:
    """Rows of random ordinary tokens: a function of the tokenizer alone."""
    rng = np.random.default_rng(SEED)
    num_ids = min(len(base.tokenizer), len(base.model.get_input_embeddings().weight))  # type: ignore[operator]
    ordinary = np.setdiff1d(np.arange(num_ids), base.tokenizer.all_special_ids)
    rows = []
    for length in ROW_TOKENS:
        ids = rng.choice(ordinary, size=length).astype(np.int64)
        label = rng.integers(0, max(len(base.labels), 1), size=1)
        rows.append(TokenRow(ids, label if base.task == "classification" else np.roll(ids, -1)))
    return rows


def probe_adapters(layout: AdapterLayout) -> NDArray[np.float32]:
    """An adapter per row, near the start; float32, shape (rows, P)."""
    noise = np.random.default_rng(SEED).normal(size=(len(ROW_TOKENS), layout.dimension))
    return (layout.start + SPREAD * noise).astype(np.float32)


def plain_gradients(
    base: BaseModel, layout: AdapterLayout, adapters: NDArray[np.float32], rows: Sequence[TokenRow]
) -> NDArray[np.float32]:
    """Expected gradients of an engine: the model's own forward, one unpadded row at a time.

    Args:
      base: with its original modules; not changed.
      adapters: float32, shape (rows, P).

    Raises:
      ModelError: the model cannot run these rows, or no gradient arrives.
    """
    device = next(base.model.parameters()).device
    found = []
    for adapter, row in zip(adapters, rows, strict=True):
        vector = torch.from_numpy(adapter).to(device).requires_grad_()
        with _running(base), _plainly_adapted(base.model, layout, vector), torch.enable_grad():
            (gradient,) = torch.autograd.grad(_loss(base, row, device), vector)
        found.append(gradient.cpu().numpy())
    return np.stack(found)


def check_gradients(
    base: BaseModel,
    gradients: Gradients,
    adapters: NDArray[np.float32],
    rows: Sequence[TokenRow],
    expected: NDArray[np.float32] | None = None,
) -> None:
    """Refuses a base model on which the engine's gradients are missing or wrong.

    Args:
      adapters: float32, shape (rows, P).
      expected: the right gradients, if they are cheap to compute.

    Raises:
      ModelError: the pass fails, or its gradients are not finite, all zero, or not as expected.
    """
    with _running(base):
        found = gradients(adapters, rows)
    if found.shape != adapters.shape or not np.isfinite(found).all():
        raise _refusal(base, "its gradients on random tokens are not finite")
    if not found.any(axis=1).all():
        raise _refusal(base, "no gradient reaches what is to be trained")
    if expected is None:
        return
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    tolerance = TOLERANCE.get(next(base.model.parameters()).dtype, HALF_TOLERANCE)
    if not (error <= tolerance).all():
        raise _refusal(
            base, f"stacked passes give other gradients (relative {error.max():.2g}) than its own"
        )


def _loss(base: BaseModel, row: TokenRow, device: torch.device) -> Tensor:
    """Mean loss of an unpadded row, by the model's own forward."""
    ids = torch.from_numpy(row.input_ids)[None].to(device)
    logits = base.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
    labels = torch.from_numpy(row.labels).to(device)
    return functional.cross_entropy(logits.flatten(0, -2), labels)


@contextmanager
def _plainly_adapted(model: nn.Module, layout: AdapterLayout, vector: Tensor) -> Iterator[None]:
    """Hooks that add the adapter `vector` (P,) to the model's own modules."""
    tensors: dict[str, dict[str, Tensor]] = {}
    parts = torch.split(vector, [entry.size for entry in layout.entries])
    for entry, part in zip(layout.entries, parts, strict=True):
        tensors.setdefault(entry.module, {})[entry.role] = part.view(entry.shape)
    with ExitStack() as stack:
        for path, own in tensors.items():
            if path in layout.frozen:
                own["lora_A"] = torch.from_numpy(layout.frozen[path]).to(vector.device)
            hook = _hook(own, layout.scale)
            handle = model.get_submodule(path).register_forward_hook(hook)
            stack.callback(handle.remove)
        yield


def _hook(own: dict[str, Tensor], scale: float) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The layer's output with the adapter's part."""
        cast = {role: tensor.to(output.dtype) for role, tensor in own.items()}
        if "weight" in cast:
            return functional.linear(inputs[0], cast["weight"], cast.get("bias"))
        low = functional.linear(inputs[0], cast["lora_A"])
        return output + scale * functional.linear(low, cast["lora_B"])

    return hook


@contextmanager
def _running(base: BaseModel) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # no user's data is in these passes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise _refusal(base, f"a pass over random tokens fails ({reason})") from error


def _refusal(base: BaseModel, reason: str) -> ModelError:
    return ModelError(
        f'model.base = "{base.source}": cannot be trained: {reason}. Choose another '
        "adapter.kind or adapter.target-modules, or another base model."
    )
