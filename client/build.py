"""From a RunConfig to a Node: reads users, loads the model, builds the engine. Heavy; done once."""

import os
from dataclasses import dataclass

import numpy as np
import torch

from client.cohort import CohortEngine, LocalTraining
from client.node import LocalData, Node
from common.adapter import AdapterLayout, attach_layout
from common.config import RunConfig
from common.demo import demo_users
from common.model import BaseModel, load_base
from common.users import Columns, Users, open_users, partition


@dataclass(frozen=True)
class Part:
    """Which of `num_parts` disjoint sets of users a node holds; users are spread by their hash."""

    index: int = 0
    num_parts: int = 1


def columns_of(config: RunConfig) -> Columns:
    """The column names of the data section; `text-column` yields to messages or prompts."""
    data = config.data
    has_other = bool(data.messages_column or data.completion_column)
    return Columns(
        user=data.user_column,
        text="" if has_other else data.text_column,
        messages=data.messages_column,
        prompt=data.prompt_column,
        completion=data.completion_column,
        label=data.label_column,
    )


def open_all_users(config: RunConfig) -> Users:
    """Everybody in `data.path`, training and evaluation users alike.

    Raises:
      DataError: the data cannot be read as configured.
    """
    if config.is_generated:
        return demo_users()
    return open_users(config.data.path, columns=columns_of(config))


def split_users(config: RunConfig, users: Users) -> tuple[Users, Users]:
    """(training users, evaluation users), told apart by a stable hash of the user's id alone."""
    if config.data.evaluation_path:
        evaluation = open_users(config.data.evaluation_path, columns=columns_of(config))
        return users, evaluation
    is_held_out = users.held_out(config.data.evaluation_users)
    return users.take(np.flatnonzero(~is_held_out)), users.take(np.flatnonzero(is_held_out))


def describe_evaluation(config: RunConfig) -> str:
    """Who the evaluation users are, in words, for the statement."""
    if config.data.evaluation_path:
        return "the users of data.evaluation-path, declared public or consenting"
    if config.data.evaluation_users == 0:
        return "none"
    return (
        f"one in {config.data.evaluation_users} of the users (SHA-256 of the id is 0 modulo it), "
        "declared consenting"
    )


def load_model(config: RunConfig) -> tuple[BaseModel, AdapterLayout]:
    """The frozen base model and the layout of what is trained on it.

    Raises:
      ModelError: the base cannot be loaded, or lacks the target modules.
    """
    base = load_base(
        config.model.base,
        task=config.model.task,
        labels=config.labels,
        dtype=config.model.dtype,
        pooling=config.model.pooling,
    )
    ...


def pin_threads(config: RunConfig) -> None:
    """Fixes torch's threads: runtimes such as Ray set their own, and sums depend on them."""
    torch.set_num_threads(config.nodes.threads or os.cpu_count() or 1)
