"""Builds a Node from a RunConfig. Slow; done once."""

import functools
import importlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from feddp.client.engine.cohort import CohortEngine
from feddp.client.engine.one_by_one import UnitLoop
from feddp.client.engine.probe import check_gradients, plain_gradients, probe_adapters, probe_rows
from feddp.client.engine.protocol import Engine, LocalMethod
from feddp.client.node import LocalData, Node
from feddp.client.own_noise import OwnNoise, own_noise_of
from feddp.client.ranking import RankedUsers, perplexity_of
from feddp.client.sharding import ShardedNode, part_of
from feddp.common.assembly import Part, load_model, load_users, pin_threads
from feddp.common.config.run_config import RunConfig
from feddp.common.config.sections import LocalSection
from feddp.common.data.example_units import ExampleUnits
from feddp.common.data.tokens import TokenRow
from feddp.common.data.users import Units, Users, UsersView
from feddp.common.errors import ModelError
from feddp.common.model.base import BaseModel, place_model
from feddp.common.model.layout import AdapterLayout
from feddp.common.model.other_kinds import KINDS
from feddp.common.privacy.mechanism.encoding import Identity

STACK_NUMBERS = 1 << 26
MIN_SLOTS, MAX_SLOTS = 16, 512
log = logging.getLogger("feddp.node")


def build_node(
    config: RunConfig,
    base: BaseModel,
    layout: AdapterLayout,
    users: Units,
    evaluation_users: Users,
    own_noise: OwnNoise | None = None,
) -> Node:
    """A node with these users. Replaces the target modules of `base.model` in place.

    `evaluation_users`: declared public or consenting.
    """
    engine = build_engine(config, base, layout)
    data = LocalData(
        tokenizer=base.tokenizer,
        task=config.model.task,
        labels=config.labels,
        max_tokens=config.model.max_tokens,
        max_rows=config.data.max_examples_per_user,
        selection=config.data.selection,
        chunk_tokens=chunk_tokens_of(config),
    )
    if config.data.selection.startswith("perplexity"):
        users = RankedUsers(
            users,
            max_examples=config.data.max_examples_per_user,
            is_high_kept=config.data.selection == "perplexity-high",
            perplexity=perplexity_of(engine, layout.initial(), data.rows),
        )
    return Node(
        units=units_of(config, users),
        evaluation_users=evaluation_users,
        max_evaluation_users=config.evaluation.max_users,
        engine=engine,
        layout=layout,
        encoding=Identity(layout.dimension),
        data=data,
        method=local_method(config.local),
        own_noise=own_noise,
    )


def chunk_tokens_of(config: RunConfig) -> int | None:
    """Tokens per block if a user's texts are joined; None if examples stay separate."""
    if config.data.selection != "random-chunk":
        return None
    return config.data.chunk_tokens or config.model.max_tokens


def local_method(local: LocalSection) -> LocalMethod:
    """What a user computes: the file of `engine/methods` that `local.optimizer` names."""
    file = importlib.import_module(f"feddp.client.engine.methods.{local.optimizer}")
    method: LocalMethod = file.from_section(local)
    return method


def units_of(config: RunConfig, users: Units) -> Units:
    """What is drawn: these users, or their examples.

    The number of examples per user is bounded only if users are protected.
    """
    if config.sampling.unit == "user":
        return users
    is_bounded = config.privacy.unit == "user"
    return ExampleUnits(
        users,
        max_examples=config.data.max_examples_per_user if is_bounded else None,
        selection=config.data.selection,
    )


def build_part(
    config: RunConfig,
    part: Part,
    *,
    loaded: tuple[BaseModel, AdapterLayout] | None = None,
    own_noise: OwnNoise | None = None,
) -> Node | ShardedNode:
    """The node for a part of the users, spread over `nodes.workers` processes.

    `loaded`: the result of `load_model`, if already called; it is used up.
    """
    if config.nodes.workers > 1:
        return ShardedNode(
            build_shard,
            config,
            part,
            workers=config.nodes.workers,
            own_noise=own_noise,
            build_first=functools.partial(build_shard, loaded=loaded),
        )
    base, layout = loaded or load_model(config)
    return build_node(config, base, layout, *load_users(config, part), own_noise)


