"""What a user types on a log of conversations: score, estimate, show, audit."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cyclopts import App
from tests.conversations import talk
from tests.workbench.logged import store_of

from klimb.experience.store import open_store
from klimb.workbench.audit_run_file import logged
from klimb.workbench.commands.estimate import estimate
from klimb.workbench.commands.experience import score, show
from klimb.workbench.log_scoring import draw_fresh, score_rows


@pytest.fixture
def samples(tiny_policy):
    return [
        talk(
            tiny_policy,
            number=number,
            group=f"g{number // 2}",
            last=f"it is {number}",
            reward=float(number % 2),
            question=({"role": "user", "content": f"look {number // 2}"},),
        )
        for number in range(12)
    ]


@pytest.fixture
def run(tmp_path, tiny_model_path, monkeypatch, capsys, samples):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    store_of(tmp_path / "log", samples)
    app = App(result_action="return_value")
    for command in (estimate, score, show):
        app.command(command)

    def call(*arguments):
        app([*arguments, "--model", str(tiny_model_path)])
        return capsys.readouterr().out

    return call


def test_the_model_that_drew_the_conversations_is_worth_their_mean(run, samples, tmp_path):
    run("estimate", "log", "--json", "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    mean = np.mean([sample.reward for sample in samples])
    values = {each["name"]: each["value"] for each in found["estimates"]}
    assert values["snips"] == pytest.approx(mean, abs=1e-3) and values["ips"] == pytest.approx(mean, abs=1e-3)
    assert found["logged"]["num_samples"] == 12


def test_what_is_recomputed_of_the_drawn_tokens_is_what_was_recorded(run, samples, tmp_path):
    said = " ".join(run("score", "log", "--into", "new").split())
    assert "12 of 12 samples have log_mu" in said and f"over {sum(each.num_drawn for each in samples)} tokens" in said
    for before, after in zip(samples, open_store(tmp_path / "new").samples(), strict=True):
        assert after.log_mu == pytest.approx(before.log_mu, abs=1e-4)
        assert after.turns == before.turns


def test_show_has_one_row_a_drawn_token(run, samples):
    said = run("show", "log", "talk-3", "--tokens", "99")
    rows = [line.split() for line in said.splitlines() if len(line.split()) > 3 and line.split()[0].isdigit()]
    assert [row[1] for row in rows[:5]] == ["c", "a", "l", "l", "<|im_end|>"]
    assert len(rows) == samples[3].num_drawn


def test_an_audit_scores_drawn_tokens_and_asks_again_with_the_recorded_prompt(tiny_policy, samples):
    scored = score_rows(tiny_policy, samples, max_samples=100, seed=0)
    assert [len(scores or ()) for scores in scored.log_pi] == [sample.num_drawn for sample in samples]
    fresh = draw_fresh(tiny_policy, samples, num_answers=6, seed=0)
    assert {each.prompt_ids for each in fresh.samples} <= {each.prompt_ids for each in samples}
    assert all(each.sampling.max_new_tokens == len("it is 11") + 1 for each in fresh.samples)
    others = [replace(each, tools="{") for each in samples]
    assert "its tools are no JSON" in " ".join(draw_fresh(tiny_policy, others, num_answers=6, seed=0).notes)


def test_a_run_that_follows_has_room_for_the_longest_turn(samples):
    assert logged(samples, num_stored=12).longest_tokens == len("it is 11") + 1
