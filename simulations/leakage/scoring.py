"""Token losses under an adapter and under its base, the input of every attack."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from feddp.common.data.demo import SecretSpan, secret_spans
from feddp.common.data.tokens import IGNORE, TokenRow, tokenize_example
from feddp.common.data.users import Example
from feddp.common.model.base import BaseModel
from feddp.common.model.other_kinds import load_trained, replaced_names

BATCH_TOKENS = 4096
Predictions = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Losses, and whether the most likely answer is right, as in `ExampleScore`."""
_PERSONAL = re.compile(
    r"(?P<mail>[\w.+-]+@[\w-]+\.[\w.]+)|(?P<phone>\+?\d[\d ()-]{6,}\d)"
    r"|(?P<identifier>\b(?=\w*\d)[A-Z0-9][A-Z0-9-]{5,}\b)"
)


@dataclass(frozen=True)
class ExampleScore:
    """One example under one model.

    Attributes:
      losses: float64, shape (predicted tokens,) or (1,) for a class, in nats.
      corrects: bool, the same shape: the most likely token, or class, is the right one.
    """

    losses: NDArray[np.float64]
    corrects: NDArray[np.bool_]

    @property
    def loss(self) -> float:
        """Mean over the predicted tokens."""
        return float(self.losses.mean())


BaseScores = dict[str, ExampleScore | None]
"""Scores of the base by the repr of the example, which chat turns, as dicts, have no hash for."""


class Scorer:
    """A base model and an adapter of any kind; scores examples under either.

    Args:
      base: freshly loaded; changed in place.
      max_tokens: longest row.
      base_scores: of earlier scorers of this base, by example; what is scored here is added.
    """

    def __init__(
        self,
        base: BaseModel,
        adapter_path: Path,
        *,
        max_tokens: int,
        base_scores: BaseScores | None = None,
    ):
        self.base_scores: BaseScores = {} if base_scores is None else base_scores
        own = dict(base.model.named_parameters())
        # If the base's own weights were trained: the original ones, to swap in.
        self._others = {name: own[name].clone() for name in replaced_names(adapter_path)}
        self._model: Any = load_trained(adapter_path, base)
        self._base, self._max_tokens = base, max_tokens
        self._pad = int(base.tokenizer.pad_token_id or 0)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base model's."""
        return self._base.tokenizer

    @property
    def is_causal(self) -> bool:
        """Whether texts are predicted, not classes."""
        return self._base.task == "causal-lm"

    def rows_of(self, example: Example) -> list[TokenRow]:
        """The rows of an example; none if it predicts nothing."""
        return tokenize_example(
            example,
            self.tokenizer,
            task=self._base.task,
            max_tokens=self._max_tokens,
            labels=self._base.labels,
        )

    def score(self, examples: Sequence[Example], *, is_base: bool) -> list[ExampleScore | None]:
        """Scores in the order of the examples; None if nothing is predicted."""
        if not is_base:
            return self._score(examples)
        missing = {repr(example): example for example in examples}
        missing = {key: e for key, e in missing.items() if key not in self.base_scores}
        with self._adapter(is_base):
            found = self._score(list(missing.values()))
        self.base_scores.update(zip(missing, found, strict=True))
        return [self.base_scores[repr(example)] for example in examples]

    def _score(self, examples: Sequence[Example]) -> list[ExampleScore | None]:
        rows = [
            (index, row) for index, example in enumerate(examples) for row in self.rows_of(example)
        ]
        parts: dict[int, list[Predictions]] = {}
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][1].input_ids))
        scored: dict[int, Predictions] = {}
        for batch in _batches(order, [len(row.input_ids) for _, row in rows]):
            found = self._score_rows([rows[i][1] for i in batch])
            scored.update(zip(batch, found, strict=True))
        for i, (index, _) in enumerate(rows):
            parts.setdefault(index, []).append(scored[i])
        return [_join(parts[i]) if i in parts else None for i in range(len(examples))]

    @torch.inference_mode()
    def next_log_probabilities(
        self, rows: Sequence[Sequence[int]], *, is_base: bool
    ) -> NDArray[np.float32]:
        """log p(next token) after each of several sequences of one length; (rows, vocabulary)."""
        found, size = [], max(1, BATCH_TOKENS // len(rows[0]))
        with self._adapter(is_base):
            for start in range(0, len(rows), size):
                ids = torch.tensor(rows[start : start + size])
                logits = self._model(input_ids=ids, logits_to_keep=1).logits[:, -1].float()
                found.append(torch.log_softmax(logits, dim=-1).numpy())
        return np.concatenate(found)

    @torch.inference_mode()
    def _score_rows(self, rows: Sequence[TokenRow]) -> list[Predictions]:
        length = max(len(row.input_ids) for row in rows)
        ids = np.full((len(rows), length), self._pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row.input_ids)] = row.input_ids
            mask[index, : len(row.input_ids)] = 1
        logits = self._model(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
        ).logits.float()
        found = []
        for index, row in enumerate(rows):
            targets = torch.from_numpy(row.labels)
            keep = targets != IGNORE
            here = (
                logits[index, : len(targets)][keep] if self.is_causal else logits[index : index + 1]
            )
            losses = functional.cross_entropy(here, targets[keep], reduction="none")
            corrects = here.argmax(-1) == targets[keep]
            found.append((losses.double().numpy(), corrects.numpy()))
        return found

    def _adapter(self, is_base: bool) -> Any:
        if not is_base:
            return nullcontext()
        if isinstance(self._model, PeftModel):
            return self._model.disable_adapter()
        return self._untrained()

    @contextmanager
    def _untrained(self) -> Iterator[None]:
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        parameters = dict(self._model.named_parameters())
        for name, other in self._others.items():
            self._others[name], parameters[name].data = parameters[name].data, other


def sensitive_mask(text: str, tokenizer: PreTrainedTokenizerBase) -> NDArray[np.bool_]:
    """Which predicted tokens of a plain text overlap a sensitive span; ordered as in `Scorer`.

    The demo's secrets are known from its generator; elsewhere regular expressions find email
    addresses, phone numbers and identifiers.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = sensitive_spans(text)
    mask = [
        any(start < span.end and end > span.start for span in spans)
        for start, end in encoded["offset_mapping"]
    ]
    begin = [] if tokenizer.bos_token_id is None else [False]
    end = [] if tokenizer.eos_token_id is None else [False]
    return np.array([*begin, *mask, *end][1:], dtype=bool)


def sensitive_spans(text: str) -> tuple[SecretSpan, ...]:
    """Sensitive spans of a text: those of the demo, or what regular expressions find.

    >>> [span.kind for span in sensitive_spans("Write to ann@mail.org or call 030 1234567.")]
    ['mail', 'phone']
    """
    if known := secret_spans(text):
        return known
    return tuple(SecretSpan(m.start(), m.end(), str(m.lastgroup)) for m in _PERSONAL.finditer(text))


def _batches(order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows of similar length, at most `BATCH_TOKENS` padded tokens together, or one row."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[index] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _join(parts: Sequence[Predictions]) -> ExampleScore:
    losses, corrects = zip(*parts, strict=True)
    return ExampleScore(np.concatenate(losses), np.concatenate(corrects))
