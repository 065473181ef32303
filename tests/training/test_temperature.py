"""The policy's temperature in a run: whoever draws, scores, trains, evaluates or saves means the same policy."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from klimb.experience import Sample, SamplingSettings
from klimb.experience.store import Store
from klimb.losses import Corrected, DualClip, Objective
from klimb.losses.settings import AutomaticCorrection
from klimb.policies import load_policy
from klimb.samplers import LocalSampler
from klimb.training import (
    RECIPES,
    CreditSettings,
    LoopSettings,
    OfflineSource,
    OptimizerSettings,
    RolloutSettings,
    SourceSettings,
    TrainingSettings,
    read_metrics,
    reference_named,
)
from klimb.training.evaluation import evaluate
from klimb.training.run_folder import read_evaluations
from klimb.training.settings import EvaluationSettings, choose_correction, why_centred
from klimb.training.temperature import find_temperature

EVALUATED = EvaluationSettings(every_steps=2, num_samples=4)
LOG_ONLY = SourceSettings(log=1.0)


def settings_of(tiny_run, **sampling) -> LoopSettings:
    """One optimizer step a batch, two batches, large steps."""
    base = tiny_run.BASE
    return replace(
        base,
        training=TrainingSettings(num_steps=2),
        sampling=replace(base.sampling, max_new_tokens=6, **sampling),
        optimizer=OptimizerSettings(learning_rate=1e-2, warmup_steps=1),
        reference=reference_named("fixed"),
    )


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.4])
def test_w_is_one_and_no_clip_acts_before_the_first_step_at_any_temperature(
    tiny_run, tiny_policy, tmp_path: Path, temperature: float
):
    settings = replace(settings_of(tiny_run, temperature=temperature), evaluation=EVALUATED)
    tight = Objective(beta=0.01, clip=DualClip(low=0.01, high=0.01, ceiling=1.1))
    tiny_run.run(tiny_policy, tmp_path, settings, objective=tight, held_out=tiny_run.PROBLEMS)
    assert tiny_policy.temperature == temperature
    for row in read_metrics(tmp_path / "metrics.jsonl"):
        assert row["clip_at_start_fraction"] == 0
        assert (row["w_p01"], row["w_max"]) == pytest.approx((1, 1), abs=1e-4)
        assert row["mismatch_max_abs"] < 1e-4
    (evaluation,) = read_evaluations(tmp_path / "evaluations.jsonl")
    assert evaluation.temperature == temperature


PENALISED = {"repetition_penalty": 1.6, "min_new_tokens": 3, "temperature": 0.8}


def test_under_a_penalty_and_a_minimum_w_is_the_policy_over_what_was_really_drawn(
    tiny_run, tiny_policy, tiny_model_path, tmp_path: Path
):
    seen: list = []

    class Watched(Objective):
        def __call__(self, inputs):
            seen.append(inputs)
            return super().__call__(inputs)

    settings = replace(settings_of(tiny_run, **PENALISED), training=TrainingSettings(num_steps=1))
    tiny_policy.end_ids = tuple(range(2, 98, 9))
    tiny_run.run(tiny_policy, tmp_path, settings, objective=Watched(beta=0.1, clip="none"))
    start = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
    expected: list[float] = []
    for sample in Store(tmp_path / "rollouts").samples():
        ids = torch.tensor([[*sample.prompt_ids, *sample.response_ids]])
        with torch.no_grad():
            logits = start.causal_lm(input_ids=ids).logits[0, len(sample.prompt_ids) - 1 : -1]
        for step, token in enumerate(sample.response_ids):
            log_pi = (logits[step] / 0.8).log_softmax(-1)[token]
            drawn_from = logits[step].clone()
            for each in {*sample.prompt_ids, *sample.response_ids[:step]}:
                drawn_from[each] *= 1.6 if drawn_from[each] < 0 else 1 / 1.6
            if step < 3:
                drawn_from[list(tiny_policy.end_ids)] = -torch.inf
            log_mu = (drawn_from / 0.8).log_softmax(-1)[token]
            expected.append(float((log_pi - log_mu).exp()))
    # The last call is the optimizer step; one before it measures what the clip would do.
    last = seen[-1]
    found = (last.log_pi - last.log_mu)[last.mask].exp().tolist()
    assert sorted(found) == pytest.approx(sorted(expected), rel=1e-3)
    assert min(expected) < 0.9 < 1.1 < max(expected)


def test_an_evaluation_ends_answers_at_stop_strings_and_penalises_nothing(tiny_run, tiny_policy, tmp_path: Path):
    asked: list[SamplingSettings] = []

    class Watching(LocalSampler):
        def sample(self, prompts, *, num_samples, settings, generator):
            asked.append(settings)
            return super().sample(prompts, num_samples=num_samples, settings=settings, generator=generator)

    settings = replace(
        settings_of(tiny_run, stop=("a",), **PENALISED), evaluation=EvaluationSettings(every_steps=2, num_samples=2)
    )
    tiny_run.run(tiny_policy, tmp_path, settings, sampler=Watching(tiny_policy), held_out=tiny_run.PROBLEMS)
    assert asked == [SamplingSettings(temperature=0.8, max_new_tokens=6, stop=("a",))]
    drawn = list(Store(tmp_path / "rollouts").samples())
    assert all("a" not in sample.response[:-1] for sample in drawn)
    assert {sample.finish_reason for sample in drawn if sample.response.endswith("a")} == {"stop"}


@pytest.mark.parametrize("sampling", [{"temperature": 0.6}, {"top_p": 0.7}, {"repetition_penalty": 0.6}])
def test_a_clip_of_a_policy_that_did_not_draw_is_counted_before_the_first_step_and_centred_counts_none(
    tiny_run, tiny_policy, tmp_path: Path, caplog, sampling: dict
):
    settings = replace(settings_of(tiny_run, **sampling), temperature=1.0)
    tight = Objective(beta=0.0, clip=DualClip(low=0.01, high=0.01))
    assert why_centred(settings, tight)
    start = {name: weight.detach().clone() for name, weight in tiny_policy.trainable().items()}
    tiny_run.run(tiny_policy, tmp_path / "plain", settings, objective=tight)
    assert [row["clip_at_start_fraction"] > 0.05 for row in read_metrics(tmp_path / "plain" / "metrics.jsonl")] == [
        True,
        True,
    ]
    assert caplog.text.count("of the units before the first step on the batch") == 1
    caplog.clear()
    for name, weight in tiny_policy.trainable().items():
        weight.data.copy_(start[name])
    correction = choose_correction(AutomaticCorrection(), settings, tight)
    tiny_run.run(
        tiny_policy, tmp_path / "centred", settings, objective=Corrected(objective=tight, correction=correction)
    )
    for row in read_metrics(tmp_path / "centred" / "metrics.jsonl"):
        assert row["clip_at_start_fraction"] == 0
        assert row["w_p01"] < 0.99 or row["w_p99"] > 1.01
    assert "before the first step" not in caplog.text


def test_the_reference_the_critics_kl_and_the_entropy_are_the_policys_own(tiny_run, tiny_policy, tmp_path: Path):
    """With top-p, log_mu − log_ref is not 0 where the policy is its reference; the KL in the reward is."""
    settings = replace(
        settings_of(tiny_run, temperature=0.7, top_p=0.7),
        training=TrainingSettings(num_steps=1),
        advantages=replace(tiny_run.BASE.advantages, kind="no-baseline", group_filter=False),
        credit=CreditSettings(kind="reward-to-go", kl_in_reward=5.0, whiten=False),
        reference=reference_named("iterative"),
    )
    seen: list = []

    class Watched(Objective):
        def __call__(self, inputs):
            seen.append(inputs)
            return super().__call__(inputs)

    tiny_run.run(tiny_policy, tmp_path, settings, objective=Watched(beta=0.0, clip="none"))
    firsts = [float(row[0]) for inputs in seen for row in inputs.token_advantages]
    shares = [count / length for length in range(1, 7) for count in range(length + 1)]
    assert firsts and all(min(abs(first - share) for share in shares) < 1e-3 for first in firsts)


def logged(policy, folder: Path, *temperatures: float | None) -> OfflineSource:
    """A log of one group for each temperature; None for a group that does not say."""
    store = Store(folder)
    for number, temperature in enumerate(temperatures):
        sampling = None if temperature is None else SamplingSettings(temperature=temperature, max_new_tokens=4)
        store.append(
            [
                Sample(
                    sample_id=f"{number}-{index}",
                    group_id=str(number),
                    prompt=({"role": "user", "content": "Say a"},),
                    prompt_ids=policy.render(({"role": "user", "content": "Say a"},)),
                    response=policy.decode((10 + index, 11)),
                    response_ids=(10 + index, 11),
                    finish_reason="length",
                    log_mu=(-1.0, -1.0),
                    log_mu_provenance="sampler",
                    reward=float(index),
                    sampling=sampling,
                )
                for index in range(2)
            ]
        )
    return OfflineSource(store, policy, source="log")


@pytest.mark.parametrize(("recorded", "found"), [((0.7, 0.7), 0.7), ((1.0,), 1.0), ((0.6,), 0.6)])
def test_a_run_on_logs_alone_has_the_temperature_that_they_recorded(tiny_policy, tmp_path, recorded, found):
    logs = (logged(tiny_policy, tmp_path, *recorded),)
    assert find_temperature(LoopSettings(sources=LOG_ONLY), logs, needs_log_mu=True) == found
    asked = LoopSettings(sources=LOG_ONLY, temperature=1.3)
    assert find_temperature(asked, logs, needs_log_mu=True) == 1.3


@pytest.mark.parametrize(
    ("recorded", "words"),
    [
        ((0.7, 1.0), "at temperatures 0.7, 1,"),
        ((0.7, None), "at temperatures 0.7 and some that were not recorded"),
        ((None,), "at a temperature that was not recorded"),
        ((0.0,), "greedily, at temperature 0"),
    ],
)
def test_where_logs_do_not_say_one_temperature_a_loss_with_a_ratio_must_be_told(tiny_policy, tmp_path, recorded, words):
    logs = (logged(tiny_policy, tmp_path, *recorded),)
    settings = LoopSettings(sources=LOG_ONLY)
    with pytest.raises(ValueError, match=words) as raised:
        find_temperature(settings, logs, needs_log_mu=True)
    assert "model.temperature" in str(raised.value)
    assert find_temperature(settings, logs, needs_log_mu=False) == 1.0


SETTINGS = LoopSettings()
AT_07 = replace(SETTINGS, sampling=RolloutSettings(temperature=0.7))
EXPLORING = replace(AT_07, temperature=1.0)
CUT = replace(SETTINGS, sampling=RolloutSettings(top_p=0.9))
PENALTY = replace(SETTINGS, sampling=RolloutSettings(repetition_penalty=1.1, min_new_tokens=2))
STOPPED = replace(SETTINGS, sampling=RolloutSettings(stop=("a",)))
STALE = replace(SETTINGS, sources=SourceSettings(replay=0.5))
LOGGED = replace(SETTINGS, sources=SourceSettings(log=0.5))


@pytest.mark.parametrize(
    ("settings", "recipe", "why"),
    [
        (SETTINGS, "rpg-reinforce-urkl", ""),
        (AT_07, "rpg-reinforce-urkl", ""),
        (STALE, "rpg-reinforce-urkl", ""),
        (EXPLORING, "rpg-reinforce-urkl", "sampling.temperature = 0.7, the policy's is 1"),
        (CUT, "grpo", "sampling.top_p = 0.9"),
        (PENALTY, "grpo", "sampling.min_new_tokens = 2, sampling.repetition_penalty = 1.1"),
        (STOPPED, "grpo", ""),
        (CUT, "topr", "sampling.top_p = 0.9"),
        (CUT, "rloo", "sampling.top_p = 0.9"),
        (CUT, "asymre", ""),
        (LOGGED, "grpo", "sources.log = 0.5"),
        (LOGGED, "gspo", "sources.log = 0.5"),
        (LOGGED, "topr", ""),
        (LOGGED, "cispo", ""),
        (LOGGED, "bc", ""),
        (LOGGED, "kto", ""),
        (LOGGED, "oapl", ""),
    ],
)
def test_a_clip_is_centred_on_the_policy_before_the_batch_where_that_is_not_mu(settings, recipe, why):
    loss = RECIPES[recipe].objective
    assert why_centred(settings, loss) == why
    chosen = choose_correction(AutomaticCorrection(off_policy_mask=0.5), settings, loss)
    assert chosen.kind == ("decoupled" if why else "none")
    assert chosen.off_policy_mask == 0.5
    if why:
        assert chosen.level == loss.level


def test_a_policy_that_explores_at_another_temperature_is_evaluated_and_scored_at_its_own(
    tiny_run, tiny_policy, tmp_path: Path
):
    settings = replace(settings_of(tiny_run, temperature=1.5), temperature=0.5, evaluation=EVALUATED)
    tiny_run.run(tiny_policy, tmp_path, settings, held_out=tiny_run.PROBLEMS)
    (evaluation,) = read_evaluations(tmp_path / "evaluations.jsonl")
    assert (evaluation.temperature, tiny_policy.temperature) == (0.5, 0.5)
    direct = evaluate(
        tiny_policy,
        LocalSampler(tiny_policy),
        tiny_run.LetterCounter(),
        tiny_run.PROBLEMS,
        settings=SamplingSettings(temperature=0.5, max_new_tokens=6),
        num_samples=4,
        generator=torch.Generator().manual_seed(0),
    )
    assert direct.mean == evaluation.mean
