"""Makes the demo's base model from public text: `python -m feddp.simulations.demo.make_base`.

The seed determines the text, the tokenizer, the initial weights and the order of training; on one
machine with one thread the files are identical byte for byte. Takes about ten minutes.
"""

import argparse
import os
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from feddp.simulations.demo.public_text import public_paragraphs

MODEL_FOLDER = Path(__file__).parent / "model"
SEED = 0
VOCABULARY = 2048
CONTEXT = 128  # tokens of a training sequence
BATCH = 32  # training sequences of a step
STEPS = 1200
WARM_UP = 100
LEARNING_RATE = 3e-3
SMOOTHING = 0.02  # of the labels, so that new text is unlikely, not impossible
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}


def make_tokenizer(paragraphs: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every digit is its own token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(paragraphs, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        **SPECIAL,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """The untrained model, float32."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=344,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=0.04,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def pack(tokenizer: PreTrainedTokenizerFast, paragraphs: Sequence[str]) -> Tensor:
    """Paragraphs end to end, cut into rows: int64, shape (rows, CONTEXT + 1)."""
    encoded = tokenizer([text + "</s>" for text in paragraphs])["input_ids"]
    ids = torch.tensor([token for row in encoded for token in row])
    rows = len(ids) // (CONTEXT + 1)
    return ids[: rows * (CONTEXT + 1)].view(rows, CONTEXT + 1)


def loss_of(model: LlamaForCausalLM, rows: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean next-token cross-entropy in nats; rows: int64, shape (rows, CONTEXT + 1)."""
    logits = model(input_ids=rows[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), rows[:, 1:].flatten(), label_smoothing=smoothing
    )


def make_optimizer(model: LlamaForCausalLM, steps: int) -> tuple[AdamW, LRScheduler]:
    """AdamW with weight decay on matrices only; linear warm-up, then a cosine to zero."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95))
    warm_up = LinearLR(optimizer, 0.01, total_iters=WARM_UP)
    cosine = CosineAnnealingLR(optimizer, max(1, steps - WARM_UP))
    return optimizer, SequentialLR(optimizer, [warm_up, cosine], [WARM_UP])


def train(model: LlamaForCausalLM, rows: Tensor, *, steps: int, seed: int) -> None:
    """Trains in place, in an order drawn from the seed; prints a line every 100 steps."""
    optimizer, schedule = make_optimizer(model, steps)
    generator = torch.Generator().manual_seed(seed)
    epochs = -(-steps * BATCH // len(rows))
    order = torch.cat([torch.randperm(len(rows), generator=generator) for _ in range(epochs)])
    started = time.monotonic()
    for step in range(steps):
        loss = loss_of(model, rows[order[step * BATCH : (step + 1) * BATCH]], SMOOTHING)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            print(f"step {step}  loss {loss.item():.3f}  {seconds:.0f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: makes tokenizer and model and writes both into one folder."""
    parser = argparse.ArgumentParser(
        "python -m feddp.simulations.demo.make_base", description=__doc__
    )
    parser.add_argument("--output", type=Path, default=MODEL_FOLDER, help="folder to write")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    needed = options.steps * BATCH * CONTEXT // 40 // 2  # every row is seen about twice
    paragraphs = list(islice(public_paragraphs(options.seed), max(2_000, needed)))
    tokenizer = make_tokenizer(paragraphs[:20_000])
    rows = pack(tokenizer, paragraphs)
    model = make_model(tokenizer, options.seed)
    print(
        f"{len(paragraphs)} paragraphs, {rows.numel()} tokens, {model.num_parameters()} parameters"
    )
    train(model, rows, steps=options.steps, seed=options.seed)
    held_out = pack(tokenizer, list(islice(public_paragraphs(options.seed + 1), 500)))
    with torch.no_grad():
        print(f"loss on unseen public text: {loss_of(model.eval(), held_out[:128]).item():.3f}")
    model.half().save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)


if __name__ == "__main__":
    main()
