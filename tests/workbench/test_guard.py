import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from klimb.errors import ConfigError
from klimb.experience import Sample, SamplingSettings
from klimb.policies import Policy
from klimb.samplers import Completion, LocalSampler
from klimb.training.guard.general import everyday
from klimb.training.guard.limits import (
    MeasuresBase,
)
from klimb.training.settings import GuardLimits
from klimb.workbench.config import RunConfig, build_config
from klimb.workbench.config.guard import GuardSection
from klimb.workbench.guard import make_guard_settings, make_measurer

SAMPLE = Sample(
    sample_id="0-0",
    group_id="0",
    prompt=({"role": "user", "content": "Say 1"},),
    prompt_ids=(1,),
    response="1",
    response_ids=(1,),
    finish_reason="stop",
)


def configured(**guard: object) -> RunConfig:
    return build_config({"guard": guard}, source="a test")


class Replies:
    """A sampler that gives these answers, in order, to whatever is asked."""

    def __init__(self, policy: Policy, texts: Sequence[str]) -> None:
        self.policy, self.texts = policy, texts
        self.asked: list[SamplingSettings] = []

    def sample(self, prompts, *, num_samples, settings, generator) -> list[list[Completion]]:
        self.asked.append(settings)
        ids = [tuple(self.policy.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in self.texts]
        zeros = [(0.0,) * len(each) for each in ids]
        return [
            [Completion(response_ids=each, log_mu=zero, log_model=zero, finish_reason="stop")]
            for each, zero in zip(ids, zeros, strict=True)
        ]


def test_answers_are_greedy_and_scored_and_flagged_each_in_its_place(tiny_policy: Policy):
    first = [problem.answer.split("|")[0] for problem in everyday().held_out[:2]]
    sampler = Replies(tiny_policy, [*first, "I cannot answer that.", " "])
    measurer = make_measurer(configured(num_problems=4, text="none"), tiny_policy, sampler)
    assert isinstance(measurer, MeasuresBase)
    with measurer:
        measured = measurer.measure()
    assert measured.perplexity is None
    assert measured.general == {"everyday": (1.0, 1.0, 0.0, 0.0)}
    assert measured.answers.refusal == (False, False, True, False)
    assert measured.answers.empty == (False, False, False, True)
    assert [(asked.temperature, asked.max_new_tokens) for asked in sampler.asked] == [(0.0, 32)]


def test_measuring_twice_gives_the_same_and_moves_no_random_state(tiny_policy: Policy):
    measurer = make_measurer(configured(num_problems=3, max_new_tokens=6), tiny_policy, LocalSampler(tiny_policy))
    assert measurer is not None
    state = torch.get_rng_state()
    with measurer:
        assert measurer.measure() == measurer.measure()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_format_of_rollouts_is_that_of_the_guard_or_of_the_scoring(tiny_policy: Policy):
    rollouts = [replace(SAMPLE, response=text) for text in ("<a>1</a>", "1", "")]
    own = configured(general=[], text="none", format=r"^\d$")
    scored = build_config({"guard": {"general": []}, "scoring": {"format": {"pattern": "<a>.*</a>"}}}, source="a test")
    none = configured(general=[], text="none")
    expected = {id(own): (False, True, False), id(scored): (True, False, False), id(none): ()}
    for config in (own, scored, none):
        measurer = make_measurer(config, tiny_policy, LocalSampler(tiny_policy))
        assert measurer is not None
        with measurer:
            flags = measurer.flag(rollouts)
        assert flags.format_valid == expected[id(config)]
        assert flags.empty == (False, False, True)


def test_without_the_section_there_is_no_guard(tiny_policy: Policy):
    config = build_config({}, source="a test")
    assert config.guard is None
    assert make_guard_settings(config.guard) is None
    assert make_measurer(config, tiny_policy, LocalSampler(tiny_policy)) is None


def test_the_section_says_the_same_as_the_settings_by_default():
    settings = make_guard_settings(GuardSection())
    assert settings is not None
    assert settings.limits == GuardLimits()
    assert (settings.action, settings.rollback_learning_rate_factor) == ("warn", None)


def test_a_limit_of_none_is_no_limit():
    section = configured(max_perplexity_ratio="none", action="rollback", rollback_learning_rate_factor=0.5).guard
    settings = make_guard_settings(section)
    assert settings is not None
    assert settings.limits.max_perplexity_ratio is None
    assert (settings.action, settings.rollback_learning_rate_factor) == ("rollback", 0.5)


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        ({"text": "no/such.txt"}, "guard.text = 'no/such.txt' cannot be read"),
        ({"min_format_fraction": 0.9}, "there is no format to check"),
    ],
)
def test_what_cannot_be_measured_is_known_before_training(tiny_policy: Policy, guard: dict[str, object], words: str):
    with pytest.raises(ConfigError, match=re.escape(words)):
        make_measurer(configured(**guard), tiny_policy, LocalSampler(tiny_policy))


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        ({"format": "("}, "is not a regular expression"),
        ({"general": ["everyday", "everyday"]}, "names 'everyday' twice"),
        ({"max_perplexity_ratio": 0.5}, "max_perplexity_ratio"),
        ({"action": "rolback"}, "rollback"),
        ({"every_stepz": 3}, "every_steps"),
    ],
)
def test_a_wrong_key_is_refused_by_name(guard: dict[str, object], words: str):
    with pytest.raises(ConfigError, match=re.escape(words)):
        configured(**guard)


def test_a_text_of_ones_own_is_read(tiny_policy: Policy, tmp_path: Path):
    path = tmp_path / "mine.txt"
    path.write_text("Sunny, then rain.", encoding="utf-8")
    measurer = make_measurer(configured(text=str(path), general=[]), tiny_policy, LocalSampler(tiny_policy))
    assert measurer is not None
    assert tiny_policy.decode(measurer.text) == "Sunny, then rain."
