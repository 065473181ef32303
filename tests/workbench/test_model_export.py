"""A model out again: what was written is read by transformers' own reader and says the same."""

from dataclasses import replace

import gguf
import pytest
import torch
from tests.policies.byte_level_model import SHAPE, save_byte_level_model, tokenizer
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from klimb.errors import ConfigError
from klimb.policies import LoraSettings, gguf_file, load_policy
from klimb.workbench import model_export
from klimb.workbench.model_export import export_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KLIMB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def llama(tmp_path):
    return save_byte_level_model(tmp_path / "llama", "llama")


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_gguf_file_in_float32_has_the_models_log_probabilities(tmp_path, kind):
    folder = save_byte_level_model(tmp_path / kind, kind)
    done = export_model(str(folder), to="gguf", into=tmp_path / "out.gguf", encoding="f32")
    assert done.gap.largest < 1e-5
    assert done.gap.num_tokens == 4 * 48
    again, policy = (load_policy(path, dtype="float32", device="cpu") for path in (tmp_path / "out.gguf", folder))
    assert again.tokenizer.chat_template == policy.tokenizer.chat_template
    assert again.end_ids == policy.end_ids
    assert again.num_vocab == policy.num_vocab


@pytest.mark.parametrize(
    ("encoding", "least", "most"), [pytest.param("f16", 0, 0.02, marks=pytest.mark.slow), ("q8_0", 1e-3, 0.2)]
)
def test_fewer_bits_are_further_and_smaller(tmp_path, llama, encoding, least, most):
    whole = export_model(str(llama), to="gguf", into=tmp_path / "f32.gguf", encoding="f32")
    done = export_model(str(llama), to="gguf", into=tmp_path / "out.gguf", encoding=encoding)
    assert least < done.gap.mean < most
    assert done.num_bytes < whole.num_bytes
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == encoding.upper()
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert "output.weight" not in kinds


def test_queries_in_another_order_are_noticed_and_nothing_is_kept(tmp_path, llama, monkeypatch):
    monkeypatch.setattr(gguf_file, "_in_pairs", lambda weight, key, config: weight)
    with pytest.raises(ConfigError, match="what was written is not the model"):
        export_model(str(llama), to="gguf", into=tmp_path / "out.gguf", encoding="f32")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".gguf" or path.name.startswith(".")) == []


def test_a_tokenizer_that_reads_otherwise_is_noticed(llama):
    policy = load_policy(llama, dtype="float32", device="cpu")
    other = replace(policy, tokenizer=tokenizer(merges=[("t", "h")]))
    model_export.check_same_reading(policy, replace(policy, tokenizer=tokenizer()))
    with pytest.raises(ConfigError, match="reads 'Write three words about the sea"):
        model_export.check_same_reading(policy, other)


def test_the_temperature_of_the_policy_is_in_the_file(tmp_path, llama):
    policy = load_policy(llama, dtype="float32", device="cpu")
    policy.temperature = 0.7
    policy.save(tmp_path / "saved")
    export_model(str(tmp_path / "saved"), to="gguf", into=tmp_path / "out.gguf", encoding="f32")
    fields = gguf.GGUFReader(tmp_path / "out.gguf").fields
    assert fields["general.sampling.temp"].contents() == pytest.approx(0.7)


def test_an_unknown_way_to_cut_words_needs_a_file_of_the_same_tokenizer(tmp_path, llama, tiny_model_path):
    with pytest.raises(ValueError, match="--tokenizer-from"):
        export_model(str(tiny_model_path), to="gguf", into=tmp_path / "out.gguf")
    policy = load_policy(llama, dtype="float32", device="cpu")
    gguf_file.write_gguf(policy, tmp_path / "base.gguf", encoding="f32", tokenizer_from=None, name="base")
    with pytest.raises(ValueError, match=r"base\.gguf has 261 tokens, and the model 99"):
        export_model(str(tiny_model_path), to="gguf", into=tmp_path / "out.gguf", tokenizer_from=tmp_path / "base.gguf")


