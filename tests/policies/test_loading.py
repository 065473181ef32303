"""Names and paths that are models, those that are not, and what is chosen for the machine."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GraniteConfig, MambaConfig

from klimb.policies import load_policy
from klimb.policies.loading import choose_placement


def load(path, **settings):
    return load_policy(path, dtype="float32", device="cpu", **settings)


def copy_of(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def edit(file: Path, **fields) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_a_loaded_policy_has_float32_weights_and_is_in_evaluation_mode(tiny_policy):
    assert all(p.dtype == torch.float32 for p in tiny_policy.trainable().values())
    assert len(tiny_policy.trainable()) == len(list(tiny_policy.model.parameters()))
    assert not tiny_policy.model.training
    assert tiny_policy.end_ids == (2,)
    assert tiny_policy.num_vocab == 99
    assert tiny_policy.max_positions == 256


def test_the_end_tokens_are_the_tokenizers_and_the_generation_settings(tiny_model_path, tmp_path):
    folder = copy_of(tiny_model_path, tmp_path / "model")
    edit(folder / "generation_config.json", eos_token_id=[0, 2])
    assert load(folder).end_ids == (2, 0)


def test_a_model_without_any_end_token_is_refused(tiny_model_path, tmp_path):
    folder = copy_of(tiny_model_path, tmp_path / "model")
    (folder / "generation_config.json").unlink()
    edit(folder / "config.json", eos_token_id=None)
    edit(folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ValueError, match="names no token that ends a text"):
        load(folder)


def test_the_description_says_what_was_chosen_and_why(tiny_model_path):
    line = load_policy(tiny_model_path, dtype="bfloat16", device="cpu").describe()
    assert "\n" not in line
    for part in (str(tiny_model_path), "LlamaForCausalLM", "bfloat16 compute on cpu (as asked)", "packed rows"):
        assert part in line


def test_loading_draws_no_progress_bar(tiny_model_path, capfd):
    load(tiny_model_path)
    assert capfd.readouterr() == ("", "")


SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.2, "eos_token_id": 2}
ATTENTION = {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 2}


@pytest.mark.parametrize(
    ("config", "shares_prompts", "logit_scale"),
    [
        # Logits divided by 7; bounded logits and a window of 4 tokens; a recurrent state instead of a cache.
        (GraniteConfig(**SMALL, **ATTENTION, logits_scaling=7.0), True, 1 / 7),
        (Gemma2Config(**SMALL, **ATTENTION, final_logit_softcapping=3.0, sliding_window=4, head_dim=8), True, 1.0),
        (MambaConfig(**SMALL, state_size=4), False, 1.0),
    ],
    ids=["granite", "gemma2", "mamba"],
)
def test_other_architectures_are_scored_as_they_score_themselves(
    tiny_model_path, tmp_path, config, shares_prompts, logit_scale
):
    folder = copy_of(tiny_model_path, tmp_path / "model")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    policy = load(folder)
    assert policy.shares_prompts == shares_prompts
    assert policy.logit_scale == pytest.approx(logit_scale)
    prompts, index = [[5, 6], list(range(10, 21))], torch.tensor([0, 1, 1])
    ids, mask = torch.arange(30, 48).view(3, 6), torch.ones(3, 6, dtype=torch.bool)
    log_pi = policy.log_probs(prompts, index, ids, mask).log_pi
    for row, i in enumerate(index.tolist()):
        full = torch.cat([torch.tensor(prompts[i]), ids[row]])[None]
        logits = policy.causal_lm(input_ids=full, use_cache=False).logits[0, len(prompts[i]) - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, ids[row][:, None])[:, 0]
        torch.testing.assert_close(log_pi[row], expected, rtol=0, atol=1e-5)


def test_a_model_whose_own_log_probs_differ_is_refused(tiny_model_path, monkeypatch):
    forward = torch.nn.Linear.forward

    def with_extra_factor(self, x):
        return forward(self, x) * (1.5 if self.out_features == 99 else 1.0)

    monkeypatch.setattr(torch.nn.Linear, "forward", with_extra_factor)
    with pytest.raises(ValueError, match="LlamaForCausalLM computed from its hidden states differ"):
        load(tiny_model_path)


def test_a_path_that_does_not_exist_says_what_was_tried_and_what_is_possible(tmp_path):
    with pytest.raises(ValueError) as caught:
        load(tmp_path / "nowhere")
    for part in ("smollm2-135m", str(tmp_path / "nowhere"), ".gguf", "hf download"):
        assert part in str(caught.value)


def test_a_folder_without_config_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"has no config.json.*it has notes.txt"):
        load(tmp_path)


def test_an_adapter_folder_is_named_as_one(tmp_path):
    (tmp_path / "adapter_config.json").touch()
    with pytest.raises(ValueError, match=r"holds an adapter, not a model: give its base model as model\.path"):
        load(tmp_path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "model.bin").touch()
    with pytest.raises(ValueError, match=r"expected a .gguf file"):
        load(tmp_path / "model.bin")


def test_pickled_weights_are_refused(tiny_model_path, tmp_path):
    folder = copy_of(tiny_model_path, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickled \(pytorch_model.bin\).*only safetensors"):
        load(folder)


def test_a_folder_without_weights_is_refused(tiny_model_path, tmp_path):
    folder = copy_of(tiny_model_path, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no weights; expected model\.safetensors"):
        load(folder)


def test_code_that_comes_with_a_model_does_not_run_unless_asked(tiny_model_path, tmp_path):
    folder = copy_of(tiny_model_path, tmp_path / "model")
    edit(
        folder / "config.json",
        model_type="unheard_of",
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.M"},
    )
    (folder / "evil.py").write_text("raise SystemExit('the code ran')\n")
    with pytest.raises(ValueError, match="trust_remote_code"):
        load(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float16"}, "dtype must be one of auto, float32, bfloat16, got 'float16'"),
        ({"device": "abacus"}, "device must be auto, cpu, cuda"),
    ],
)
def test_unknown_dtypes_and_devices_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        choose_placement(**{"dtype": "auto", "device": "auto", **settings})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"'cuda:0' is not available .* found: cpu"):
        choose_placement("auto", "cuda:0")


@pytest.mark.parametrize(
    ("capabilities", "dtype", "reason"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, torch.bfloat16, "the CPU has amx_bf16"),
        ({"avx512_bf16": True}, torch.bfloat16, "the CPU has avx512_bf16"),
        ({"avx2": True}, torch.float32, "no bfloat16 matrix units found on cpu"),
    ],
)
def test_auto_computes_in_bfloat16_where_the_cpu_multiplies_it(monkeypatch, capabilities, dtype, reason):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    placement = choose_placement("auto", "cpu")
    assert (placement.compute_dtype, placement.reason) == (dtype, reason)


def test_nothing_is_logged_as_a_warning(tiny_model_path, caplog):
    with caplog.at_level(logging.WARNING):
        load(tiny_model_path)
    assert not caplog.records
