"""Problems that keep a data set from being trained on, found before anything is spent."""

from collections.abc import Iterator

from feddp.common.config.run_config import RunConfig
from feddp.common.data.tokens import tokenize_example
from feddp.common.data.users import Example, Users
from feddp.common.model.base import BaseModel

SAMPLED_USERS = 200
LABEL_USERS = 20_000


def data_problems(
    config: RunConfig, users: Users, evaluation_users: Users, base: BaseModel
) -> list[str]:
    """All problems of these users at once, one line each; no content, no id, no count.

    Looks at a bounded sample. The result depends on private rows: show it only to their owner, on
    the machine that holds them.
    """
    path, problems = config.data.path, []
    if users.num_users < 2:
        problems.append(
            f'data.path = "{path}": one training user only, or none; nobody to hide among. '
            "User-level privacy needs many users."
        )
    problems += _evaluation_problems(config, users, evaluation_users, base)
    if users.num_users and not _has_rows(config, users, base):
        problems.append(f'data.path = "{path}": {_what_is_missing(config)} in the first users.')
    elif config.model.task == "classification" and users.num_users:
        problems += _label_problems(config, users)
    return problems


def _evaluation_problems(
    config: RunConfig, users: Users, evaluation_users: Users, base: BaseModel
) -> list[str]:
    data = config.data
    if data.evaluation_path:
        if _has_rows(config, evaluation_users, base):
            return []
        missing = _what_is_missing(config)
        return [f'data.evaluation-path = "{data.evaluation_path}": {missing} in the first users.']
    one_in = config.evaluation_one_in
    if one_in == 1:
        return ["data.evaluation-users = 1: holds out every user. Use a larger number, or 0."]
    if one_in == 0 or evaluation_users.num_users or users.num_users < 2:
        return []
    return [
        f"data.evaluation-users = {one_in}: no user falls into it. Use a smaller "
        "number, or 0 for a run without evaluation."
    ]


def _label_problems(config: RunConfig, users: Users) -> list[str]:
    """Declared classes that no user has: misspelt, or too rare to be learned."""
    unseen = dict.fromkeys(config.labels)
    for example in _examples(users, LABEL_USERS):
        unseen.pop(example.label or "", None)
        if not unseen:
            return []
    return [
        f'data.labels: no training row has the class "{label}". Correct its spelling, or leave it '
        "out."
        for label in unseen
    ]


def _what_is_missing(config: RunConfig) -> str:
    if config.model.task == "classification":
        return f'no row with a text and one of the declared classes "{config.data.labels}"'
    if config.data.messages_column:
        return 'no chat with "role" and "content" in each turn and words of the role "assistant"'
    if config.data.completion_column:
        return "no row with a completion to learn from"
    return "no row with a text to learn from"


def _has_rows(config: RunConfig, users: Users, base: BaseModel) -> bool:
    """Whether any row of a sample survives tokenisation."""
    return any(
        tokenize_example(
            example,
            base.tokenizer,
            task=config.model.task,
            max_tokens=config.model.max_tokens,
            labels=config.labels,
        )
        for example in _examples(users, SAMPLED_USERS)
    )


def _examples(users: Users, most: int) -> Iterator[Example]:
    for user in range(min(most, users.num_users)):
        yield from users.examples(user)
