"""What the guard measures: greedy answers, flags, a text; and what cannot be measured is known at once."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from klimb.errors import ConfigError
from klimb.experience import Sample, SamplingSettings
from klimb.policies import Policy
from klimb.samplers import Completion, LocalSampler, Sampler
from klimb.training.guard.base_metrics import MeasuresBase
from klimb.training.guard.general import everyday
from klimb.training.guard.measuring import Measurer, make_measurer
from klimb.training.guard.settings import GuardSettings

SAMPLE = Sample(
    sample_id="0-0",
    group_id="0",
    prompt=({"role": "user", "content": "Say 1"},),
    prompt_ids=(1,),
    response="1",
    response_ids=(1,),
    finish_reason="stop",
)


def measurer_of(settings: GuardSettings | None, policy: Policy, sampler: Sampler, **more: Any) -> Measurer | None:
    return make_measurer(settings, policy, sampler, max_tokens=2048, **more)


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
    measurer = measurer_of(GuardSettings(num_problems=4, text="none"), tiny_policy, sampler)
    assert isinstance(measurer, MeasuresBase)
    with measurer:
        measured = measurer.measure()
    assert measured.perplexity is None
    assert measured.general == {"everyday": (1.0, 1.0, 0.0, 0.0)}
    assert measured.answers.refusal == (False, False, True, False)
    assert measured.answers.empty == (False, False, False, True)
    assert [(asked.temperature, asked.max_new_tokens) for asked in sampler.asked] == [(0.0, 32)]


def test_measuring_twice_gives_the_same_and_moves_no_random_state(tiny_policy: Policy):
    measurer = measurer_of(GuardSettings(num_problems=3, max_new_tokens=6), tiny_policy, LocalSampler(tiny_policy))
    assert measurer is not None
    state = torch.get_rng_state()
    with measurer:
        assert measurer.measure() == measurer.measure()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_format_of_rollouts_is_that_of_the_guard_or_of_the_scoring(tiny_policy: Policy):
    rollouts = [replace(SAMPLE, response=text) for text in ("<a>1</a>", "1", "")]
    nothing = GuardSettings(general=(), text="none")
    own, scored = replace(nothing, format=r"^\d$"), "<a>.*</a>"
    for settings, scoring_format, expected in (
        (own, scored, (False, True, False)),
        (nothing, scored, (True, False, False)),
        (nothing, "", ()),
    ):
        sampler = LocalSampler(tiny_policy)
        measurer = measurer_of(settings, tiny_policy, sampler, scoring_format=scoring_format)
        assert measurer is not None
        with measurer:
            flags = measurer.flag(rollouts)
        assert flags.format_valid == expected
        assert flags.empty == (False, False, True)


def test_without_settings_nothing_is_measured(tiny_policy: Policy):
    assert measurer_of(None, tiny_policy, LocalSampler(tiny_policy)) is None


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        ({"text": "no/such.txt"}, "guard.text = 'no/such.txt' cannot be read"),
        ({"min_format_fraction": 0.9}, "there is no format to check"),
    ],
)
def test_what_cannot_be_measured_is_known_before_training(tiny_policy: Policy, guard: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=re.escape(words)):
        measurer_of(GuardSettings(**guard), tiny_policy, LocalSampler(tiny_policy))


def test_a_text_of_ones_own_is_read(tiny_policy: Policy, tmp_path: Path):
    path = tmp_path / "mine.txt"
    path.write_text("Sunny, then rain.", encoding="utf-8")
    measurer = measurer_of(GuardSettings(text=str(path), general=()), tiny_policy, LocalSampler(tiny_policy))
    assert measurer is not None
    assert tiny_policy.decode(measurer.text) == "Sunny, then rain."
