"""Node: users, model and engine, built once; answers each round with one exact sum."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from feddp.client.engine.protocol import (
    STOPS,
    Engine,
    LocalMethod,
    LocalWork,
    Minibatches,
    Sink,
)
from feddp.client.own_noise import OwnNoise, answer_round
from feddp.common.data.tokens import TokenRow, chunk_rows, tokenize_example
from feddp.common.data.users import Example, Units, Users, UsersView, bound_contributions
from feddp.common.evaluation import Evaluation
from feddp.common.model.layout import AdapterLayout
from feddp.common.privacy.mechanism.clipping import clip_to_grid, clip_with_bit
from feddp.common.privacy.mechanism.encoding import Encoding
from feddp.common.privacy.mechanism.sampling import fresh_coins, seeded_coins, training_rng
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.messages import EvaluateRequest, TrainReply, TrainRequest

CACHED_USERS = 20_000


@dataclass(frozen=True)
class LocalData:
    """How a user's examples become the rows of a round.

    Attributes:
      task, labels, max_tokens: see `tokenize_example`.
      max_rows: rows of one user in one round.
      selection: which examples are kept of a user with more.
      chunk_tokens: tokens per block of a user's joined texts; None: rows are single examples.
    """

    tokenizer: PreTrainedTokenizerBase
    task: str
    labels: tuple[str, ...]
    max_tokens: int
    max_rows: int
    selection: str
    chunk_tokens: int | None = None

    def rows(self, examples: Iterable[Example]) -> list[TokenRow]:
        """The rows of these examples, each tokenized alone."""
        return [
            row
            for example in examples
            for row in tokenize_example(
                example,
                self.tokenizer,
                task=self.task,
                max_tokens=self.max_tokens,
                labels=self.labels,
            )
        ]


class Node:
    """One machine with its units: draws them, trains them, clips each; only their sum leaves it.

    A unit is a user, or one example where examples are drawn; everything else is the same.
    """

    def __init__(
        self,
        *,
        units: Units,
        evaluation_users: Users,
        engine: Engine,
        layout: AdapterLayout,
        encoding: Encoding,
        data: LocalData,
        method: LocalMethod,
        max_evaluation_users: int,
        own_noise: OwnNoise | None = None,
    ):
        self.engine = engine
        self._own_noise = own_noise
        self.dimension, self.encoding = layout.dimension, encoding
        num_evaluated = min(evaluation_users.num_users, max_evaluation_users)
        self._units, self._keys, self._counts = units, units.keys, units.counts
        self._evaluation_users = UsersView(evaluation_users, np.arange(num_evaluated))
        self._layout_sha256 = layout.sha256
        self._data = data
        self._method = method
        self._rows: OrderedDict[int, list[TokenRow]] = OrderedDict()
        self._evaluation_rows: list[TokenRow] | None = None

    def train(self, request: TrainRequest, *, dropout: float = 0.0) -> TrainReply:
        """One round: the draw, local training, a clip per unit, an exact sum.

        **Guarantee:** each drawn unit moves the sum by an integer vector of L2 norm <= K, and a
        unit whose data or training fails contributes zero; no other contribution changes. A node
        that adds its own noise never returns a sum without it.

        `dropout`: in simulations, the share of drawn users who do not answer in time.

        Raises:
          ValueError: the request is for another adapter layout.
          RefusedError: see `answer_round`.
        """
        return answer_round(request, self._own_noise, lambda: self.update_sum(request, dropout))

    def update_sum(self, request: TrainRequest, dropout: float) -> UpdateSum:
        """The exact sum over the drawn units; sensitive, so it stays on this machine."""
        self._check_layout(request.layout_sha256)
        total = UpdateSum.zeros(request.sum_dimension)

        def add(_: int, update: NDArray[np.float32]) -> None:
            """Clips an update and adds it; what cannot be encoded adds nothing."""
            try:
                clipped = _clip(self.encoding.encode(update), request)  # encoded, then clipped
            except STOPS:
                raise
            except BaseException:
                return
            total.add(clipped)

        self.train_locally(request, sink=add, dropout=dropout)
        return total

    def train_locally(self, request: TrainRequest, *, sink: Sink, dropout: float = 0.0) -> None:
        """Draws units and trains them; `sink` gets each raw update, sensitive and unclipped."""
        coins = fresh_coins if request.seed is None else seeded_coins(request.seed, request.round)
        cohort = request.draw.units(self._keys, request.round, coins)
        if dropout > 0:
            cohort = cohort[[not self._drops_out(int(unit), request, dropout) for unit in cohort]]
        # Units with the most rows first, so that none is left training alone at the end.
        order = sorted(cohort, key=lambda unit: -self._counts[unit])
        work = (self._work(int(unit), request) for unit in order)
        self.engine.train(request.adapter, work, method=self._method, sink=sink)

    def evaluate(self, request: EvaluateRequest) -> Evaluation:
        """Sums of loss and correct predictions over the declared evaluation users."""
        self._check_layout(request.layout_sha256)
        if self._evaluation_rows is None:
            everyone = range(self._evaluation_users.num_users)
            self._evaluation_rows = [
                row
                for user in everyone
                for row in self._data.rows(self._evaluation_users.examples(user))
            ]
        return self.engine.evaluate(request.adapter, self._evaluation_rows)

    def _work(self, unit: int, request: TrainRequest) -> LocalWork:
        key = int(self._keys[unit])
        return LocalWork(key=key, steps=lambda: self._minibatches(unit, key, request))

    def _drops_out(self, unit: int, request: TrainRequest, dropout: float) -> bool:
        """If seeded, a function of (seed, round, unit), from a stream used for nothing else."""
        rng = training_rng(request.seed, -request.round, int(self._keys[unit]))
        return bool(rng.random() < dropout)

    def _minibatches(self, unit: int, key: int, request: TrainRequest) -> Minibatches:
        """The unit's local steps: a function of the unit, the round and its own randomness."""
        rng = training_rng(request.seed, request.round, key)
        rows = self._cached_rows(unit) or self._chosen_rows(unit, rng)
        kept = [rows[i] for i in rng.permutation(len(rows))[: self._data.max_rows]]
        return self._method.minibatches(kept, rng)

    def _cached_rows(self, unit: int) -> list[TokenRow]:
        """The rows of a unit whose examples are all kept; [] if the round has to choose."""
        if unit in self._rows:
            self._rows.move_to_end(unit)
            return self._rows[unit]
        if self._counts[unit] > self._data.max_rows:
            return []
        self._rows[unit] = self._training_rows(self._units.examples(unit))
        if len(self._rows) > CACHED_USERS:
            self._rows.popitem(last=False)
        return self._rows[unit]

    def _chosen_rows(self, unit: int, rng: np.random.Generator) -> list[TokenRow]:
        """The rows of a unit with more examples than a round takes, bounded by `selection`."""
        examples = self._units.examples(unit)
        if self._data.chunk_tokens is None:  # `_minibatches` chooses among blocks
            examples = bound_contributions(
                examples, max_examples=self._data.max_rows, selection=self._data.selection, rng=rng
            )
        return self._training_rows(examples)

    def _training_rows(self, examples: list[Example]) -> list[TokenRow]:
        if self._data.chunk_tokens is None:
            return self._data.rows(examples)
        return chunk_rows(examples, self._data.tokenizer, chunk_tokens=self._data.chunk_tokens)

    def _check_layout(self, layout_sha256: str) -> None:
        if layout_sha256 != self._layout_sha256:
            raise ValueError("the request is for an adapter of another layout")


def _clip(encoded: NDArray[np.float32], request: TrainRequest) -> NDArray[np.int64]:
    """The integer vector that a unit adds: its clipped update, and the clip bit if asked."""
    if request.bit_steps == 0:
        return clip_to_grid(
            encoded, clipping_norm=request.clipping_norm, grid_steps=request.grid_steps
        )
    return clip_with_bit(
        encoded,
        clipping_norm=request.clipping_norm,
        grid_steps=request.grid_steps,
        bit_steps=request.bit_steps,
    )
