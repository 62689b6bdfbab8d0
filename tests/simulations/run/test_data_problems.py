import pytest

from feddp.common.assembly import load_model
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.data.users import Example, InMemoryUsers
from feddp.common.model.base import BaseModel
from feddp.simulations.run.data_problems import LABEL_USERS, SAMPLED_USERS, data_problems


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load_model(RunConfig())[0]


def users(*rows: list[Example]) -> InMemoryUsers:
    return InMemoryUsers([(f"u{i}", own) for i, own in enumerate(rows)])


def config(**changes: object) -> RunConfig:
    named = {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    return from_flat({"data.path": "rows.jsonl", "privacy.num-users": 100, **named})


CLASSES = config(model__task="classification", data__label_column="label", data__labels="good,bad")
TALKERS = users(*[[Example("Hello there")]] * 5)
NOBODY = users()


def test_users_with_text_have_no_problem(base: BaseModel) -> None:
    assert data_problems(config(), TALKERS, TALKERS, base) == []


def test_all_problems_come_at_once(base: BaseModel) -> None:
    found = data_problems(config(), users([Example(" ")]), NOBODY, base)
    assert len(found) == 2
    assert "nobody to hide among" in found[0]
    assert "no row with a text" in found[1]


def test_nobody_at_all_is_one_problem(base: BaseModel) -> None:
    assert len(data_problems(config(), NOBODY, NOBODY, base)) == 1


def test_evaluation_users_may_be_none_only_when_none_are_asked_for(base: BaseModel) -> None:
    held_out = config(data__evaluation_users=10, evaluation__consent="declared")
    (found,) = data_problems(held_out, TALKERS, NOBODY, base)
    assert "data.evaluation-users = 10: no user falls into it" in found
    assert data_problems(config(), TALKERS, NOBODY, base) == []
    assert data_problems(config(data__evaluation_users=0), TALKERS, NOBODY, base) == []


def test_evaluation_data_needs_rows_too(base: BaseModel) -> None:
    own = config(data__evaluation_path="public.jsonl")
    (found,) = data_problems(own, TALKERS, users([Example("")]), base)
    assert found.startswith('data.evaluation-path = "public.jsonl": no row with a text')
    assert data_problems(own, TALKERS, TALKERS, base) == []


def test_one_row_in_the_sample_is_enough_and_the_sample_is_bounded(base: BaseModel) -> None:
    silent = [[Example("")] for _ in range(3 * SAMPLED_USERS)]
    (found,) = data_problems(config(data__evaluation_users=0), users(*silent), NOBODY, base)
    assert "no row with a text" in found
    almost = users(*silent[: SAMPLED_USERS - 1], [Example("Hello")])
    assert data_problems(config(data__evaluation_users=0), almost, NOBODY, base) == []


def test_no_more_users_are_looked_at_than_the_sample(base: BaseModel) -> None:
    class Watched(InMemoryUsers):
        num_read = 0

        def examples(self, user: int) -> list[Example]:
            self.num_read += 1
            return super().examples(user)

    many = Watched([(f"u{i}", [Example("")]) for i in range(2 * SAMPLED_USERS)])
    assert data_problems(config(data__evaluation_users=0), many, NOBODY, base)
    assert many.num_read == SAMPLED_USERS
    good = [Example("Fine", label="good")]
    many = Watched([(f"u{i}", good) for i in range(LABEL_USERS + 50)])
    assert data_problems(CLASSES, many, TALKERS, base)
    assert many.num_read == LABEL_USERS + 1


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("ugly", None), 'one of the declared classes "good,bad"'),
        (("good", "ugly"), 'no training row has the class "bad"'),
    ],
)
def test_declared_classes_have_to_occur(
    labels: tuple[str | None, ...], expected: str, base: BaseModel
) -> None:
    rows = [[Example("Fine", label=label)] for label in labels]
    (found,) = data_problems(CLASSES, users(*rows), TALKERS, base)
    assert expected in found


def test_a_class_of_one_user_in_thousands_is_seen(base: BaseModel) -> None:
    rows = [[Example("Fine", label="good")] for _ in range(LABEL_USERS - 1)]
    rare = users(*rows, [Example("Poor", label="bad")])
    assert data_problems(CLASSES, rare, TALKERS, base) == []


def test_no_problem_holds_content_or_a_count(base: BaseModel) -> None:
    secret = [[Example("", prompt="secret", label="secret")] for _ in range(37)]
    for settings in (config(), CLASSES):
        found = " ".join(data_problems(settings, users(*secret), NOBODY, base))
        assert found
        assert "secret" not in found
        assert "37" not in found
