"""Recomputed and skipped blocks against passes without either, bit by bit."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from feddp.client.assembly import build_engine
from feddp.client.engine.blocks import PrefixCache, find_blocks
from feddp.client.engine.cohort import CohortEngine
from feddp.client.engine.methods.sgd import SGD
from feddp.client.engine.protocol import LocalWork
from feddp.common.config.run_config import from_flat
from feddp.common.data.tokens import TokenRow
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import AdapterLayout
from feddp.common.model.lora import lay_out

UPPER = {
    "llama": "layers.1.self_attn.q_proj,layers.1.mlp.down_proj",
    "gpt2": "h.1.attn.c_attn",
    "gpt-neox": "layers.1.attention.query_key_value",
    "gemma3": "layers.1.self_attn.v_proj",
    "bert": "layer.1.attention.self.query",
    "roberta": "layer.1.output.dense",
    "distilbert": "layer.1.attention.q_lin",
    "deberta-v2": "layer.1.attention.self.value_proj",
}
CASES = [
    *((name, "causal-lm") for name in ("llama", "gpt2", "gpt-neox", "gemma3")),
    *((name, "classification") for name in ("bert", "roberta", "distilbert", "deberta-v2")),
]
DEFAULT = ("llama", "gpt2", "bert", "deberta-v2")
EACH = pytest.mark.parametrize(
    ("name", "task"),
    [pytest.param(*c, marks=() if c[0] in DEFAULT else pytest.mark.slow) for c in CASES],
)


@pytest.fixture(scope="module")
def models_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    for name, task in CASES:
        tiny.save(name, path, task=task)
    return path


def load(
    path: Path, name: str, task: str, targets: str | None = None
) -> tuple[BaseModel, AdapterLayout]:
    base = tiny.load(path / f"{name}-{task}", task=task)
    names = None if targets is None else tuple(targets.split(","))
    return base, lay_out(base, kind="lora", rank=3, alpha=6.0, target_modules=names)


def make_users(task: str) -> list[list[list[TokenRow]]]:
    rng = np.random.default_rng(3)
    pool = []
    for length in rng.integers(2, 40, size=12):
        ids = rng.integers(3, tiny.VOCABULARY, size=length)
        labels = rng.integers(0, 3, size=1) if task == "classification" else np.roll(ids, -1)
        pool.append(TokenRow(ids, labels))
    return [[[pool[i] for i in rng.integers(0, 12, size=2)] for _ in range(2)] for _ in range(6)]


def updates(engine: CohortEngine, start: np.ndarray, users: list[list[list[TokenRow]]]) -> bytes:
    found: dict[int, bytes] = {}
    engine.train(
        start,
        [LocalWork(key, lambda user=user: user) for key, user in enumerate(users)],
        method=SGD(0.1),
        sink=lambda key, update: found.__setitem__(key, update.tobytes()),
    )
    assert all(np.frombuffer(update, dtype=np.float32).any() for update in found.values())
    return b"".join(found[key] for key in range(len(users)))


def starts(layout: AdapterLayout) -> list[np.ndarray]:
    """The adapters of two rounds."""
    noise = np.random.default_rng(1).normal(size=(2, layout.dimension)) * 0.05
    return list((layout.start + noise).astype(np.float32))


@EACH
def test_updates_from_the_cache_have_the_bits_of_updates_without_it(
    models_path: Path, name: str, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = make_users(task)
    base, layout = load(models_path, name, task, UPPER[name])
    plain = CohortEngine(base, layout, slots=3, pass_tokens=96)
    expected = [updates(plain, start, users) for start in starts(layout)]
    num_run = 0
    compute = PrefixCache._compute

    def count(self: PrefixCache, run: object, indices: list[int]) -> torch.Tensor:
        nonlocal num_run
        num_run += len(indices)
        return compute(self, run, indices)

    monkeypatch.setattr(PrefixCache, "_compute", count)
    for max_bytes, num_threads in ((1 << 30, 1), (9000, 2)):
        config = from_flat({"nodes.cache-bytes": max_bytes, "nodes.threads": num_threads})
        engine = build_engine(config, *load(models_path, name, task, UPPER[name]))
        num_run = 0
        assert [updates(engine, start, users) for start in starts(layout)] == expected
        num_rows = len({row.input_ids.tobytes() for user in users for step in user for row in step})
        assert num_run == num_rows if max_bytes > 9000 else num_rows < num_run
        assert 0 < engine._forward._prefix._num_bytes <= max_bytes


def test_a_layout_without_a_frozen_part_below_runs_without_the_cache(
    models_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, layout = load(models_path, "llama", "causal-lm")
    engine = build_engine(from_flat({"nodes.cache-bytes": 1 << 20}), base, layout)
    assert engine._forward._prefix is None
    assert "nothing" not in caplog.text
    assert "not used" in caplog.text


def test_blocks_that_pass_on_more_than_hidden_states_run_without_the_cache(
    models_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, layout = load(models_path, "llama", "causal-lm", UPPER["llama"])
    layers = base.model.get_submodule("model.layers")
    carried: list[torch.Tensor] = []

    def carry(_: object, inputs: object, output: torch.Tensor) -> None:
        carried[:] = [output]

    def read(_: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output + carried[0]

    layers[0].mlp.register_forward_hook(carry)
    layers[1].register_forward_hook(read)
    start, users = starts(layout)[0], make_users("causal-lm")
    engine = build_engine(
        from_flat({"nodes.cache-bytes": 1 << 20, "nodes.threads": 1}), base, layout
    )
    assert engine._forward._prefix is None
    assert "not used" in caplog.text
    updates(engine, start, users)


@EACH
def test_recomputed_activations_give_the_same_bits(models_path: Path, name: str, task: str) -> None:
    users, found = make_users(task), []
    for is_recomputing in (False, True):
        base, layout = load(models_path, name, task)
        engine = CohortEngine(base, layout, slots=3, is_recomputing=is_recomputing)
        found.append(updates(engine, starts(layout)[0], users))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("name", "task", "num_threads"),
    [
        ("llama", "causal-lm", 2),
        pytest.param("llama", "causal-lm", 1, marks=pytest.mark.slow),
        pytest.param("bert", "classification", 2, marks=pytest.mark.slow),
    ],
)
def test_compiled_blocks_give_the_same_updates(
    models_path: Path, name: str, task: str, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks are traced as always; what a compiler makes of that is left out."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    compare_compiled(models_path, name, task, num_threads)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(("name", "task"), [("llama", "causal-lm"), ("bert", "classification")])
def test_kernels_from_the_compiler_give_the_same_updates(
    models_path: Path, name: str, task: str
) -> None:
    compare_compiled(models_path, name, task, num_threads=2)


def compare_compiled(path: Path, name: str, task: str, num_threads: int) -> None:
    torch._dynamo.reset()
    users, found = make_users(task), []
    for is_compiled in (False, True):
        base, layout = load(path, name, task)
        engine = CohortEngine(base, layout, num_threads=num_threads, is_compiled=is_compiled)
        for start in starts(layout):
            found.append(np.frombuffer(updates(engine, start, users), dtype=np.float32))
    for plain, compiled in zip(found[:2], found[2:], strict=True):
        assert np.linalg.norm(compiled - plain) <= 1e-4 * np.linalg.norm(plain)


def test_a_recomputing_pass_keeps_fewer_bytes_for_its_backward(models_path: Path) -> None:
    kept = []
    for is_recomputing in (False, True):
        base, layout = load(models_path, "llama", "causal-lm")
        engine = CohortEngine(base, layout, is_recomputing=is_recomputing)
        num_bytes = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal num_bytes
            num_bytes += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            updates(engine, starts(layout)[0], make_users("causal-lm"))
        kept.append(num_bytes)
    assert kept[1] < 0.7 * kept[0]


def test_blocks_are_cut_at_the_first_adapter(models_path: Path) -> None:
    base, layout = load(models_path, "llama", "causal-lm", UPPER["llama"])
    blocks = find_blocks(base.model, layout)
    assert blocks is not None
    assert (len(blocks.below), len(blocks.above)) == (1, 1)
    outside = lay_out(base, kind="lora", rank=3, alpha=6.0, target_modules=("q_proj",))
    assert find_blocks(torch.nn.Linear(2, 2), outside) is None
