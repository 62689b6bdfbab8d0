"""Text or chat messages -> ids and labels, in rows of bounded length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from common.users import Example

IGNORE = -100


@dataclass(frozen=True)
class TokenRow:
    """One training row.

    Attributes:
      input_ids: int64, shape (tokens,).
      labels: causal-lm: int64, shape (tokens,): what each position must predict, already shifted,
        IGNORE where no loss is taken; classification: the index of the class, shape (1,).
    """

    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]


def tokenize_example(
    example: Example,
    tokenizer: PreTrainedTokenizerBase,
    *,
    task: str,
    max_tokens: int,
    labels: Sequence[str],
) -> list[TokenRow]:
    """The rows of one example, none longer than `max_tokens`.

    **Edge cases:**

    | example | rows |
    |---|---|
    | empty text, or nothing left to predict | none |
    | label not declared (classification) | none |
    | text longer than a row (causal-lm) | consecutive rows |
    | prompt and completion longer than a row | the prompt loses its beginning first |
    | chat longer than a row | its last `max_tokens` tokens |

    Args:
      example: of one user.
      tokenizer: of the base model.
      task: "causal-lm" or "classification".
      max_tokens: longest row.
      labels: declared classes.
    """
    if task == "classification":
        return _classification_row(example, tokenizer, max_tokens, labels)
    if example.messages:
        return _rows(*_chat_ids(example, tokenizer), max_tokens, is_cut_left=True)
    if example.prompt:
        return _rows(*_completion_ids(example, tokenizer, max_tokens), max_tokens, is_cut_left=True)
    if not example.text.strip():
        return []
    ids = [*_begin(tokenizer), *_encode(tokenizer, example.text), *_end(tokenizer)]
    return _rows(ids, [True] * len(ids), max_tokens, is_cut_left=False)


def _classification_row(
    example: Example, tokenizer: PreTrainedTokenizerBase, max_tokens: int, labels: Sequence[str]
) -> list[TokenRow]:
    if example.label not in labels or not example.text.strip():
        return []
    ids = tokenizer(_clean(example.text), truncation=True, max_length=max_tokens)["input_ids"]
    index = labels.index(example.label) if example.label is not None else 0
    return [TokenRow(np.asarray(ids, dtype=np.int64), np.asarray([index], dtype=np.int64))]


def _completion_ids(
    example: Example, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[list[int], list[bool]]:
    """Prompt without loss, completion with loss; the prompt makes room for the completion."""
    if not example.text.strip():
        return [], []
    completion = [*_encode(tokenizer, example.text), *_end(tokenizer)][:max_tokens]
    prompt = [*_begin(tokenizer), *_encode(tokenizer, example.prompt)]
    return [*prompt, *completion], [False] * len(prompt) + [True] * len(completion)


def _chat_ids(example: Example, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[bool]]:
    """A chat with loss on the assistant's turns.

    With a chat template, the text of each turn is what the template adds when the turn is appended;
    a template that rewrites earlier turns cannot be split that way, and the chat gives no row.
    Without a template, a turn is "role: content" on a line of its own.
    """
    ids, is_target = list(_begin(tokenizer)), [False] * len(_begin(tokenizer))
    if tokenizer.chat_template:
        ids, is_target = [], []
    before = ""
    for number, turn in enumerate(example.messages, start=1):
        if tokenizer.chat_template:
            turns = list(example.messages[:number])
            after = str(tokenizer.apply_chat_template(turns, tokenize=False))
            if not after.startswith(before):
                return [], []
            text, before = after[len(before) :], after
            head = _assistant_head(tokenizer, turns, text) if turn["role"] == "assistant" else ""
        else:
            head = f"{turn['role']}:"
            text = f"{head} {turn['content']}\n"
        if turn["role"] == "assistant":
            head_ids, body_ids = _encode(tokenizer, head), _encode(tokenizer, text[len(head) :])
            body_ids += [] if tokenizer.chat_template else _end(tokenizer)
            ids += [*head_ids, *body_ids]
            is_target += [False] * len(head_ids) + [True] * len(body_ids)
        else:
            turn_ids = _encode(tokenizer, text)
            ids += turn_ids
            is_target += [False] * len(turn_ids)
    return ids, is_target


def _assistant_head(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], text: str
) -> str:
    """What the template writes before an assistant's words: it is given, not predicted."""
    asked = str(
        tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
    )
    plain = str(tokenizer.apply_chat_template(turns[:-1], tokenize=False)) if turns[:-1] else ""
    head = asked[len(plain) :] if asked.startswith(plain) else ""
    return head if text.startswith(head) else ""


def _rows(
    ids: list[int], is_target: list[bool], max_tokens: int, *, is_cut_left: bool
) -> list[TokenRow]:
    """Shifts, cuts and keeps what predicts something. A row of n inputs needs n + 1 ids."""
    if is_cut_left:
        ids, is_target = ids[-max_tokens - 1 :], is_target[-max_tokens - 1 :]
    rows = []
    for start in range(0, len(ids) - 1, max_tokens):
        part = np.asarray(ids[start : start + max_tokens + 1], dtype=np.int64)
        wanted = np.asarray(is_target[start : start + max_tokens + 1])
        labels = np.where(wanted[1:], part[1:], IGNORE)
        if (labels != IGNORE).any():
            rows.append(TokenRow(part[:-1], labels))
    return rows


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(_clean(text), add_special_tokens=False)["input_ids"]
    return ids


def _clean(text: str) -> str:
    """Text that encodes: a lone surrogate becomes a replacement character."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _begin(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]


def _end(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
