from dataclasses import replace
from pathlib import Path

import pytest
import torch

from klimb.losses import Objective
from klimb.training import CreditSettings, Critic, CriticSettings, read_metrics, reference_named
from klimb.training.critic import clipped_value_losses

GAE = CreditSettings(kind="gae", kl_in_reward=0.01, gae_lambda=0.95, whiten=True)


def test_a_new_critic_says_zero_of_everything():
    critic = Critic(4, CriticSettings(), seed=0)
    assert critic.values(torch.randn(5, 4)).tolist() == [0.0] * 5


def test_the_critic_learns_a_value_that_its_features_tell():
    generator = torch.Generator().manual_seed(0)
    critic = Critic(48, CriticSettings(hidden_size=32, learning_rate=1e-2, num_epochs=8, clip=float("inf")), seed=1)
    explained = []
    for _ in range(40):
        features = torch.randn(128, 48, generator=generator)
        returns = torch.where(features[:, 0] > 0, 1.0, 0.0)
        explained.append(critic.fit(features, returns, generator=generator)["critic_explained_variance"])
    assert explained[0] == 0
    assert explained[-1] > 0.8


def test_the_value_loss_is_the_larger_of_the_plain_and_the_clipped_one():
    values = torch.tensor([1.0, 0.1, 1.0], requires_grad=True)
    losses, clipped = clipped_value_losses(values, torch.zeros(3), torch.tensor([1.0, 1.0, -1.0]), clip=0.2)
    # bounded values 0.2, 0.1, 0.2: plain 0, .81, 4; clipped .64, .81, 1.44
    assert losses.tolist() == pytest.approx([0.32, 0.405, 2.0])
    assert clipped.tolist() == [True, False, False]
    losses.sum().backward()
    assert values.grad is not None and values.grad.tolist() == pytest.approx([0.0, -0.9, 2.0])


def test_the_clip_holds_back_what_one_batch_of_many_epochs_can_do_to_the_values():
    features = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    settings = CriticSettings(num_epochs=200, num_minibatches=1, learning_rate=1e-2)
    free = replace(settings, clip=float("inf"))
    moved = {}
    for name, each in (("clipped", settings), ("free", free)):
        critic = Critic(4, each, seed=0)
        critic.fit(features, torch.full((64,), 5.0), generator=torch.Generator().manual_seed(0))
        moved[name] = float(critic.values(features).mean())
    # Beyond the clip there is no gradient; what still moves the values is the momentum of Adam.
    assert 0 < moved["clipped"] < 2 < 4 < moved["free"]


def test_a_restored_critic_goes_on_bit_for_bit():
    features, returns = torch.randn(32, 4), torch.randn(32)
    straight = Critic(4, CriticSettings(), seed=0)
    straight.fit(features, returns, generator=torch.Generator().manual_seed(0))
    resumed = Critic(4, CriticSettings(), seed=99)
    resumed.load_state({name: tensor.clone() for name, tensor in straight.state().items()})
    for critic in (straight, resumed):
        critic.fit(features, returns, generator=torch.Generator().manual_seed(1))
    assert torch.equal(straight.values(features), resumed.values(features))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be >= 1"),
        ({"clip": 0.0}, "clip must be > 0"),
        ({"learning_rate": 0.0}, "> 0"),
    ],
)
def test_bad_settings_of_the_critic_are_named(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        CriticSettings(**changes)


def test_states_that_predict_the_tokens_give_their_log_probabilities(tiny_policy):
    prompts, index = [(5, 6, 7), (8, 9)], torch.tensor([0, 1, 0])
    ids = torch.tensor([[10, 11, 12], [13, 14, 0], [15, 0, 0]])
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    states = tiny_policy.predicting_states(prompts, index, ids, mask)
    logits = states @ tiny_policy.causal_lm.get_output_embeddings().weight.T
    log_pi = logits.log_softmax(dim=1).gather(1, ids[mask][:, None])[:, 0]
    torch.testing.assert_close(log_pi, tiny_policy.log_probs(prompts, index, ids, mask).log_pi[mask])


def ppo(tiny_run):
    advantages = replace(tiny_run.BASE.advantages, kind="no-baseline")
    return replace(tiny_run.BASE, advantages=advantages, credit=GAE, reference=reference_named("fixed"))


PPO_LOSS = Objective(beta=0.0, estimator="differentiable")


def test_a_run_with_a_critic_logs_how_well_it_explains_the_returns(tiny_run, tiny_policy, tmp_path: Path):
    tiny_run.run(tiny_policy, tmp_path, ppo(tiny_run), objective=PPO_LOSS)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[0]["critic_explained_variance"] == 0  # a new critic says 0 of everything
    assert all(0 <= row["critic_clip_fraction"] <= 1 and row["critic_loss"] > 0 for row in rows)
    assert rows[-1]["critic_value_mean"] != 0


def test_a_run_with_a_critic_stopped_and_resumed_is_the_uninterrupted_one(tiny_run, tiny_model_path, tmp_path: Path):
    from klimb.policies import load_policy
    from klimb.training import load_checkpoint, newest_verified, without_wall_clock

    def fresh():
        return load_policy(str(tiny_model_path), dtype="float32", device="cpu")

    settings = ppo(tiny_run)
    tiny_run.run(fresh(), tmp_path / "straight", settings, objective=PPO_LOSS)
    tiny_run.run(
        fresh(),
        tmp_path / "torn",
        replace(settings, training=replace(settings.training, num_steps=3)),
        objective=PPO_LOSS,
    )
    tiny_run.run(fresh(), tmp_path / "torn", settings, objective=PPO_LOSS, resume=True)
    one, other = (load_checkpoint(newest_verified(tmp_path / name / "checkpoints")) for name in ("straight", "torn"))
    for stem in ("weights", "critic", "random"):
        assert all(torch.equal(tensor, other.tensors[stem][name]) for name, tensor in one.tensors[stem].items()), stem
    lines = [
        [without_wall_clock(row) for row in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("straight", "torn")
    ]
    assert lines[0] == lines[1]


def test_credit_to_tokens_wants_rewards_as_they_are(tiny_run):
    with pytest.raises(ValueError, match=r"gives one advantage a response, and credit\.kind = 'gae' one a token"):
        replace(tiny_run.BASE, credit=GAE)


def test_a_kl_in_the_reward_wants_a_reference(tiny_run):
    with pytest.raises(ValueError, match=r"kl_in_reward is 0\.01 but reference\.kind is 'none': the KL"):
        replace(ppo(tiny_run), reference=reference_named("none"))
