"""A user's examples ranked by their likelihood under the public base model."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from feddp.client.engine.protocol import Engine
from feddp.common.data.tokens import TokenRow
from feddp.common.data.users import Example, Units

Perplexity = Callable[[Example], float]
RowsOf = Callable[[list[Example]], list[TokenRow]]


class RankedUsers:
    """The users of `source`, each with only their most or least likely examples.

    **Guarantee:** which examples are kept depends only on the user's rows and the public base
    model, and is the same in every round.

    Args:
      max_examples: kept of each.
      is_high_kept: the least likely are kept; otherwise the most likely.
      perplexity: log perplexity of one example; NaN if it predicts nothing, which ranks last.
    """

    def __init__(
        self, source: Units, *, max_examples: int, is_high_kept: bool, perplexity: Perplexity
    ):
        self._source, self._max_examples = source, max_examples
        self.num_users, self.keys = source.num_users, source.keys
        self.counts = np.minimum(source.counts, max_examples)
        self._sign = -1.0 if is_high_kept else 1.0
        self._perplexity = perplexity
        self._kept: dict[int, list[int]] = {}

    def examples(self, user: int) -> list[Example]:
        """The kept rows of one user, in their own order; ranked when first asked for."""
        examples = self._source.examples(user)
        if len(examples) <= self._max_examples:
            return examples
        if user not in self._kept:
            values = self._sign * np.array([self._perplexity(example) for example in examples])
            order = np.argsort(values, kind="stable")  # NaN comes last
            self._kept[user] = sorted(int(i) for i in order[: self._max_examples])
        return [examples[i] for i in self._kept[user]]


def perplexity_of(engine: Engine, adapter: NDArray[np.float32], rows_of: RowsOf) -> Perplexity:
    """The mean loss of an example, in nats, under the model before round 1.

    `adapter`: float32, shape (P,), where training starts.
    """

    def perplexity(example: Example) -> float:
        """Mean loss in nats, which has its order; NaN where nothing is predicted."""
        rows = rows_of([example])
        return engine.evaluate(adapter, rows).loss if rows else float("nan")

    return perplexity