@contextmanager
def open_part(
    config: RunConfig, part: Part, *, ledger: Path | None, ledger_key: Path | None, name: str
) -> Iterator[Node | ShardedNode]:
    """The node for a part of the users; its own noise, see `own_noise_of`, is open meanwhile."""
    pin_threads(config)
    base, layout = load_model(config)
    with own_noise_of(
        config, base, layout, ledger_path=ledger, key_path=ledger_key, name=name
    ) as own_noise:
        yield build_part(config, part, loaded=(base, layout), own_noise=own_noise)


def holds_too_many(config: RunConfig, part: Part) -> bool:
    """Whether a node has more users than `nodes.users-per-node`, its registered number.

    The server app counts a sum as zero if its norm exceeds what that many users can reach. With
    more users, one of them could decide whether the others count, and move a release by more than
    C. The answer is only yes or no, because only the data's owner needs the exact number.
    """
    most = config.nodes.users_per_node
    return most is not None and load_users(config, part)[0].num_users > most


def build_shard(
    config: RunConfig,
    part: Part,
    rank: int,
    *,
    loaded: tuple[BaseModel, AdapterLayout] | None = None,
) -> Node:
    """One process's share of a part's node, on the accelerator of its rank."""
    cores = config.nodes.threads or os.cpu_count() or 1
    device = choose_device(config.nodes.device)
    if device == "cuda":
        device = f"cuda:{rank % torch.cuda.device_count()}"
        torch.cuda.set_device(device)  # quantized weights are loaded there
    threads = max(1, cores // config.nodes.workers)
    nodes = replace(config.nodes, device=device, threads=threads, workers=1)
    torch.set_num_threads(threads)
    own = replace(config, nodes=nodes)
    base, layout = loaded or load_model(own)
    users, _ = load_users(own, part_of(part, rank, config.nodes.workers))
    _, evaluation_users = load_users(own, part)
    num_evaluated = min(evaluation_users.num_users, config.evaluation.max_users)
    share = np.arange(num_evaluated)[rank :: config.nodes.workers]
    return build_node(own, base, layout, users, UsersView(evaluation_users, share))


def build_engine(config: RunConfig, base: BaseModel, layout: AdapterLayout) -> Engine:
    """The engine for a layout: stacked passes for LoRA, one unit at a time for other kinds.

    Raises:
      ModelError: its gradients on public random tokens are wrong.
    """
    device = choose_device(config.nodes.device)
    rows, adapters = probe_rows(base), probe_adapters(layout)
    if layout.kind in KINDS:
        loop = UnitLoop(base, layout, device=device)
        check_gradients(base, loop.gradients, adapters[:1], rows[:1])
        return loop
    place_model(base.model, device)
    expected = plain_gradients(base, layout, adapters, rows)
    engine = CohortEngine(
        base,
        layout,
        device=device,
        slots=max(MIN_SLOTS, min(MAX_SLOTS, STACK_NUMBERS // layout.dimension)),
        pass_tokens=config.nodes.pass_tokens,
        num_threads=config.nodes.threads or os.cpu_count() or 1,
        is_recomputing=config.nodes.checkpointing,
        is_compiled=config.nodes.compile,
    )
    check_gradients(base, engine.gradients, adapters, rows, expected)
    if config.nodes.cache_bytes:
        _cache_prefix(engine, base, adapters, rows, config.nodes.cache_bytes)
    return engine


def _cache_prefix(
    engine: CohortEngine,
    base: BaseModel,
    adapters: NDArray[np.float32],
    rows: list[TokenRow],
    max_bytes: int,
) -> None:
    """Turns the cache on if gradients computed from it are right.

    The check repeats the rows in another order and with the other adapter, as later rounds do.
    """
    orders = (rows, rows[::-1])
    expected = [engine.gradients(adapters, order) for order in orders]
    if engine.cache_prefix(max_bytes):
        try:
            for order, gradients in zip(orders, expected, strict=True):
                check_gradients(base, engine.gradients, adapters, order, gradients)
            return
        except ModelError:
            engine.cache_prefix(0)
    log.warning("nodes.cache-bytes: there is no frozen part below the adapters to keep; not used")


def choose_device(name: str) -> str:
    """The device of a node: "auto" is an accelerator if there is one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
