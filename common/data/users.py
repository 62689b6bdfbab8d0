"""Users and their rows: a Protocol, an in-memory form, and a memory-mapped table on disk."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

DIGEST_BYTES = 32
# The files of a table: flat arrays without a header, and the rows of all users in turn.
DIGESTS_NAME, KEYS_NAME, USER_ENDS_NAME = "digests.u8", "keys.u64", "user_ends.i64"
BATCH_ENDS_NAME, ROWS_NAME = "batch_ends.i64", "rows.arrow"

Number = TypeVar("Number", np.uint8, np.int64, np.uint64)


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read; "" is not used."""

    user: str = "user_id"
    text: str = ""
    messages: str = ""
    prompt: str = ""
    completion: str = ""
    label: str = ""

    def used(self) -> tuple[str, ...]:
        """All columns that must be there, each once."""
        names = (self.user, self.text, self.messages, self.prompt, self.completion, self.label)
        return tuple(dict.fromkeys(name for name in names if name))


@dataclass(frozen=True)
class Example:
    """One row of one user.

    Attributes:
      text: plain text, or the completion where there is a prompt.
      prompt: without loss.
      messages: chat turns, each {"role": ..., "content": ...}.
      label: class, as written in the data; None is none.
    """

    text: str = ""
    prompt: str = ""
    messages: tuple[dict[str, str], ...] = ()
    label: str | None = None


class Units(Protocol):
    """What may be drawn: users, or examples as units of their own (`ExampleUnits`)."""

    @property
    def num_users(self) -> int:
        """How many."""
        ...

    @property
    def keys(self) -> NDArray[np.uint64]:
        """uint64, shape (users,): the first 8 bytes of SHA-256 of each user's id."""
        ...

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64, shape (users,): rows of each."""
        ...

    def examples(self, user: int) -> list[Example]:
        """The rows of one user; no others are read."""
        ...


class Users(Units, Protocol):
    """A set of users, in an order that depends on their ids alone."""

    def held_out(self, one_in: int) -> NDArray[np.bool_]:
        """Whether SHA-256 of the id, as an integer, is 0 modulo `one_in`; 0 holds out no user."""
        ...


def user_digest(user_id: str) -> bytes:
    """SHA-256 of a user's id in UTF-8."""
    return hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).digest()


class InMemoryUsers:
    """Users whose rows are in memory: the demo's, and those of tests.

    `rows`: (user id, rows); an id that is there twice is one user with both rows.
    """

    def __init__(self, rows: Sequence[tuple[str, Sequence[Example]]]):
        by_digest: dict[bytes, list[Example]] = {}
        for user_id, found in rows:
            by_digest.setdefault(user_digest(user_id), []).extend(found)
        digests = sorted(by_digest)
        self._rows = [by_digest[digest] for digest in digests]
        self._digests = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES)
        self.num_users, self.keys = len(digests), keys_of(self._digests)
        self.counts = np.array([len(found) for found in self._rows], dtype=np.int64)

    def examples(self, user: int) -> list[Example]:
        """The rows of one user."""
        return list(self._rows[user])

    def held_out(self, one_in: int) -> NDArray[np.bool_]:
        """Whether SHA-256 of the id is 0 modulo `one_in`."""
        return is_zero_modulo(self._digests, one_in)


