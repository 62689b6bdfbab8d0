"""The start-up check: what it passes, and that it refuses broken models."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from feddp.client.assembly import build_engine
from feddp.common.config.run_config import from_flat
from feddp.common.data.tokens import TokenRow
from feddp.common.errors import ModelError
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import AdapterLayout
from feddp.common.model.lora import lay_out


@pytest.fixture(scope="module")
def models_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    tiny.save("llama", path)
    tiny.save("bert", path, task="classification")
    return path


def load(path: Path, task: str, kind: str) -> tuple[BaseModel, AdapterLayout]:
    name = "llama" if task == "causal-lm" else "bert"
    base = tiny.load(path / f"{name}-{task}", task=task)
    return base, lay_out(base, kind=kind, rank=3, alpha=6.0, target_modules=None)


def build(base: BaseModel, layout: AdapterLayout) -> None:
    build_engine(from_flat({"nodes.threads": 1}), base, layout)


class Broken(nn.Module):
    """A block with a fault around it."""

    def __init__(self, block: nn.Module, fault: str):
        super().__init__()
        self.block, self.fault = block, fault

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)

    def forward(self, hidden: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        output: torch.Tensor = self.block(hidden, *args, **kwargs)
        if self.fault == "raises":
            raise RuntimeError("this block has no backward")
        return {
            "detaches": output.detach(),
            "not finite": output * float("nan"),
            "mixes rows": output + output.mean((0, 1), keepdim=True),
        }[self.fault]


@pytest.mark.parametrize("kind", ["ffa-lora", "lora", "head"])
@pytest.mark.parametrize("task", ["causal-lm", "classification"])
def test_sound_models_pass(models_path: Path, task: str, kind: str) -> None:
    build(*load(models_path, task, kind))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", r"fails \(this block has no backward\)"),
        ("detaches", "cannot be trained"),
        ("not finite", "not finite"),
        ("mixes rows", r"other gradients \(relative"),
    ],
)
def test_a_broken_model_is_refused_before_any_user_trains(
    models_path: Path, fault: str, message: str
) -> None:
    base, layout = load(models_path, "causal-lm", "lora")
    layers = base.model.get_submodule("model.layers")
    assert isinstance(layers, nn.ModuleList)
    broken = Broken(layers[1], fault)
    layout = lay_out(base, kind="lora", rank=3, alpha=6.0, target_modules=("layers.0.mlp.up_proj",))
    layers[1] = broken
    with pytest.raises(ModelError, match=message):
        build(base, layout)


def test_a_method_that_nothing_reaches_is_refused(models_path: Path) -> None:
    base, layout = load(models_path, "causal-lm", "prompt")

    def ignore(_: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output.detach().requires_grad_()

    base.model.get_submodule("model").norm.register_forward_hook(ignore)
    with pytest.raises(ModelError, match="no gradient reaches"):
        build(base, layout)


def test_gradients_of_the_check_are_of_each_rows_own_mean_loss(models_path: Path) -> None:
    base, layout = load(models_path, "causal-lm", "lora")
    engine = build_engine(from_flat({"nodes.threads": 1}), base, layout)
    ids = np.arange(3, 9)
    rows = [TokenRow(ids, ids), TokenRow(ids + 9, ids)]
    adapters = np.stack([layout.start, layout.start + np.float32(0.01)])
    both = engine.gradients(adapters, rows)
    for index in range(2):
        (alone,) = engine.gradients(adapters[index : index + 1], rows[index : index + 1])
        np.testing.assert_array_equal(both[index], alone)
    assert not np.array_equal(both[0], both[1])
