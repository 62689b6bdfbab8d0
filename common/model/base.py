"""Load a base model and its tokenizer, frozen; fingerprint of the frozen weights."""

import contextlib
import hashlib
import importlib.resources
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from feddp.common.errors import ModelError

HEAD_SEED = 0
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class BaseModel:
    """A frozen model, ready for adapters.

    Attributes:
      model: in eval mode, every parameter frozen.
      tokenizer: has a pad token.
      labels: declared classes, in the order of the head's outputs.
      head_modules: paths of modules that are trained whole (a classification head).
      source: what was asked for: "demo", a folder or a hub id.
      fingerprint: SHA-256 over names, shapes and bytes of all weights as loaded, hex.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    task: str
    labels: tuple[str, ...]
    head_modules: tuple[str, ...]
    source: str
    fingerprint: str


class MeanPooledClassifier(nn.Module):
    """Encoder, masked mean over tokens, unit length, linear classifier.

    For sentence encoders that were made for mean pooling. The unit-length features are scaled by
    `SCALE`, a public constant, so that a small update of the classifier already moves the logits.
    """

    SCALE = 4.0

    def __init__(self, encoder: Any, num_labels: int):
        super().__init__()
        self.config: Any = encoder.config
        self.encoder: Any = encoder
        self.classifier = nn.Linear(self.config.hidden_size, num_labels)

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's, as models of transformers have it."""
        embeddings: nn.Module = self.encoder.get_input_embeddings()
        return embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        """Logits (rows, labels) for right- or left-padded rows."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        features = nn.functional.normalize(pooled, dim=-1) * self.SCALE
        logits = self.classifier(features)
        return transformers.modeling_outputs.SequenceClassifierOutput(logits=logits)


def load_base(
    source: str,
    *,
    task: str,
    labels: tuple[str, ...],
    dtype: str,
    pooling: str,
    quantization: str = "none",
) -> BaseModel:
    """Loads and freezes a base model.

    Args:
      source: "demo" (shipped with feddp), a local folder, or a hub id.
      pooling: "auto" (the model's own classification head) or "mean".
      quantization: "none"; "8-bit" or "4-bit" by bitsandbytes, which then places it on the GPU.

    Raises:
      ModelError: it cannot be loaded; one line that says why.
    """
    place = _locate(source)
    options: dict[str, Any] = {"dtype": DTYPES[dtype], **_quantized(quantization, DTYPES[dtype])}
    tokenizer = load_tokenizer(source)
    with _one_line_errors(source):
        if task == "causal-lm":
            model = AutoModelForCausalLM.from_pretrained(place, **options)
            heads: tuple[str, ...] = ()
        else:
            model, heads = _load_classifier(place, labels, options, pooling)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = False
    model.eval().requires_grad_(False)
    return BaseModel(model, tokenizer, task, labels, heads, source, fingerprint(model))


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a base model, with a padding token.

    Raises:
      ModelError: it cannot be loaded; one line that says why.
    """
    place = _locate(source)
    with _one_line_errors(source):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def _locate(source: str) -> str:
    """Where transformers finds a base model: a folder, or a hub id."""
    place = str(demo_model_path()) if source == "demo" else source
    looks_local = source.startswith((".", "/", "~")) or source.count("/") > 1
    if looks_local and not Path(place).expanduser().is_dir():
        raise ModelError(f'model.base = "{source}": no such folder.')
    return place


def place_model(model: Any, device: str | torch.device) -> Any:
    """The model on a device; a quantized one stays on the GPU where it was loaded."""
    return model if getattr(model, "is_quantized", False) else model.to(device)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of all weights, hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}/{tensor.dtype}/{tuple(tensor.shape)}/".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def demo_model_path() -> Path:
    """The demo's base model among the installed resources, also when this code runs elsewhere."""
    return Path(str(importlib.resources.files("feddp.simulations.demo"))) / "model"


def _load_classifier(
    place: str, labels: tuple[str, ...], options: dict[str, Any], pooling: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """The classifier and the paths of its trained modules; new weights come from a public seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(HEAD_SEED)
        if pooling == "mean":
            encoder = AutoModel.from_pretrained(place, **options)
            model: nn.Module = MeanPooledClassifier(encoder, len(labels))
            model.classifier.to(encoder.device, options["dtype"])
            missing = ["classifier.weight"]
        else:
            model, about = AutoModelForSequenceClassification.from_pretrained(
                place,
                **options,
                num_labels=len(labels),
                id2label=dict(enumerate(labels)),
                label2id={label: index for index, label in enumerate(labels)},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
            missing = [*about["missing_keys"], *(key for key, *_ in about["mismatched_keys"])]
    body = getattr(model, "base_model_prefix", "encoder")
    layers = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and not path.startswith(f"{body}.")
    }
    path, output = list(layers.items())[-1]
    new_modules = {name.rsplit(".", 1)[0] for name in missing}
    heads = {name.split(".")[0] for name in layers}
    heads |= {name for name in new_modules if name.startswith(f"{body}.")}
    if path in new_modules:
        nn.init.zeros_(output.weight)  # starts at equal chances for all classes
        if output.bias is not None:
            nn.init.zeros_(output.bias)
    return model, tuple(sorted(heads))


def _quantized(quantization: str, dtype: torch.dtype) -> dict[str, Any]:
    """Options of `from_pretrained` for frozen weights in 8 or 4 bits; none for "none"."""
    if quantization == "none":
        return {}
    asked = f'model.quantization = "{quantization}"'
    if not torch.cuda.is_available():
        raise ModelError(f'{asked}: needs a CUDA device, and there is none. Set "none".')
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"{asked}: needs bitsandbytes; pip install bitsandbytes.")
    bits = transformers.BitsAndBytesConfig(
        load_in_8bit=quantization == "8-bit",
        load_in_4bit=quantization == "4-bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": bits, "device_map": {"": torch.cuda.current_device()}}


@contextlib.contextmanager
def _one_line_errors(source: str) -> Iterator[None]:
    """Silences the libraries' progress and warnings, and cuts their errors to one line."""
    level = transformers.logging.get_verbosity()
    shows_progress = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelError(
            f'model.base = "{source}": cannot be loaded ({reason}). Give "demo", a folder with '
            "config, tokenizer and safetensors, or a hub id that this machine can reach."
        ) from error
    finally:
        transformers.logging.set_verbosity(level)
        if shows_progress:
            transformers.logging.enable_progress_bar()
