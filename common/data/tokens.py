"""Text or chat messages -> ids and labels, in rows of bounded length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from feddp.common.data.users import Example

IGNORE = -100

Turns = tuple[dict[str, str], ...]


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
    | empty text, no words of an assistant, or nothing left to predict | none |
    | label not declared (classification) | none |
    | text longer than a row (causal-lm) | consecutive rows; every token is predicted once |
    | prompt and completion longer than a row | the prompt loses its beginning first |
    | completion longer than a row | loses its end |
    | chat longer than a row | its last `max_tokens` tokens |
    | chat that the tokenizer's template refuses | none |
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


def chunk_rows(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, chunk_tokens: int
) -> list[TokenRow]:
    """The plain texts of one user joined and cut into blocks of `chunk_tokens`.

    Every token but the first is predicted once; the last block may be shorter. Between two texts
    stands what ends and begins a text for this tokenizer, or an empty line.
    """
    ids: list[int] = []
    for example in examples:
        if example.text.strip():
            end = _end(tokenizer) or _encode(tokenizer, "\n\n")
            ids += [*_begin(tokenizer), *_encode(tokenizer, example.text), *end]
    return _rows(ids, [True] * len(ids), chunk_tokens, is_cut_left=False)


def _classification_row(
    example: Example, tokenizer: PreTrainedTokenizerBase, max_tokens: int, labels: Sequence[str]
) -> list[TokenRow]:
    if example.label is None or example.label not in labels or not example.text.strip():
        return []
    ids = tokenizer(_clean(example.text), truncation=True, max_length=max_tokens)["input_ids"]
    if not ids:
        return []
    index = labels.index(example.label)
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
    """A chat with loss on the assistant's turns; what comes after the last of them is left out."""
    split = _split_by_template if tokenizer.chat_template else _split_plainly
    ids: list[int] = []
    is_target: list[bool] = []
    for given, answer in split(example.messages, tokenizer):
        given_ids, answer_ids = _encode(tokenizer, given), _encode(tokenizer, answer)
        if not tokenizer.chat_template:
            given_ids = [*([] if ids else _begin(tokenizer)), *given_ids]
            answer_ids += _end(tokenizer)
        ids += [*given_ids, *answer_ids]
        is_target += [False] * len(given_ids) + [True] * len(answer_ids)
    return ids, is_target


def _split_plainly(turns: Turns, _: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    """(given, answer) of each assistant's turn: a turn is "role: content" on a line of its own."""
    pairs, given = [], ""
    for turn in turns:
        given += f"{turn['role']}:"
        answer = f" {turn['content']}\n"
        if turn["role"] != "assistant" or not turn["content"].strip():
            given += answer
            continue
        pairs.append((given, answer))
        given = ""
    return pairs


def _split_by_template(turns: Turns, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    """(given, answer) of each assistant's turn, as the tokenizer's template writes them.

    The answer is what the template adds to its own generation prompt. An assistant's turn that
    opens a chat is given, because nothing prompted it. Where a template rewrites earlier turns,
    their answers are given too, and the loss is on the later ones.
    """
    pairs: list[tuple[str, str]] = []
    before = ""
    try:
        for number, turn in enumerate(turns):
            if number == 0 or turn["role"] != "assistant" or not turn["content"].strip():
                continue
            asked = _render(tokenizer, turns[:number], is_asking=True)
            after = _render(tokenizer, turns[: number + 1], is_asking=False)
            if not after.startswith(asked):  # the generation prompt is not what answers begin with
                asked = _render(tokenizer, turns[:number], is_asking=False)
            if not after.startswith(asked):
                continue
            if not asked.startswith(before):
                pairs, before = [], ""
            pairs.append((asked[len(before) :], after[len(asked) :]))
            before = after
    except TemplateError:  # a template refuses what it was not made for, such as roles out of turn
        return []
    return pairs


def _render(tokenizer: PreTrainedTokenizerBase, turns: Turns, *, is_asking: bool) -> str:
    return str(
        tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=is_asking)
    )


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
    # verbose=False: texts may be longer than the model's context; they are cut afterwards.
    ids: list[int] = tokenizer(_clean(text), add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _clean(text: str) -> str:
    """Text that encodes: a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _begin(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]


def _end(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
