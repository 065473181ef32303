import pytest

from klimb.errors import ConfigError
from klimb.workbench.config import build_config
from klimb.workbench.session import make_loop_settings, make_objective

LOG = {"path": "store"}


def test_rollouts_take_the_share_that_the_others_leave():
    config = build_config({"sources": {"log": 0.25, "replay": 0.5}, "log": LOG}, source="test")
    assert config.sources.rollout == 0.25
    assert build_config({"sources": {"log": 1.0}, "log": LOG}, source="test").sources.rollout == 0
    assert build_config({}, source="test").sources.rollout == 1


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"sources": {"rollout": 0.5, "replay": 0.2}}, "the shares add up to 0.7, expected 1"),
        ({"sources": {"log": 1.0}}, r"sources.log is 1, and there is no section \[log\]"),
        ({"log": LOG}, r"\[log\] is given and its share is 0"),
        ({"sources": {"feedback": 0.5}}, r"sources.feedback is 0.5, and there is no section \[feedback\]"),
        ({"sources": {"replay": 1.0}}, "nothing to replay"),
        ({"sources": {"logs": 1.0}}, "did you mean sources.log"),
        ({"sampling": {"lag": 2}, "sources": {"replay": 0.5}}, "sampling.lag delays every batch as a whole"),
        ({"sources": {"replay": 0.5}, "run": {"save_rollouts": False}}, "run.save_rollouts is off"),
        ({"replay": {"max_age": 0}}, "replay.max_age = 0"),
        ({"replay": {"rule": "oldest"}}, "replay.rule = 'oldest': expected one of 'uniform', 'recent', 'hard'"),
    ],
)
def test_sources_that_cannot_work_are_refused_by_name(tables, message: str):
    with pytest.raises(ConfigError, match=message):
        build_config(tables, source="test")


@pytest.mark.parametrize(
    ("recipe", "key", "value"),
    [
        ("oapl", "divergence", "fkl"),
        ("kto", "anchor", "ref"),
        ("dro", "clip", {"kind": "dual"}),
        ("topr", "value", "group-optimal"),
        ("grpo", "desirable_weight", 2.0),
    ],
)
def test_a_setting_that_the_loss_does_not_read_is_refused(recipe: str, key: str, value: object):
    with pytest.raises(ConfigError, match=rf"objective\.{key} = .* does nothing: the loss"):
        build_config({"objective": {"recipe": recipe, key: value}}, source="test")


def test_each_loss_becomes_its_own_objective_with_its_own_settings():
    def made(recipe: str, **settings: object):
        return make_objective(build_config({"objective": {"recipe": recipe, **settings}}, source="test"))

    assert (made("oapl", beta=0.3).beta, made("oapl").needs_log_mu, made("oapl").needs_minibatch) == (0.3, True, False)
    assert (made("dro").needs_log_mu, made("dro").needs_log_ref, made("dro").needs_minibatch) == (False, True, True)
    assert made("kto", undesirable_weight=1.5).undesirable_weight == 1.5
    assert (made("asymre").needs_log_mu, made("topr").needs_log_mu) == (False, True)


def test_a_recipe_gives_the_advantages_with_their_offset_and_least_reward():
    def advantages(recipe: str, **settings: object):
        config = build_config({"objective": {"recipe": recipe, **settings}}, source="test")
        return make_loop_settings(config).advantages

    assert advantages("oapl", beta=0.3).kind == "group-soft-value"
    with pytest.raises(ConfigError, match=r"objective.beta = 0.0: expected a number > 0"):
        build_config({"objective": {"recipe": "oapl", "beta": 0.0}}, source="test")
    assert advantages("asymre").offset == -0.1
    assert (advantages("bc-filtered").min_reward, advantages("bc").min_reward) == (0.5, None)


def test_a_run_on_logs_alone_evaluates_nothing_that_nobody_named():
    alone = {"sources": {"log": 1.0}, "log": LOG}
    assert not build_config(alone, source="test").evaluation.at_ends
    assert build_config({**alone, "task": {"kind": "arithmetic"}}, source="test").evaluation.at_ends
    assert build_config({**alone, "evaluation": {"at_ends": True}}, source="test").evaluation.at_ends
    assert build_config({"sources": {"log": 0.5}, "log": LOG}, source="test").evaluation.at_ends
