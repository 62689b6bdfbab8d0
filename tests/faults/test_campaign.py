import itertools
import random
from collections import Counter

import pytest
from campaign import FAST, SLOW, plan_faults


@pytest.mark.parametrize("num_faults", [17, 20, 100, 130])
def test_a_campaign_injects_every_kind_and_rations_the_slow_ones(num_faults: int) -> None:
    planned = list(plan_faults(num_faults, random.Random(num_faults)))
    assert len(planned) == num_faults
    assert set(planned) == {*FAST, *SLOW}
    slow = Counter(kind for kind in planned if kind in SLOW)
    assert len(set(slow.values())) == 1
    assert slow.total() <= max(len(SLOW), 0.25 * num_faults)


def test_slow_faults_are_never_in_a_row() -> None:
    planned = list(plan_faults(100, random.Random(1)))
    at = [i for i, kind in enumerate(planned) if kind in SLOW]
    assert min(after - before for before, after in itertools.pairwise(at)) >= 4


def test_a_handful_is_of_fast_faults_each_another() -> None:
    planned = list(plan_faults(6, random.Random(1)))
    assert len(set(planned)) == len(planned) == 6
    assert set(planned) <= set(FAST)
