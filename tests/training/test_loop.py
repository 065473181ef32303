import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from klimb.experience import SamplingSettings, read_samples
from klimb.losses import Objective
from klimb.policies import load_policy
from klimb.samplers import LocalSampler
from klimb.training import (
    CloningSettings,
    EvaluationSettings,
    Optimizer,
    OptimizerSettings,
    clone,
    evaluate,
    newest_verified,
    read_metrics,
    reference_named,
    score_samples,
)
from klimb.training import loop as loop_module
from klimb.training import mismatch as mismatch_module
from klimb.training import state as state_module


def test_a_run_leaves_metrics_rollouts_and_checkpoints(tiny_run, tiny_policy, tmp_path: Path):
    told = []
    result = tiny_run.run(
        tiny_policy, tmp_path / "run", tiny_run.BASE, on_step=lambda metrics, samples: told.append((metrics, samples))
    )
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoints",
        "identity.json",
        "lock",
        "metrics.jsonl",
        "rollouts",
    ]
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [dict(metrics) for metrics, _ in told] == lines
    assert result.num_steps == 6 and result.metrics == lines[-1]
    assert result.checkpoint == tmp_path / "run" / "checkpoints" / "step-000006"
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-000004", "step-000006"]
    for step, (_, samples) in enumerate(told, start=1):
        assert read_samples(tmp_path / "run" / "rollouts" / f"step-{step:06d}.parquet") == list(samples)
    assert len({sample.sample_id for _, samples in told for sample in samples}) == 6 * 16
    assert [samples[0].policy_version for _, samples in told] == [0, 4, 8, 12, 16, 20]


def test_the_metrics_say_what_happened(tiny_run, tiny_policy, tmp_path: Path):
    line = dict(
        tiny_run.run(
            tiny_policy, tmp_path, replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=1))
        ).metrics
    )
    wanted = "reward_mean reward_std accuracy length_mean truncated_fraction num_errors groups_dropped_fraction entropy"
    wanted += " loss grad_norm learning_rate kl_pi_ref kl_mu_pi ess_token w_max clip_low_fraction mismatch_max_abs"
    wanted += " mismatch_mean_abs mismatch_k3 num_optimizer_steps optimizer_steps num_skipped_steps reference_age epoch"
    wanted += " sample_seconds score_seconds reference_seconds update_seconds step_seconds tokens_per_second"
    assert not set(wanted.split()) - set(line)
    assert line["mismatch_max_abs"] < 1e-4
    assert line["num_optimizer_steps"] == 4


def test_on_policy_with_a_reference_refreshed_at_every_collection_log_ref_is_log_mu(tiny_run, tiny_policy, tmp_path):
    rollouts = []
    tiny_run.run(tiny_policy, tmp_path, tiny_run.BASE, on_step=lambda _, samples: rollouts.append(samples))
    assert all(sample.log_ref == sample.log_mu for samples in rollouts for sample in samples)


def test_with_altered_sampling_log_ref_is_the_unaltered_policys_and_log_mu_what_was_drawn_from(
    tiny_run, tiny_policy, tmp_path: Path
):
    sampling = replace(tiny_run.BASE.sampling, temperature=0.7, top_k=20)
    settings = replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=1), sampling=sampling)
    before = []

    class Watching(LocalSampler):
        def stream(self, *arguments, **keywords):
            completed = dict(super().stream(*arguments, **keywords))
            before.extend(answer.log_model for number in sorted(completed) for answer in completed[number])
            yield from completed.items()

    rollouts = []
    metrics = tiny_run.run(
        tiny_policy,
        tmp_path,
        settings,
        sampler=Watching(tiny_policy),
        on_step=lambda _, samples: rollouts.append(samples),
    ).metrics
    assert [sample.log_ref for sample in rollouts[0]] == before
    assert all(sample.log_ref != sample.log_mu for sample in rollouts[0])
    assert metrics["mismatch_max_abs"] < 1e-4  # between log_model and the trainer, not between log_mu and the trainer


