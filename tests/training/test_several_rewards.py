"""Several rewards in training, against numbers computed by hand."""

import math
from dataclasses import replace

import pytest
import torch

from klimb.experience import Sample
from klimb.experience.advantages import scaled
from klimb.tasks import RewardSettings
from klimb.training import AdvantageSettings, LoopSettings, RolloutSettings
from klimb.training.filtered_groups import filter_group, has_zero_variance
from klimb.training.rollouts import compute_credits, measure_rollouts

FLOOR = 1e-6
TASK = RewardSettings(reward="task")


def sample(number: int, group: str, correct: str = "", **values: float) -> Sample:
    """A sample of the rewards given, each of weight 1 in what was recorded."""
    return Sample(
        sample_id=f"{group}-{number}",
        group_id=group,
        prompt=({"role": "user", "content": "?"},),
        prompt_ids=(1,),
        response="a",
        response_ids=(2,),
        finish_reason="stop",
        reward=math.fsum(values.values()),
        reward_parts=values,
        metadata={f"reward/{name}": repr(value) for name, value in values.items()}
        | ({"correct": correct} if correct else {}),
    )


def group_of(name: str, *values: dict[str, float]) -> list[Sample]:
    return [sample(number, name, **each) for number, each in enumerate(values)]


def credits(samples, kind: str, **rewards: RewardSettings) -> list[float]:
    return compute_credits(samples, AdvantageSettings(kind=kind), beta=0.0, rewards=rewards).tolist()


def test_a_value_is_scaled_over_its_group_or_the_batch():
    values = torch.tensor([0.0, 2.0, 10.0, 14.0], dtype=torch.float64)
    a, b = 1 / (math.sqrt(2) + FLOOR), 2 / (math.sqrt(8) + FLOOR)
    assert scaled(values, ["a", "a", "b", "b"], over="group").tolist() == pytest.approx([-a, a, -b, b], rel=1e-14)
    # The mean is 6.5; 42.25 + 20.25 + 12.25 + 56.25 = 131, over 3.
    over = math.sqrt(131 / 3) + FLOOR
    expected = [-6.5 / over, -4.5 / over, 3.5 / over, 7.5 / over]
    assert scaled(values, ["a", "a", "b", "b"], over="batch").tolist() == pytest.approx(expected, rel=1e-14)


def test_equal_values_a_single_one_and_one_that_does_not_apply_scale_to_exactly_0():
    values = torch.tensor([0.1, 0.1, 0.1, 5.0, math.nan, 1.0, 3.0], dtype=torch.float64)
    found = scaled(values, ["a", "a", "a", "b", "b", "c", "c"], over="group").tolist()
    c = 1 / (math.sqrt(2) + FLOOR)
    assert found[:5] == [0.0] * 5
    assert found[5:] == pytest.approx([-c, c], rel=1e-14)
    assert scaled(values, ["a", "a", "a", "b", "b", "c", "c"], over="batch")[4] == 0.0


def test_the_baseline_is_taken_from_the_sum_of_the_scaled_rewards():
    # right: 1, 0 with mean 0.5 and deviation sqrt(0.5); long: 100, 300 with mean 200 and deviation sqrt(20000).
    samples = group_of("g", {"right": 1.0, "long": 100.0}, {"right": 0.0, "long": 300.0})
    right = RewardSettings(reward="task", scale="group")
    long = RewardSettings(reward="python:m.f", scale="group", weight=0.5)
    z = 0.5 / (math.sqrt(0.5) + FLOOR)
    y = 100 / (math.sqrt(20_000) + FLOOR)
    found = credits(samples, "group-mean", right=right, long=long)
    assert found == pytest.approx([z - 0.5 * y, 0.5 * y - z], rel=1e-6)
    assert credits(samples, "no-baseline", right=right, long=long) == pytest.approx(found, rel=1e-6)


def test_gdpo_is_scaling_in_the_group_and_a_z_score_over_the_batch():
    samples = [
        *group_of("g", {"right": 1.0}, {"right": 0.0}),
        *group_of("h", {"right": 5.0}, {"right": 5.0}),
    ]
    z = 0.5 / (math.sqrt(0.5) + FLOOR)
    over = math.sqrt(2 * z**2 / 3) + FLOOR
    found = credits(samples, "batch-z-score", right=RewardSettings(reward="task", scale="group"))
    assert found == pytest.approx([z / over, -z / over, 0.0, 0.0], abs=1e-7)


