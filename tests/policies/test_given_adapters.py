"""rsLoRA and DoRA beside peft's own forward pass, and adapters to go on from: what fits is taken, the rest refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tests.policies.test_lora_and_saving import ROWS, load, plain_scores, score
from transformers import AutoModelForCausalLM

from klimb.experience.samples import SamplingSettings
from klimb.policies import LoraSettings, Policy, Snapshot
from klimb.samplers import LocalSampler
from klimb.training.identity import _describe_policy

KINDS = {
    "LoRA": {},
    "rsLoRA": {"rslora": True},
    "DoRA": {"dora": True},
    "both": {"rslora": True, "dora": True},
}


def randomised(policy: Policy, *, seed: int = 3) -> Policy:
    """Give every matrix of the adapter random values, and DoRA's lengths random factors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in policy.trainable().items():
            noise = torch.rand(weight.shape, generator=generator)
            weight.copy_(weight * (0.5 + noise) if "magnitude" in name else 0.3 * (noise - 0.5))
    return policy


def adapter_of(base: Path, folder: Path, **settings) -> Path:
    """Write an adapter of random values for the base model, in peft's format."""
    policy = randomised(load(str(base), lora=LoraSettings(rank=3, alpha=5.0, **settings)))
    policy.save(folder, adapter_only=True)
    return folder


def by_peft(base: Path, adapter: Path) -> PeftModel:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    return PeftModel.from_pretrained(model, str(adapter))


