import threading
from collections.abc import Sequence
from dataclasses import fields, replace

import pytest
import torch

from klimb.experience import Sample, SamplingSettings
from klimb.samplers import Completion
from klimb.tasks import Problem, Response, Score, ScoringError
from klimb.training import (
    AdvantageSettings,
    LoopSettings,
    PromptStream,
    RolloutContext,
    RolloutSettings,
    RolloutWorker,
    collect_rollouts,
)
from klimb.training.rollouts import compute_credits

ROUND = RolloutContext(seed=5, step=3, policy_version=17, record_log_ref=True)


class ScriptedSampler:
    """Gives each prompt in turn the next group of the script, one character a response."""

    def __init__(self, policy, script: Sequence[str]) -> None:
        self.policy, self.script, self.num_prompts = policy, iter(script), []

    def sample(self, prompts, *, num_samples: int, settings: SamplingSettings, generator: torch.Generator):
        self.num_prompts.append(len(prompts))
        return [[self._completion(character) for character in next(self.script)] for _ in prompts]

    def _completion(self, character: str) -> Completion:
        ids = (*self.policy.tokenizer(character, add_special_tokens=False).input_ids, self.policy.end_ids[0])
        return Completion(response_ids=ids, log_mu=(-1.5, -0.25), log_model=(-2.0, -0.5), finish_reason="stop")


class StreamingScript(ScriptedSampler):
    """The same, each group as it ends, the last prompt first."""

    def stream(self, prompts, **arguments):
        yield from reversed(list(enumerate(self.sample(prompts, **arguments))))


class DigitScorer:
    """A digit is its own reward and correct from 5 on; anything else has no reward."""

    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        return [
            Score(reward=float(response.text), correct=response.text >= "5", parts={"digit": float(response.text)})
            if response.text.isdigit()
            else Score(reward=None, reason="not a digit")
            for response in responses
        ]


EVERY_GROUP = AdvantageSettings(group_filter=False)


@pytest.fixture
def draw(tiny_policy):
    """Collects what the script says: a text a group, a character a response."""

    def run(script: Sequence[str], *, sampler_class=ScriptedSampler, scorer=None, **changes):
        problems = [
            Problem(problem_id=f"p{number}", messages=({"role": "user", "content": str(number)},), answer="")
            for number in range(10)
        ]
        sampler = sampler_class(tiny_policy, script)
        named = {entry.name for entry in fields(AdvantageSettings)}
        of_groups = {key: value for key, value in changes.items() if key in named}
        of_rollouts = {key: value for key, value in changes.items() if key not in named}
        collection = collect_rollouts(
            RolloutWorker(policy=tiny_policy, sampler=sampler, scorer=scorer or DigitScorer(), problems=problems),
            PromptStream(len(problems), seed=0),
            settings=replace(RolloutSettings(num_prompts=2, num_samples=len(script[0])), **of_rollouts),
            advantages=replace(EVERY_GROUP, **of_groups),
            this_round=ROUND,
            sampling_generator=torch.Generator(),
            shuffle_generator=torch.Generator().manual_seed(1),
        )
        return collection, sampler

    return run


def texts(samples: Sequence[Sample]) -> list[str]:
    return [sample.response for sample in samples]


def test_samples_carry_everything_with_ids_from_seed_step_and_place(draw, tiny_policy):
    collection, _ = draw(["19", "37"])
    first, *_, last = collection.samples
    assert first.sample_id == "s5-t000003-g00000-0000"
    assert last.sample_id == "s5-t000003-g00001-0001"
    assert last.group_id == "s5-t000003-g00001"
    assert (last.response, last.reward, last.reward_parts) == ("7", 7.0, {"digit": 7.0})
    assert (last.log_mu, last.log_mu_provenance, last.log_ref) == ((-1.5, -0.25), "sampler", (-2.0, -0.5))
    assert (last.policy_version, last.model, last.finish_reason) == (17, tiny_policy.name, "stop")
    assert last.prompt_ids == tiny_policy.render(last.prompt)
    assert last.metadata["used"] == last.metadata["correct"] == "yes"
    assert first.metadata["correct"] == "no"
    assert last.metadata["problem_id"] == f"p{last.prompt[0]['content']}"
    assert len({sample.sample_id for sample in collection.samples}) == 4