def test_a_reference_that_is_another_model_is_scored_for_what_is_trained_on(tiny_run, tiny_policy, tmp_path: Path):
    start = {name: parameter.detach().clone() for name, parameter in tiny_policy.trainable().items()}
    rollouts = []
    settings = replace(
        tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=3), reference=reference_named("fixed")
    )
    tiny_run.run(tiny_policy, tmp_path, settings, on_step=lambda _, samples: rollouts.append(samples))
    with torch.no_grad():
        for name, parameter in tiny_policy.trainable().items():
            parameter.copy_(start[name])
    expected = score_samples(tiny_policy, rollouts[2], max_tokens=1000)
    for sample, values in zip(rollouts[2], expected, strict=True):
        assert sample.log_ref == pytest.approx(values, abs=1e-5)


def test_recomputed_log_mu_is_the_trainers_and_says_so(tiny_run, tiny_policy, tmp_path: Path):
    rollouts = []
    metrics = tiny_run.run(
        tiny_policy,
        tmp_path,
        replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=1, log_mu="recomputed")),
        on_step=lambda _, samples: rollouts.append(samples),
    ).metrics
    assert {sample.log_mu_provenance for sample in rollouts[0]} == {"recomputed"}
    assert all(sample.log_ref == sample.log_mu for sample in rollouts[0])
    assert 0 <= metrics["mismatch_max_abs"] < 1e-4


@pytest.mark.parametrize("rule", ["recomputed", "auto"])
def test_recomputing_what_was_not_plainly_drawn_is_refused(tiny_run, rule):
    sampling = replace(tiny_run.BASE.sampling, top_p=0.9)
    with pytest.raises(ValueError, match=f"training.log_mu = '{rule}' scores under the policy itself.*top_p"):
        replace(tiny_run.BASE, sampling=sampling, training=replace(tiny_run.BASE.training, log_mu=rule))


class FarOff:
    """A sampler whose log-probabilities are all too high by the same amount."""

    def __init__(self, sampler, nats):
        self.sampler, self.nats = sampler, nats

    def sample(self, *arguments, **named):
        groups = self.sampler.sample(*arguments, **named)
        return [[self._moved(completion) for completion in group] for group in groups]

    def _moved(self, completion):
        moved = tuple(value + self.nats for value in completion.log_mu)
        return replace(completion, log_mu=moved, log_model=moved)


@pytest.mark.parametrize(("nats", "provenance"), [(0.04, "sampler"), (0.06, "recomputed")])
def test_auto_takes_the_samplers_log_mu_up_to_the_largest_gap(
    tiny_run, tiny_policy, tmp_path, caplog, nats, provenance
):
    rollouts = []
    metrics = tiny_run.run(
        tiny_policy,
        tmp_path,
        replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=1, log_mu="auto", max_mismatch=0.05)),
        sampler=FarOff(LocalSampler(tiny_policy), nats),
        on_step=lambda _, samples: rollouts.append(samples),
    ).metrics
    assert {sample.log_mu_provenance for sample in rollouts[0]} == {provenance}
    assert metrics["log_mu_recomputed"] == float(provenance == "recomputed")
    assert metrics["mismatch_mean_abs"] == pytest.approx(nats, abs=1e-3)
    assert ("over max_mismatch" in caplog.text) == (provenance == "recomputed")


