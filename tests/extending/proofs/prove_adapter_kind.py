from pathlib import Path

import numpy as np
import tiny
import torch
from adapter_files import load_adapter
from extending.proofs.small_run import run, small_config
from safetensors.numpy import load_file

from feddp.common.assembly import load_model
from feddp.common.model.lora import lay_out
from feddp.common.model.other_kinds import load_trained


def test_a_run_trains_exports_and_reloads_the_biases_alone(tmp_path: Path) -> None:
    config = small_config(tmp_path, model="gpt2", adapter__kind="bias")
    folder = run(config)  # the end of a run checks that the export reloads to the same logits
    base, layout = load_model(config)
    vector = load_adapter(folder / "adapter", layout)
    assert np.mean(vector != layout.start) > 0.9
    before = {name: value.clone() for name, value in base.model.named_parameters()}
    after = dict(load_trained(folder / "adapter", base).named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(load_file(folder / "adapter" / "trained.safetensors"))
    assert changed == {name for name in before if name.endswith(".bias")}


def test_a_classifier_trains_its_head_too(tmp_path: Path) -> None:
    place = tiny.save("bert", tmp_path, task="classification")
    base = tiny.load(place, task="classification")
    layout = lay_out(base, kind="bias", rank=1, alpha=1.0, target_modules=None)
    weights = [entry.module for entry in layout.entries if entry.role == "weight"]
    assert weights == ["classifier"]