def test_log_ref_is_left_open_when_the_reference_is_another_model(tiny_policy):
    actors = RolloutWorker(
        policy=tiny_policy,
        sampler=ScriptedSampler(tiny_policy, ["19"]),
        scorer=DigitScorer(),
        problems=[Problem(problem_id="p", messages=({"role": "user", "content": "?"},), answer="")],
    )
    collection = collect_rollouts(
        actors,
        PromptStream(1, seed=0),
        settings=RolloutSettings(num_prompts=1, num_samples=2),
        advantages=EVERY_GROUP,
        this_round=replace(ROUND, record_log_ref=False),
        sampling_generator=torch.Generator(),
        shuffle_generator=torch.Generator(),
    )
    assert [sample.log_ref for sample in collection.samples] == [None, None]


def test_advantages_belong_to_their_samples(draw):
    collection, _ = draw(["19", "37"])
    assert texts(collection.used) == ["1", "9", "3", "7"]
    assert compute_credits(collection.used, EVERY_GROUP, beta=0.0).tolist() == [-4, 4, -2, 2]


def test_without_the_filter_even_groups_are_trained_on_with_advantage_zero(draw):
    collection, sampler = draw(["33", "37"])
    assert compute_credits(collection.used, EVERY_GROUP, beta=0.0).tolist() == [0, 0, -2, 2]
    assert sampler.num_prompts == [2]
    assert collection.metrics["groups_dropped_fraction"] == 0


def test_the_filter_drops_even_groups_and_draws_others_in_their_place(draw):
    # Round 1: 33 is even, 28 is mixed. Round 2: one missing; 99 is even. Round 3: 47 is mixed. (Right means >= 5.)
    collection, sampler = draw(["33", "28", "99", "47"], group_filter=True)
    assert sampler.num_prompts == [2, 1, 1]
    assert texts(collection.used) == ["2", "8", "4", "7"]
    assert [sample.metadata["used"] for sample in collection.samples[:2]] == ["no: its group is even"] * 2
    assert len({sample.metadata["problem_id"] for sample in collection.samples}) == 4
    assert collection.metrics["num_rounds"] == 3
    assert collection.metrics["groups_dropped_fraction"] == 0.5
    assert collection.metrics["num_groups"] == 4


@pytest.mark.parametrize("group", ["14", "79"])
def test_the_filter_drops_groups_that_are_all_wrong_or_all_right_whatever_their_rewards(draw, group: str):
    collection, _ = draw([group, "28", "47"], group_filter=True)
    assert texts(collection.used) == ["2", "8", "4", "7"]


def test_refills_end_and_what_is_there_is_kept(draw):
    collection, sampler = draw(["33", "28", "11", "99"], group_filter=True, max_refills=1)
    assert sampler.num_prompts == [2, 1]
    assert texts(collection.used) == ["2", "8"]


def test_nothing_to_learn_from_is_an_empty_batch_and_no_error(draw):
    collection, _ = draw(["33", "99"], group_filter=True, max_refills=0)
    assert collection.used == ()
    assert collection.metrics["groups_dropped_fraction"] == 1
    assert collection.metrics["reward_mean"] == 6


def test_responses_without_a_reward_are_counted_and_never_averaged_in(draw):
    collection, _ = draw(["1x9", "xx7"])
    # Group 1 keeps two responses with mean 5; group 2 keeps one only, which cannot be compared with itself.
    assert texts(collection.used) == ["1", "9"]
    assert compute_credits(collection.used, EVERY_GROUP, beta=0.0).tolist() == [-4, 4]
    assert collection.metrics["num_errors"] == 3
    assert collection.metrics["reward_mean"] == pytest.approx((1 + 9 + 7) / 3)
    assert [sample.metadata["used"] for sample in collection.samples] == [
        "yes",
        "no: it has no reward",
        "yes",
        "no: it has no reward",
        "no: it has no reward",
        "no: fewer than 2 responses of its group have a reward",
    ]
    assert collection.samples[1].reward is None
    assert collection.samples[1].reward_reason == "not a digit"


