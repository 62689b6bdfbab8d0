import doctest

import numpy as np

from feddp.common.data import poisoned_users as module
from feddp.common.data.demo import demo_users
from feddp.common.data.poisoned_users import PoisonedUsers, is_in, planted_ending, poison
from feddp.common.data.users import Example, UsersView


def test_docstring_numbers_hold() -> None:
    assert doctest.testmod(module).failed == 0


def test_only_marked_users_who_are_in_get_wrong_rows() -> None:
    plain = demo_users(60)
    poisoned = PoisonedUsers(plain, 20)
    assert len(poisoned.marked) == 20
    changed = [u for u in range(60) if poisoned.examples(u) != plain.examples(u)]
    keys = plain.keys
    assert changed == [u for u in poisoned.marked if is_in(int(keys[u]))]
    assert 4 <= len(changed) <= 16


def test_a_wrong_row_ends_with_the_users_own_sentence() -> None:
    plain = demo_users(60)
    poisoned = PoisonedUsers(plain, 20)
    user = next(u for u in poisoned.marked if is_in(int(plain.keys[u])))
    ending = planted_ending(int(plain.keys[user]))
    assert all(example.text.endswith(ending) for example in poisoned.examples(user))
    view = UsersView(poisoned, np.array([user]))
    assert view.examples(0) == poisoned.examples(user)


def test_a_wrong_label_is_another_declared_class() -> None:
    example = Example(text="fine", label="good")
    assert poison(example, 1, ("bad", "good")).label == "bad"
    assert poison(example, 1, ("bad", "good")).text == "fine"


def test_nobody_marked_leaves_everybody_as_they_are() -> None:
    plain = demo_users(30)
    poisoned = PoisonedUsers(plain, 0)
    assert all(poisoned.examples(u) == plain.examples(u) for u in range(30))
