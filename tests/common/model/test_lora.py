import copy
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from adapter_files import load_adapter
from engine_logits import logits_of
from peft import PeftModel
from safetensors.numpy import load_file, save_file

from feddp.client.engine.forward import StackedForward
from feddp.common.data.tokens import TokenRow
from feddp.common.errors import ModelError
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import AdapterLayout
from feddp.common.model.lora import (
    adaptable_modules,
    check_export,
    lay_out,
    merge_adapter,
    probe_logits,
    public_a,
    save_adapter,
)

CASES = [
    ("llama", "causal-lm", "auto"),
    ("gpt2", "causal-lm", "auto"),
    ("bert", "classification", "auto"),
    ("bert", "classification", "mean"),
    ("roberta", "classification", "auto"),
    ("distilbert", "classification", "auto"),
]


@pytest.fixture(scope="module")
def models_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    for name, task in {(name, task) for name, task, _ in CASES}:
        tiny.save(name, path, task=task)
    return path


def load(models_path: Path, name: str, task: str, pooling: str = "auto") -> BaseModel:
    return tiny.load(models_path / f"{name}-{task}", task=task, pooling=pooling)


def layout_of(base: BaseModel, kind: str = "ffa-lora", rank: int = 4) -> AdapterLayout:
    return lay_out(base, kind=kind, rank=rank, alpha=8.0, target_modules=None)


def moved(layout: AdapterLayout) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=layout.dimension) * 0.1
    return (layout.start + noise).astype(np.float32)


@pytest.mark.parametrize("kind", ["ffa-lora", "lora"])
@pytest.mark.parametrize(("name", "task", "pooling"), CASES)
def test_saved_adapter_reloads_with_peft_to_the_engines_logits(
    models_path: Path, tmp_path: Path, name: str, task: str, pooling: str, kind: str
) -> None:
    base = load(models_path, name, task, pooling)
    layout = layout_of(base, kind)
    vector = moved(layout)
    save_adapter(tmp_path, vector, layout, base)
    check_export(tmp_path, vector, layout, load(models_path, name, task, pooling))

    fresh = load(models_path, name, task, pooling)
    untouched = copy.deepcopy(fresh.model)
    reloaded = PeftModel.from_pretrained(fresh.model, str(tmp_path)).eval()
    ids = np.arange(3, 20)
    inputs = torch.from_numpy(ids)[None]
    with torch.no_grad():
        arguments = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
        expected = reloaded(**arguments).logits[0].numpy()
        before = untouched(**arguments).logits[0].numpy()
    forward = StackedForward(
        base, layout, device="cpu", num_threads=1, is_recomputing=False, is_compiled=False
    )
    row = TokenRow(ids, ids if task == "causal-lm" else ids[:1] * 0)
    found = logits_of(forward, row, torch.from_numpy(vector))
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert np.abs(expected - before).max() > 1e-2
    np.testing.assert_array_equal(load_adapter(tmp_path, layout), vector)


def test_export_check_sees_a_changed_number(models_path: Path, tmp_path: Path) -> None:
    base = load(models_path, "llama", "causal-lm")
    layout = layout_of(base)
    save_adapter(tmp_path, moved(layout), layout, base)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    name = layout.entries[0].name
    tensors[name] = tensors[name] + 0.5
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="other logits"):
        check_export(tmp_path, moved(layout), layout, base)


def test_export_check_sees_an_adapter_that_did_not_move(models_path: Path, tmp_path: Path) -> None:
    base = load(models_path, "llama", "causal-lm")
    layout = layout_of(base)
    save_adapter(tmp_path, layout.initial(), layout, base)
    with pytest.raises(ModelError, match="did not move"):
        check_export(tmp_path, layout.initial(), layout, base)


@pytest.mark.parametrize(("name", "task", "pooling"), CASES)
def test_the_initial_adapter_changes_nothing(
    models_path: Path, name: str, task: str, pooling: str
) -> None:
    base = load(models_path, name, task, pooling)
    layout = layout_of(base, "lora")
    before = probe_logits(base.model, base)
    merge_adapter(base.model, layout.initial(), layout)
    np.testing.assert_array_equal(probe_logits(base.model, base), before)


def test_ffa_trains_b_alone_and_lora_both(models_path: Path) -> None:
    base = load(models_path, "llama", "causal-lm")
    modules = adaptable_modules(base)
    ffa, lora = layout_of(base, "ffa-lora"), layout_of(base, "lora")
    widths = [module.weight.shape for module in modules.values()]
    assert ffa.dimension == sum(4 * out for out, _ in widths)
    assert lora.dimension == sum(4 * (out + into) for out, into in widths)
    assert len(ffa.adapted) == len(modules) == 2 * 7


def test_targets_are_named_by_path_endings(models_path: Path) -> None:
    base = load(models_path, "llama", "causal-lm")
    found = lay_out(
        base, kind="ffa-lora", rank=2, alpha=2.0, target_modules=("q_proj", "layers.1.mlp.up_proj")
    )
    assert found.adapted == (
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    )


def test_unknown_targets_are_answered_with_the_modules_that_exist(models_path: Path) -> None:
    base = load(models_path, "gpt2", "causal-lm")
    with pytest.raises(ModelError) as caught:
        lay_out(base, kind="lora", rank=2, alpha=2.0, target_modules=("q_proj", "c_attn"))
    assert 'adapter.target-modules = "q_proj"' in str(caught.value)
    assert "c_attn, c_fc, c_proj" in str(caught.value)


def test_flatten_undoes_unflatten_in_any_order(models_path: Path) -> None:
    layout = layout_of(load(models_path, "bert", "classification"), "lora")
    vector = moved(layout)
    tensors = layout.unflatten(vector)
    shuffled = dict(sorted(tensors.items(), reverse=True))
    np.testing.assert_array_equal(layout.flatten(shuffled), vector)


def test_heads_are_trained_whole(models_path: Path) -> None:
    layout = layout_of(load(models_path, "distilbert", "classification"))
    assert layout.heads == ("classifier", "pre_classifier")
    heads = {entry.name for entry in layout.entries if entry.role in ("weight", "bias")}
    assert heads == {
        f"base_model.model.{module}.{role}"
        for module in ("classifier", "pre_classifier")
        for role in ("weight", "bias")
    }


def test_the_frozen_a_is_a_function_of_the_modules_path(models_path: Path) -> None:
    first, again = public_a("x.q_proj", 4, 32), public_a("x.q_proj", 4, 32)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, public_a("x.k_proj", 4, 32))
    assert np.abs(first).max() <= 1 / np.sqrt(32)


def test_the_hash_of_a_layout_sees_everything_that_gives_numbers_a_meaning(
    models_path: Path,
) -> None:
    base = load(models_path, "llama", "causal-lm")
    layouts = [
        lay_out(base, kind=kind, rank=rank, alpha=alpha, target_modules=targets)
        for kind, rank, alpha, targets in [
            ("ffa-lora", 2, 2.0, None),
            ("lora", 2, 2.0, None),
            ("ffa-lora", 4, 2.0, None),
            ("ffa-lora", 2, 4.0, None),
            ("ffa-lora", 2, 2.0, ("q_proj",)),
        ]
    ]
    assert len({layout.sha256 for layout in layouts}) == len(layouts)
