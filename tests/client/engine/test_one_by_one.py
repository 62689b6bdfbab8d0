"""The unit loop against PEFT's own modules and torch's optimizers, and a round of each kind."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from adapter_files import load_adapter
from peft import IA3Config, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch.nn import functional

from feddp.client.assembly import build_node
from feddp.client.engine.methods.sgd import SGD
from feddp.client.engine.one_by_one import UnitLoop
from feddp.client.engine.protocol import LocalMethod, LocalWork
from feddp.common.assembly import load_model, load_users
from feddp.common.config.run_config import from_flat
from feddp.common.data.tokens import TokenRow
from feddp.common.data.users import UsersView
from feddp.common.errors import ModelError
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import AdapterLayout
from feddp.common.model.lora import check_export, lay_out, save_adapter
from feddp.common.model.other_kinds import KINDS
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.wire.messages import EvaluateRequest, TrainRequest

Step = list[TokenRow]


@pytest.fixture(scope="module")
def models_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    tiny.save("llama", path)
    tiny.save("bert", path, task="classification")
    return path


def load(models_path: Path, task: str) -> BaseModel:
    name = "llama" if task == "causal-lm" else "bert"
    return tiny.load(models_path / f"{name}-{task}", task=task)


def make_users(task: str) -> list[list[Step]]:
    rng = np.random.default_rng(1)

    def row() -> TokenRow:
        ids = rng.integers(3, tiny.VOCABULARY, size=rng.integers(3, 15))
        if task == "classification":
            return TokenRow(ids, rng.integers(0, 3, size=1))
        return TokenRow(ids, np.append(ids[1:], 2))

    return [[[row() for _ in range(3)], [row() for _ in range(2)]] for _ in range(3)]


def own_model(base: BaseModel, kind: str) -> torch.nn.Module:
    """What PEFT's documentation does, without feddp."""
    task = "CAUSAL_LM" if base.task == "causal-lm" else "SEQ_CLS"
    if kind in ("head", "full"):
        return base.model
    config = {
        "ia3": lambda: IA3Config(task_type=task, modules_to_save=list(base.head_modules) or None),
        "prompt": lambda: PromptTuningConfig(task_type=task, num_virtual_tokens=4),
        "prefix": lambda: PrefixTuningConfig(task_type=task, num_virtual_tokens=4),
    }[kind]()
    return get_peft_model(base.model, config).eval()


def own_updates(
    base: BaseModel, kind: str, start: np.ndarray, users: list[list[Step]], method: LocalMethod
) -> np.ndarray:
    model = own_model(base, kind)
    trained = [p for p in model.parameters() if p.requires_grad]
    if kind == "full":
        trained = list(model.requires_grad_(True).parameters())
    if kind == "head":
        head = model.lm_head if base.task == "causal-lm" else model.classifier
        trained = list(head.requires_grad_(True).parameters())
    updates = []
    for user in users:
        torch.nn.utils.vector_to_parameters(torch.from_numpy(start.copy()), trained)
        optimizer = (
            torch.optim.SGD(trained, lr=method.learning_rate)
            if isinstance(method, SGD)
            else torch.optim.AdamW(trained, lr=method.learning_rate, weight_decay=0.0)
        )
        for step in user:
            optimizer.zero_grad(set_to_none=False)
            total, count = torch.zeros(()), 0
            for row in step:
                ids = torch.from_numpy(row.input_ids)[None]
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
                scores = logits[0][-len(row.labels) :] if base.task == "causal-lm" else logits
                labels = torch.from_numpy(row.labels)
                total = total + functional.cross_entropy(scores, labels, reduction="sum")
                count += len(labels)
            (total / count).backward()
            optimizer.step()
        flat = torch.nn.utils.parameters_to_vector(trained).detach().numpy()
        updates.append(flat - start)
    return np.stack(updates)


