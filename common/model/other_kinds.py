"""Trained parts other than LoRA: IA3, virtual tokens, the head alone, or every weight.

Where PEFT has a format, that is the one on disk; "head" and "full" are plain safetensors of the
trained weights under the base model's own names.
"""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import IA3Config, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import nn

from feddp.common.errors import ModelError
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import PEFT_PREFIX, AdapterLayout, Entry

PEFT_KINDS = ("ia3", "prompt", "prefix")
PLAIN_KINDS = ("head", "full")
KINDS = PEFT_KINDS + PLAIN_KINDS
PLAIN_FILE = "trained.safetensors"
START_SEED = 0


def lay_out_method(
    base: BaseModel, *, kind: str, rank: int, target_modules: tuple[str, ...] | None
) -> AdapterLayout:
    """What is trained on a base model by one of `KINDS`.

    Raises:
      ModelError: this base model cannot be trained that way.
    """
    other = replace(base, model=copy.deepcopy(base.model)) if kind in PEFT_KINDS else base
    model = _attach(other, kind, rank, target_modules)
    named = _trained_by_name(model, base, kind)
    if not named:
        raise ModelError(f'adapter.kind = "{kind}": nothing of this base model would be trained.')
    entries = tuple(_entry(name, parameter) for name, parameter in named.items())
    start = [p.detach().float().cpu().numpy().reshape(-1) for p in named.values()]
    return AdapterLayout(
        kind=kind,
        rank=rank,
        alpha=float(rank),
        entries=entries,
        frozen={},
        heads=base.head_modules,
        start=np.concatenate(start),
        is_transposed=False,
        targets=target_modules,
    )


def trained_parameters(
    base: BaseModel, layout: AdapterLayout
) -> tuple[nn.Module, list[nn.Parameter]]:
    """A model over `base.model` (changed in place) and what is trained, in the layout's order."""
    model = _attach(base, layout.kind, layout.rank, layout.targets)
    named = _trained_by_name(model, base, layout.kind)
    model.requires_grad_(False)
    parameters = [named[entry.name] for entry in layout.entries]
    for parameter in parameters:
        parameter.requires_grad_()
    return model.eval(), parameters


@torch.no_grad()
def with_vector(base: BaseModel, layout: AdapterLayout, vector: NDArray[np.float32]) -> nn.Module:
    """A model with these trained numbers; changes `base.model` in place."""
    model, parameters = trained_parameters(base, layout)
    tensors = layout.unflatten(vector)
    for parameter, entry in zip(parameters, layout.entries, strict=True):
        parameter.copy_(torch.from_numpy(tensors[entry.name]))
    return model


def save_method(
    folder: Path, vector: NDArray[np.float32], layout: AdapterLayout, base: BaseModel
) -> None:
    """Writes the trained numbers, and PEFT's config where PEFT has the method."""
    tensors = {name: np.ascontiguousarray(v) for name, v in layout.unflatten(vector).items()}
    if layout.kind in PEFT_KINDS:
        model: Any = _attach(
            replace(base, model=copy.deepcopy(base.model)), layout.kind, layout.rank, layout.targets
        )
        config = model.peft_config["default"]
        config.inference_mode, config.base_model_name_or_path = True, base.source
        config.save_pretrained(str(folder))
    else:
        tensors = {name.removeprefix(PEFT_PREFIX): v for name, v in tensors.items()}
    save_file(tensors, folder / file_name(layout.kind), metadata={"format": "pt"})


@torch.no_grad()
@contextmanager
def quiet_peft() -> Iterator[None]:
    """PEFT uses a name that transformers renamed; a user of feddp cannot act on that warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield


def load_trained(folder: Path, base: BaseModel) -> nn.Module:
    """A fresh base model with what a folder of any kind holds; changes `base.model` in place."""
    if not (folder / PLAIN_FILE).is_file():
        with quiet_peft():
            model: nn.Module = PeftModel.from_pretrained(base.model, str(folder))
        return model.eval()
    parameters = dict(base.model.named_parameters())
    for name, value in load_file(folder / PLAIN_FILE).items():
        parameters[name].copy_(torch.from_numpy(value))
    return base.model.eval()


def replaced_names(folder: Path) -> tuple[str, ...]:
    """The base's own parameters that a folder replaces; none where it adds to them."""
    if not (folder / PLAIN_FILE).is_file():
        return ()
    with safe_open(folder / PLAIN_FILE, framework="numpy") as file:
        return tuple(file.keys())


