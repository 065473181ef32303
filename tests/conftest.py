"""Fixtures shared by all tests: a tiny random language model with a character tokenizer and a chat template.

The libraries that take seconds to import are imported inside the fixtures, so that the folders that need no model
(divergences, losses, experience, tasks) start at once.
"""

import os
import string
from pathlib import Path

import jaxtyping
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: more threads than one would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

END_TOKEN = "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random 2-layer Llama (hidden 32, 4 heads, 2 key-value heads, tied head) and its tokenizer.

    Every printable ASCII character and the newline is one token; pad == eos == `<|im_end|>`, as in SmolLM2.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    characters = sorted(set(string.printable) - set("\t\r\x0b\x0c"))
    tokens = ["<unk>", "<|im_start|>", END_TOKEN, *characters]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[], unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<|im_start|>",
        eos_token=END_TOKEN,
        pad_token=END_TOKEN,
    )
    fast.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        # Larger than the default 0.02, so that the distributions are far from uniform and mistakes show.
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("tiny-model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_policy(tiny_model_path: Path):
    """A fresh float32 policy on the CPU; tests may change its weights."""
    from klimb.policies import load_policy

    return load_policy(str(tiny_model_path), dtype="float32", device="cpu")


@pytest.fixture
def without_shape_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the jaxtyping checker, which only tests have, so that klimb's own errors are what is raised."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
