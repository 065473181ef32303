"""The stages of a round: each is done once, whatever ends the process between them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tests.workbench.learn.people import answers, likes, say

from klimb.experience.store import Store
from klimb.policies import load_policy
from klimb.training.deployment import read_deployment, write_deployment
from klimb.training.locks import run_folder_lock
from klimb.training.run_folder import RunFolder, write_json
from klimb.workbench.learn import learner as module
from klimb.workbench.learn.history import DecisionRow, append_decision, read_history
from klimb.workbench.learn.learner import Learner
from klimb.workbench.learn.promoting import next_name, open_deployment, promote, roll_back
from klimb.workbench.learn.ratings import Said, read_said
from klimb.workbench.learn.rounds import folder_of
from klimb.workbench.learn.settings import LearnSettings
from klimb.workbench.learn.split import Split, open_split


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.fixture
def learning(place, monkeypatch):
    """A learner whose training takes no time: the candidate likes one of its characters more."""
    calls: list[str] = []
    factor = [1.02]

    def train(config, folder: Path, *, console: Console) -> int:
        calls.append("train")
        policy = load_policy(config.model.path, dtype="float32", device="cpu")
        ids = [policy.tokenizer.convert_tokens_to_ids(character) for character in "s\ny"]
        with torch.no_grad():
            policy.model.model.embed_tokens.weight[ids] *= factor[0]
        policy.save(RunFolder(folder).model)
        write_json(RunFolder(folder).summary, {"num_steps": 5})
        return 5

    def check(config, **_):
        calls.append("check")
        return ()

    monkeypatch.setattr(module, "train_round", train)
    monkeypatch.setattr(module, "check_base_metrics", check)

    def make(**settings) -> Learner:
        given = LearnSettings(every="40-ratings", **settings)
        return Learner(
            run_file=Path("learn.toml"),
            store=Path("store"),
            folder=Path("served"),
            settings=given,
            console=Console(quiet=True),
        )

    make.calls = calls
    make.factor = factor
    make.model = place.model
    return make


def test_a_round_is_due_by_the_number_of_rated_answers(learning):
    samples = answers(learning.model, "policy-0001", num_prompts=60)
    learner = learning()
    assert not learner.tick()
    say(Path("store"), samples[:39])
    assert not learner.tick() and learner.num_missing() == 1
    say(Path("store"), samples[39:41])
    assert learner.tick()
    assert learning.calls == ["train", "check"]
    assert not learner.tick()
    assert learning.calls == ["train", "check"]


SLOW = [pytest.param(stage, marks=pytest.mark.slow) for stage in ("copy_said", "audit", "train_round")]


def test_ratings_that_judge_promote_what_makes_liked_answers_likelier_and_keep_out_the_contrary(learning):
    """The candidate says the characters that people like more often, or less."""
    say(Path("store"), answers(learning.model, "policy-0001", num_prompts=160))
    learning.factor[0] = 0.85
    learning().tick()
    (row,) = read_history(Path("served"))
    assert row.outcome == "rejected" and row.reason.startswith("Worse than the serving policy")
    say(Path("store"), answers(learning.model, "policy-0001", num_prompts=240))
    learning.factor[0] = 1.15
    learning().tick()
    deployment = read_deployment(Path("served"))
    assert (deployment.current.name, deployment.current.policy_version) == ("policy-0003", 5)
    assert read_history(Path("served"))[-1].outcome == "promoted"
    assert not folder_of(Path("served"), 2).experience.exists()


@pytest.mark.parametrize("stage", [*SLOW, "check_base_metrics", "score_changes"])
def test_after_a_crash_in_a_stage_the_next_process_goes_on_there(learning, monkeypatch, stage):
    say(Path("store"), answers(learning.model, "policy-0001", num_prompts=50))
    with monkeypatch.context() as broken:

        def die(*_, **__):
            raise Killed

        broken.setattr(module, stage, die)
        with pytest.raises(Killed):
            learning().tick()
    done = list(learning.calls)
    assert learning().tick()
    assert sorted([*done, *learning.calls[len(done) :]]) == ["check", "train"]
    assert folder_of(Path("served"), 1).read().num_looked_at > 0
    assert not folder_of(Path("served"), 2).path.exists()


def test_a_crash_between_the_promotion_and_its_line_leaves_one_line(learning, monkeypatch):
    say(Path("store"), answers(learning.model, "policy-0001", num_prompts=50))
    learning().tick()
    state = folder_of(Path("served"), 1).read()
    deployment = read_deployment(Path("served"))
    candidate = replace(deployment.current, name=state.candidate, reason="because")
    assert promote(Path("served"), candidate, serving="policy-0001")
    learning().tick()
    learning().tick()
    (row,) = read_history(Path("served"))
    assert (row.outcome, row.reason) == ("promoted", "because")
    assert promote(Path("served"), candidate, serving="policy-0001"), "done again, it is still so"
    assert len(read_deployment(Path("served")).earlier) == 1


def test_evidence_that_was_looked_at_stays_as_it_was(learning):
    samples = answers(learning.model, "policy-0001", num_prompts=80)
    say(Path("store"), samples[:50])
    learner = learning(look_every=1)
    learner.tick()
    place = folder_of(Path("served"), 1)
    before = place.read_evidence()
    # Everybody changes their minds, and a few more answers are rated.
    changed = [
        replace(row, feedback_id=f"again-{row.feedback_id}", value=1 - row.value, created_at=9_000.0)
        for row in Store(Path("store")).stored_feedback([f"f-{sample.sample_id}" for sample in samples[:50]])
    ]
    Store(Path("store")).append_feedback(changed)
    say(Path("store"), samples[50:70], begin=9_000.0)
    learner.tick()
    after = place.read_evidence()
    assert after[: len(before)] == before
    assert len(after) > len(before)


def test_what_is_held_out_stays_so_and_never_trains(learning):
    samples = answers(learning.model, "policy-0001", num_prompts=120)
    say(Path("store"), samples[:60])
    said = read_said(Store(Path("store")))
    Path("served").mkdir()
    split = open_split(Path("served"), said, fraction=0.25, seed=0)
    first = split.assign(said)
    split.write(Path("served"))
    assert split.by_users
    say(Path("store"), samples[60:])
    more = read_said(Store(Path("store")))
    again = open_split(Path("served"), more, fraction=0.25, seed=0).assign(more)
    assert {name: again[name] for name in first} == first
    sides = {each.sample_id: each for each in more}
    users = {side: {sides[name].users for name in again if again[name] == side} for side in ("train", "judge")}
    assert users["train"].isdisjoint(users["judge"])
    from klimb.errors import ConfigError

    with pytest.raises(ConfigError, match="new deployment"):
        open_split(Path("served"), more, fraction=0.5, seed=0)


@pytest.mark.parametrize("fraction", [0.25, 0.4])
def test_the_share_that_judges_is_held_out_of_few_users_too_and_each_may_be_one(fraction):
    """By independent draws 2 to 9 of 20 users would judge at a quarter."""
    one = Said(sample_id="", group_id="", model="", drawn_at=0.0, prompt="", users=(), rating=1.0, said_at=0.0)
    said = [replace(one, sample_id=f"s{n}", prompt=f"p{n}", users=(f"u{n}",)) for n in range(20)]
    judged = [0] * 20
    for seed in range(400):
        split = Split(fraction=fraction, seed=seed, by_users=True)
        split.assign(said[:11])
        again = Split(fraction=fraction, seed=seed, by_users=True, sides=dict(split.sides))
        sides = again.assign(said)
        for number in range(1, 21):
            count = sum(sides[f"s{n}"] == "judge" for n in range(number))
            assert abs(count - fraction * number) < 1
        judged = [count + (sides[f"s{n}"] == "judge") for n, count in enumerate(judged)]
    # Four standard deviations of 400 draws.
    assert all(abs(count / 400 - fraction) < 4 * (fraction * (1 - fraction) / 400) ** 0.5 for count in judged)


def test_an_answer_whose_user_and_prompt_are_on_two_sides_does_neither(learning):
    say(Path("store"), answers(learning.model, "policy-0001", num_prompts=60))
    said = read_said(Store(Path("store")))
    split = open_split(Path(), said, fraction=0.25, seed=0)
    sides = split.assign(said)
    train, judge = (next(each for each in said if sides[each.sample_id] == side) for side in ("train", "judge"))
    mixed = replace(train, sample_id="mixed", prompt=judge.prompt)
    assert split.assign([mixed]) == {"mixed": "aside"}


def test_a_trial_gives_the_candidate_a_share_and_live_ratings_decide(learning):
    say(Path("store"), answers(learning.model, "policy-0001", num_prompts=50))
    learner = learning(candidate_fraction=0.5, look_every=1)
    learner.tick()
    deployment = read_deployment(Path("served"))
    assert deployment.candidate is not None and deployment.candidate_fraction == 0.5
    assert deployment.current.name == "policy-0001"
    state = folder_of(Path("served"), 1).read()
    live = [
        replace(sample, sample_id=f"l-{sample.sample_id}-{name}", model=name, created_at=state.trial_since + place)
        for place, sample in enumerate(answers(learning.model, "x", num_prompts=30, first=60))
        for name in ("policy-0001", deployment.candidate.name)
    ]
    say(Path("store"), live, rate=lambda sample: float(sample.model != "policy-0001"), begin=state.trial_since)
    learner.tick()
    promoted = read_deployment(Path("served"))
    assert promoted.current.name == deployment.candidate.name
    assert promoted.candidate is None
    assert [row.outcome for row in read_history(Path("served"))] == ["trial", "promoted"]


@pytest.mark.slow
def test_a_trial_that_goes_badly_ends_and_the_serving_policy_stays(learning):
    say(Path("store"), answers(learning.model, "policy-0001", num_prompts=50))
    learner = learning(candidate_fraction=0.5, look_every=1)
    learner.tick()
    name = read_deployment(Path("served")).candidate.name
    since = folder_of(Path("served"), 1).read().trial_since
    live = [
        replace(sample, sample_id=f"l-{sample.sample_id}-{model}", model=model, created_at=since + place)
        for place, sample in enumerate(answers(learning.model, "x", num_prompts=30, first=60))
        for model in ("policy-0001", name)
    ]
    say(Path("store"), live, rate=lambda sample: float(sample.model == "policy-0001"), begin=since)
    learner.tick()
    deployment = read_deployment(Path("served"))
    assert (deployment.current.name, deployment.candidate) == ("policy-0001", None)
    assert "Worse than the serving policy" in read_history(Path("served"))[-1].reason


@pytest.mark.slow
def test_a_rollback_in_between_makes_the_candidate_void(learning):
    say(Path("store"), answers(learning.model, "policy-0001", num_prompts=50))
    learner = learning()
    learner.open()
    deployment = read_deployment(Path("served"))
    write_deployment(Path("served"), deployment.promote(replace(deployment.current, name="policy-0007")))
    learner.tick()
    assert folder_of(Path("served"), 1).read().candidate == "policy-0008"
    assert roll_back(Path("served")) == ("policy-0007", "policy-0001")
    learner.tick()
    assert read_history(Path("served"))[-1].outcome == "superseded"
    assert "policy-0001 answers by now" in read_history(Path("served"))[-1].reason


def test_two_learners_on_one_deployment_are_refused(place):
    say(Path("store"), answers(place.model, "policy-0001", num_prompts=2))
    arguments = ("learn", "learn.toml", "--store", "store", "--deployment", "served", "--once")
    with run_folder_lock(Path("served")):
        ended = place.klimb(*arguments)
    assert ended.status == 2
    assert "in use by process" in ended.err


def test_the_guard_stops_a_promotion(learning, monkeypatch):
    from klimb.findings.finding import Finding

    broken = Finding(name="guard/perplexity", status="warning", title="perplexity is 3 times what it was", evidence="")
    monkeypatch.setattr(module, "check_base_metrics", lambda config, **_: (broken,))
    say(Path("store"), answers(learning.model, "policy-0001", num_prompts=50))
    learning().tick()
    (row,) = read_history(Path("served"))
    assert row.outcome == "rejected" and "perplexity is 3 times" in row.reason
    assert read_deployment(Path("served")).current.name == "policy-0001"


def test_a_last_line_that_a_crash_cut_short_does_not_spoil_the_next(tmp_path):
    row = DecisionRow(time=1.0, round=1, outcome="rejected", candidate="c", serving="s", reason="r")
    append_decision(tmp_path, row)
    with (tmp_path / "decisions.jsonl").open("a") as file:
        file.write('{"time": 2.0, "rou')
    append_decision(tmp_path, replace(row, round=2))
    append_decision(tmp_path, replace(row, round=2))
    assert [each.round for each in read_history(tmp_path)] == [1, 2]


def test_names_go_on_from_the_highest_there_was(place):
    deployment = open_deployment(Path("served"), str(place.model))
    assert next_name(Path("served"), deployment) == "policy-0002"
    shutil.copytree(place.model, Path("served/policy-0009"))
    assert next_name(Path("served"), deployment) == "policy-0010"
    assert likes(answers(place.model, "x", num_prompts=1)[0]) in (0.0, 1.0)
