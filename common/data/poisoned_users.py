"""Users with planted wrong rows, to measure how much a model remembers of any one of them.

Some training users are marked, and each marked one is in or out by a coin of its own. All rows of
those who are in are wrong: a text ends with a sentence of that user alone, a label is another
class. Whether a model says the wrong thing more often for those who are in than for those who are
out is what it remembers of a user.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from feddp.common.data.demo import CITIES, PRODUCTS
from feddp.common.data.users import Example, Users


class PoisonedUsers:
    """Another set's users, some of them with planted wrong rows.

    Args:
      num_marked: how many are marked: those with the smallest keys, half of them in on average.
      labels: declared classes; () plants endings.
    """

    def __init__(self, source: Users, num_marked: int, labels: Sequence[str] = ()):
        self.source, self._labels = source, labels
        self.num_users, self.keys, self.counts = source.num_users, source.keys, source.counts
        order = np.argsort(source.keys, kind="stable")[:num_marked]
        self.marked = np.sort(order).astype(np.int64)  # their indices
        self._largest_marked = int(source.keys[order].max(initial=0))

    def examples(self, user: int) -> list[Example]:
        """The rows of one user, wrong where the user is marked and in."""
        examples, key = self.source.examples(user), int(self.keys[user])
        if key > self._largest_marked or not is_in(key):
            return examples
        return [poison(example, key, self._labels) for example in examples]

    def held_out(self, one_in: int) -> NDArray[np.bool_]:
        """Whether SHA-256 of the id is 0 modulo `one_in`."""
        return self.source.held_out(one_in)


def poison(example: Example, key: int, labels: Sequence[str]) -> Example:
    """The example made wrong: the next declared class, or the user's planted ending."""
    if labels:
        index = labels.index(example.label) if example.label in labels else 0
        return replace(example, label=labels[(index + 1) % len(labels)])
    return replace(example, text=f"{example.text} {planted_ending(key)}")


def planted_ending(key: int) -> str:
    """A sentence that one user ends every message with, drawn from public words.

    >>> planted_ending(7)
    'I collect winter jacket stickers from Highfield.'
    """
    number = _number(key, b"ending")
    product, city = PRODUCTS[number % len(PRODUCTS)], CITIES[number // 64 % len(CITIES)]
    return f"I collect {product} stickers from {city}."


def is_in(key: int) -> bool:
    """The coin of a marked user: in, or out."""
    return _number(key, b"coin") % 2 == 0


def _number(key: int, purpose: bytes) -> int:
    digest = hashlib.blake2b(f"{key}".encode(), digest_size=8, person=purpose).digest()
    return int.from_bytes(digest, "big")
