"""Node: users, model and engine, built once and kept; answers a round with one exact sum."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from client.cohort import CohortEngine, LocalTraining, LocalWork, Sink
from common.adapter import AdapterLayout
from common.messages import EvaluateReply, EvaluateRequest, TrainReply, TrainRequest
from common.privacy.clipping import clip_to_grid
from common.privacy.sampling import draw_cohort, fresh_coins, seeded_coins, training_rng
from common.privacy.summation import UpdateSum
from common.tokens import TokenRow, tokenize_example
from common.users import Example, Users, bound_contributions

CACHED_USERS = 20_000


@dataclass(frozen=True)
class LocalData:
    """How a user's examples become rows, and rows become minibatches.

    Attributes:
      task: "causal-lm" or "classification".
      labels: declared classes, in order.
      max_tokens: longest row.
      max_rows: rows of one user in one round.
      selection: which examples are kept of a user who has more.
      batch_size: rows of one local step.
      epochs: passes over the kept rows.
      steps: most local steps; None is no limit.
    """

    task: str
    labels: tuple[str, ...]
    max_tokens: int
    max_rows: int
    selection: str
    batch_size: int
    epochs: int
    steps: int | None


class Node:
    """One machine with its users: draws them, trains them, clips each; only their sum leaves it."""

    def __init__(
        self,
        *,
        users: Users,
        evaluation_users: Users,
        engine: CohortEngine,
        tokenizer: PreTrainedTokenizerBase,
        layout: AdapterLayout,
        data: LocalData,
        training: LocalTraining,
        max_evaluation_users: int,
    ):
        self.engine = engine
        self.dimension = layout.dimension
        num_evaluated = min(evaluation_users.num_users, max_evaluation_users)
        self._users = users
        self._evaluation_users = evaluation_users.take(np.arange(num_evaluated))
        self._tokenizer = tokenizer
        self._layout_sha256 = layout.sha256
        self._data = data
        self._training = training
        self._rows: OrderedDict[int, list[TokenRow]] = OrderedDict()
        self._evaluation_rows: list[TokenRow] | None = None

    def train(self, request: TrainRequest) -> TrainReply:
        """One round: Poisson draw, local training, a clip per user, an exact sum.

        **Guarantee:** each drawn user moves the sum by an integer vector of L2 norm <= K, and a
        user whose data or training fails contributes zero; nobody else's contribution changes.

        Raises:
          ValueError: the request is for another adapter layout.
        """
        self._check_layout(request.layout_sha256)
        total = UpdateSum.zeros(len(request.adapter))

        def add(_: int, update: NDArray[np.float32]) -> None:
            total.add(
                clip_to_grid(
                    update, clipping_norm=request.clipping_norm, grid_steps=request.grid_steps
                )
            )

        self.train_locally(request, sink=add)
        return TrainReply(request.round, request.layout_sha256, total)

    def train_locally(self, request: TrainRequest, *, sink: Sink) -> None:
        """Draws users and trains them; `sink` gets each raw update, sensitive and unclipped."""
        coins = fresh_coins if request.seed is None else seeded_coins(request.seed, request.round)
        cohort = draw_cohort(self._users.keys, request.sampling_probability, coins)
        work = (self._work(int(user), request) for user in cohort)
        self.engine.train(request.adapter, work, training=self._training, sink=sink)

    def evaluate(self, request: EvaluateRequest) -> EvaluateReply:
        """Sums of loss and correct predictions over the declared evaluation users."""
        self._check_layout(request.layout_sha256)
        if self._evaluation_rows is None:
            everyone = range(self._evaluation_users.num_users)
            self._evaluation_rows = [
                row
                for user in everyone
                for row in self._tokenize(self._evaluation_users.examples(user))
            ]
        result = self.engine.evaluate(request.adapter, self._evaluation_rows)
        return EvaluateReply(result.loss_sum, result.num_targets, result.num_correct)

    def _work(self, user: int, request: TrainRequest) -> LocalWork:
        key = int(self._users.keys[user])
        return LocalWork(key=key, steps=lambda: self._minibatches(user, key, request))

    def _minibatches(self, user: int, key: int, request: TrainRequest) -> list[list[TokenRow]]:
        """A function of this user, the round and the user's own randomness alone."""
        data, rng = self._data, training_rng(request.seed, request.round, key)
        rows = self._cached_rows(user) or self._chosen_rows(user, rng)
        kept = rng.permutation(len(rows))[: data.max_rows]
        steps: list[list[TokenRow]] = []
        for _ in range(data.epochs):
            order = rng.permutation(kept)
            steps += [
                [rows[i] for i in order[start : start + data.batch_size]]
                for start in range(0, len(order), data.batch_size)
            ]
        return steps[: data.steps]

    def _cached_rows(self, user: int) -> list[TokenRow]:
        """The rows of a user whose every example is kept; [] where the round has to choose."""
        if user in self._rows:
            self._rows.move_to_end(user)
            return self._rows[user]
        if self._users.num_examples(user) > self._data.max_rows:
            return []
        self._rows[user] = self._tokenize(self._users.examples(user))
        if len(self._rows) > CACHED_USERS:
            self._rows.popitem(last=False)
        return self._rows[user]

    def _chosen_rows(self, user: int, rng: np.random.Generator) -> list[TokenRow]:
        """The rows of a user with more examples than a round takes: a choice of the user's own."""
        return self._tokenize(
            bound_contributions(
                self._users.examples(user),
                max_examples=self._data.max_rows,
                selection=self._data.selection,
                rng=rng,
            )
        )

    def _tokenize(self, examples: list[Example]) -> list[TokenRow]:
        data = self._data
        return [
            row
            for example in examples
            for row in tokenize_example(
                example,
                self._tokenizer,
                task=data.task,
                max_tokens=data.max_tokens,
                labels=data.labels,
            )
        ]

    def _check_layout(self, layout_sha256: str) -> None:
        if layout_sha256 != self._layout_sha256:
            raise ValueError("the request is for an adapter of another layout")
