"""Prompts have the length that is asked for, and every group has something to compare."""

import json
import random

import pytest

from benchmarks.klimb_steps import make_loop_settings, phases_of
from benchmarks.versions import summary_lines
from benchmarks.vs_trl.tables import check_equal_work, summary
from benchmarks.vs_trl.turns import StepRecord
from benchmarks.workload import Workload, make_task, prompt_of
from klimb.policies import Policy
from klimb.tasks import Response


def record(*, sample: float, update: float, tokens: int = 8, peak: float = 1.0) -> StepRecord:
    return StepRecord(
        sample_seconds=sample,
        score_seconds=0.0,
        update_seconds=update,
        cpu_seconds=sample + update,
        num_tokens_sampled=tokens,
        num_tokens_trained=tokens,
        reward_mean=0.0,
        peak_gib=peak,
    )


def test_prompts_are_as_long_as_asked(tiny_policy: Policy):
    workload = Workload(num_prompts=3, prompt_tokens=60)
    prompts = [tiny_policy.render(problem.messages) for problem in make_task(workload, tiny_policy.render).train]
    assert [len(prompt) for prompt in prompts] == [60, 60, 60]
    assert len(set(prompts)) == 3


def test_a_prompt_shorter_than_the_chat_template_is_refused(tiny_policy: Policy):
    with pytest.raises(ValueError, match="ask for more than"):
        prompt_of(tiny_policy.render, 5, random.Random(0))


def test_rewards_differ_from_text_to_text(tiny_policy: Policy):
    task = make_task(Workload(num_prompts=1, prompt_tokens=60), tiny_policy.render)
    scores = [task.score(task.train[0], Response(text=text, num_tokens=1, finish_reason="length")) for text in "abcd"]
    assert len({score.reward for score in scores}) == 4


def test_a_workload_survives_the_way_to_another_process():
    workload = Workload(num_epochs=4, reference="fixed", learning=True)
    assert Workload.from_json(workload.to_json()) == workload
    assert json.loads(workload.to_json())["num_epochs"] == 4


def test_epochs_are_optimizer_steps_on_the_whole_batch():
    settings = make_loop_settings(Workload(num_epochs=4), num_steps=1)
    assert (settings.training.num_epochs, settings.training.num_minibatches) == (4, 1)


def test_phases_add_up_to_the_seconds_seen_from_outside():
    metrics = {
        "sample_seconds": 3.0,
        "score_seconds": 0.25,
        "reference_seconds": 1.0,
        "update_seconds": 4.0,
        "step_seconds": 9.0,
    }
    phases = phases_of(metrics, seconds=10.0)
    # 0.75 s of the step have no name: the measured gap. The second outside of it is recording, part of the rest.
    assert (phases.sample, phases.score, phases.update) == (3.0, 2.0, 5.0)


def test_the_summary_pairs_the_steps_of_the_same_round():
    records = {
        "klimb": [record(sample=1, update=1, peak=2.0), record(sample=2, update=2, peak=3.0)],
        "TRL": [record(sample=3, update=3, peak=4.0), record(sample=6, update=6, peak=6.0)],
    }
    ratios = summary(records)
    assert (ratios["whole"].median, ratios["whole"].lowest) == (3.0, 3.0)
    assert ratios["memory"].median == 0.5
    assert "score" not in ratios


def test_sides_that_trained_on_different_numbers_of_tokens_are_not_compared():
    with pytest.raises(ValueError, match="the work differs"):
        check_equal_work({"klimb": [record(sample=1, update=1)], "TRL": [record(sample=1, update=1, tokens=7)]})


def test_another_version_is_told_only_what_differs_from_the_defaults():
    workload = Workload(num_prompts=3, dtype="float32")
    assert json.loads(workload.to_json()) == {"num_prompts": 3, "dtype": "float32"}
    assert Workload.from_json(workload.to_json()) == workload


def test_two_versions_are_compared_step_by_step():
    records = {
        "this": [record(sample=1, update=2), record(sample=1, update=3, peak=2.0)],
        "other": [record(sample=1, update=3), record(sample=3, update=3)],
    }
    whole, sample, update, cpu, peak = summary_lines(records)[1:]
    assert whole.split()[:5] == ["whole,", "s", "3.50", "5.00", "1.42"]
    assert sample.split()[2:5] == ["1.00", "2.00", "2.00"]
    assert update.split()[2:5] == ["2.50", "3.00", "1.25"]
    assert cpu.split()[2:5] == whole.split()[2:5]
    assert peak.split() == ["peak,", "GiB", "2.00", "1.00"]
