"""Snapshots of the trained weights."""

import pytest
import torch

from klimb.policies import LoraSettings, Snapshot, load_policy

ROWS = ([[5, 6, 7]], torch.tensor([0, 0]), torch.tensor([[8, 9], [10, 2]]), torch.ones(2, 2, dtype=torch.bool))


def score(policy):
    with torch.no_grad():
        return policy.log_probs(*ROWS).log_pi


def train_a_little(policy, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(params=["full", "lora"])
def policy(request, tiny_model_path):
    lora = LoraSettings(rank=2) if request.param == "lora" else None
    return load_policy(tiny_model_path, dtype="float32", device="cpu", lora=lora)


def test_a_snapshot_scores_as_the_policy_did_and_the_policy_goes_on(policy):
    before = score(policy)
    snapshot = Snapshot.of(policy)
    train_a_little(policy)
    after = score(policy)
    assert (after - before).abs().max() > 1e-3
    with snapshot.swapped_into(policy):
        assert torch.equal(policy.log_probs(*ROWS).log_pi, before)
    assert torch.equal(score(policy), after)


def test_the_snapshot_of_a_fresh_adapter_is_the_base_model(tiny_model_path, tiny_policy):
    policy = load_policy(tiny_model_path, dtype="float32", device="cpu", lora=LoraSettings(rank=2))
    snapshot = Snapshot.of(policy)
    train_a_little(policy)
    with snapshot.swapped_into(policy):
        assert torch.equal(policy.log_probs(*ROWS).log_pi, score(tiny_policy))
    full = sum(p.numel() for p in policy.model.parameters())
    assert sum(w.numel() for w in snapshot.state_dict().values()) < full / 2


def test_swapping_copies_nothing_and_gives_the_same_tensors_back(policy):
    snapshot = Snapshot.of(policy)
    pointers = {name: p.data_ptr() for name, p in policy.trainable().items()}
    with snapshot.swapped_into(policy):
        inside = {name: p.data_ptr() for name, p in policy.trainable().items()}
    assert inside == {name: w.data_ptr() for name, w in snapshot.state_dict().items()}
    assert {name: p.data_ptr() for name, p in policy.trainable().items()} == pointers


def test_scores_of_a_snapshot_carry_no_gradient(policy):
    with Snapshot.of(policy).swapped_into(policy):
        assert not policy.log_probs(*ROWS).log_pi.requires_grad
    assert policy.log_probs(*ROWS).log_pi.requires_grad


def test_a_graph_from_before_the_swap_has_the_gradient_of_the_policy(policy):
    snapshot = Snapshot.of(policy)
    train_a_little(policy)
    parameters = list(policy.trainable().values())
    expected = torch.autograd.grad(policy.log_probs(*ROWS).log_pi.sum(), parameters)
    log_pi = policy.log_probs(*ROWS).log_pi
    with snapshot.swapped_into(policy):
        policy.log_probs(*ROWS)
    for ours, theirs in zip(torch.autograd.grad(log_pi.sum(), parameters), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_the_policy_gets_its_weights_back_when_scoring_fails(policy):
    snapshot = Snapshot.of(policy)
    train_a_little(policy)
    after = score(policy)
    with pytest.raises(ValueError, match="empty"), snapshot.swapped_into(policy):
        policy.log_probs([[]], *ROWS[1:])
    assert torch.equal(score(policy), after)


def test_swapping_inside_autocast_does_not_use_casts_of_the_other_weights(tiny_model_path):
    policy = load_policy(tiny_model_path, dtype="bfloat16", device="cpu")
    snapshot = Snapshot.of(policy)
    before = score(policy)
    train_a_little(policy)
    with torch.autocast("cpu", torch.bfloat16):
        after = score(policy)
        with snapshot.swapped_into(policy):
            assert torch.equal(policy.log_probs(*ROWS).log_pi, before)
        assert torch.equal(score(policy), after)


def test_update_from_follows_the_policy(policy):
    snapshot = Snapshot.of(policy)
    train_a_little(policy)
    snapshot.update_from(policy)
    after = score(policy)
    train_a_little(policy, seed=1)
    with snapshot.swapped_into(policy):
        assert torch.equal(policy.log_probs(*ROWS).log_pi, after)


def test_lerp_keeps_the_decay_share_of_the_old_snapshot(policy):
    snapshot = Snapshot.of(policy)
    old = {name: w.clone() for name, w in snapshot.state_dict().items()}
    train_a_little(policy)
    snapshot.lerp_from(policy, 0.75)
    for name, parameter in policy.trainable().items():
        torch.testing.assert_close(snapshot.state_dict()[name], 0.75 * old[name] + 0.25 * parameter.detach())


def test_a_snapshot_comes_back_from_its_state(policy):
    snapshot = Snapshot.of(policy)
    state = {name: w.clone() for name, w in snapshot.state_dict().items()}
    train_a_little(policy)
    other = Snapshot.of(policy)
    other.load_state_dict(state)
    assert all(torch.equal(other.state_dict()[name], w) for name, w in state.items())
    # Copied, not shared: what happens to the saved tensors later does not reach the snapshot.
    next(iter(state.values())).zero_()
    assert next(iter(other.state_dict().values())).any()


def test_a_snapshot_of_another_policy_is_refused(tiny_model_path, tiny_policy):
    lora = load_policy(tiny_model_path, dtype="float32", device="cpu", lora=LoraSettings(rank=2))
    with pytest.raises(ValueError, match="does not have the parameters"), Snapshot.of(lora).swapped_into(tiny_policy):
        pass
    wider = load_policy(tiny_model_path, dtype="float32", device="cpu", lora=LoraSettings(rank=4))
    with pytest.raises(ValueError, match=r"has shape \[4, 32\], expected \[2, 32\]"):
        Snapshot.of(lora).update_from(wider)
    with pytest.raises(ValueError, match="saved snapshot does not have"):
        Snapshot.of(lora).load_state_dict({})


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_a_decay_outside_0_and_1_is_refused(tiny_policy, decay):
    with pytest.raises(ValueError, match="decay must be in"):
        Snapshot.of(tiny_policy).lerp_from(tiny_policy, decay)
