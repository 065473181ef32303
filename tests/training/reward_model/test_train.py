"""A reward model from judgements to its folder, on a tiny random model."""

import pytest
import torch
from tests.judged import preferences, thumbed

from klimb.findings.reward_model import judge_reward_model
from klimb.tasks import ModelReward, Problem, Response
from klimb.training.reward_model.classifier import (
    make_classifier,
    read_features,
    save_classifier,
    score_texts,
    tokens_of,
)
from klimb.training.reward_model.judgements import read_judgements
from klimb.training.reward_model.settings import RewardModelSettings
from klimb.training.reward_model.train import TrainedRewardModel, train_reward_model


def trained(policy, samples, feedback=(), **settings) -> TrainedRewardModel:
    asked = RewardModelSettings(**settings)
    data = read_judgements(
        samples, feedback, fraction=asked.held_out_fraction, seed=asked.seed, max_pairs=asked.max_pairs
    )
    return train_reward_model(policy, data, asked)


def report_of(found: TrainedRewardModel):
    return judge_reward_model(found.held_out_pairs(), found.held_out_ratings(), unit=found.data.unit)


def test_thumbs_by_letters_of_equal_length_are_learnt_and_length_says_nothing(tiny_policy):
    report = report_of(trained(tiny_policy, thumbed(100)))
    assert report.verdict.status == "good", report
    numbers = {each.name: each.number for block in report.blocks for each in block.findings}
    assert numbers["pairs in order"] > 0.9 and numbers["AUC"] > 0.9
    assert numbers["the same by length alone"] == pytest.approx(0.5), "every answer has 12 characters"
    assert numbers["Brier score"] < 0.15


def test_shuffled_thumbs_make_nothing_that_looks_good(tiny_policy):
    report = report_of(trained(tiny_policy, thumbed(100, shuffled=True)))
    assert report.verdict.status != "good"
    good = {each.name for block in report.blocks for each in block.findings if each.status == "good"}
    assert good <= {"calibration"}, "chances near one half are right ones"


def test_preferences_alone_are_learnt(tiny_policy):
    samples, feedback = preferences(100)
    report = report_of(trained(tiny_policy, samples, feedback))
    assert report.verdict.status == "good"
    assert [block.name for block in report.blocks] == ["pairs"]


def test_a_handful_of_thumbs_cannot_tell(tiny_policy):
    report = report_of(trained(tiny_policy, thumbed(8)))
    assert report.verdict.status == "unknown" and "cannot be told" in report.verdict.title


def test_the_features_times_the_head_are_the_logits_whatever_is_beside_them(tiny_policy):
    model = make_classifier(tiny_policy)
    answers = enumerate(thumbed(3), 1)
    chats = [(*sample.prompt, {"role": "assistant", "content": sample.response * times}) for times, sample in answers]
    tokens = [tokens_of(tiny_policy.tokenizer, chat) for chat in chats]
    features = read_features(model, tokens)
    with torch.no_grad():
        assert score_texts(model, tokens).abs().max() == 0, "a head of zeros"
        model.score.weight.normal_()
        together, alone = score_texts(model, tokens), torch.cat([score_texts(model, [each]) for each in tokens])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(features @ model.score.weight[0], alone, atol=1e-4, rtol=1e-4)


def test_the_folder_is_a_reward_as_it_is_and_gives_the_logits(tiny_policy, tmp_path):
    samples = thumbed(20)
    found = trained(tiny_policy, samples)
    save_classifier(found.model, tiny_policy.tokenizer, tmp_path / "rm")
    reward = ModelReward.of_folder(str(tmp_path / "rm"), device="cpu")
    problem = Problem(problem_id="p", messages=samples[0].prompt, answer="")
    given = reward(problem, Response(text=samples[0].response, num_tokens=1, finish_reason="stop")).reward
    place = [text.sample_id for text in found.data.texts].index("s0")
    assert abs(given - float(found.logits[place])) < 1e-4


def test_an_adapter_goes_on_from_the_head_and_the_loss_falls(tiny_policy):
    before = {name: weight.clone() for name, weight in tiny_policy.causal_lm.state_dict().items()}
    samples = thumbed(8)
    asked = {"num_epochs": 2, "rank": 4, "batch_size": 8, "learning_rate": 2e-3}
    head, lora = trained(tiny_policy, samples), trained(tiny_policy, samples, train="lora", **asked)
    again = trained(tiny_policy, samples, train="lora", **asked)

    def loss(found: TrainedRewardModel) -> float:
        ratings = found.data.ratings_of(held_out=False)
        logits = found.logits[[each.text for each in ratings]] + found.offset
        values = torch.tensor([each.value for each in ratings])
        return float(torch.nn.functional.binary_cross_entropy_with_logits(logits, values))

    assert loss(lora) < loss(head)
    assert torch.equal(lora.logits, again.logits), "the seed says all"
    assert not [name for name in lora.model.state_dict() if "lora" in name]
    after = tiny_policy.causal_lm.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items()), "the policy stays as it was"


def test_an_answer_that_is_longer_than_the_model_reads_is_left_out_and_counted(tiny_policy):
    samples = thumbed(10)
    long = [sample.__class__(**{**vars(sample), "response": "z" * 400}) for sample in samples[:1]]
    found = trained(tiny_policy, [*long, *samples[1:]])
    assert list(found.data.left_out.values()) == [1]
    assert "s0" not in {text.sample_id for text in found.data.texts}
