"""A base of the bench that is small enough for tests, and how far two vectors are apart."""

import numpy as np

from feddp.simulations.bench.workload import Shape

SMALL = {
    "hidden": 32,
    "intermediate": 48,
    "layers": 2,
    "heads": 2,
    "vocabulary": 50,
    "rank": 2,
}
SHAPE = Shape(**SMALL)


def relative(left: np.ndarray, right: np.ndarray) -> float:
    """Norm of the difference, over the norm of the right one."""
    return float(np.linalg.norm(left - right) / np.linalg.norm(right))
