"""From a RunConfig to a Node. Heavy; done once."""

import os

import torch

from client.cohort import CohortEngine, LocalTraining
from client.node import LocalData, Node
from common.adapter import AdapterLayout
from common.config import RunConfig
from common.model import BaseModel
from common.units import ExampleUnits
from common.users import Units, Users

STACK_NUMBERS = 1 << 26
MIN_SLOTS, MAX_SLOTS = 16, 512


def build_node(
    config: RunConfig,
    base: BaseModel,
    layout: AdapterLayout,
    users: Users,
    evaluation_users: Users,
) -> Node:
    """A node with these users. Replaces the target modules of `base.model` in place.

    Args:
      config: of the run.
      base: the frozen model; not used elsewhere afterwards.
      layout: of the trained numbers.
      users: training users of this node.
      evaluation_users: declared public or consenting.
    """
    slots = max(MIN_SLOTS, min(MAX_SLOTS, STACK_NUMBERS // layout.dimension))
    engine = CohortEngine(
        base,
        layout,
        device=choose_device(config.nodes.device),
        slots=slots,
        pass_tokens=config.nodes.pass_tokens,
        num_threads=config.nodes.threads or os.cpu_count() or 1,
    )
    data = LocalData(
        task=config.model.task,
        labels=config.labels,
        max_tokens=config.model.max_tokens,
        max_rows=config.data.max_examples_per_user,
        selection=config.data.selection,
        batch_size=config.local.batch_size,
        epochs=config.local.epochs,
        steps=config.local.steps,
    )
    return Node(
        units=units_of(config, users),
        evaluation_users=evaluation_users,
        max_evaluation_users=config.evaluation.max_users,
        engine=engine,
        tokenizer=base.tokenizer,
        layout=layout,
        data=data,
        training=LocalTraining(config.local.optimizer, config.local.learning_rate),
    )


def units_of(config: RunConfig, users: Users) -> Units:
    """What is drawn of these users: they themselves, or their examples.

    Examples of one user are bounded where users are protected, and not where examples are.
    """
    if config.sampling.unit == "user":
        return users
    is_bounded = config.privacy.unit == "user"
    return ExampleUnits(
        users,
        max_examples=config.data.max_examples_per_user if is_bounded else None,
        selection=config.data.selection,
    )


def choose_device(name: str) -> str:
    """The device of a node: "auto" is an accelerator where there is one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