def loop_updates(
    base: BaseModel,
    layout: AdapterLayout,
    start: np.ndarray,
    users: list[list[Step]],
    method: LocalMethod,
) -> np.ndarray:
    found = np.full((len(users), len(start)), np.nan, dtype=np.float32)
    UnitLoop(base, layout).train(
        start,
        [LocalWork(key, lambda user=user: user) for key, user in enumerate(users)],
        method=method,
        sink=lambda key, update: found.__setitem__(key, update),
    )
    return found


CASES = [(kind, "causal-lm") for kind in KINDS] + [
    ("ia3", "classification"),
    ("head", "classification"),
    ("full", "classification"),
]


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_updates_equal_pefts_own_training(models_path: Path, kind: str, task: str) -> None:
    base = load(models_path, task)
    layout = lay_out(base, kind=kind, rank=4, alpha=4.0, target_modules=None)
    users = make_users(task)
    method = SGD(0.05)
    expected = own_updates(load(models_path, task), kind, layout.start, users, method)
    found = loop_updates(base, layout, layout.start, users, method)
    for update, wanted in zip(found, expected, strict=True):
        scale = np.linalg.norm(wanted)
        assert scale > 0
        # What is read is p - p0 of float32 weights, so rounding at their size is in it.
        assert np.linalg.norm(update - wanted) < 2e-4 * scale
    assert np.linalg.norm(np.roll(found, 1, axis=0) - expected) > 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_saved_numbers_reload_and_answer_as_trained(
    models_path: Path, tmp_path: Path, kind: str, task: str
) -> None:
    base = load(models_path, task)
    layout = lay_out(base, kind=kind, rank=4, alpha=4.0, target_modules=None)
    noise = np.random.default_rng(0).normal(size=layout.dimension) * 0.05
    vector = (layout.start + noise).astype(np.float32)
    save_adapter(tmp_path, vector, layout, load(models_path, task))
    np.testing.assert_array_equal(load_adapter(tmp_path, layout), vector)
    check_export(tmp_path, vector, layout, load(models_path, task))
    save_adapter(tmp_path, vector + np.float32(0.05), layout, load(models_path, task))
    with pytest.raises(ModelError, match="other logits"):
        check_export(tmp_path, vector, layout, load(models_path, task))


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_of_every_kind_moves_the_sum_and_can_be_evaluated(kind: str) -> None:
    config = from_flat({"adapter.kind": kind, "adapter.rank": 4, "evaluation.max-users": 1})
    if kind == "head":
        with pytest.raises(ModelError, match="shares its head"):
            load_model(config)
        return
    base, layout = load_model(config)
    users, evaluation_users = load_users(config)
    node = build_node(config, base, layout, UsersView(users, np.arange(2)), evaluation_users)
    request = TrainRequest(1, layout.start, layout.sha256, Draw(1.0), 0.5, 1 << 20, 0, 0, 3)
    assert node.train(request).total.total.any()
    assert node.evaluate(EvaluateRequest(layout.start, layout.sha256)).num_targets > 0


def test_a_users_fault_is_zero_for_that_user_alone(models_path: Path) -> None:
    base = load(models_path, "causal-lm")
    layout = lay_out(base, kind="prompt", rank=4, alpha=4.0, target_modules=None)
    users, method = make_users("causal-lm"), SGD(0.05)
    good = loop_updates(copy_of(base), layout, layout.start, users, method)
    bad = replace(users[1][0][0], input_ids=np.full(3, tiny.VOCABULARY))
    found = loop_updates(base, layout, layout.start, [users[0], [[bad]], users[2]], method)
    assert not found[1].any()
    assert found[[0, 2]].tobytes() == good[[0, 2]].tobytes()


def copy_of(base: BaseModel) -> BaseModel:
    return replace(base, model=copy.deepcopy(base.model))


def test_a_kind_that_a_base_cannot_have_is_one_clear_line(models_path: Path) -> None:
    with pytest.raises(ModelError, match="PEFT cannot attach it"):
        lay_out(
            load(models_path, "causal-lm"),
            kind="ia3",
            rank=4,
            alpha=4.0,
            target_modules=("no_such_module",),
        )
