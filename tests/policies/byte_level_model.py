"""Tiny random models with a byte-level tokenizer, which a GGUF file can say."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tests.tiny_model import CHAT_TEMPLATE, END_TOKEN
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "initializer_range": 0.2,
}


def tokenizer(merges: Sequence[tuple[str, str]] = (("t", "h"), ("Ġ", "th"))) -> PreTrainedTokenizerFast:
    """Every byte, two merges, three special tokens; a blank and a line's end belong to the word behind them."""
    tokens = ["<|endoftext|>", "<|im_start|>", END_TOKEN, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "Ġth"]
    model = models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=list(merges))
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token=END_TOKEN, pad_token=END_TOKEN
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_byte_level_model(folder: Path, kind: str, **changes: object) -> Path:
    """Save a Llama with a tied head, or a Qwen2 with biases and a head of its own and two rows without a token."""
    fast = tokenizer()
    if kind == "llama":
        config = LlamaConfig(**SHAPE, vocab_size=len(fast), tie_word_embeddings=True, **changes)
        make = LlamaForCausalLM
    else:
        config = Qwen2Config(**SHAPE, vocab_size=len(fast) + 2, tie_word_embeddings=False, **changes)
        make = Qwen2ForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make(config)
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(weight)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
