import math
from dataclasses import replace

import pytest
import torch

from klimb.experience import Batch, Sample, collate
from klimb.losses import Objective
from klimb.training.minibatches import score_samples
from klimb.training.optimizers import (
    Optimizer,
)
from klimb.training.settings import OptimizerSettings, TrainingSettings
from klimb.training.update import (
    StepOutcome,
    merge_metrics,
    optimizer_step,
)

SGD_LIKE = OptimizerSettings(learning_rate=1e-30, weight_decay=0.0, warmup_steps=0)


def batch_of(policy, *, advantages=(1.0, -0.5, 0.25, -2.0, 1.5, 0.5, -1.0, 0.75), shift: float = 0.2) -> Batch:
    """Eight responses of different lengths to three prompts, μ and ref a little off the policy."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for row in range(len(advantages)):
        length = 2 + row
        samples.append(
            Sample(
                sample_id=str(row),
                group_id=f"g{row % 3}",
                prompt=(),
                prompt_ids=tuple(range(3, 8 + row % 3)),
                response="",
                response_ids=tuple(torch.randint(3, 60, (length,), generator=generator).tolist()),
                finish_reason="stop",
                log_mu=(0.0,) * length,
                log_mu_provenance="sampler",
            )
        )
    scored = score_samples(policy, samples, max_tokens=1000)
    noise = lambda: shift * float(torch.randn((), generator=generator))  # noqa: E731
    samples = [
        replace(
            sample,
            log_mu=tuple(min(value + noise(), 0.0) for value in values),
            log_ref=tuple(value + noise() for value in values),
        )
        for sample, values in zip(samples, scored, strict=True)
    ]
    return collate(samples, torch.tensor(advantages))


def gradient_of(
    policy, objective, batch: Batch, max_grad_norm: float = math.inf, **portions
) -> tuple[dict[str, torch.Tensor], StepOutcome]:
    """The gradient that the step used, caught on its way into the optimizer."""
    optimizer = Optimizer(policy.trainable(), replace(SGD_LIKE, max_grad_norm=max_grad_norm))
    caught: dict[str, torch.Tensor] = {}

    def catch(*_) -> None:
        caught.update({name: parameter.grad.clone() for name, parameter in policy.trainable().items()})

    optimizer._inner.register_step_pre_hook(catch)
    with optimizer.gradient_point():
        outcome = optimizer_step(policy, optimizer, objective, batch, **portions)
    return caught, outcome


OBJECTIVES = [
    Objective(divergence="urkl", beta=0.1),
    Objective(divergence="rkl", beta=0.1, estimator="differentiable", reduce="sequence-mean-token-mean"),
    Objective(divergence="fkl", beta=0.1, level="sequence", reduce="sequence-mean-token-sum"),
    Objective(beta=0.0, reduce=7),
    Objective(beta=0.0, entropy_bonus=0.5),
]


@pytest.mark.parametrize("packs_rows", [True, False])
@pytest.mark.parametrize("portions", [{}, {"micro_batch_tokens": 1}])
def test_an_entropy_bonus_teaches_rows_without_an_advantage_with_the_gradient_of_full_logits(
    tiny_policy, packs_rows: bool, portions: dict
):
    tiny_policy.packs_rows, tiny_policy.temperature = packs_rows, 0.7
    batch = batch_of(tiny_policy, advantages=(0.0,) * 8)
    gradients, outcome = gradient_of(tiny_policy, Objective(beta=0.0, entropy_bonus=0.5), batch, **portions)
    total, count = torch.zeros(()), int(batch.mask.sum())
    for row, prompt in enumerate(batch.prompt_index.tolist()):
        ids = batch.response_ids[row][batch.mask[row]]
        read = torch.tensor([[*batch.prompts[prompt], *ids[:-1].tolist()]])
        logits = tiny_policy.model(input_ids=read).logits[0, -len(ids) :] / 0.7
        log_p = logits.log_softmax(-1)
        total = total - (log_p.exp() * log_p).sum()
    (-0.5 * total / count).backward()
    assert outcome.num_tokens == count
    assert outcome.metrics["zero_advantage_fraction"] == 1.0
    assert outcome.metrics["loss"] == pytest.approx(-0.5 * float(total.detach()) / count, rel=1e-5)
    for name, parameter in tiny_policy.trainable().items():
        if "embed_tokens" in name:  # transformers leaves the row of the padding token out, which klimb does not
            assert torch.allclose(gradients[name][3:], parameter.grad[3:], rtol=1e-4, atol=1e-6), name
        else:
            assert torch.allclose(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize(
    "objective", OBJECTIVES, ids=lambda objective: f"{objective.reduce}-{objective.entropy_bonus:g}"
)
def test_eight_micro_batches_of_one_give_the_gradient_of_one_batch_of_eight(tiny_policy, objective):
    batch = batch_of(tiny_policy)
    whole, of_whole = gradient_of(tiny_policy, objective, batch, micro_batch_tokens=10_000)
    torn, of_torn = gradient_of(tiny_policy, objective, batch, micro_batch_tokens=1)
    assert whole
    scale = max(float(gradient.abs().max()) for gradient in whole.values())
    for name in whole:
        # Sums of float32 in another order.
        assert torch.allclose(whole[name], torn[name], rtol=1e-4, atol=2e-6 * scale), name
    for name, value in of_whole.metrics.items():
        assert of_torn.metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert of_whole.num_tokens == of_torn.num_tokens == batch.num_tokens


def test_the_gradient_is_that_of_the_objective_on_the_whole_batch(tiny_policy):
    objective, batch = OBJECTIVES[0], batch_of(tiny_policy)
    stepped, outcome = gradient_of(tiny_policy, objective, batch, micro_batch_tokens=1)
    scored = tiny_policy.log_probs(batch.prompts, batch.prompt_index, batch.response_ids, batch.mask)
    out = objective(scored.log_pi, batch.log_mu, batch.log_ref, batch.advantages, batch.mask)
    direct = torch.autograd.grad(out.loss, list(tiny_policy.trainable().values()))
    scale = max(float(gradient.abs().max()) for gradient in direct)
    for ours, theirs in zip(stepped.values(), direct, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=2e-6 * scale)
    assert outcome.metrics["loss"] == pytest.approx(float(out.loss.detach()), rel=1e-5)
    for name in ("kl_pi_ref", "ess_sequence", "w_max", "w_p01"):
        assert outcome.metrics[name] == pytest.approx(out.metrics[name], rel=1e-4), name


def test_rows_of_advantage_zero_skip_the_model_at_beta_zero_and_still_count_in_the_mean(tiny_policy):
    advantages = (1.0, 0.0, 0.25, 0.0, 0.0, 0.5, -1.0, 0.0)
    batch = batch_of(tiny_policy, advantages=advantages)
    objective = Objective(beta=0.0, divergence="urkl")
    skipping, outcome = gradient_of(tiny_policy, objective, batch)
    kept = [row for row, advantage in enumerate(advantages) if advantage]
    assert outcome.num_tokens == batch.select(kept).num_tokens < batch.num_tokens
    assert outcome.metrics["zero_advantage_fraction"] == 0.5
    scored = tiny_policy.log_probs(batch.prompts, batch.prompt_index, batch.response_ids, batch.mask)
    out = objective(scored.log_pi, batch.log_mu, batch.log_ref, batch.advantages, batch.mask)
    direct = torch.autograd.grad(out.loss, list(tiny_policy.trainable().values()))
    scale = max(float(gradient.abs().max()) for gradient in direct)
    for ours, theirs in zip(skipping.values(), direct, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=2e-6 * scale)


def test_rows_of_advantage_zero_are_computed_when_the_divergence_pulls_on_them(tiny_policy):
    batch = batch_of(tiny_policy, advantages=(0.0,) * 8)
    gradient, outcome = gradient_of(tiny_policy, Objective(beta=0.1), batch)
    assert outcome.num_tokens == batch.num_tokens
    assert max(float(each.abs().max()) for each in gradient.values()) > 0


def test_nothing_to_learn_is_no_step(tiny_policy):
    optimizer = Optimizer(tiny_policy.trainable(), OptimizerSettings(warmup_steps=0))
    with optimizer.gradient_point():
        outcome = optimizer_step(
            tiny_policy,
            optimizer,
            Objective(beta=0.0),
            batch_of(tiny_policy, advantages=(0.0,) * 8),
        )
    assert outcome == StepOutcome({}, 0)
    assert optimizer.num_steps == 0


def test_a_long_gradient_is_scaled_to_the_bound_and_its_length_is_reported(tiny_policy):
    batch, objective = batch_of(tiny_policy), OBJECTIVES[0]
    free, of_free = gradient_of(tiny_policy, objective, batch)
    norm = math.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in free.values()))
    assert of_free.metrics["grad_norm"] == pytest.approx(norm, rel=1e-5)
    bound, of_bound = gradient_of(tiny_policy, objective, batch, max_grad_norm=norm / 10)
    assert of_bound.metrics["grad_norm"] == pytest.approx(norm, rel=1e-5)
    for name in free:
        assert torch.allclose(bound[name], free[name] / 10, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_is_no_step_and_leaves_no_trace(tiny_policy, where: str):
    batch = batch_of(tiny_policy)
    if where == "loss":
        batch = replace(batch, advantages=torch.tensor([1e38] * 8))
        batch.log_mu[0, 0] = -1e38
    before = {name: parameter.detach().clone() for name, parameter in tiny_policy.trainable().items()}
    if where == "gradient":
        next(iter(tiny_policy.trainable().values())).register_hook(lambda gradient: gradient * math.inf)
    optimizer = Optimizer(tiny_policy.trainable(), OptimizerSettings(learning_rate=0.1, warmup_steps=10))
    with optimizer.gradient_point():
        outcome = optimizer_step(tiny_policy, optimizer, Objective(clip="none", beta=0.01), batch)
    assert outcome.not_finite == where
    assert optimizer.num_steps == 0
    for name, parameter in tiny_policy.trainable().items():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


def test_metrics_merge_by_tokens_by_largest_and_by_sum():
    outcomes = [
        StepOutcome({"kl_pi_ref": 1.0, "w_max": 5.0, "num_bound_hits": 2.0}, 10),
        StepOutcome({"kl_pi_ref": 4.0, "w_max": 3.0, "num_bound_hits": 1.0}, 30),
        StepOutcome({"loss": float("nan")}, 7, not_finite="loss"),
        StepOutcome({}, 0),
    ]
    assert merge_metrics(outcomes) == {"kl_pi_ref": 3.25, "w_max": 5.0, "num_bound_hits": 3.0}


@pytest.mark.parametrize("max_grad_norm", [0.0, math.nan])
def test_bad_settings_are_named(max_grad_norm: float):
    with pytest.raises(ValueError, match="max_grad_norm must be > 0"):
        OptimizerSettings(max_grad_norm=max_grad_norm)
    with pytest.raises(ValueError, match="micro_batch_tokens must be 'auto' or >= 1"):
        TrainingSettings(micro_batch_tokens=0)


@pytest.mark.parametrize(
    ("level", "metric"), [("token", "ess_token"), ("sequence-mean", "ess_normalised"), ("sequence", "ess_sequence")]
)
def test_ess_scaling_multiplies_the_learning_rate_by_the_root_of_the_effective_share(tiny_policy, level, metric):
    start = {name: parameter.detach().clone() for name, parameter in tiny_policy.trainable().items()}
    batch = batch_of(tiny_policy, shift=0.5)
    moved, metrics = [], []
    for ess_scaling in ("none", level):
        with torch.no_grad():
            for name, parameter in tiny_policy.trainable().items():
                parameter.copy_(start[name])
        settings = OptimizerSettings(learning_rate=1e-4, weight_decay=0.0, warmup_steps=0, ess_scaling=ess_scaling)
        optimizer = Optimizer(tiny_policy.trainable(), settings)
        with optimizer.gradient_point():
            metrics.append(optimizer_step(tiny_policy, optimizer, Objective(), batch).metrics)
        moved.append(
            torch.cat(
                [(parameter.detach() - start[name]).flatten() for name, parameter in tiny_policy.trainable().items()]
            )
        )
    share = metrics[0][metric]
    assert 0.1 < share < 0.95
    assert metrics[1]["learning_rate"] == pytest.approx(1e-4 * math.sqrt(share))
    assert float(moved[1].norm() / moved[0].norm()) == pytest.approx(math.sqrt(share), rel=1e-3)


def test_schedule_free_takes_the_scaled_learning_rate_too(tiny_policy):
    settings = OptimizerSettings(
        kind="schedule-free", learning_rate=1e-4, weight_decay=0.0, warmup_steps=0, ess_scaling="sequence"
    )
    optimizer = Optimizer(tiny_policy.trainable(), settings)
    with optimizer.gradient_point():
        outcome = optimizer_step(tiny_policy, optimizer, Objective(), batch_of(tiny_policy))
    assert optimizer._inner.param_groups[0]["lr"] == outcome.metrics["learning_rate"] < 1e-4


def test_an_unknown_ess_scaling_is_named(without_shape_checks):
    with pytest.raises(ValueError, match="there are none, token, sequence-mean, sequence"):
        OptimizerSettings(ess_scaling="prompt")
