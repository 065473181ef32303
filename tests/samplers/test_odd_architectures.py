"""Architectures whose parts stand elsewhere, or that build their biases from the attention mask (ALiBi)."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from klimb.experience import SamplingSettings
from klimb.policies import load_policy
from klimb.samplers import LocalSampler

CONFIGS = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},
    "llama4_text": {
        "hidden_size": 32,
        "intermediate_size": 32,
        "intermediate_size_mlp": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "max_position_embeddings": 128,
        "attention_chunk_size": 64,
    },
}


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_what_is_drawn_has_the_log_probability_that_scoring_gives(kind, tmp_path, tiny_model_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **CONFIGS[kind])
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path), dtype="float32")
    prompts, settings = [(5, 6, 7), (8, 9)], SamplingSettings(max_new_tokens=20)
    generator = torch.Generator().manual_seed(0)
    groups = LocalSampler(policy).sample(prompts, num_samples=2, settings=settings, generator=generator)
    drawn = [completion for group in groups for completion in group]
    width = max(len(each.response_ids) for each in drawn)
    assert width > 16  # the cache has grown
    ids = torch.tensor([[*each.response_ids, *[0] * (width - len(each.response_ids))] for each in drawn])
    mask = torch.tensor([[place < len(each.response_ids) for place in range(width)] for each in drawn])
    with torch.no_grad():
        log_pi = policy.log_probs([list(prompt) for prompt in prompts], torch.tensor([0, 0, 1, 1]), ids, mask).log_pi
    for row, each in enumerate(drawn):
        assert log_pi[row, : len(each.log_mu)].tolist() == pytest.approx(each.log_mu, abs=2e-5)
