"""Exact rank of a planted secret among all secrets of its form, by a search that prunes."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from feddp.common.data.demo import secret_spans

DIGITS = "0123456789"
LogProbabilities = Callable[[Sequence[Sequence[int]]], NDArray[np.float32]]


def secret_rank(
    context: Sequence[int],
    secret: Sequence[int],
    alternatives: Sequence[int],
    log_probabilities: LogProbabilities,
) -> int:
    """How many sequences over the alternatives are more likely after the context, plus one.

    No completion of a prefix that is less likely than the secret can be more likely, so such
    prefixes are pruned; the count is exact.

    Args:
      context: ids before the secret.
      secret: ids of the secret, each one of the alternatives.
      alternatives: ids that every position chooses from.
      log_probabilities: of the next id after each of several sequences of one length, (rows,
        vocabulary).
    """
    truth = _log_probability(context, secret, log_probabilities)
    choices = np.asarray(alternatives)
    prefixes = np.zeros((1, 0), dtype=np.int64)
    totals = np.zeros(1)
    for _ in secret:
        rows = [[*context, *prefix] for prefix in prefixes.tolist()]
        steps = log_probabilities(rows)[:, choices].astype(np.float64)
        extended = totals[:, None] + steps
        row, column = np.nonzero(extended > truth + 1e-6)
        prefixes = np.column_stack([prefixes[row], choices[column]])
        totals = extended[row, column]
        if not len(prefixes):
            return 1
    is_other = (prefixes != np.asarray(secret)).any(axis=1)
    return 1 + int(is_other.sum())


def digits_of_order(
    text: str, tokenizer: PreTrainedTokenizerBase, *, num_unknown: int
) -> tuple[list[int], list[int]] | None:
    """(context, last digits) of the first order id in a text, as ids; None where there is none.

    The context is everything before the unknown digits, as for an attacker who knows it.
    """
    spans = [span for span in secret_spans(text) if span.kind == "order_id"]
    if not spans:
        return None
    end = spans[0].end
    context = tokenizer(text[: end - num_unknown], add_special_tokens=False)["input_ids"]
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = digit_ids(tokenizer)
    assert ids is not None, "asked for the digits of a tokenizer that has none"
    return [*begin, *context], [ids[int(digit)] for digit in text[end - num_unknown : end]]


def digit_ids(tokenizer: PreTrainedTokenizerBase) -> list[int] | None:
    """The token id of every digit within a number; None if the tokenizer merges digits."""
    ids = tokenizer("A-" + DIGITS, add_special_tokens=False)["input_ids"][-len(DIGITS) :]
    is_single = [tokenizer.decode([i]) for i in ids] == list(DIGITS)
    return list(ids) if is_single else None


def _log_probability(
    context: Sequence[int], secret: Sequence[int], log_probabilities: LogProbabilities
) -> float:
    return sum(
        float(log_probabilities([[*context, *secret[:position]]])[0, token])
        for position, token in enumerate(secret)
    )