@pytest.mark.parametrize(("log_mu", "num_groups"), [("sampler", 1), ("auto", 2)])
def test_the_gap_is_measured_on_neighbours_unless_it_decides(
    tiny_run, tiny_policy, tmp_path: Path, monkeypatch, log_mu: str, num_groups: int
):
    measured = []

    def spied(policy, samples, *, max_tokens):
        measured.append([sample.sample_id for sample in samples])
        groups.append({sample.group_id for sample in samples})
        return score_samples(policy, samples, max_tokens=max_tokens)

    groups = []
    monkeypatch.setattr(mismatch_module, "score_samples", spied)
    settings = replace(
        tiny_run.BASE,
        training=replace(tiny_run.BASE.training, num_steps=2, log_mu=log_mu, num_mismatch_rows=2),
        advantages=replace(tiny_run.BASE.advantages, group_filter=False),
        sampling=replace(tiny_run.BASE.sampling, num_prompts=2, num_samples=2),
        optimizer=OptimizerSettings(kind="schedule-free"),
    )
    rollouts = []
    tiny_run.run(tiny_policy, tmp_path, settings, on_step=lambda _, samples: rollouts.append(samples))
    assert [len(each) for each in groups] == [num_groups] * 2
    places = [
        [[sample.sample_id for sample in samples].index(each) for each in ids]
        for samples, ids in zip(rollouts, measured, strict=True)
    ]
    # Neighbours take turns, step by step; those that are spread are at the same places.
    assert places == ([[2, 3], [0, 1]] if log_mu == "sampler" else [[0, 2], [0, 2]])


def test_where_the_update_shows_the_gap_it_is_not_measured(tiny_run, tiny_policy, tmp_path: Path, monkeypatch):
    def not_called(*_, **__):
        raise AssertionError("a pass of its own")

    monkeypatch.setattr(mismatch_module, "score_samples", not_called)
    settings = replace(
        tiny_run.BASE,
        training=replace(tiny_run.BASE.training, num_steps=2),
        optimizer=OptimizerSettings(learning_rate=0.05, warmup_steps=0),
    )
    lines = []
    tiny_run.run(
        tiny_policy,
        tmp_path / "run",
        settings,
        sampler=FarOff(LocalSampler(tiny_policy), 0.4),
        on_step=lambda metrics, _: lines.append(metrics),
    )
    for line in lines:
        # Later minibatches have moved on, by much more than the gap.
        assert line["num_optimizer_steps"] == 4
        assert line["kl_mu_pi"] > 0.01
        assert line["mismatch_mean_abs"] == pytest.approx(0.4, abs=1e-4)
        assert line["mismatch_max_abs"] == pytest.approx(0.4, abs=1e-4)
        assert line["mismatch_k3"] == pytest.approx(math.exp(-0.4) - 1 + 0.4, abs=1e-4)  # trainer less sampler is -0.4
    silent = tiny_run.run(
        tiny_policy,
        tmp_path / "silent",
        replace(settings, training=replace(settings.training, num_steps=1, num_mismatch_rows=0)),
    ).metrics
    assert "mismatch_mean_abs" not in silent


def test_with_lagging_batches_the_gap_is_measured_on_what_was_just_drawn(
    tiny_run, tiny_policy, tmp_path: Path, monkeypatch
):
    versions = []

    def spied(policy, samples, *, max_tokens):
        versions.append({sample.policy_version for sample in samples})
        return score_samples(policy, samples, max_tokens=max_tokens)

    monkeypatch.setattr(mismatch_module, "score_samples", spied)
    settings = replace(
        tiny_run.BASE,
        training=replace(tiny_run.BASE.training, num_steps=2),
        sampling=replace(tiny_run.BASE.sampling, lag=1),
    )
    metrics = tiny_run.run(tiny_policy, tmp_path, settings).metrics
    assert versions == [{0}, {0}, {4}]
    assert metrics["mismatch_max_abs"] < 1e-4


def test_auto_without_a_measured_gap_is_refused(tiny_run):
    with pytest.raises(ValueError, match="num_mismatch_rows is 0"):
        replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, log_mu="auto", num_mismatch_rows=0))


def test_a_divergence_without_a_reference_is_refused(tiny_run, tiny_policy, tmp_path: Path):
    settings = replace(tiny_run.BASE, reference=reference_named("none"))
    with pytest.raises(ValueError, match=r"beta is 0.01 but reference.kind is 'none'"):
        tiny_run.run(tiny_policy, tmp_path, settings)
    result = tiny_run.run(
        tiny_policy,
        tmp_path,
        replace(settings, training=replace(settings.training, num_steps=1)),
        objective=Objective(beta=0.0),
    )
    assert "kl_pi_ref" not in result.metrics


