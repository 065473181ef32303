"""Architectures whose parts stand elsewhere, or whose attention goes by the number of keys (ALiBi, GPT-Neo)."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from klimb.experience import SamplingSettings
from klimb.policies import load_policy
from klimb.samplers import LocalSampler

CONFIGS = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
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


def test_an_architecture_with_a_state_of_its_own_is_scored_and_not_sampled(tmp_path, tiny_model_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    sizes = {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2}
    config = AutoConfig.for_model("rwkv", vocab_size=len(tokenizer), **sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path), dtype="float32")
    ids = torch.tensor([[7, 8, 9], [7, 8, 9]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        log_pi = policy.log_probs([[3, 4, 5, 6], [5, 6]], torch.tensor([0, 1]), ids, mask).log_pi
        logits = policy.causal_lm(input_ids=torch.tensor([[5, 6, 7, 8, 9]]), use_cache=False).logits[0, 1:-1]
    expected = logits.log_softmax(-1)[torch.arange(3), ids[1]]
    assert log_pi[1].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    with pytest.raises(ValueError, match="past_key_values, and model type 'rwkv' does not"):
        LocalSampler(policy).sample(
            [(5, 6)], num_samples=1, settings=SamplingSettings(max_new_tokens=2), generator=torch.Generator()
        )
