"""From ratings in a store to a policy that answers, without a server."""

import json
from pathlib import Path

import pytest
from tests.workbench.learn.people import answers, likes, say

from klimb.training.deployment import read_deployment

LEARN = ("learn", "learn.toml", "--store", "store", "--deployment", "served", "--once")


def decisions() -> list[dict]:
    path = Path("served/decisions.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
def test_what_people_like_is_promoted_and_taken_back_by_a_rollback(place):
    say(Path("store"), answers(place.model, "policy-0001", num_prompts=240))
    ended = place.klimb(*LEARN)
    assert ended.status == 0, ended.err
    deployment = read_deployment(Path("served"))
    assert (deployment.current.name, deployment.current.policy_version) == ("policy-0002", 10)
    assert (Path("served") / deployment.current.model / "model.safetensors").is_file()
    assert [policy.name for policy in deployment.earlier] == ["policy-0001"]
    (row,) = decisions()
    assert (row["outcome"], row["serving"], row["num_ratings"]) == ("promoted", "policy-0001", 60)
    assert row["capital"] > 1 / row["level"] == 20
    assert deployment.current.reason == row["reason"]
    assert "Better than the serving policy" in row["reason"]
    # What was snapshot for training is gone, and what judged never trained.
    assert not Path("served/rounds/0001/experience").exists()

    assert "nothing is due: 200 more" in place.klimb(*LEARN).out
    shown = place.klimb("learn", "--show", "served").out
    assert "policy-0002" in shown and "promoted" in shown
    assert place.klimb("rollback", "served").status == 0
    assert read_deployment(Path("served")).current.name == "policy-0001"
    assert decisions()[-1]["outcome"] == "rolled back"
    again = place.klimb("rollback", "served")
    assert again.status == 2 and "first policy" in again.err


@pytest.mark.slow
def test_the_promoted_policy_answers_as_people_like_it_more_often(place):
    say(Path("store"), answers(place.model, "policy-0001", num_prompts=240))
    assert place.klimb(*LEARN).status == 0
    gained = [sum(map(likes, answers(model, "x", num_prompts=240))) for model in (place.model, "served/policy-0002")]
    assert gained[1] > gained[0]


@pytest.mark.slow
def test_shuffled_ratings_promote_nothing(place):
    say(Path("store"), answers(place.model, "policy-0001", num_prompts=240), shuffled=True)
    ended = place.klimb(*LEARN)
    assert ended.status == 0, ended.err
    assert read_deployment(Path("served")).current.name == "policy-0001"
    assert "Better" not in ended.out


def test_ratings_that_are_all_the_same_stop_at_the_audit(place):
    say(Path("store"), answers(place.model, "policy-0001", num_prompts=30), rate=lambda _: 1.0)
    ended = place.klimb(*LEARN, "--every", "20-ratings")
    assert ended.status == 0, ended.err
    (row,) = decisions()
    assert row["outcome"] == "stopped"
    assert "All rewards are the same" in row["reason"]
    assert not Path("served/rounds/0001/run").exists()


def test_ctrl_c_says_that_the_same_command_goes_on(place, monkeypatch):
    def pressed(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("klimb.workbench.commands.learn.time.sleep", pressed)
    ended = place.klimb(*LEARN[:-1])
    assert ended.status == 130
    assert "the same command goes on" in ended.out and "--resume" not in ended.out


def test_a_rating_out_of_its_range_names_the_option(place):
    from klimb.errors import ConfigError
    from klimb.workbench.learn.settings import LearnSettings

    settings = LearnSettings(every="1-day", rating_range=(1.0, 5.0))
    assert settings.scaled(4.0, sample_id="s") == 0.75
    with pytest.raises(ConfigError, match="--rating-range"):
        settings.scaled(0.0, sample_id="s")


@pytest.mark.parametrize("arguments", [("--every", "soon"), ("--alpha", "1"), ("--held-out-fraction", "0.9")])
def test_settings_that_cannot_be_are_refused_before_anything_is_loaded(place, arguments):
    ended = place.klimb(*LEARN, *arguments)
    assert ended.status == 2
    assert arguments[0] in ended.err
    assert not Path("served").exists()
