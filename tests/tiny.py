"""Tiny models of several architectures, made in code and saved to a folder with a tokenizer."""

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaConfig,
    DebertaForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from feddp.common.model.base import BaseModel, load_base

VOCABULARY = 60
LABELS = ("bad", "good", "so-so")
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}
BERT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 130,
    "initializer_range": 0.2,
    "num_labels": len(LABELS),
}
GPT2 = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "vocab_size": VOCABULARY,
    "n_positions": 128,
    "initializer_range": 0.2,
}

CAUSAL: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**LLAMA)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**LLAMA, head_dim=8)),
    # Windows shorter than the rows of the tests, so that they are on trial.
    "mistral": lambda: MistralForCausalLM(MistralConfig(**LLAMA, sliding_window=16)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**LLAMA, head_dim=8)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**LLAMA, head_dim=8, sliding_window=16, final_logit_softcapping=2.0)
    ),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**LLAMA, head_dim=8, sliding_window=16)),
    "phi": lambda: PhiForCausalLM(PhiConfig(**LLAMA)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**LLAMA, pad_token_id=0)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(
        GPTNeoXConfig(**{k: v for k, v in LLAMA.items() if k != "num_key_value_heads"})
    ),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=VOCABULARY,
            max_position_embeddings=128,
            word_embed_proj_dim=32,
            init_std=0.2,
            pad_token_id=0,
        )
    ),
}
CLASSIFIERS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**BERT)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**BERT, pad_token_id=0)),
    "distilbert": lambda: DistilBertForSequenceClassification(
        DistilBertConfig(
            dim=32,
            hidden_dim=48,
            n_layers=2,
            n_heads=4,
            vocab_size=VOCABULARY,
            max_position_embeddings=128,
            initializer_range=0.2,
            num_labels=len(LABELS),
        )
    ),
    "deberta": lambda: DebertaForSequenceClassification(
        DebertaConfig(**BERT, relative_attention=True, pos_att_type=["c2p", "p2c"])
    ),
    "deberta-v2": lambda: DebertaV2ForSequenceClassification(
        DebertaV2Config(**BERT, relative_attention=True, pos_att_type=["c2p", "p2c"])
    ),
    "llama": lambda: LlamaForSequenceClassification(
        LlamaConfig(**LLAMA, num_labels=len(LABELS), pad_token_id=0)
    ),
    "gpt2": lambda: GPT2ForSequenceClassification(
        GPT2Config(**GPT2, num_labels=len(LABELS), pad_token_id=0)
    ),
}


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word "w3" ... "w59"; 0, 1, 2 are padding, begin and end."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, VOCABULARY)}
    plain = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def save(name: str, folder: Path, *, task: str = "causal-lm") -> Path:
    """Makes and saves a model with fixed weights; returns its folder."""
    torch.manual_seed(0)
    model = (CAUSAL if task == "causal-lm" else CLASSIFIERS)[name]()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):  # zero biases would hide a forgotten one
                parameter.normal_(std=0.1)
    place = folder / f"{name}-{task}"
    model.save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


def load(place: Path, *, task: str = "causal-lm", pooling: str = "auto") -> BaseModel:
    """The base model in a folder, as feddp loads it."""
    labels = LABELS if task == "classification" else ()
    return load_base(str(place), task=task, labels=labels, dtype="float32", pooling=pooling)
