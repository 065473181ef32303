from dataclasses import replace

import pytest
import torch

from klimb.experience import Sample
from klimb.training import IterativeReference, Reference, reference_named, score_samples


def nudge(policy, amount: float) -> None:
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(amount)


def sample() -> Sample:
    return Sample(
        sample_id="a",
        group_id="g",
        prompt=(),
        prompt_ids=(5, 6, 7),
        response="",
        response_ids=(8, 9, 10),
        finish_reason="stop",
        log_mu=(-1.0, -1.0, -1.0),
        log_mu_provenance="sampler",
    )


def log_ref(reference: Reference, policy) -> tuple[float, ...]:
    (scored,) = reference.score(policy, [sample()], max_tokens=100)
    assert scored.log_ref is not None
    return scored.log_ref


def log_pi(policy) -> tuple[float, ...]:
    return score_samples(policy, [sample()], max_tokens=100)[0]


def test_an_iterative_reference_refreshed_at_every_collection_is_the_policy_and_keeps_no_copy(tiny_policy):
    for every_steps in (0, 1):
        reference = Reference(IterativeReference(every_steps=every_steps), tiny_policy)
        assert reference.state()[0] == {}
        for steps in (0, 4, 4, 9):
            reference.follow(tiny_policy, num_optimizer_steps=steps)
            assert reference.is_policy(num_optimizer_steps=steps)
        assert reference.num_refreshes == 2
        assert reference.score(tiny_policy, [sample()], max_tokens=100) == [sample()]


def test_every_k_steps_keeps_the_old_weights_until_k_steps_are_done(tiny_policy):
    reference = Reference(IterativeReference(every_steps=5), tiny_policy)
    at_start = log_pi(tiny_policy)
    nudge(tiny_policy, 0.01)
    reference.follow(tiny_policy, num_optimizer_steps=4)
    assert not reference.is_policy(num_optimizer_steps=4)
    assert log_ref(reference, tiny_policy) == at_start
    assert log_pi(tiny_policy) != at_start
    nudge(tiny_policy, 0.01)
    reference.follow(tiny_policy, num_optimizer_steps=8)
    assert reference.is_policy(num_optimizer_steps=8)
    assert log_ref(reference, tiny_policy) == log_pi(tiny_policy)
    nudge(tiny_policy, 0.01)
    reference.follow(tiny_policy, num_optimizer_steps=12)
    assert not reference.is_policy(num_optimizer_steps=12)  # 4 steps since the refresh at 8
    assert reference.num_refreshes == 1


def test_a_threshold_refreshes_when_the_moving_average_exceeds_it(tiny_policy):
    reference = Reference(IterativeReference(every_steps=None, kl_threshold=0.1, kl_decay=0.5), tiny_policy)
    reference.observe(0.08)
    reference.observe(0.1)  # average 0.09
    assert reference.kl_average == pytest.approx(0.09)
    reference.follow(tiny_policy, num_optimizer_steps=2)
    assert reference.num_refreshes == 0
    reference.observe(0.2)  # average 0.145
    reference.follow(tiny_policy, num_optimizer_steps=3)
    assert reference.num_refreshes == 1
    assert reference.kl_average is None
    assert reference.is_policy(num_optimizer_steps=3)


def test_steps_or_threshold_whichever_comes_first(tiny_policy):
    reference = Reference(IterativeReference(every_steps=10, kl_threshold=0.1), tiny_policy)
    reference.observe(0.5)
    reference.follow(tiny_policy, num_optimizer_steps=1)
    assert reference.num_refreshes == 1
    reference.follow(tiny_policy, num_optimizer_steps=11)
    assert reference.num_refreshes == 2


def test_a_fixed_reference_stays_what_the_policy_was_at_the_start(tiny_policy):
    reference = Reference(reference_named("fixed"), tiny_policy)
    at_start = log_pi(tiny_policy)
    assert reference.is_policy(num_optimizer_steps=0)
    nudge(tiny_policy, 0.02)
    for steps in (5, 500):
        reference.follow(tiny_policy, num_optimizer_steps=steps)
        assert log_ref(reference, tiny_policy) == at_start
        assert not reference.is_policy(num_optimizer_steps=steps)


def test_a_moving_average_keeps_decay_to_the_number_of_steps(tiny_policy):
    reference = Reference(reference_named("ema", decay=0.9), tiny_policy)
    before = {name: parameter.detach().clone() for name, parameter in tiny_policy.trainable().items()}
    nudge(tiny_policy, 0.5)
    reference.follow(tiny_policy, num_optimizer_steps=3)
    reference.follow(tiny_policy, num_optimizer_steps=3)  # no step in between: nothing moves
    for name, weight in reference.state()[0].items():
        assert torch.allclose(weight, before[name] + (1 - 0.9**3) * 0.5, atol=1e-6)


def test_scoring_under_the_reference_leaves_the_policy_as_it_was(tiny_policy):
    reference = Reference(reference_named("fixed"), tiny_policy)
    nudge(tiny_policy, 0.02)
    before = log_pi(tiny_policy)
    log_ref(reference, tiny_policy)
    assert log_pi(tiny_policy) == before


def test_no_reference_is_never_the_policy(tiny_policy):
    reference = Reference(reference_named("none"), tiny_policy)
    assert not reference.is_policy(num_optimizer_steps=0)
    assert reference.score(tiny_policy, [sample()], max_tokens=100) == [sample()]


@pytest.mark.parametrize("kind", ["ema", "fixed"])
def test_a_restored_reference_is_the_same(tiny_policy, kind: str):
    settings = reference_named(kind)
    reference = Reference(settings, tiny_policy)
    nudge(tiny_policy, 0.1)
    reference.follow(tiny_policy, num_optimizer_steps=2)
    reference.observe(0.3)
    tensors, numbers = reference.state()
    restored = Reference(settings, tiny_policy)
    restored.load_state({name: tensor.clone() for name, tensor in tensors.items()}, numbers)
    assert restored.state()[1] == numbers
    assert log_ref(restored, tiny_policy) == log_ref(reference, tiny_policy)


def test_a_state_with_a_copy_does_not_fit_a_rule_without(tiny_policy):
    with_copy = Reference(reference_named("fixed"), tiny_policy).state()
    with pytest.raises(ValueError, match="whether a copy is kept"):
        Reference(IterativeReference(), tiny_policy).load_state(*with_copy)


def test_scores_are_those_of_each_sample_alone(tiny_policy):
    samples = [replace(sample(), log_mu=(-1.0,) * length, response_ids=(8,) * length) for length in (1, 5, 3)]
    together = score_samples(tiny_policy, samples, max_tokens=1000)
    for one, values in zip(samples, together, strict=True):
        assert len(values) == len(one.response_ids)
        assert values == pytest.approx(score_samples(tiny_policy, [one], max_tokens=1)[0], abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every_steps": -1}, "every_steps must be >= 0"),
        ({"every_steps": None}, "needs every_steps or kl_threshold"),
        ({"kl_threshold": 0.0}, "kl_threshold must be finite and > 0"),
        ({"kind": "ema", "decay": 1.0}, "decay must be in"),
    ],
)
def test_bad_settings_are_named(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        reference_named(**changes)