def test_schedule_free_samples_and_saves_x_and_its_first_ratio_is_y_over_x(tiny_run, tiny_policy, tmp_path: Path):
    # One minibatch a batch, so the logged kl_mu_pi is that of the first ratio: 0 if gradients were taken at x.
    settings = replace(
        tiny_run.BASE,
        training=replace(tiny_run.BASE.training, num_epochs=1, num_minibatches=1, num_mismatch_rows=1000),
        optimizer=OptimizerSettings(kind="schedule-free", learning_rate=0.01, warmup_steps=0),
    )
    lines = []
    tiny_run.run(tiny_policy, tmp_path, settings, on_step=lambda metrics, _: lines.append(metrics))
    assert lines[0]["kl_mu_pi"] < 1e-9  # x = y = z at the start
    assert all(line["kl_mu_pi"] > 1e-4 for line in lines[2:])
    # Sampler and trainer are compared at x, where both belong; sampling at y would show here.
    assert all(line["mismatch_max_abs"] < 1e-4 for line in lines)
    newest = newest_verified(tmp_path / "checkpoints")
    assert newest is not None
    saved = loop_module.load_checkpoint(newest).tensors["weights"]
    assert all(torch.equal(saved[name], parameter) for name, parameter in tiny_policy.trainable().items())


@pytest.mark.parametrize("mistake", [False, True], ids=["as it is", "with the usual mistake"])
def test_every_draw_for_training_or_evaluation_is_from_the_twins_x(
    tiny_run, tiny_policy, twin, tmp_path: Path, monkeypatch, mistake: bool
):
    # The twin is stepped in float64 with the gradients that the optimizer got; x and y part by far more than rounding.
    settings = OptimizerSettings(kind="schedule-free", learning_rate=0.01, weight_decay=0.1, warmup_steps=3)
    twins = {
        name: twin(parameter.detach().double(), rate=0.01, beta1=0.9, beta2=0.999, decay=0.1, warmup_steps=3)
        for name, parameter in tiny_policy.trainable().items()
    }

    def instrumented(parameters, settings, **keywords):
        optimizer = Optimizer(parameters, settings, **keywords)
        optimizer._inner.register_step_pre_hook(
            lambda *_: [twins[name].step(parameter.grad.double()) for name, parameter in parameters.items()] and None
        )
        if mistake:  # never switch back to x
            monkeypatch.setattr(optimizer._inner, "eval", lambda: None)
        return optimizer

    monkeypatch.setattr(state_module, "Optimizer", instrumented)
    from_x, from_y = [], []

    class Watching(LocalSampler):
        def stream(self, *arguments, **keywords):
            pairs = [(parameter.detach().double(), twins[name]) for name, parameter in tiny_policy.trainable().items()]
            from_x.append(max(float((weight - each.x).abs().max()) for weight, each in pairs))
            from_y.append(max(float((weight - each.y).abs().max()) for weight, each in pairs))
            return super().stream(*arguments, **keywords)

    evaluation = EvaluationSettings(every_steps=2, num_samples=2)
    run_settings = replace(tiny_run.BASE, optimizer=settings, evaluation=evaluation)
    held_out = tiny_run.PROBLEMS[:2]
    tiny_run.run(tiny_policy, tmp_path, run_settings, sampler=Watching(tiny_policy), held_out=held_out)
    assert len(from_x) == 6 + 3
    right, wrong = (from_y, from_x) if mistake else (from_x, from_y)
    assert max(right) < 1e-5
    assert min(wrong[1:]) > 1e-3


