"""The smallest Llama shape that the peers and the engine are compared on."""

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
    """Distance of two arrays over the norm of the second."""
    return float(np.linalg.norm(left - right) / np.linalg.norm(right))
