"""feddp chat: generate with a run's adapter, or classify."""

from pathlib import Path
from typing import Any

import torch

from feddp.common.model.base import BaseModel
from feddp.simulations.run.run import load_run, load_whole


def chat(run_path: Path, *, prompt: str | None, max_new_tokens: int, temperature: float) -> int:
    """Answers one prompt, or asks for them until an empty line or the end of input.

    Raises:
      ConfigError: the run has no adapter yet.
    """
    run = load_run(run_path)
    model, base = load_whole(run)
    is_classifier = run.config.model.task == "classification"

    def answer(text: str) -> str:
        """A label or a continuation."""
        if is_classifier:
            return _classify(model, base, text)
        return _generate(model, base, text, max_new_tokens, temperature)

    if prompt is not None:
        print(answer(prompt))
        return 0
    print("An empty line ends.")
    while text := _ask():
        print(answer(text))
    return 0


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


@torch.inference_mode()
def _generate(
    model: Any, base: BaseModel, text: str, max_new_tokens: int, temperature: float
) -> str:
    tokenizer = base.tokenizer
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": text}]
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if tokenizer.bos_token_id is not None and not tokenizer.chat_template:
        ids = [tokenizer.bos_token_id, *ids]
    inputs = torch.tensor([ids], device=model.device)
    sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {}
    output = model.generate(
        input_ids=inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        **({"do_sample": False} | sampling),
    )
    return str(tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)).strip()


@torch.inference_mode()
def _classify(model: Any, base: BaseModel, text: str) -> str:
    encoded = base.tokenizer(text, return_tensors="pt", truncation=True)
    output = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"])
    shares = torch.softmax(output.logits[0].float(), dim=-1).tolist()
    ranked = sorted(zip(shares, base.labels, strict=True), reverse=True)
    return "  ".join(f"{label} {share:.3f}" for share, label in ranked)
