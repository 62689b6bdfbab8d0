from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from feddp.common.errors import ModelError
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import AdapterLayout
from feddp.common.model.other_kinds import (
    KINDS,
    PLAIN_KINDS,
    file_name,
    head_entries,
    lay_out_method,
    load_trained,
    replaced_names,
    save_method,
    trained_parameters,
    with_vector,
)

IDS = torch.tensor([[1, 5, 9, 7]])


@pytest.fixture(scope="module")
def llama_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("llama", tmp_path_factory.mktemp("models"))


def lay_out(path: Path, kind: str, rank: int = 3) -> tuple[BaseModel, AdapterLayout]:
    base = tiny.load(path)
    return base, lay_out_method(base, kind=kind, rank=rank, target_modules=None)


def logits(model: nn.Module) -> np.ndarray:
    """Of the row's own tokens; virtual ones come before them."""
    with torch.no_grad():
        found: np.ndarray = model(input_ids=IDS).logits[:, -IDS.shape[1] :].numpy()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_is_read_back_to_the_same_logits(
    kind: str, llama_path: Path, tmp_path: Path
) -> None:
    base, layout = lay_out(llama_path, kind)
    before = logits(base.model)
    noise = np.random.default_rng(0).standard_normal(layout.dimension).astype(np.float32)
    vector = layout.start + 0.1 * noise
    save_method(tmp_path, vector, layout, base)
    assert (tmp_path / file_name(kind)).is_file()
    moved = logits(with_vector(base, layout, vector))
    assert not np.allclose(moved, before, atol=1e-3)
    np.testing.assert_array_equal(logits(load_trained(tmp_path, tiny.load(llama_path))), moved)


@pytest.mark.parametrize("kind", KINDS)
def test_the_layout_is_what_the_model_trains_from_where_it_starts(
    kind: str, llama_path: Path
) -> None:
    base, layout = lay_out(llama_path, kind)
    model, parameters = trained_parameters(base, layout)
    assert [tuple(p.shape) for p in parameters] == [entry.shape for entry in layout.entries]
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in parameters}
    start = np.concatenate([p.detach().numpy().reshape(-1) for p in parameters])
    np.testing.assert_array_equal(start, layout.start)


def test_virtual_tokens_are_as_many_as_the_rank(llama_path: Path) -> None:
    _, layout = lay_out(llama_path, "prompt", rank=5)
    assert [entry.shape for entry in layout.entries] == [(5, tiny.LLAMA["hidden_size"])]


def test_laying_out_leaves_the_base_as_it_was(llama_path: Path) -> None:
    base = tiny.load(llama_path)
    names = [name for name, _ in base.model.named_parameters()]
    lay_out_method(base, kind="ia3", rank=1, target_modules=None)
    assert [name for name, _ in base.model.named_parameters()] == names


def test_a_folder_says_which_of_the_bases_numbers_it_replaces(
    llama_path: Path, tmp_path: Path
) -> None:
    for kind in ("head", "ia3"):
        base, layout = lay_out(llama_path, kind)
        (tmp_path / kind).mkdir()
        save_method(tmp_path / kind, layout.start, layout, base)
    assert replaced_names(tmp_path / "head") == ("lm_head.weight",)
    assert replaced_names(tmp_path / "ia3") == ()


def test_a_head_that_is_the_embeddings_is_not_trained_alone(tmp_path: Path) -> None:
    base = tiny.load(tiny.save("gpt2", tmp_path))
    with pytest.raises(ModelError, match="shares its head with its input"):
        lay_out_method(base, kind="head", rank=1, target_modules=None)


def test_the_head_of_a_classifier_is_every_linear_layer_in_it(tmp_path: Path) -> None:
    place = tiny.save("roberta", tmp_path, task="classification")
    entries = head_entries(tiny.load(place, task="classification"))
    names = {(entry.module, entry.role) for entry, _ in entries}
    modules = {"classifier.dense", "classifier.out_proj"}
    assert names == {(module, role) for module in modules for role in ("weight", "bias")}
    assert all(value.shape == entry.shape for entry, value in entries)


def test_a_module_that_is_not_there_is_one_clear_line(llama_path: Path) -> None:
    base = tiny.load(llama_path)
    with pytest.raises(ModelError, match=r'adapter\.kind = "ia3": PEFT cannot attach it'):
        lay_out_method(base, kind="ia3", rank=1, target_modules=("nothing",))


def test_plain_kinds_have_a_file_of_their_own() -> None:
    assert {file_name(kind) for kind in PLAIN_KINDS} == {"trained.safetensors"}
    assert file_name("prompt") == "adapter_model.safetensors"