def test_evaluations_come_at_intervals_and_change_nothing_else(tiny_run, tiny_policy, tiny_model_path, tmp_path: Path):
    settings = replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=4))
    evaluating = replace(settings, evaluation=EvaluationSettings(every_steps=2, num_samples=4))
    tiny_run.run(tiny_policy, tmp_path / "with", evaluating, held_out=tiny_run.PROBLEMS[:2])
    other = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
    tiny_run.run(other, tmp_path / "without", settings)
    for one, another in zip(tiny_policy.trainable().values(), other.trainable().values(), strict=True):
        assert torch.equal(one, another)
    lines = read_metrics(tmp_path / "with" / "metrics.jsonl")
    assert ["evaluation_mean" in line for line in lines] == [False, True, False, True]
    again = evaluate(
        tiny_policy,
        LocalSampler(tiny_policy),
        tiny_run.LetterCounter(),
        tiny_run.PROBLEMS[:2],
        settings=SamplingSettings(max_new_tokens=6),
        num_samples=4,
        generator=torch.Generator().manual_seed(0),
    )
    assert lines[3]["evaluation_mean"] == again.mean
    assert lines[3]["evaluation_pass_at_2"] == again.pass_at["2"]


def test_evaluating_on_nothing_is_refused_before_training(tiny_run, tiny_policy, tmp_path: Path):
    settings = replace(tiny_run.BASE, evaluation=EvaluationSettings(every_steps=1))
    with pytest.raises(ValueError, match="no held-out problems"):
        tiny_run.run(tiny_policy, tmp_path, settings)


def test_preparation_comes_before_the_first_step_and_its_result_is_the_fixed_reference(
    tiny_run, tiny_policy, tmp_path: Path
):
    pairs = [(({"role": "user", "content": "Say 1"},), "aaa")]
    settings = CloningSettings(num_epochs=30, learning_rate=1e-2, warmup_steps=10)
    lines = []
    tiny_run.run(
        tiny_policy,
        tmp_path,
        replace(
            tiny_run.BASE,
            training=replace(tiny_run.BASE.training, num_steps=1, num_epochs=1, num_minibatches=1),
            reference=reference_named("fixed"),
        ),
        prepare=lambda: clone(tiny_policy, pairs, settings=settings, optimizer=OptimizerSettings(weight_decay=0.0)),
        on_step=lambda metrics, samples: lines.append(metrics),
    )
    assert lines[0]["accuracy"] > 0.9
    assert lines[0]["kl_pi_ref"] < 1e-6  # the gap between sampler and trainer in float32


def test_the_metrics_file_is_json_on_every_line(tiny_run, tiny_policy, tmp_path: Path):
    tiny_run.run(tiny_policy, tmp_path, replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=2)))
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert all(isinstance(value, float) for value in json.loads(line).values())


class FiniteOnce:
    """An objective whose loss is a number in the first pass alone."""

    def __init__(self, objective):
        self.objective, self.num_passes = objective, 0

    def __getattr__(self, name):
        return getattr(self.objective, name)

    def __call__(self, inputs):
        out = self.objective(inputs)
        self.num_passes += inputs.log_pi.requires_grad
        return replace(out, loss=out.loss * math.nan) if inputs.log_pi.requires_grad and self.num_passes > 1 else out


def test_the_gap_is_that_of_the_first_pass_also_when_later_ones_come_to_nothing(tiny_run, tiny_policy, tmp_path: Path):
    settings = replace(
        tiny_run.BASE,
        training=replace(tiny_run.BASE.training, num_steps=1, max_skipped_steps=10),
        optimizer=OptimizerSettings(learning_rate=0.05, warmup_steps=0),
    )
    metrics = tiny_run.run(
        tiny_policy,
        tmp_path / "run",
        settings,
        sampler=FarOff(LocalSampler(tiny_policy), 0.4),
        objective=FiniteOnce(Objective()),
    ).metrics
    assert metrics["num_optimizer_steps"] == 1
    assert metrics["num_skipped_steps"] == 3
    assert metrics["mismatch_max_abs"] == pytest.approx(0.4, abs=1e-4)