def scores_of(model) -> torch.Tensor:
    prompts, index, ids, _ = ROWS
    found = []
    for place, response in zip(index.tolist(), ids, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.cat([torch.tensor(prompts[place]), response])[None]).logits
        log_p = logits[0, len(prompts[place]) - 1 : -1].log_softmax(-1)
        found.append(log_p.gather(-1, response[:, None])[:, 0])
    return torch.stack(found)


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapters_update_is_the_formula(tiny_model_path, kind: str):
    """W + s·B·A with s = alpha/rank or alpha/√rank; with DoRA each row then gets the length m."""
    settings = LoraSettings(rank=4, alpha=6.0, targets=("v_proj",), **KINDS[kind])
    policy = randomised(load(str(tiny_model_path), lora=settings))
    layer = policy.causal_lm.get_decoder().layers[0].self_attn.v_proj
    inputs = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    scale = 6.0 / (2.0 if settings.rslora else 4.0)
    weight = layer.base_layer.weight + scale * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    if settings.dora:
        lengths = layer.lora_magnitude_vector["default"].weight
        weight = lengths[:, None] * weight / weight.norm(dim=1, keepdim=True)
    torch.testing.assert_close(layer(inputs), inputs @ weight.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_of_any_kind_changes_nothing(tiny_model_path, tiny_policy, kind: str):
    policy = load(str(tiny_model_path), lora=LoraSettings(rank=3, **KINDS[kind]))
    torch.testing.assert_close(score(policy), score(tiny_policy), rtol=0, atol=1e-6)
    assert all("lora_" in name for name in policy.trainable())


@pytest.mark.parametrize("attention", ["auto", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_given_adapter_scores_as_by_peft_and_as_merged_by_peft(
    tiny_model_path, tmp_path: Path, kind: str, attention: str
):
    adapter = adapter_of(tiny_model_path, tmp_path / "adapter", **KINDS[kind])
    policy = load(str(tiny_model_path), lora=LoraSettings(path=str(adapter)), attention=attention)
    assert policy.packs_rows == (attention == "auto")
    found, expected = score(policy), scores_of(by_peft(tiny_model_path, adapter))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    merged = by_peft(tiny_model_path, adapter).merge_and_unload()
    torch.testing.assert_close(found, scores_of(merged), rtol=0, atol=1e-4)
    assert (found - score(load(str(tiny_model_path)))).abs().max() > 0.1
    policy.save(tmp_path / "merged")
    torch.testing.assert_close(plain_scores(tmp_path / "merged"), found, rtol=0, atol=1e-4)
    for name, weight in load_file(tmp_path / "merged" / "model.safetensors").items():
        torch.testing.assert_close(weight, merged.state_dict()[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(score(policy), found, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_as_an_adapter_is_what_is_gone_on_from(tiny_model_path, tmp_path: Path, kind: str):
    adapter = adapter_of(tiny_model_path, tmp_path / "first", **KINDS[kind])
    policy = load(str(tiny_model_path), lora=LoraSettings(path=str(adapter)))
    assert policy.has_given_adapter
    assert {weight.dtype for weight in policy.trainable().values()} == {torch.float32}
    policy.save(tmp_path / "second", adapter_only=True)
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    told = [json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("first", "second")]
    for key in ("r", "lora_alpha", "use_dora", "use_rslora"):
        assert told[0][key] == told[1][key]


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_adapter_learns_and_the_reference_is_the_policy_at_its_start(tiny_model_path, tmp_path, kind: str):
    adapter = adapter_of(tiny_model_path, tmp_path / "adapter", **KINDS[kind])
    policy = load(str(tiny_model_path), lora=LoraSettings(path=str(adapter)))
    start, reference = score(policy), Snapshot.of(policy)
    assert set(reference.state_dict()) == set(policy.trainable())
    frozen = {name: weight.clone() for name, weight in policy.model.named_parameters() if not weight.requires_grad}
    optimizer = torch.optim.SGD(policy.trainable().values(), lr=0.1)
    policy.log_probs(*ROWS).log_pi.sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in policy.trainable().values())
    optimizer.step()
    assert (score(policy) - start).abs().max() > 1e-3
    with reference.swapped_into(policy):
        torch.testing.assert_close(score(policy), start, rtol=0, atol=0)
    weights = dict(policy.model.named_parameters())
    assert all(torch.equal(weights[name], weight) for name, weight in frozen.items())


@pytest.mark.parametrize("kind", ["DoRA", "both"])
def test_doras_row_norms_are_those_of_the_weights_at_each_call(tiny_model_path, tmp_path: Path, kind: str):
    """Kept while decoding, they must not outlive an update of the weights."""
    policy = randomised(load(str(tiny_model_path), lora=LoraSettings(rank=3, **KINDS[kind]), attention="eager"))
    settings = SamplingSettings(max_new_tokens=5)
    for seed in (3, 4):
        randomised(policy, seed=seed)
        for decoder in ("auto", "transformers"):
            sampler = LocalSampler(policy, decoder=decoder)
            assert ("own decoder" in sampler.describe()) == (decoder == "auto")
            generator = torch.Generator().manual_seed(0)
            drawn = sampler.sample(ROWS[0], num_samples=2, settings=settings, generator=generator)
            for prompt, group in zip(ROWS[0], drawn, strict=True):
                for completion in group:
                    ids = torch.tensor([completion.response_ids])
                    mask = torch.ones_like(ids, dtype=torch.bool)
                    with torch.no_grad():
                        log_pi = policy.log_probs([prompt], torch.tensor([0]), ids, mask).log_pi[0]
                    torch.testing.assert_close(torch.tensor(completion.log_model), log_pi, rtol=0, atol=1e-4)


def test_what_is_stated_beside_a_path_must_be_so(tiny_model_path, tmp_path: Path):
    adapter = str(adapter_of(tiny_model_path, tmp_path / "adapter"))
    same = LoraSettings(path=adapter, rank=3, alpha=5.0, targets="all-linear")
    assert len(load(str(tiny_model_path), lora=same).trainable()) > 0
    for stated, words in (
        ({"rank": 16}, r"model.lora.rank = 16, and the adapter in .* has 3; leave it out"),
        ({"alpha": 32.0}, r"model.lora.alpha = 32.0, and the adapter in .* has 5.0"),
        ({"targets": ("q_proj",)}, r"model.lora.targets = \('q_proj',\), and the adapter in .* has \['down_proj'"),
        ({"dora": True}, "model.lora.dora = True, and the adapter in .* has False"),
        ({"rslora": True}, "model.lora.rslora = True, and the adapter in .* has False"),
    ):
        with pytest.raises(ValueError, match=words):
            load(str(tiny_model_path), lora=LoraSettings(path=adapter, **stated))


def changed(adapter: Path, folder: Path, **settings) -> str:
    """Copy an adapter with another configuration."""
    shutil.copytree(adapter, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return str(folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_model_name_or_path": "org/Other-1B"}, "made for the base model 'org/Other-1B', and model.path is "),
        ({"modules_to_save": ["lm_head"]}, r"trains more than low-rank matrices \(modules_to_save = \['lm_head'\]\)"),
        ({"bias": "all"}, r"trains more than low-rank matrices \(bias = 'all'\)"),
        ({"init_lora_weights": "pissa"}, "begun with init_lora_weights = 'pissa', which changed its base model"),
        ({"peft_type": "IA3", "feedforward_modules": []}, "of kind .*IA3, expected LORA"),
        ({"r": 4}, r"made for another base model: .* has shape \[3, \d+\], expected \[4, \d+\]"),
        ({"target_modules": ["q_proj"]}, "made for another base model: .* matrices differ, first .*only in the file"),
        ({"target_modules": ["c_attn"]}, "does not fit the model at model.path: "),
    ],
)
def test_an_adapter_that_is_not_for_this_model_is_refused_in_one_line(
    tiny_model_path, tmp_path: Path, settings: dict, words: str
):
    adapter = adapter_of(tiny_model_path, tmp_path / "adapter")
    other = changed(adapter, tmp_path / "other", **settings)
    with pytest.raises(ValueError, match=words) as raised:
        load(str(tiny_model_path), lora=LoraSettings(path=other))
    assert "\n" not in str(raised.value)


def test_an_adapter_of_a_wider_model_is_refused(tiny_model_path, tmp_path: Path):
    adapter = adapter_of(tiny_model_path, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    wider = {name: torch.zeros(2 * weight.shape[0], *weight.shape[1:]) for name, weight in weights.items()}
    save_file(wider, adapter / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"made for another base model: .* has shape .*, expected"):
        load(str(tiny_model_path), lora=LoraSettings(path=str(adapter)))


@pytest.mark.parametrize(
    "name", ["org/{}", "/somewhere/else/{}/", "{}.Q4_1.gguf", "/cache/models--org--{}/snapshots/0123abc"]
)
def test_the_same_base_model_in_another_place_is_the_same(tiny_model_path, tmp_path: Path, name: str):
    adapter = adapter_of(tiny_model_path, tmp_path / "adapter")
    base = name.format(Path(tiny_model_path).name)
    moved = changed(adapter, tmp_path / "moved", base_model_name_or_path=base)
    assert load(str(tiny_model_path), lora=LoraSettings(path=moved)).has_given_adapter


def test_an_adapter_by_peft_alone_with_dropout_is_gone_on_from_without(tiny_model_path, tmp_path: Path):
    base = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
    config = LoraConfig(r=2, lora_alpha=4, lora_dropout=0.1, target_modules=["q_proj", "up_proj"])
    torch.manual_seed(0)
    adapted = get_peft_model(base, config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(tmp_path / "theirs")
    policy = load(str(tiny_model_path), lora=LoraSettings(path=str(tmp_path / "theirs")))
    torch.testing.assert_close(score(policy), scores_of(adapted.eval()), rtol=0, atol=1e-5)


def test_what_is_no_adapter_is_refused_with_what_it_is(tiny_model_path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"model.lora.path = '.*nowhere': there is no such folder"):
        load(str(tiny_model_path), lora=LoraSettings(path=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match=r"there is no adapter_config.json in it; expected the folder of an adapter"):
        load(str(tiny_model_path), lora=LoraSettings(path=str(tiny_model_path)))
    adapter = adapter_of(tiny_model_path, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"has no adapter_model.safetensors; only safetensors are read"):
        load(str(tiny_model_path), lora=LoraSettings(path=str(adapter)))
    with pytest.raises(ValueError, match=r"holds an adapter, not a model: give its base model as model.path and this"):
        load(str(adapter))


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_the_head_is_refused(tiny_model_path, target: str):
    with pytest.raises(ValueError, match="an adapter on the head, or on an embedding that is the head too"):
        load(str(tiny_model_path), lora=LoraSettings(rank=2, targets=(target,)))


def test_the_identity_of_a_run_tells_given_adapters_apart_and_not_fresh_ones(tiny_model_path, tmp_path: Path):
    def weights_of(**settings) -> str | None:
        return _describe_policy(load(str(tiny_model_path), lora=LoraSettings(**settings)))["trained_weights"]

    first = adapter_of(tiny_model_path, tmp_path / "first")
    second = changed(first, tmp_path / "second")
    assert weights_of(path=str(first)) == weights_of(path=second)
    weights = load_file(Path(second) / "adapter_model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name].nextafter(torch.ones(()))
    save_file(weights, Path(second) / "adapter_model.safetensors")
    assert weights_of(path=str(first)) != weights_of(path=second)
    assert weights_of(rank=3) is None