@pytest.mark.slow
def test_a_model_that_came_from_a_gguf_file_keeps_its_tokenizers_description(tmp_path, llama):
    base = tmp_path / "base.gguf"
    export_model(str(llama), to="gguf", into=base, encoding="f32")
    export_model(str(base), to="gguf", into=tmp_path / "again.gguf", encoding="f32")
    said, again = (gguf.GGUFReader(file).fields for file in (base, tmp_path / "again.gguf"))
    keys = [key for key in said if key.startswith("tokenizer.")]
    assert len(keys) >= 9
    assert {key: again[key].contents() for key in keys} == {key: said[key].contents() for key in keys}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "of the kind 'linear'"),
        ({"hidden_act": "gelu"}, "the activation 'gelu'"),
    ],
)
def test_settings_that_a_gguf_file_would_lose_are_refused(changes, message):
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SHAPE, vocab_size=8, **changes))
    with pytest.raises(ValueError, match=message):
        gguf_file.find_architecture(model)


def test_another_architecture_is_refused_with_what_to_do():
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    with torch.device("meta"):
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**shape, vocab_size=8))
    with pytest.raises(ValueError, match=r"GPTNeoXForCausalLM cannot be written as GGUF here.*--to merged"):
        gguf_file.find_architecture(model)


def test_merged_is_a_plain_folder_with_an_adapter_in_its_weights(tmp_path, llama):
    done = export_model(str(llama), to="merged", into=tmp_path / "out")
    assert done.gap.largest == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_nothing_is_written_over(tmp_path, llama):
    (tmp_path / "out.gguf").write_text("mine")
    with pytest.raises(ConfigError, match="already exists"):
        export_model(str(llama), to="gguf", into=tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").read_text() == "mine"


def test_an_adapter_is_of_a_run(tmp_path, llama):
    with pytest.raises(ConfigError, match="is no run"):
        export_model(str(llama), to="adapter", into=tmp_path / "out")


@pytest.mark.slow
def test_a_run_of_an_adapter_gives_it_out_and_the_whole_model(workplace):
    trained = workplace.klimb(
        "train", "run.toml", "--set", "model.lora.rank=2", "--set", "optimizer.learning_rate=0.02"
    )
    assert trained.status == 0, trained.out
    assert workplace.klimb("export", "runs/run", "--to", "adapter", "--into", "adapter").status == 0
    said = workplace.klimb("export", "runs/run", "--to", "merged", "--into", "merged")
    assert said.status == 0
    assert "log-probabilities of 192 tokens differ by at most" in said.out
    merged, base = (load_policy(path, dtype="float32", device="cpu") for path in ("merged", workplace.model))
    adapted = load_policy(
        workplace.model, dtype="float32", device="cpu", lora=LoraSettings(path=str(workplace.path / "adapter"))
    )
    assert model_export.compare(merged, adapted).mean < 1e-4
    assert model_export.compare(merged, base).largest > 1e-3


def test_a_store_is_told_where_samples_go_out(workplace):
    (workplace.path / "store").mkdir()
    workplace.write("store/part.parquet", "")
    said = workplace.klimb("export", "store", "--to", "gguf", "--into", "out.gguf")
    assert said.status == 2
    assert "klimb experience export" in said.err


@pytest.mark.slow
def test_the_embedded_model_goes_out_and_comes_back(tmp_path):
    whole = export_model("smollm2-135m", to="gguf", into=tmp_path / "out.gguf", encoding="f32")
    assert whole.gap.largest < 1e-4
    half = export_model("smollm2-135m", to="gguf", into=tmp_path / "half.gguf", encoding="f16")
    assert half.gap.mean < 0.01
    fields = gguf.GGUFReader(tmp_path / "half.gguf").fields
    # llama.cpp's name of how words are cut, which nothing but the original file says.
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
