"""What is exported for verifiers: nodes with what each adds, and the same samples from it."""

import json
from dataclasses import replace

import pytest
from tests.workbench.test_exported_conversations import ALL, BARE, SINGLE, TALK, read_rows

from klimb.errors import ConfigError
from klimb.experience.store import Store
from klimb.workbench.exporting import export_samples
from klimb.workbench.verifiers_rows import as_episode

ONLY_IDS = replace(SINGLE, sample_id="ids", prompt=())
UNSCORED = replace(SINGLE, sample_id="unscored", reward=None, reward_parts={}, log_ref=None)


def exported(tmp_path, samples):
    store = Store(tmp_path / "store")
    store.append(samples)
    export_samples(store, tmp_path / "traces.jsonl", form="verifiers")
    return tmp_path / "traces.jsonl"


def test_what_was_exported_for_verifiers_comes_back_as_the_same_samples(tmp_path):
    samples = [*ALL, ONLY_IDS, UNSCORED]
    path = exported(tmp_path, samples)
    assert sorted(read_rows(path, "verifiers"), key=lambda each: each.sample_id) == sorted(
        samples, key=lambda each: each.sample_id
    )


def test_nodes_one_after_another_are_what_the_model_saw_and_the_mask_says_what_it_drew():
    (trace,) = as_episode(replace(TALK, log_ref=(-0.5, -0.25), log_mu=(-0.1, -0.2)))["traces"]
    nodes = trace["nodes"]
    assert [token for node in nodes for token in node["token_ids"]] == [*TALK.prompt_ids, *TALK.response_ids]
    assert [flag for node in nodes for flag in node["mask"]] == [False] * 2 + [True, False, False, True]
    assert [node["parent"] for node in nodes] == [None, 0, 1, 2, 3, 4]
    assert [node["logprobs"] for node in nodes if node["sampled"]] == [[-0.1], [-0.2]]
    assert [node["sampled"] for node in nodes] == [False, False, False, True, False, True]


def test_a_result_has_the_id_of_the_call_that_it_answers_and_calls_stand_beside_the_text():
    call = replace(TALK.turns[0], text='Well.\n<tool_call>\n{"name": "look", "arguments": {"x": [1]}}\n</tool_call>')
    (trace,) = as_episode(replace(TALK, turns=(call, *TALK.turns[1:])))["traces"]
    messages = [node["message"] for node in trace["nodes"]]
    assert messages[2]["tool_call_id"] == messages[1]["tool_calls"][0]["id"]
    assert messages[4]["tool_call_id"] == messages[3]["tool_calls"][0]["id"] != messages[2]["tool_call_id"]
    assert messages[3]["content"] == "Well."
    assert json.loads(messages[3]["tool_calls"][0]["arguments"]) == {"x": [1]}


def test_rewards_are_parts_only_where_these_add_up():
    (whole,) = as_episode(replace(SINGLE, reward=1.0, reward_parts={"a": 0.25, "b": 0.5}))["traces"]
    (parts,) = as_episode(replace(SINGLE, reward=0.75, reward_parts={"a": 0.25, "b": 0.5}))["traces"]
    assert whole["rewards"] == {"reward": {"score": 1.0, "weight": 1.0}}
    assert {name: each["score"] for name, each in parts["rewards"].items()} == {"a": 0.25, "b": 0.5}


def test_a_trace_that_was_scored_anew_has_the_new_reward(tmp_path):
    path = exported(tmp_path, [SINGLE])
    row = json.loads(path.read_text("utf-8"))
    row["traces"][0]["rewards"] = {"judge": {"score": 0.5, "weight": 0.5}}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (again,) = read_rows(path, "verifiers")
    assert (again.reward, again.reward_parts) == (0.25, {"judge": 0.25})
    assert again.response_ids == SINGLE.response_ids and again.log_mu == SINGLE.log_mu


def test_another_ending_is_refused(tmp_path):
    store = Store(tmp_path / "store")
    store.append([BARE])
    with pytest.raises(ConfigError, match=r"in the form verifiers; use \.jsonl"):
        export_samples(store, tmp_path / "all.csv", form="verifiers")
