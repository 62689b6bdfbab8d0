"""The trainable part as named arrays: find it, lay it out flat, save and load in PEFT's format."""

import copy
import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig
from safetensors.numpy import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from feddp.common.errors import ModelError
from feddp.common.model import other_kinds
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import PEFT_PREFIX, AdapterLayout, Entry

A_SEED = b"feddp-lora-A-1"
PROBE_TOKENS = 16
POSITION_MODULES = ("pos_proj", "pos_q_proj", "pos_key_proj", "pos_query_proj")
EXPORT_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}


def lay_out(
    base: BaseModel, *, kind: str, rank: int, alpha: float, target_modules: tuple[str, ...] | None
) -> AdapterLayout:
    """Decides what is trained on a base model.

    Args:
      kind: "ffa-lora", "lora", or one of `other_kinds.KINDS`.
      rank: of the adapter; the number of virtual tokens of "prompt" and "prefix".
      alpha: scale times rank.
      target_modules: names or path endings of the adapted modules; None is every linear layer
        outside embeddings and heads.

    Raises:
      ModelError: no module of the base matches.
    """
    if kind in other_kinds.KINDS:
        return other_kinds.lay_out_method(base, kind=kind, rank=rank, target_modules=target_modules)
    candidates = adaptable_modules(base)
    chosen = {
        path: module
        for path, module in candidates.items()
        if target_modules is None or any(_is_named(path, name) for name in target_modules)
    }
    unmatched = [
        name for name in target_modules or () if not any(_is_named(p, name) for p in candidates)
    ]
    if unmatched or not chosen:
        found = ", ".join(sorted({path.rsplit(".", 1)[-1] for path in candidates})) or "none"
        asked = ",".join(unmatched)
        raise ModelError(
            f'adapter.target-modules = "{asked}": the base model has no such module. Its '
            f"linear modules are: {found}."
        )
    entries, frozen, start = [], {}, []
    for path, module in chosen.items():
        num_in, num_out = _width(module)
        a = public_a(path, rank, num_in)
        if kind == "lora":
            entries.append(Entry(path, "lora_A", a.shape))
            start.append(a.reshape(-1))
        else:
            frozen[path] = a
        entries.append(Entry(path, "lora_B", (num_out, rank)))
        start.append(np.zeros(num_out * rank, dtype=np.float32))
    for entry, value in other_kinds.head_entries(base):
        entries.append(entry)
        start.append(value.reshape(-1))
    return AdapterLayout(
        kind=kind,
        rank=rank,
        alpha=alpha,
        entries=tuple(entries),
        frozen=frozen,
        heads=base.head_modules,
        start=np.concatenate(start),
        is_transposed=any(isinstance(module, Conv1D) for module in chosen.values()),
    )


def adaptable_modules(base: BaseModel) -> dict[str, nn.Linear | Conv1D]:
    """Every linear layer by path, without output embeddings, poolers and trained heads."""
    output = None
    if base.task == "causal-lm":
        output = base.model.get_output_embeddings()  # type: ignore[operator]
    # DeBERTa sends its relative positions, which have no rows of users, through these.
    excluded = (*base.head_modules, "pooler", *POSITION_MODULES)
    if getattr(base.model.config, "share_att_key", False):
        excluded = (*excluded, "query_proj", "key_proj")
    return {
        path: module
        for path, module in base.model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module is not output
        and not any(path == name or f".{name}." in f".{path}." for name in excluded)
    }


def public_a(path: str, rank: int, num_in: int) -> NDArray[np.float32]:
    """LoRA's A at a public seed: uniform in +-1/sqrt(in), a function of the module's path alone."""
    key = hashlib.sha256(A_SEED + path.encode()).digest()
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "big")))
    bound = 1 / math.sqrt(num_in)
    return rng.uniform(-bound, bound, size=(rank, num_in)).astype(np.float32)


def save_adapter(
    folder: Path, vector: NDArray[np.float32], layout: AdapterLayout, base: BaseModel
) -> None:
    """Writes adapter_model.safetensors and adapter_config.json as PEFT reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    if layout.kind in other_kinds.KINDS:
        other_kinds.save_method(folder, vector, layout, base)
        return
    tensors = {name: np.ascontiguousarray(v) for name, v in layout.unflatten(vector).items()}
    for module, a in layout.frozen.items():
        tensors[f"{PEFT_PREFIX}{module}.lora_A.weight"] = a
    config = LoraConfig(
        r=layout.rank,
        lora_alpha=layout.alpha,
        lora_dropout=0.0,
        target_modules=list(layout.adapted),
        modules_to_save=list(layout.heads) or None,
        task_type=other_kinds.task_type(base),
        fan_in_fan_out=layout.is_transposed,
        base_model_name_or_path=base.source,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def merge_adapter(model: nn.Module, vector: NDArray[np.float32], layout: AdapterLayout) -> None:
    """Adds an adapter to the weights of a plain model, in place: the reference for every export."""
    tensors = layout.unflatten(vector)
    for entry in layout.entries:
        module: Any = model.get_submodule(entry.module)
        value = tensors[entry.name]
        if entry.role == "lora_B":
            is_frozen = entry.module in layout.frozen
            name = entry.name.replace("lora_B", "lora_A")
            a = layout.frozen[entry.module] if is_frozen else tensors[name]
            product = torch.from_numpy(layout.scale * (value @ a))
            module.weight += (product.T if isinstance(module, Conv1D) else product).to(
                module.weight
            )
        elif entry.role in ("weight", "bias"):
            getattr(module, entry.role).copy_(torch.from_numpy(value))


@torch.no_grad()
def probe_logits(model: nn.Module, base: BaseModel) -> NDArray[np.float32]:
    """Logits of a plain or PEFT model on fixed ids, spread over the vocabulary."""
    vocabulary = len(base.tokenizer)
    ids = torch.linspace(0, vocabulary - 1, PROBE_TOKENS).long()[None]
    output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    logits: NDArray[np.float32] = output.logits.float().numpy()
    return logits


def check_export(
    folder: Path, vector: NDArray[np.float32], layout: AdapterLayout, base: BaseModel
) -> None:
    """Checks that the saved adapter moved, and that PEFT reloads it to the logits it should have.

    Args:
      vector: float32, shape (P,), what should be in it.
      base: a freshly loaded base model; changed in place.

    Raises:
      ModelError: the adapter is where it started, or the reloaded one answers differently.
    """
    if np.array_equal(vector, layout.start):
        raise ModelError(f"{folder}: the adapter did not move from where it started.")
    plain = copy.deepcopy(base.model)
    if layout.kind in other_kinds.KINDS:
        expected = probe_logits(
            other_kinds.with_vector(replace(base, model=plain), layout, vector), base
        )
    else:
        merge_adapter(plain, vector, layout)
        expected = probe_logits(plain, base)
    reloaded = other_kinds.load_trained(folder, base)
    difference = float(np.abs(probe_logits(reloaded, base) - expected).max())
    size = max(1.0, float(np.abs(expected).max()))
    tolerance = EXPORT_TOLERANCE[str(next(plain.parameters()).dtype).removeprefix("torch.")]
    if not difference <= tolerance * size:
        raise ModelError(
            f"{folder}: PEFT reloads the adapter to other logits (largest difference "
            f"{difference:.2g}). Do not use it; please report this base model."
        )


def _width(module: nn.Linear | Conv1D) -> tuple[int, int]:
    if isinstance(module, Conv1D):
        rows, columns = module.weight.shape
        return rows, columns
    return module.in_features, module.out_features  # 4-bit weights have another shape


def _is_named(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")
