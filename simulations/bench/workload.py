"""What the bench trains: a Llama-shaped base with random weights and users with random tokens."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from feddp.common.data.tokens import IGNORE, TokenRow
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import AdapterLayout
from feddp.common.model.lora import lay_out

User = list[list[TokenRow]]
MODEL_SEED = 0
TARGETS = ("q_proj", "v_proj")


@dataclass(frozen=True)
class Shape:
    """A Llama shape and the rank of its adapter (on query and value)."""

    hidden: int = 256
    intermediate: int = 688
    layers: int = 4
    heads: int = 4
    vocabulary: int = 2048
    rank: int = 8
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Population:
    """Users with lognormal rows and tokens: exp(mean + sigma z), bounded.

    Attributes:
      num_users: of one cohort.
      rows: mean and sigma of the log, minimum and maximum rows per user.
      tokens: the same for tokens per row; the first quarter of a row is a prompt.
      batch_size: rows of one local step.
    """

    num_users: int
    rows: tuple[float, float, int, int]
    tokens: tuple[float, float, int, int]
    batch_size: int = 4

    @classmethod
    def equal(cls, num_users: int, *, rows: int, tokens: int) -> "Population":
        """Users with the same number of rows of the same length, in one local step."""
        return cls(num_users, (0, 0, rows, rows), (0, 0, tokens, tokens), rows)


def make_base(shape: Shape) -> tuple[BaseModel, AdapterLayout]:
    """A frozen base with random weights from a fixed seed, and the layout of LoRA on it."""
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=False,
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(MODEL_SEED)
        model = LlamaForCausalLM(config).to(shape.dtype).eval().requires_grad_(False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>")),
        pad_token="<pad>",
    )
    base = BaseModel(model, tokenizer, "causal-lm", (), (), "random weights", "")
    layout = lay_out(
        base, kind="lora", rank=shape.rank, alpha=2.0 * shape.rank, target_modules=TARGETS
    )
    return base, layout


def make_workload(
    population: Sequence[Any], shape: Mapping[str, Any]
) -> tuple[BaseModel, AdapterLayout, list[User]]:
    """(base, layout, users) of the fields of a `Population` and of a `Shape`, as processes pass."""
    of_base = Shape(**shape)
    return *make_base(of_base), make_users(Population(*population), of_base.vocabulary)


def copy_base(base: BaseModel) -> BaseModel:
    """A copy of the base, because engines replace modules in place."""
    model = copy.deepcopy(base.model)
    return BaseModel(model, base.tokenizer, base.task, (), (), base.source, base.fingerprint)


def make_users(population: Population, vocabulary: int, seed: int = 3) -> list[User]:
    """The minibatches of every user; a function of the arguments alone."""
    rng = np.random.default_rng(seed)

    def draw(mean: float, sigma: float, least: int, most: int) -> int:
        """A bounded lognormal number, rounded down."""
        return int(np.clip(np.exp(mean + sigma * rng.normal()), least, most))

    def row() -> TokenRow:
        """Random tokens behind a prompt without loss."""
        ids = rng.integers(0, vocabulary, size=draw(*population.tokens) + 1)
        labels = ids[1:].copy()
        labels[: len(labels) // 4] = IGNORE
        return TokenRow(ids[:-1], labels)

    users = []
    for _ in range(population.num_users):
        rows = [row() for _ in range(draw(*population.rows))]
        size = population.batch_size
        users.append([rows[start : start + size] for start in range(0, len(rows), size)])
    return users


def nonzero_start(layout: AdapterLayout) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """An adapter with nonzero B, where the gradient of A does not vanish."""
    noise = np.random.default_rng(5).normal(size=layout.dimension) * 0.02
    return np.asarray(layout.start + noise, dtype=np.float32)


def rows_of(users: Sequence[User]) -> list[TokenRow]:
    """The rows of all local steps of all users."""
    return [row for user in users for step in user for row in step]


def num_tokens(users: Sequence[User]) -> int:
    """Real input tokens over all local steps."""
    return sum(len(row.input_ids) for row in rows_of(users))
