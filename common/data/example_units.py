"""The units that are drawn: users as they are, or each of their examples as a unit of its own."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from feddp.common.data.users import Example, Units, bound_contributions


class ExampleUnits:
    """Examples as units, so that drawing, training and clipping them is the pipeline of users.

    The first example of a user has the user's own key. So with one example per user the units are
    the users, and every coin, minibatch and sum is the same.

    **Guarantee:** a user is at most `max_examples` units, the same ones in every round: which they
    are depends on that user's rows and key alone.

    Args:
      max_examples: G, the bound of one user; None where examples, not users, are protected, because
        there a bound would let one example decide about another.
      selection: which examples are kept of a user who has more; see `bound_contributions`.
    """

    def __init__(self, users: Units, *, max_examples: int | None, selection: str):
        counts = users.counts
        if max_examples is not None:
            counts = np.minimum(counts, max_examples)
        ends = np.cumsum(counts)
        self._users, self._max_examples, self._selection = users, max_examples, selection
        self._owners = np.repeat(np.arange(users.num_users, dtype=np.int64), counts)
        self._positions = np.arange(len(self._owners), dtype=np.int64)
        self._positions -= np.repeat(ends - counts, counts)
        self.num_users = len(self._owners)
        self.keys = example_keys(users.keys[self._owners], self._positions)
        self.counts = np.ones(self.num_users, dtype=np.int64)

    def examples(self, user: int) -> list[Example]:
        """The one example of a unit."""
        owner, position = int(self._owners[user]), int(self._positions[user])
        examples = self._users.examples(owner)
        if self._max_examples is not None:
            rng = np.random.default_rng(int(self._users.keys[owner]))
            examples = bound_contributions(
                examples, max_examples=self._max_examples, selection=self._selection, rng=rng
            )
        return [examples[position]]


def example_keys(user_keys: NDArray[np.uint64], positions: NDArray[np.int64]) -> NDArray[np.uint64]:
    """uint64 keys of examples: the user's own for the first, a hash of (key, position) beyond it.

    Args:
      user_keys: uint64, shape (examples,), of each example's user.
      positions: int64, shape (examples,), from 0 within the user.
    """
    keys = user_keys.astype(np.uint64).copy()
    for index in np.flatnonzero(positions):
        content = f"{int(user_keys[index])}/{int(positions[index])}".encode()
        digest = hashlib.blake2b(content, digest_size=8, person=b"example").digest()
        keys[index] = int.from_bytes(digest, "big")
    return keys