class UserTable:
    """Users on disk: an Arrow file grouped by user, and flat arrays that say where each begins.

    Everything is memory-mapped: opening reads no text, and a user's rows are the only ones touched.
    Made by `user_index.open_users`.
    """

    def __init__(self, folder: Path, columns: Columns):
        self._columns = columns
        self._digests = _memory_map(folder / DIGESTS_NAME, np.uint8).reshape(-1, DIGEST_BYTES)
        self.num_users, self.keys = len(self._digests), _memory_map(folder / KEYS_NAME, np.uint64)
        self._user_ends = _memory_map(folder / USER_ENDS_NAME, np.int64)
        self._batch_ends = _memory_map(folder / BATCH_ENDS_NAME, np.int64)
        self._rows = pa.ipc.open_file(pa.memory_map(str(folder / ROWS_NAME)))

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64, shape (users,)."""
        return np.diff(self._user_ends, prepend=0)

    def examples(self, user: int) -> list[Example]:
        """The rows of one user, read from the batches that hold them."""
        start, stop = self._range(user)
        found: list[Example] = []
        batch = int(np.searchsorted(self._batch_ends, start, side="right"))
        while start < stop:
            end = int(self._batch_ends[batch])
            rows = self._rows.get_batch(batch)
            first = start - (end - rows.num_rows)
            part = rows.slice(first, min(stop, end) - start)
            found += [to_example(row, self._columns) for row in part.to_pylist()]
            start, batch = min(stop, end), batch + 1
        return found

    def held_out(self, one_in: int) -> NDArray[np.bool_]:
        """Whether SHA-256 of the id is 0 modulo `one_in`."""
        return is_zero_modulo(self._digests, one_in)

    def _range(self, user: int) -> tuple[int, int]:
        """First row of a user, and the row after the last."""
        return (int(self._user_ends[user - 1]) if user else 0), int(self._user_ends[user])


class UsersView:
    """Some of another set's users, in ascending order."""

    def __init__(self, source: Users, users: NDArray[np.int64]):
        self._source, self._users = source, users
        self.num_users, self.keys = len(users), source.keys[users]

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64, shape (users,)."""
        return self._source.counts[self._users]

    def examples(self, user: int) -> list[Example]:
        """The rows of one user."""
        return self._source.examples(int(self._users[user]))

    def held_out(self, one_in: int) -> NDArray[np.bool_]:
        """Whether SHA-256 of the id is 0 modulo `one_in`."""
        return self._source.held_out(one_in)[self._users]


def partition(users: Users, part: int, num_parts: int) -> Users:
    """One of `num_parts` disjoint sets of users, chosen by their keys alone."""
    if num_parts == 1:
        return users
    return UsersView(users, np.flatnonzero(users.keys % np.uint64(num_parts) == part))


def bound_contributions(
    examples: list[Example], *, max_examples: int, selection: str, rng: np.random.Generator
) -> list[Example]:
    """At most `max_examples` rows of one user, chosen by that user's rows and randomness alone.

    `selection`: "random", "longest" or "shortest" (by characters; ties by position).

    Raises:
      ValueError: another selection; those by perplexity are `client.ranking.RankedUsers`.
    """
    if len(examples) <= max_examples:
        return examples
    if selection == "random":
        kept = np.sort(rng.choice(len(examples), size=max_examples, replace=False))
        return [examples[i] for i in kept]
    if selection not in ("longest", "shortest"):
        raise ValueError(f'selection "{selection}" does not rank by length')
    sign = -1 if selection == "longest" else 1
    order = sorted(range(len(examples)), key=lambda i: sign * num_characters(examples[i]))
    return [examples[i] for i in sorted(order[:max_examples])]


def num_characters(example: Example) -> int:
    """Length of an example's text, with prompt and messages."""
    turns = sum(len(turn.get("content", "")) for turn in example.messages)
    return len(example.text) + len(example.prompt) + turns


def to_example(row: dict[str, Any], columns: Columns) -> Example:
    """One row of the table, by the names of its columns; missing values are empty."""

    def text(name: str) -> str:
        """A column's value as text; empty where there is none."""
        value = row.get(name) if name else None
        return "" if value is None else str(value)

    turns = row.get(columns.messages) if columns.messages else None
    label = row.get(columns.label) if columns.label else None
    return Example(
        text=text(columns.completion or columns.text),
        prompt=text(columns.prompt),
        messages=parse_messages(turns),
        label=None if label is None else str(label),
    )


def parse_messages(turns: object) -> tuple[dict[str, str], ...]:
    """Chat turns from a list or its JSON text; what is not a list of texts with roles is no turns.

    >>> parse_messages('[{"role": "user", "content": "Hi"}]')
    ({'role': 'user', 'content': 'Hi'},)
    """
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except (ValueError, RecursionError):
            return ()
    found = []
    for turn in turns if isinstance(turns, list) else ():
        content = turn.get("content") if isinstance(turn, dict) else None
        if not isinstance(turn, dict) or not isinstance(content, str | None):
            return ()
        found.append({"role": str(turn.get("role") or ""), "content": content or ""})
    return tuple(found)


def keys_of(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first 8 bytes of each digest as a big-endian integer."""
    return np.ascontiguousarray(digests[:, :8]).view(">u8").reshape(-1).astype(np.uint64)


def is_zero_modulo(digests: NDArray[np.uint8], one_in: int) -> NDArray[np.bool_]:
    """Whether each digest, as a big-endian integer of 256 bits, is 0 modulo `one_in` < 2^55.

    Raises:
      ValueError: `one_in` is larger: a step of the division would not fit into 64 bits.
    """
    if one_in >= 1 << 55:
        raise ValueError(f"one_in = {one_in}: must be below 2^55.")
    if one_in == 0:
        return np.zeros(len(digests), dtype=bool)
    rest = np.zeros(len(digests), dtype=np.uint64)
    for position in range(DIGEST_BYTES):  # Horner's rule: the remainder stays below one_in * 256
        rest = (rest * np.uint64(256) + digests[:, position]) % np.uint64(one_in)
    is_zero: NDArray[np.bool_] = rest == 0
    return is_zero


def _memory_map(path: Path, dtype: type[Number]) -> NDArray[Number]:
    numbers: NDArray[Number] = np.memmap(path, dtype=dtype, mode="r")
    return numbers
