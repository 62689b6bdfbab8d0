"""What a cell of a comparison says of its promise."""

import pytest

from feddp.common.privacy.accounting.epsilon import COARSE
from feddp.common.privacy.accounting.group import black_box_group_epsilon
from feddp.common.privacy.mechanism.events import ADD_OR_REMOVE_ONE, PoissonGaussianEvent


@pytest.mark.parametrize(
    ("size", "tight", "published"),
    [(1, 0.7230, 0.727), (2, 1.5261, 1.578), (4, 3.2705, 3.424), (8, 7.2026, 8.057)],
)
def test_black_box_bounds_lie_between_the_tight_ones_and_a_coarser_search(
    size: int, tight: float, published: float
) -> None:
    charges = [(PoissonGaussianEvent(0.01, 2.0), 1000)]
    found = black_box_group_epsilon(
        charges, size, delta=1e-6, relation=ADD_OR_REMOVE_ONE, interval=COARSE
    )
    assert 0.9999 * tight <= found <= published  # tight is rounded to four digits
    assert found == pytest.approx(published, rel=0.03)
