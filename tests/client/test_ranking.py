import numpy as np
import pytest

from feddp.client.assembly import build_node, units_of
from feddp.client.ranking import RankedUsers
from feddp.common.assembly import load_model
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.data.example_units import ExampleUnits
from feddp.common.data.users import Example, InMemoryUsers

TEXTS = ["aaaa", "b", "ccc", "", "dd"]


def loss(example: Example) -> float:
    return len(example.text) if example.text else float("nan")


def users_of(*users: list[str]) -> InMemoryUsers:
    return InMemoryUsers(
        [(f"u{i}", [Example(text=text) for text in texts]) for i, texts in enumerate(users)]
    )


def kept(users: RankedUsers, first: str) -> list[str]:
    found = [[e.text for e in users.examples(i)] for i in range(users.num_users)]
    return next(texts for texts in found if texts[0].startswith(first))


@pytest.mark.parametrize(
    ("is_high", "size", "expected"),
    [(True, 2, ["aaaa", "ccc"]), (False, 2, ["b", "dd"]), (True, 4, ["aaaa", "b", "ccc", "dd"])],
)
def test_the_least_or_most_likely_examples_are_kept_in_their_order(
    is_high: bool, size: int, expected: list[str]
) -> None:
    users = RankedUsers(users_of(TEXTS), max_examples=size, is_high_kept=is_high, perplexity=loss)
    assert [e.text for e in users.examples(0)] == expected
    assert users.counts[0] == size


def test_which_are_kept_depends_on_their_user_alone_and_is_the_same_in_every_round() -> None:
    def ranked(users: InMemoryUsers) -> RankedUsers:
        return RankedUsers(users, max_examples=2, is_high_kept=True, perplexity=loss)

    alone, beside = ranked(users_of(TEXTS)), ranked(users_of(TEXTS, ["x", "xx", "xxx"], ["y"]))
    assert kept(alone, "a") == kept(beside, "a") == kept(beside, "a")


def test_drawn_examples_are_the_same_few_in_every_round() -> None:
    source = users_of(TEXTS, ["x", "xx", "xxx"])
    ranked = RankedUsers(source, max_examples=2, is_high_kept=True, perplexity=loss)
    units = ExampleUnits(ranked, max_examples=2, selection="perplexity-high")
    rounds = [[units.examples(i)[0].text for i in range(units.num_users)] for _ in range(3)]
    assert rounds[0] == rounds[1] == rounds[2]
    assert sorted(rounds[0]) == ["aaaa", "ccc", "xx", "xxx"]


@pytest.mark.parametrize("selection", ["perplexity-high", "perplexity-low"])
def test_a_node_ranks_by_its_base_model(selection: str) -> None:
    texts = ["hello, where is my order", "zq xv jk qqz wxv kkj", "my order is late, please help"]
    config = from_flat({"data.selection": selection, "data.max-examples-per-user": 1})
    base, layout = load_model(config)
    users = users_of(texts)
    node = build_node(config, base, layout, users, users)
    (example,) = node._units.examples(0)
    assert (example.text == texts[1]) == (selection == "perplexity-high")


def test_units_of_other_selections_are_left_as_they_are() -> None:
    users = users_of(TEXTS)
    assert units_of(RunConfig(), users) is users
    assert np.array_equal(users.counts, [5])