def file_name(kind: str) -> str:
    """Where the trained numbers are, in the adapter folder."""
    return PLAIN_FILE if kind in PLAIN_KINDS else "adapter_model.safetensors"


def task_type(base: BaseModel) -> str | None:
    """PEFT's name of the task."""
    if base.task == "causal-lm":
        return "CAUSAL_LM"
    # PEFT's own sequence-classification class expects the head of a transformers class.
    return "SEQ_CLS" if hasattr(base.model, "base_model_prefix") else None


def head_entries(base: BaseModel) -> list[tuple[Entry, NDArray[np.float32]]]:
    """The trained tensors of the heads: every linear layer in them."""
    found = []
    for head in base.head_modules:
        for name, module in base.model.get_submodule(head).named_modules():
            if not isinstance(module, nn.Linear):
                continue
            path = f"{head}.{name}" if name else head
            for role in ("weight", "bias"):
                parameter = getattr(module, role)
                if parameter is not None:
                    value = parameter.detach().float().cpu().numpy()
                    found.append((Entry(path, role, value.shape), value))
    return found


def _attach(
    base: BaseModel, kind: str, rank: int, target_modules: tuple[str, ...] | None
) -> nn.Module:
    if kind in PLAIN_KINDS:
        return base.model
    task = task_type(base)
    if kind == "ia3":
        targets = None if target_modules is None else list(target_modules)
        config: Any = IA3Config(
            task_type=task,
            target_modules=targets,
            feedforward_modules=None if targets is None else [],
            modules_to_save=list(base.head_modules) or None,
        )
    elif kind == "prompt":
        config = PromptTuningConfig(task_type=task, num_virtual_tokens=rank)
    else:
        config = PrefixTuningConfig(task_type=task, num_virtual_tokens=rank)
    try:
        with torch.random.fork_rng(devices=[]), quiet_peft():
            torch.manual_seed(START_SEED)
            model: nn.Module = get_peft_model(base.model, config)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        raise ModelError(
            f'adapter.kind = "{kind}": PEFT cannot attach it to this base model ({reason}).'
        ) from error
    return model.eval()


def _trained_by_name(model: nn.Module, base: BaseModel, kind: str) -> dict[str, nn.Parameter]:
    """Trained parameters by their names in the layout, in the model's order."""
    if kind in PEFT_KINDS:
        return {
            _saved_name(name): parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
    parameters = dict(model.named_parameters())
    if kind == "full":
        return {PEFT_PREFIX + name: parameter for name, parameter in parameters.items()}
    if base.task == "causal-lm":
        output = model.get_output_embeddings()  # type: ignore[operator]
        if output.weight is model.get_input_embeddings().weight:  # type: ignore[operator]
            raise ModelError(
                'adapter.kind = "head": this base model shares its head with its input '
                'embeddings. Choose "full" or an adapter.'
            )
        owned = {id(parameter) for parameter in output.parameters()}
        return {PEFT_PREFIX + n: p for n, p in parameters.items() if id(p) in owned}
    heads = {entry.name for entry, _ in head_entries(base)}
    return {PEFT_PREFIX + n: p for n, p in parameters.items() if PEFT_PREFIX + n in heads}


def _saved_name(name: str) -> str:
    """A trained parameter's name in PEFT's adapter file."""
    if name.startswith("prompt_encoder."):
        return "prompt_embeddings"
    return name.replace(".modules_to_save.default.", ".").replace(".default", "")


def _entry(name: str, parameter: nn.Parameter) -> Entry:
    module, _, role = name.removeprefix(PEFT_PREFIX).rpartition(".")
    return Entry(module, role, tuple(parameter.shape))
