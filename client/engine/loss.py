"""Linear layer and cross-entropy over the labelled positions only, in chunks of positions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from feddp.common.evaluation import Evaluation

CHUNK_POSITIONS = 256
# With a multiple of this many rows, a row's bits do not depend on the others: in products, and in
# elementwise operations of any width (AVX-512 takes 32 numbers at a time).
ROW_MULTIPLE = 32


class LinearCrossEntropy(torch.autograd.Function):
    """sum_i w_i CE(h_i W^T + b, t_i), without ever holding more than a chunk of logits.

    The gradient with respect to h is computed with the loss, so the backward pass only scales it.
    W and b are frozen.
    """

    @staticmethod
    def forward(
        context: torch.autograd.function.FunctionCtx,
        hidden: Tensor,  # (positions, hidden)
        weight: Tensor,  # (vocabulary, hidden)
        bias: Tensor | None,  # (vocabulary,)
        targets: Tensor,  # (positions,)
        weights: Tensor,  # (positions,) float32
        softcap: float | None,
    ) -> Tensor:
        """The weighted sum of losses, a scalar; its gradient is made here, chunk by chunk."""
        gradient, loss = torch.empty_like(hidden), weights.new_zeros(())
        for start in range(0, len(hidden), CHUNK_POSITIONS):
            part = slice(start, start + CHUNK_POSITIONS)
            logits, slope = _logits(hidden[part], weight, bias, softcap)
            target, share = targets[part, None], weights[part, None]
            top = logits.amax(1, keepdim=True)
            picked = logits.gather(1, target)
            exponential = logits.sub_(top).exp_()
            total = exponential.sum(1, keepdim=True)
            loss = loss + (share * (total.log() + top - picked)).sum()
            exponential.mul_(share / total).scatter_add_(1, target, -share)
            if slope is not None:
                exponential.mul_(slope)
            gradient[part] = exponential.to(hidden.dtype) @ weight
        context.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(
        context: torch.autograd.function.FunctionCtx, scale: Tensor
    ) -> tuple[Tensor | None, ...]:
        """The gradient of the hidden states, times `scale`."""
        (gradient,) = context.saved_tensors  # type: ignore[attr-defined]
        return gradient * scale.to(gradient.dtype), None, None, None, None, None


def select_positions(
    hidden: Tensor, targets: Tensor, weights: Tensor, *, ignore: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The positions with a target, padded with zero-weight ones to a multiple of `ROW_MULTIPLE`.

    From `hidden` (rows, tokens, hidden), `targets` int64 and `weights` float32 (rows, tokens), to
    (positions, hidden) and (positions,); no loss is taken where the target is `ignore`.
    """
    keep = targets != ignore
    hidden_kept, targets_kept = hidden[keep], targets[keep]
    weights_kept = weights[keep]
    missing = -len(targets_kept) % ROW_MULTIPLE
    return (
        functional.pad(hidden_kept, (0, 0, 0, missing)),
        functional.pad(targets_kept, (0, missing)),
        functional.pad(weights_kept, (0, missing)),
    )


@dataclass(frozen=True)
class Scores:
    """What is measured of every predicted position (causal-lm) or row (classification).

    Attributes:
      losses: float32, shape (positions,), negative log-likelihood in nats.
      corrects: bool, shape (positions,), whether the largest logit is right.
    """

    losses: Tensor
    corrects: Tensor

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor) -> "Scores":
        """Of logits (positions, classes) against targets (positions,), each of them a class."""
        losses = functional.cross_entropy(logits, targets, reduction="none")
        return cls(losses, logits.argmax(1) == targets)

    @classmethod
    def join(cls, parts: Sequence["Scores"]) -> "Scores":
        """One after the other; at least one part."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(torch.cat(column) for column in columns))

    def sums(self) -> Evaluation:
        """The losses add up in float64."""
        return Evaluation(
            loss_sum=float(self.losses.double().sum()),
            num_targets=len(self.losses),
            num_correct=int(self.corrects.sum()),
        )


@torch.no_grad()
def score_positions(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, softcap: float | None
) -> Scores:
    """The scores of every position, from chunks of logits."""
    parts = []
    for start in range(0, len(hidden), CHUNK_POSITIONS):
        part = slice(start, start + CHUNK_POSITIONS)
        logits, _ = _logits(hidden[part], weight, bias, softcap)
        parts.append(Scores.of(logits, targets[part]))
    return Scores.join(parts)


def widen(x: Tensor) -> Tensor:
    """Casts half precision to float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None
) -> tuple[Tensor, Tensor | None]:
    """Logits in float32 or wider, and the derivative of the soft cap if there is one."""
    logits = widen(functional.linear(hidden, weight, bias))
    if softcap is None:
        return logits, None
    bounded = torch.tanh(logits / softcap)
    return bounded * softcap, 1 - bounded**2
