"""Runs to the end with what the other tests of runs leave out: kinds of adapters, workers."""

import json
from pathlib import Path

import pytest
import tiny

from feddp.common.config.run_config import from_flat
from feddp.common.model.other_kinds import KINDS
from feddp.simulations.run.simulate import simulate


def run(path: Path, **changes: object) -> Path:
    """A run of two rounds, and its folder."""
    flat: dict[str, object] = {
        "run.rounds": 2,
        "run.seed": 11,
        "run.name": "small",
        "run.output-dir": str(path),
        "sampling.expected-cohort-size": 4.0,
        "data.max-examples-per-user": 1,
        "model.max-tokens": 32,
        "evaluation.max-users": 3,
        "evaluation.every": 2,
        "privacy.noise-multiplier": 1.0,
        "privacy.target-epsilon": 50.0,
        "server.learning-rate": 0.001,
    }
    flat |= {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    assert simulate(from_flat(flat)).is_complete
    return path / "small"


def load_as_the_card_says(folder: Path) -> object:
    """The model that the card's own Python makes, run beside the adapter folder."""
    card = (folder / "adapter" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace('"adapter', f'"{folder}/adapter')
    names: dict[str, object] = {}
    exec(code, names)
    return names["model"]


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=() if k == "head" else pytest.mark.slow) for k in ("lora", *KINDS)],
)
def test_a_run_of_every_kind_ends_and_loads_as_its_card_says(tmp_path: Path, kind: str) -> None:
    place = tiny.save("llama", tmp_path)
    folder = run(tmp_path, adapter__kind=kind, adapter__rank=4, model__base=str(place))
    assert json.loads((folder / "result.json").read_text())["private"]["loss"] > 0
    assert callable(load_as_the_card_says(folder))


@pytest.mark.slow
def test_the_demos_base_with_every_weight_trained_loads_as_its_card_says(tmp_path: Path) -> None:
    assert callable(load_as_the_card_says(run(tmp_path, adapter__kind="full")))


def test_workers_leave_the_same_adapter_as_one_process(tmp_path: Path) -> None:
    adapters = [
        run(tmp_path / str(n), nodes__workers=n) / "adapter" / "adapter_model.safetensors"
        for n in (1, 2)
    ]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
