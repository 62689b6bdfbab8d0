"""UpdateSum: the exact integer sum of clipped updates; sensitive until noise is added."""

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray


class UpdateSum:
    """The sum of the integer points of a cohort. Sensitive: it leaves memory only through noise.

    **Guarantee:** int64 addition is exact and does not depend on order or grouping, as long as
    num_users * K < 2^62, which the mechanism checks. The values are in no repr, and the object
    refuses to be pickled or copied.
    """

    __slots__ = ("_total",)

    def __init__(self, total: NDArray[np.int64]):
        """Takes the array over; it must be int64 of shape (P,)."""
        if total.dtype != np.int64 or total.ndim != 1:
            raise ValueError(f"expected int64 of shape (P,), not {total.dtype} of {total.shape}")
        self._total = total

    @classmethod
    def zeros(cls, dimension: int) -> "UpdateSum":
        """The sum over nobody."""
        return cls(np.zeros(dimension, dtype=np.int64))

    @property
    def dimension(self) -> int:
        """P."""
        return len(self._total)

    @property
    def total(self) -> NDArray[np.int64]:
        """int64, shape (P,), read-only. Sensitive."""
        view = self._total.view()
        view.flags.writeable = False
        return view

    def add(self, point: NDArray[np.int64]) -> None:
        """Adds one user's grid point, or a node's sum.

        Raises:
          ValueError: not int64 of shape (P,).
        """
        if point.dtype != np.int64 or point.shape != self._total.shape:
            raise ValueError(
                f"expected int64 of shape {self._total.shape}, not {point.dtype} of {point.shape}"
            )
        self._total += point

    def merge(self, other: "UpdateSum") -> None:
        """Adds another sum of the same dimension."""
        self.add(other._total)

    def __repr__(self) -> str:
        return f"UpdateSum(dimension={self.dimension}, sensitive)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an update sum is sensitive and is neither serialised nor copied")

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, UpdateSum) and np.array_equal(self._total, other._total)

    __hash__ = None  # type: ignore[assignment]