def test_what_is_not_scaled_enters_as_it_was_recorded():
    samples = group_of("g", {"right": 1.0, "long": 100.0, "format": 0.5}, {"right": 0.0, "long": 300.0})
    y = 100 / (math.sqrt(20_000) + FLOOR)
    found = credits(samples, "no-baseline", right=TASK, long=RewardSettings(reward="python:m.f", scale="batch"))
    assert found == pytest.approx([1.5 - y, y], rel=1e-6)


def test_without_a_scale_the_credits_are_those_of_the_sum_bit_for_bit():
    samples = group_of("g", {"right": 1.0, "long": 0.1}, {"right": 0.0, "long": 0.3}, {"right": 1.0, "long": 0.7})
    assert credits(samples, "group-z-score", right=TASK, long=TASK) == credits(samples, "group-z-score")


def test_a_weight_may_change_between_a_log_and_its_training():
    samples = group_of("g", {"long": 100.0}, {"long": 300.0})
    y = 100 / (math.sqrt(20_000) + FLOOR)
    twice = credits(samples, "no-baseline", long=RewardSettings(reward="python:m.f", scale="group", weight=2.0))
    assert twice == pytest.approx([-2 * y, 2 * y], rel=1e-6)


def test_a_sample_that_does_not_say_its_rewards_cannot_be_scaled_and_is_named():
    bare = [replace(each, metadata={}) for each in group_of("g", {"right": 1.0}, {"right": 0.0})]
    with pytest.raises(ValueError, match=r"sample g-0 has a reward and says nothing of rewards\.right"):
        credits(bare, "group-mean", right=RewardSettings(reward="task", scale="group"))


def test_a_group_is_even_by_its_sum_and_by_its_parts_where_they_are_scaled():
    traded = group_of("g", {"right": 1.0, "style": 0.0}, {"right": 0.0, "style": 1.0})
    plain = {"right": TASK, "style": TASK}
    moved = {"right": RewardSettings(reward="task", scale="batch"), "style": TASK}
    assert has_zero_variance(traded, plain)
    assert not has_zero_variance(traded, moved)
    same = group_of("g", {"right": 1.0, "style": 0.5}, {"right": 1.0, "style": 0.5})
    assert has_zero_variance(same, moved)


def test_a_group_that_is_all_right_still_teaches_what_another_reward_tells_apart():
    group = [sample(0, "g", "yes", right=1.0, style=0.2), sample(1, "g", "yes", right=1.0, style=0.9)]
    assert has_zero_variance(group)
    assert not has_zero_variance(group, {"right": TASK, "style": TASK})
    kept = filter_group(group, AdvantageSettings(), {"right": TASK, "style": TASK})
    assert len(kept.used) == 2


def test_each_reward_is_measured_before_its_weight_over_the_responses_it_applies_to():
    group = group_of("g", {"right": 1.0, "style": 4.0}, {"right": 0.0, "style": 2.0}, {"right": 0.0})
    failed = replace(group[0], sample_id="g-9", reward=None, reward_parts={})
    metrics = measure_rollouts([filter_group([*group, failed], AdvantageSettings())])
    assert metrics["rewards/right/mean"] == pytest.approx(1 / 3)
    assert metrics["rewards/right/std"] == pytest.approx(math.sqrt(2) / 3)
    assert (metrics["rewards/style/mean"], metrics["rewards/style/std"]) == (3.0, 1.0)
    assert metrics["reward_part_style"] == 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"advantages": AdvantageSettings(kind="zero")}, "does nothing that advantages.kind = 'zero' could read"),
        (
            {"advantages": AdvantageSettings(kind="batch-z-score"), "sampling": RolloutSettings(num_samples=1)},
            "sampling.num_samples is 1",
        ),
    ],
)
def test_a_scale_that_cannot_act_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LoopSettings(rewards={"right": RewardSettings(reward="task", scale="group")}, **changes)


def test_parts_that_differ_by_rounding_alone_are_equal():
    moved = {"style": RewardSettings(reward="task", scale="batch")}
    dust = group_of("g", {"style": 0.1 + 0.2 + 0.3}, {"style": 0.3 + 0.2 + 0.1})
    assert dust[0].reward != dust[1].reward
    assert has_zero_variance(dust) and has_zero_variance(dust, moved)
    apart = group_of("g", {"style": 0.6}, {"style": 0.6001})
    assert not has_zero_variance(apart) and not has_zero_variance(apart, moved)
    assert not has_zero_variance(group_of("g", {"style": 0.6}, {"other": 0.6}), moved)
