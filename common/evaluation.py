"""Evaluation: what is measured on the declared evaluation users, from the engine to the reader."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

LARGEST_LOSS = 700.0  # exp() of more than 709 is beyond float64


@dataclass(frozen=True)
class Evaluation:
    """Sums over evaluated rows. Every field is a sum and adds up over rows, processes and nodes.

    The fields are the numbers of a node's reply, by name; `metrics_of` gives what a run reports.

    Attributes:
      loss_sum: nats, over all predicted positions (causal-lm) or rows (classification).
      num_targets: predicted positions or rows.
      num_correct: how many of them the largest logit got right.

    >>> Evaluation(2.0, 1, 1) + Evaluation(10.0, 9, 4)
    Evaluation(loss_sum=12.0, num_targets=10, num_correct=5)
    """

    loss_sum: float = 0.0
    num_targets: int = 0
    num_correct: int = 0

    def __add__(self, other: "Evaluation") -> "Evaluation":
        names = [field.name for field in fields(self)]
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return replace(self, **sums)

    @property
    def is_sound(self) -> bool:
        """Whether some rows could have given these sums."""
        return math.isfinite(self.loss_sum) and 0 <= self.num_correct <= self.num_targets

    @property
    def loss(self) -> float:
        """Mean loss, in nats per predicted position or row."""
        return self.loss_sum / self.num_targets

    @property
    def perplexity(self) -> float:
        """The perplexity of the mean loss."""
        return math.exp(min(self.loss, LARGEST_LOSS))

    @property
    def accuracy(self) -> float:
        """Share of positions or rows whose largest logit is right."""
        return self.num_correct / self.num_targets


METRICS = {"causal-lm": ("loss", "perplexity"), "classification": ("loss", "accuracy")}


def add_evaluations(parts: Iterable[Evaluation]) -> Evaluation | None:
    """The sums over all parts; None when nothing was evaluated."""
    total = sum(parts, start=Evaluation())
    return total if total.num_targets else None


def metrics_of(evaluation: Evaluation | None, *, task: str) -> dict[str, float]:
    """The public metrics of an evaluation, by the names of metrics.jsonl without their prefix."""
    if evaluation is None:
        return {}
    return {name: getattr(evaluation, name) for name in METRICS[task]}
