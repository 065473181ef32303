"""Adapters beside the experts of a mixture: one parameter of three dimensions, which peft wraps."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig, Qwen3MoeConfig

from klimb.policies import LoraSettings, load_policy

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
MORE = {"num_key_value_heads": 2, "num_experts_per_tok": 2, "max_position_embeddings": 128}
CONFIGS = {
    "qwen3-moe": lambda vocab: Qwen3MoeConfig(
        vocab_size=vocab, head_dim=8, num_experts=4, moe_intermediate_size=16, **SIZES, **MORE
    ),
    "mixtral": lambda vocab: MixtralConfig(vocab_size=vocab, num_local_experts=4, **SIZES, **MORE),
}


@pytest.fixture(params=sorted(CONFIGS))
def experts(request, tmp_path, tiny_model_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    torch.manual_seed(0)
    config = CONFIGS[request.param](len(tokenizer))
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "moe")
    tokenizer.save_pretrained(tmp_path / "moe")
    return tmp_path / "moe"


def scores(policy):
    ids = torch.tensor([[7, 8, 9, 10]])
    with torch.no_grad():
        return policy.log_probs([[3, 4, 5]], torch.tensor([0]), ids, torch.ones_like(ids, dtype=torch.bool)).log_pi


def test_the_saved_model_is_the_trained_one(experts, tmp_path):
    policy = load_policy(str(experts), dtype="float32", lora=LoraSettings(rank=4))
    untrained = scores(policy)
    wrapped = [name for name, _ in policy.model.named_parameters() if "experts" in name and "lora_B" in name]
    assert wrapped
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    trained = scores(policy)
    assert float((trained - untrained).abs().max()) > 1e-2
    policy.save(tmp_path / "merged")
    saved = load_policy(str(tmp_path / "merged"), dtype="float32")
    assert torch.allclose(scores(saved), trained, atol=1e-4)
    assert torch.allclose(scores(policy), trained, atol=1e-6)


def test_each_expert_has_its_own_update(experts, tmp_path):
    policy = load_policy(str(experts), dtype="float32", lora=LoraSettings(rank=2))
    before = {name: weight for name, weight in AutoModelForCausalLM.from_pretrained(experts).state_dict().items()}
    with torch.no_grad():
        for name, parameter in policy.trainable().items():
            if "experts" in name:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    policy.save(tmp_path / "merged")
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved and all("experts" in name for name in moved)
