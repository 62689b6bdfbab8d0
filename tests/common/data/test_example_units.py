import numpy as np
import pytest

from feddp.common.data.example_units import ExampleUnits, example_keys
from feddp.common.data.users import Example, InMemoryUsers, UsersView


def users_with(counts: list[int]) -> InMemoryUsers:
    return InMemoryUsers(
        [
            (f"u{i}", [Example(text=f"{i}:{'x' * (j + 1)}") for j in range(count)])
            for i, count in enumerate(counts)
        ]
    )


def test_with_one_example_each_the_units_are_the_users() -> None:
    users = users_with([1] * 30)
    units = ExampleUnits(users, max_examples=4, selection="random")
    assert units.keys.tolist() == users.keys.tolist()
    assert [units.examples(i) for i in range(30)] == [users.examples(i) for i in range(30)]


@pytest.mark.parametrize("selection", ["random", "longest", "shortest"])
@pytest.mark.parametrize("bound", [1, 3, None])
def test_a_user_is_at_most_so_many_units_each_of_another_example(
    selection: str, bound: int | None
) -> None:
    users = users_with([1, 5, 2, 9])
    units = ExampleUnits(users, max_examples=bound, selection=selection)
    found = [units.examples(i)[0].text for i in range(units.num_users)]
    assert len(set(found)) == len(found) == len(set(units.keys.tolist()))
    owners = [text.partition(":")[0] for text in found]
    sizes = {"0": 1, "1": 5, "2": 2, "3": 9}
    assert {name: owners.count(name) for name in sizes} == {
        name: size if bound is None else min(size, bound) for name, size in sizes.items()
    }
    assert units.counts.tolist() == [1] * units.num_users


def test_which_examples_are_kept_depends_on_their_user_alone() -> None:
    alone = ExampleUnits(users_with([9]), max_examples=3, selection="random")
    beside = ExampleUnits(users_with([9, 4, 7]), max_examples=3, selection="random")
    kept = {alone.examples(i)[0].text for i in range(alone.num_users)}
    among = {beside.examples(i)[0].text for i in range(beside.num_users)}
    assert kept == {text for text in among if text.startswith("0:")}
    again = ExampleUnits(users_with([9]), max_examples=3, selection="random")
    assert again.keys.tolist() == alone.keys.tolist()


def test_the_first_example_has_its_users_key_and_others_have_their_own() -> None:
    keys = example_keys(np.array([5, 5, 5, 8], dtype=np.uint64), np.array([0, 1, 2, 0]))
    assert keys[0] == 5
    assert keys[3] == 8
    assert len(set(keys.tolist())) == 4


def test_the_counts_of_a_view_are_those_of_its_users() -> None:
    users = users_with([3, 1, 4, 1, 5])
    chosen = np.array([1, 3])
    view = UsersView(users, chosen)
    assert view.counts.tolist() == [len(users.examples(int(i))) for i in chosen]
