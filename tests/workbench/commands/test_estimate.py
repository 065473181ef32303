"""The estimates of a model on its own log are the log's mean; what speaks against others is printed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from cyclopts import App
from tests.workbench.logged import drawn, store_of, text_only, without_log_mu

from klimb.errors import ConfigError
from klimb.experience import SamplingSettings
from klimb.findings.off_policy_evaluation import DEFAULT_CLIP
from klimb.training.reward_model.classifier import head_of, make_classifier, save_classifier
from klimb.workbench.commands.estimate import estimate
from klimb.workbench.options import EstimateOptions


@pytest.fixture
def command(tmp_path, tiny_model_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    app = App(result_action="return_value")
    app.command(estimate)

    def run(*arguments, model=None):
        app(["estimate", "log", "--model", str(model or tiny_model_path), "--json", "out.json", *arguments])
        return " ".join(capsys.readouterr().out.split()), json.loads((tmp_path / "out.json").read_text())

    return run


def test_the_model_that_drew_the_log_is_worth_the_logs_mean(command, tiny_policy, tmp_path):
    samples = drawn(tiny_policy)
    store_of(tmp_path / "log", samples)
    said, found = command()
    mean = np.mean([sample.reward for sample in samples])
    assert found["logged"]["value"] == pytest.approx(mean)
    values = {each["name"]: each["value"] for each in found["estimates"]}
    for name in ("ips", "snips", "per-decision", "doubly-robust", "sn-doubly-robust"):
        assert values[name] == pytest.approx(mean, abs=1e-3), name
        assert name in said
    assert all(each["ess"] == pytest.approx(24, abs=0.01) for each in found["estimates"])
    assert f"{mean:.4f}" in said
    # Six prompts are too few, and that is said.
    assert "fewer than 100" in said
    assert "Do not decide by these numbers alone" in said


def test_another_model_has_other_values_and_fewer_effective_responses(command, tiny_policy, tmp_path):
    store_of(tmp_path / "log", drawn(tiny_policy))
    for parameter in tiny_policy.trainable().values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    tiny_policy.save(tmp_path / "other")
    _, found = command(model=tmp_path / "other")
    assert all(each["ess"] < 23 for each in found["estimates"])
    assert {each["num_prompts"] for each in found["estimates"]} == {6}


def test_many_prompts_of_the_same_model_bring_no_warning(command, tiny_policy, tmp_path):
    store_of(tmp_path / "log", drawn(tiny_policy, num_prompts=110, num_samples=2))
    said, found = command()
    assert found["warnings"] == []
    assert all(each["warnings"] == [] for each in found["estimates"])
    assert "Nothing here speaks against these numbers" in said
    assert "The model is not distinguishable from the log on these prompts" in said


def test_what_cannot_be_used_is_left_out_and_told(command, tiny_policy, tmp_path):
    samples = drawn(tiny_policy)
    changed = [
        replace(samples[0], reward=None),
        without_log_mu(samples[1]),
        replace(samples[2], log_mu_provenance="estimated"),
        text_only(samples[3]),
        replace(samples[4], response="something else"),
        replace(samples[5], sampling=SamplingSettings(top_p=0.5)),
        *samples[6:],
    ]
    store_of(tmp_path / "log", changed)
    said, found = command()
    assert found["estimates"][0]["num_samples"] == 19
    warnings = " ".join(found["warnings"])
    assert "1 of 23 samples are left out: without a reward" in warnings
    assert "2 of 23 samples are left out: with log_mu absent" in warnings
    assert "1 of 23 samples are left out: with log_mu estimated" in warnings
    assert "text and token ids are not of this model's tokenizer" in warnings
    assert "1 of 19 samples were drawn with top-p" in warnings
    assert "Begin with what is said of the data" in said


def test_a_log_without_rewards_or_log_mu_is_refused_before_the_model_is_loaded(
    command, tiny_policy, tmp_path, monkeypatch
):
    def refuse(*arguments, **settings):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("klimb.workbench.estimating.load_policy", refuse)
    store_of(tmp_path / "log", [without_log_mu(sample) for sample in drawn(tiny_policy)])
    with pytest.raises(ValueError, match=r"24 with log_mu absent.*klimb experience score"):
        command()


def test_one_prompt_has_no_interval_and_the_file_is_still_json(command, tiny_policy, tmp_path):
    store_of(tmp_path / "log", drawn(tiny_policy, num_prompts=1))
    said, found = command()
    assert found["estimates"][0]["low"] is None
    assert "there is one prompt" in said


def test_a_file_holds_the_interval_with_its_reason_and_the_gain_over_the_log(command, tiny_policy, tmp_path):
    store_of(tmp_path / "log", drawn(tiny_policy))
    said, found = command()
    snips = next(each for each in found["estimates"] if each["name"] == "snips")
    assert snips["interval"]["value"] == snips["value"]
    assert snips["interval"]["unit"] == "prompt"
    assert snips["interval"]["num_units"] == 6
    assert snips["interval"]["reason"] == "the evidence is 6.0 prompts' worth, and 10 are the least for an interval"
    assert snips["gain"]["value"] == pytest.approx(snips["value"] - found["logged"]["value"])
    assert snips["interval"]["reason"] in said
    assert "Whether the model is better than the log cannot be told" in said


def test_bad_rows_are_named_and_left_out(command, tiny_policy, tmp_path):
    samples = drawn(tiny_policy)
    changed = [
        replace(samples[0], log_mu=(float("nan"), *samples[0].log_mu[1:])),
        replace(samples[1], log_mu=(float("-inf"), *samples[1].log_mu[1:])),
        replace(samples[2], reward=float("inf")),
        *samples[3:],
    ]
    store_of(tmp_path / "log", changed)
    _, found = command()
    assert found["estimates"][0]["num_samples"] == 21
    warnings = " ".join(found["warnings"])
    names = f"({samples[0].sample_id}, {samples[1].sample_id})"
    assert f"2 of 24 samples are left out: with a log_mu that is not finite {names}" in warnings
    assert f"1 of 24 samples are left out: with a reward that is not finite ({samples[2].sample_id})" in warnings


def test_a_log_of_bad_rows_alone_is_refused(command, tiny_policy, tmp_path):
    store_of(tmp_path / "log", [replace(sample, reward=float("nan")) for sample in drawn(tiny_policy)])
    with pytest.raises(ValueError, match=r"no sample can be used .*24 with a reward that is not finite"):
        command()


def test_a_reward_that_is_not_0_or_1_has_no_known_range_unless_it_is_given(command, tiny_policy, tmp_path):
    samples = [replace(sample, reward=0.5 * sample.reward) for sample in drawn(tiny_policy)]
    store_of(tmp_path / "log", samples)
    _, found = command()
    assert "--reward-range LOW HIGH" in " ".join(found["notes"])
    _, found = command("--reward-range", "0", "1")
    assert found["notes"] == []
    with pytest.raises(ValueError, match="outside of reward_range"):
        command("--reward-range", "0", "0.1")
    with pytest.raises(ConfigError, match="the lower end first"):
        command("--reward-range", "1", "0")


def test_a_model_that_earns_more_is_called_better_by_the_paired_difference(command, tiny_policy, tmp_path):
    samples = drawn(tiny_policy, num_prompts=120, num_samples=2)
    rewards = np.random.default_rng(0).integers(0, 2, size=len(samples)).astype(float)
    shifts = np.log(np.where(rewards == 1, 1.4, 0.6))
    rewarded = [replace(sample, reward=reward) for sample, reward in zip(samples, rewards.tolist(), strict=True)]
    store_of(tmp_path / "log", with_first_log_mu(rewarded, shifts.tolist()))
    said, found = command()
    gain = {each["name"]: each["gain"] for each in found["estimates"]}["snips"]
    right = rewards.mean()
    assert gain["value"] == pytest.approx(1.4 * right / (1.4 * right + 0.6 * (1 - right)) - right, abs=1e-3)
    assert gain["low"] > 0
    assert "The model is better than the log on these prompts: sn-doubly-robust minus the logged mean is" in said


def test_of_a_large_log_whole_groups_are_read_and_that_is_told(command, tiny_policy, tmp_path):
    store_of(tmp_path / "log", drawn(tiny_policy))
    said, found = command("--max-samples", "9")
    assert found["estimates"][0]["num_samples"] == 8
    assert "8 of 24 samples were read" in said


def test_a_condition_chooses_and_an_empty_choice_is_refused(command, tiny_policy, tmp_path):
    store_of(tmp_path / "log", drawn(tiny_policy))
    _, found = command("--where", "group_id <= 'g002'")
    assert found["logged"]["num_samples"] == 12
    with pytest.raises(ConfigError, match="no samples where reward > 7"):
        command("--where", "reward > 7")


@pytest.mark.parametrize("option", [("--clip", "0"), ("--clip", "nan"), ("--max-samples", "0")])
def test_settings_that_mean_nothing_are_refused(command, tiny_policy, tmp_path, option):
    store_of(tmp_path / "log", drawn(tiny_policy, num_prompts=1))
    with pytest.raises(ConfigError, match="--max-samples must be >= 1 and --clip"):
        command(*option)


def with_first_log_mu(samples, shifts):
    """Samples whose first log μ is smaller by so many nats: their w is larger by as many."""
    return [
        replace(sample, log_mu=(sample.log_mu[0] - shift, *sample.log_mu[1:]))
        for sample, shift in zip(samples, shifts, strict=True)
    ]


def test_a_value_outside_of_the_rewards_is_neither_printed_nor_written(command, tiny_policy, tmp_path):
    samples = drawn(tiny_policy)
    store_of(tmp_path / "log", with_first_log_mu(samples, [30.0] * len(samples)))
    said, found = command()
    values = {each["name"]: each["value"] for each in found["estimates"]}
    assert values["ips"] is None
    assert values["snips"] == pytest.approx(np.mean([sample.reward for sample in samples]), abs=1e-3)
    assert "│ ips │ not usable │ none │" in said
    assert "is outside of the rewards, 0 to" in said


def test_if_no_estimator_is_usable_the_command_fails_after_it_said_why(command, tiny_policy, tmp_path, capsys):
    samples = drawn(tiny_policy)
    store_of(tmp_path / "log", with_first_log_mu(samples, [40.0] + [0.0] * (len(samples) - 1)))
    with pytest.raises(ConfigError, match="no estimator is usable"):
        command()
    said = " ".join(capsys.readouterr().out.split())
    assert "all: 24 responses count like 1.0, and one reward is no mean" in said
    found = json.loads((tmp_path / "out.json").read_text())
    assert {each["value"] for each in found["estimates"]} == {None}


def test_the_command_and_the_estimator_clip_at_the_same_weight():
    assert EstimateOptions(model="any").clip == DEFAULT_CLIP


def test_a_reward_model_adds_its_estimates_with_fresh_answers(command, tiny_policy, tmp_path):
    model = make_classifier(tiny_policy)
    torch.nn.init.normal_(head_of(model).weight, generator=torch.Generator().manual_seed(0))
    save_classifier(model, tiny_policy.tokenizer, tmp_path / "rm")
    store_of(tmp_path / "log", drawn(tiny_policy))
    said, found = command("--reward-model", "rm", "--fresh", "2")
    values = {each["name"]: each["value"] for each in found["estimates"]}
    assert {"model-direct", "model-doubly-robust"} <= values.keys()
    assert 0 <= values["model-direct"] <= 1.5
    assert "never saw these answers' rewards" in said
    again = {each["name"]: each["value"] for each in command("--reward-model", "rm", "--fresh", "2")[1]["estimates"]}
    assert again == values, "the seed says which answers are drawn"