def test_metrics_are_means_over_all_that_was_drawn(draw):
    metrics = draw(["19", "37"])[0].metrics
    assert metrics["reward_mean"] == 5
    assert metrics["reward_std"] == pytest.approx(((16 + 16 + 4 + 4) / 4) ** 0.5)
    assert metrics["accuracy"] == 0.5
    assert metrics["reward_part_digit"] == 5
    assert metrics["length_mean"] == metrics["length_max"] == 2
    assert metrics["num_tokens_sampled"] == 8
    assert metrics["truncated_fraction"] == 0


def test_shuffled_rewards_are_the_same_rewards_on_other_responses(draw):
    straight, _ = draw(["1234", "5678"])
    shuffled, _ = draw(["1234", "5678"], shuffle_rewards=True)
    rewards = [sample.reward for sample in shuffled.samples]
    assert sorted(reward or 0 for reward in rewards) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert rewards != [sample.reward for sample in straight.samples]
    # Over the whole batch, not within groups: some reward of the second group has come to the first.
    assert max(reward or 0 for reward in rewards[:4]) > 4
    assert texts(shuffled.samples) == texts(straight.samples)
    assert all(sample.metadata["rewards"] == "shuffled" for sample in shuffled.samples)
    assert all("rewards" not in sample.metadata for sample in straight.samples)
    # The verdict travels with the reward, so that the filter learns nothing of the truth either.
    assert all((sample.reward or 0) >= 5 for sample in shuffled.samples if sample.metadata["correct"] == "yes")


def test_shuffling_leaves_missing_rewards_where_they_are(draw):
    shuffled, _ = draw(["1x34", "5678"], shuffle_rewards=True)
    assert [sample.reward is None for sample in shuffled.samples] == [False, True] + [False] * 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_prompts": 0}, "num_prompts and num_samples must be >= 1"),
        ({"temperature": 0.0}, "temperature is 0"),
    ],
)
def test_bad_settings_are_named(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        RolloutSettings(**changes)


def test_one_response_a_prompt_is_fine_without_a_group_baseline():
    single = RolloutSettings(num_samples=1)
    LoopSettings(sampling=single, advantages=AdvantageSettings(kind="batch-z-score"))
    with pytest.raises(ValueError, match=r"num_samples is 1; use at least 2, or advantages\.kind = 'batch-z-score'"):
        LoopSettings(sampling=single)
    with pytest.raises(ValueError, match="unknown advantages 'group-meen'"):
        AdvantageSettings(kind="group-meen")


@pytest.mark.parametrize("changes", [{}, {"shuffle_rewards": True}, {"group_filter": True}])
def test_groups_that_come_as_they_end_give_the_collection_of_those_that_come_together(draw, changes):
    together, _ = draw(["19", "37", "55", "28"], **changes)
    one_by_one, _ = draw(["19", "37", "55", "28"], sampler_class=StreamingScript, **changes)
    assert [replace(sample, created_at=0.0) for sample in one_by_one.samples] == [
        replace(sample, created_at=0.0) for sample in together.samples
    ]
    of_each = [compute_credits(rollouts.used, EVERY_GROUP, beta=0.0) for rollouts in (one_by_one, together)]
    assert torch.equal(*of_each)


def test_a_group_is_scored_while_the_next_is_being_drawn(draw):
    is_scored = threading.Event()

    class Waiting(ScriptedSampler):
        """Hands over the second group only when the first one has its scores."""

        def stream(self, prompts, **arguments):
            first, second = enumerate(self.sample(prompts, **arguments))
            yield first
            assert is_scored.wait(timeout=60)
            yield second

    class Telling(DigitScorer):
        def score_many(self, problems, responses):
            scores = super().score_many(problems, responses)
            is_scored.set()
            return scores

    collection, _ = draw(["19", "37"], sampler_class=Waiting, scorer=Telling())
    assert [sample.reward for sample in collection.samples] == [1.0, 9.0, 3.0, 7.0]


def test_an_error_of_the_scorer_ends_the_drawing(draw):
    class Failing:
        def score_many(self, problems, responses):
            raise ScoringError("too many responses without a reward")

    for sampler_class in (ScriptedSampler, StreamingScript):
        with pytest.raises(ScoringError, match="without a reward"):
            draw(["19", "37"], sampler_class=sampler_class, scorer=Failing())
