import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from feddp.common.privacy.mechanism.summation import UpdateSum

points = st.lists(
    hnp.arrays(np.int64, 5, elements=st.integers(-(1 << 24), 1 << 24)), min_size=1, max_size=8
)


def sum_of(some_points: list[np.ndarray]) -> UpdateSum:
    total = UpdateSum.zeros(5)
    for point in some_points:
        total.add(point)
    return total


@given(points, st.randoms(use_true_random=False), st.integers(0, 8))
def test_sum_does_not_depend_on_order_or_grouping(some_points, random, cut):
    shuffled = list(some_points)
    random.shuffle(shuffled)
    left, right = sum_of(shuffled[:cut]), sum_of(shuffled[cut:])
    left.merge(right)
    exact = [sum(int(point[i]) for point in some_points) for i in range(5)]
    assert left == sum_of(some_points)
    assert left.total.tolist() == exact


def test_sum_over_nobody_is_zero():
    assert UpdateSum.zeros(3).total.tolist() == [0, 0, 0]
    assert UpdateSum.zeros(3).dimension == 3


def test_repr_hides_the_values():
    total = UpdateSum(np.array([987654, 123456]))
    for text in (repr(total), str(total), f"{total}", f"{[total]}"):
        assert "987654" not in text
        assert "123456" not in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_is_refused(protocol):
    with pytest.raises(TypeError, match="sensitive"):
        pickle.dumps(UpdateSum.zeros(2), protocol=protocol)


@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy])
def test_copying_is_refused(make_copy):
    with pytest.raises(TypeError, match="sensitive"):
        make_copy(UpdateSum.zeros(2))


@pytest.mark.parametrize(
    "point",
    [
        np.zeros(3, np.int32),
        np.zeros(3, np.uint64),
        np.zeros(3, np.float64),
        np.zeros(3, bool),
        np.zeros(2, np.int64),
        np.zeros(1, np.int64),
        np.zeros((3, 1), np.int64),
        np.zeros((), np.int64),
    ],
)
def test_wrong_type_or_shape_is_refused_and_changes_nothing(point):
    total = UpdateSum(np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="expected int64"):
        total.add(point)
    assert total.total.tolist() == [1, 2, 3]


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros(3, np.int32), np.zeros((3, 1), np.int64)])
def test_sum_is_not_made_of_anything_but_one_row_of_int64(array):
    with pytest.raises(ValueError, match="expected int64"):
        UpdateSum(array)


def test_sums_of_different_dimensions_do_not_merge():
    with pytest.raises(ValueError, match="expected int64"):
        UpdateSum.zeros(3).merge(UpdateSum.zeros(1))


def test_total_is_read_only():
    with pytest.raises(ValueError, match="read-only"):
        UpdateSum.zeros(3).total[0] = 1


def test_merging_leaves_the_other_sum_as_it_was():
    left, right = UpdateSum(np.array([1, 2])), UpdateSum(np.array([10, 20]))
    left.merge(right)
    left.add(np.array([1, 1]))
    assert right.total.tolist() == [10, 20]
    assert left.total.tolist() == [12, 23]


def test_equality_is_of_values():
    assert UpdateSum(np.array([1, 2])) == UpdateSum(np.array([1, 2]))
    assert UpdateSum(np.array([1, 2])) != UpdateSum(np.array([1, 3]))
    assert UpdateSum(np.array([1, 2])) != [1, 2]
