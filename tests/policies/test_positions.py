"""Models whose rotary angles depend on the longest row of a batch."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Qwen2Config

from klimb.policies import load_policy
from klimb.policies.positions import find_max_positions

ORIGINAL = 48
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 6,
    "long_factor": [2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
    "original_max_position_embeddings": ORIGINAL,
    "partial_rotary_factor": 1.0,
}


@pytest.fixture(scope="module")
def longrope(tmp_path_factory, tiny_model_path):
    folder = tmp_path_factory.mktemp("longrope")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    config = AutoConfig.for_model(
        "phi3",
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        original_max_position_embeddings=ORIGINAL,
        sliding_window=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        rope_parameters=LONGROPE,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, 0.25)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_rows_within_the_original_positions_are_scored_as_if_each_were_alone(longrope):
    policy = load_policy(str(longrope), dtype="float32")
    plain = AutoModelForCausalLM.from_pretrained(longrope, dtype=torch.float32, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(policy.num_vocab, (length,), generator=generator).tolist() for length in (5, 40)]
    lengths = [30, ORIGINAL - 40]
    ids = torch.randint(policy.num_vocab, (2, 30), generator=generator)
    mask = torch.arange(30)[None] < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        together = policy.log_probs(prompts, torch.tensor([0, 1]), ids, mask).log_pi
        for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
            response = ids[row, :length]
            logits = plain(input_ids=torch.tensor([prompt + response.tolist()]), use_cache=False).logits[0]
            wanted = logits[len(prompt) - 1 : -1].log_softmax(-1).gather(-1, response[:, None])[:, 0]
            assert torch.allclose(together[row, :length], wanted, atol=1e-4)


def test_a_longer_row_is_refused_and_not_scored_with_other_angles(longrope):
    policy = load_policy(str(longrope), dtype="float32")
    assert policy.max_positions == ORIGINAL
    mask = torch.ones(1, ORIGINAL - 39, dtype=torch.bool)
    with pytest.raises(ValueError, match=rf"{ORIGINAL + 1} tokens.*only {ORIGINAL} positions"):
        policy.log_probs([[5] * 40], torch.tensor([0]), mask.long(), mask)


def test_what_is_loaded_says_why_it_has_fewer_positions(longrope):
    assert f"{ORIGINAL} of 512 positions" in load_policy(str(longrope), dtype="float32").describe()


def test_scalings_that_do_not_depend_on_the_batch_keep_their_positions():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    llama = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    for parameters in (yarn, llama):
        config = LlamaConfig(max_position_embeddings=256, rope_parameters={"rope_theta": 1e4, **parameters})
        assert find_max_positions(config) == 256


def test_dynamic_scaling_is_held_at_its_original_positions():
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    assert find_max_positions(Qwen2Config(max_position_embeddings=256, rope_parameters=dynamic)) == 256
    within = {**dynamic, "original_max_position_embeddings": 64}
    assert find_max_positions(Qwen2Config(max_position_embeddings=256, rope_parameters=within)) == 64
