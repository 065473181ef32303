"""Adapters, and folders that plain transformers loads."""

import filecmp
import os

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from klimb.policies import LoraSettings, load_policy

ROWS = (
    [[5, 6, 7], [8, 9]],
    torch.tensor([0, 1, 1]),
    torch.tensor([[10, 11, 12], [13, 14, 15], [16, 17, 2]]),
    torch.ones(3, 3, dtype=torch.bool),
)


def load(path, **settings):
    return load_policy(path, dtype="float32", device="cpu", **settings)


def score(policy):
    with torch.no_grad():
        return policy.log_probs(*ROWS).log_pi


def with_random_adapter(path):
    torch.manual_seed(3)
    policy = load(path, lora=LoraSettings(rank=3, alpha=5.0))
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.normal_(std=0.1)
    return policy


def plain_scores(folder):
    """Log-probabilities of the rows by plain transformers, one full row at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts, index, ids, _ = ROWS
    scores = []
    for i, response in zip(index.tolist(), ids, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.cat([torch.tensor(prompts[i]), response])[None]).logits
        log_p = logits[0, len(prompts[i]) - 1 : -1].log_softmax(-1)
        scores.append(log_p.gather(-1, response[:, None])[:, 0])
    return torch.stack(scores)


def test_a_fresh_adapter_changes_nothing_and_is_all_that_trains(tiny_model_path, tiny_policy):
    policy = load(tiny_model_path, lora=LoraSettings(rank=3))
    assert torch.equal(score(policy), score(tiny_policy))
    assert policy.trainable()
    assert all("lora_" in name for name in policy.trainable())
    assert not any("lm_head" in name for name in policy.trainable())


def test_adapter_targets_may_be_named(tiny_model_path):
    policy = load(tiny_model_path, lora=LoraSettings(rank=2, targets=("q_proj",)))
    # Two layers, each with A [2, 32] and B [32, 2].
    assert sum(p.numel() for p in policy.trainable().values()) == 2 * (2 * 32 + 32 * 2)
    everything = load(tiny_model_path, lora=LoraSettings(rank=2, targets=("all-linear",)))
    assert len(everything.trainable()) == 2 * 2 * 7


def test_an_adapter_moves_the_policy_and_leaves_the_base_weights(tiny_model_path, tiny_policy):
    policy = with_random_adapter(tiny_model_path)
    assert (score(policy) - score(tiny_policy)).abs().max() > 0.01
    base = policy.model.get_base_model().model.embed_tokens.weight
    assert torch.equal(base, tiny_policy.causal_lm.model.embed_tokens.weight)
    assert not base.requires_grad


def test_a_saved_policy_scores_the_same_in_plain_transformers(tiny_policy, tmp_path):
    with torch.no_grad():
        for parameter in tiny_policy.trainable().values():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    tiny_policy.save(tmp_path / "model")
    torch.testing.assert_close(plain_scores(tmp_path / "model"), score(tiny_policy), rtol=0, atol=1e-5)
    assert torch.equal(score(load(tmp_path / "model")), score(tiny_policy))


def test_a_saved_adapter_policy_is_merged_and_the_live_one_unchanged(tiny_model_path, tmp_path):
    policy = with_random_adapter(tiny_model_path)
    before, weights = score(policy), {name: w.clone() for name, w in policy.model.state_dict().items()}
    policy.save(tmp_path / "model")
    assert torch.equal(score(policy), before)
    assert all(torch.equal(w, weights[name]) for name, w in policy.model.state_dict().items())
    torch.testing.assert_close(plain_scores(tmp_path / "model"), before, rtol=0, atol=1e-5)


def test_a_saved_folder_is_plain(tiny_model_path, tmp_path):
    with_random_adapter(tiny_model_path).save(tmp_path / "model")
    names = {file.name for file in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not any(name.endswith((".bin", ".pt")) or name.startswith("adapter") for name in names)
    original, saved = (load_file(folder / "model.safetensors") for folder in (tiny_model_path, tmp_path / "model"))
    assert {k: (v.shape, v.dtype) for k, v in saved.items()} == {k: (v.shape, v.dtype) for k, v in original.items()}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_model_path).chat_template
    assert filecmp.cmp(tmp_path / "model" / "config.json", tiny_model_path / "config.json", shallow=False)


def test_a_saved_folder_draws_from_the_policy_whatever_the_base_model_cut_off(tiny_model_path, tmp_path):
    policy = load(tiny_model_path)
    policy.temperature = 0.7
    policy.causal_lm.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9, top_k=20)
    policy.save(tmp_path)
    saved = GenerationConfig.from_pretrained(tmp_path)
    assert (saved.do_sample, saved.temperature, saved.top_p, saved.top_k, saved.min_p) == (True, 0.7, 1.0, 0, None)
    assert saved.eos_token_id == policy.causal_lm.generation_config.eos_token_id
    assert policy.causal_lm.generation_config.temperature == 0.6
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    drawn = plain.generate(
        torch.tensor([[1, 2, 3]]),
        max_new_tokens=1,
        return_dict_in_generate=True,
        output_logits=True,
        output_scores=True,
    )
    torch.testing.assert_close(drawn.scores[0], drawn.logits[0] / 0.7)


def test_a_saved_adapter_goes_back_onto_the_base_model(tiny_model_path, tmp_path):
    policy = with_random_adapter(tiny_model_path)
    policy.save(tmp_path, adapter_only=True)
    base = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32, attn_implementation="eager")
    restored = load(tiny_model_path)
    restored.model = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    torch.testing.assert_close(score(restored), score(policy), rtol=0, atol=1e-6)


def test_saving_an_adapter_that_does_not_exist_is_refused(tiny_policy, tmp_path):
    with pytest.raises(ValueError, match="no adapter to save"):
        tiny_policy.save(tmp_path, adapter_only=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank must be >= 1, got 0"),
        ({"alpha": 0.0}, "alpha must be > 0, got 0.0"),
        ({"dropout": 0.1}, "dropout must be 0, got 0.1"),
        ({"targets": "q_proj"}, "targets must be 'all-linear' or a tuple"),
    ],
)
def test_lora_settings_that_make_no_sense_are_refused(without_shape_checks, settings, message):
    with pytest.raises(ValueError, match=message):
        LoraSettings(**settings)


def test_unknown_lora_targets_are_refused(tiny_model_path):
    with pytest.raises(ValueError, match="nonsense"):
        load(tiny_model_path, lora=LoraSettings(targets=("nonsense",)))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_what_is_saved_has_the_modes_of_any_other_file(tiny_model_path, tmp_path, umask: int, mode: int):
    policy = with_random_adapter(tiny_model_path)
    before = os.umask(umask)
    try:
        policy.save(tmp_path / "whole")
        policy.save(tmp_path / "adapter", adapter_only=True)
    finally:
        os.umask(before)
    for folder, weights in (("whole", "model.safetensors"), ("adapter", "adapter_model.safetensors")):
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / folder).iterdir()}
        assert modes[weights] == mode
        assert set(modes.values()) == {mode}
