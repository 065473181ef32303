"""Rollouts of verifiers: which tokens were drawn, what is history, and what a reward is."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from tests.experience.importing.importing_rows import as_row, reason_of, sample_of, samples_of

from klimb.experience.importing import guess_importer

CALL = {"id": "c1", "type": "function", "name": "add", "arguments": '{"a": 2}'}


def node(role: str, content: str | None, parent: int | None, ids: Sequence[int] = (), **more: Any) -> dict[str, Any]:
    message = {"role": role, "content": content, **more.pop("message", {})}
    return {"message": message, "parent": parent, "token_ids": [*ids], "mask": [False] * len(ids), **more}


def drawn(
    content: str | None, parent: int, ids: list[int], *, scaffold: Sequence[int] = (), **more: Any
) -> dict[str, Any]:
    mask = [False] * len(scaffold) + [True] * len(ids)
    logprobs = more.pop("logprobs", [-float(token) / 100 for token in ids])
    return {
        **node("assistant", content, parent, **more),
        "sampled": True,
        "token_ids": [*scaffold, *ids],
        "mask": mask,
        "logprobs": logprobs,
    }


def trace(nodes: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 64}
    return {
        "id": "t-1",
        "task": {"type": "Sum", "data": {"answer": "5"}},
        "agent": {"config": {}, "name": "agent"},
        "nodes": nodes,
        "calls": [
            {"node": place, "model": "m-1", "sampling": sampling, "finish_reason": "stop"}
            for place, each in enumerate(nodes)
            if each.get("sampled")
        ],
        "rewards": {"correct": {"score": 1.0, "weight": 0.5}, "short": {"score": 0.25}},
        "tools": [{"type": "function", "name": "add", "description": "Add.", "parameters": {"type": "object"}}],
        "timing": {"start": 1_700_000_000.5},
        **more,
    }


def episode(*traces: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "e-1", "env": {"id": "sums"}, "task": {"type": "Sum", "data": {}}, "traces": list(traces), **more}


TWO_TURNS = [
    node("user", "2 and 3?", None, [10, 11]),
    drawn("Let me see.", 0, [20, 21], scaffold=[12]),
    node("user", "Well?", 1, [13, 14]),
    drawn("Five", 2, [22], scaffold=[15]),
]


def test_only_the_masked_tokens_are_drawn_and_the_rest_is_prompt_or_context():
    sample = sample_of("verifiers", episode(trace(TWO_TURNS)))
    assert (sample.prompt_ids, sample.response_ids) == ((10, 11, 12), (20, 21, 13, 14, 15, 22))
    assert [(turn.role, turn.text, turn.num_tokens) for turn in sample.turns] == [
        ("assistant", "Let me see.", 2),
        ("user", "Well?", 3),
        ("assistant", "Five", 1),
    ]
    assert sample.drawn_ids == (20, 21, 22)
    assert (sample.log_mu, sample.log_mu_provenance) == ((-0.2, -0.21, -0.22), "sampler")
    assert (sample.sample_id, sample.model, sample.finish_reason) == ("t-1", "m-1", "stop")
    assert (sample.reward, sample.reward_parts) == (0.75, {"correct": 0.5, "short": 0.25})
    assert json.loads(sample.tools)[0]["function"]["name"] == "add"
    assert sample.created_at == 1_700_000_000.5 and sample.metadata["environment"] == "sums"
    assert sample_of("verifiers", trace(TWO_TURNS)).turns == sample.turns


def test_a_call_has_the_text_that_its_ids_spell_and_the_result_the_name_of_its_tool():
    nodes = [
        node("user", "2 and 3?", None, [10]),
        drawn(None, 0, [20, 21], message={"tool_calls": [CALL]}),
        node("tool", "5", 1, [13], message={"tool_call_id": "c1"}),
        drawn("Five", 2, [22]),
    ]
    texts = {(20, 21): "<call>add</call>", (22,): "Five"}
    sample = sample_of("verifiers", trace(nodes), decode=lambda ids: texts[tuple(ids)])
    assert [(turn.text, turn.name) for turn in sample.turns] == [("<call>add</call>", ""), ("5", "add"), ("Five", "")]
    assert [(call.name, call.arguments) for call in sample.turns[0].calls] == [("add", '{"a": 2}')]
    assert reason_of("verifiers", trace(nodes)) == "a turn whose text as it was drawn is not recorded"
    assert reason_of("verifiers", trace(nodes), decode=lambda ids: "x") == "token ids that do not spell the turn"


def test_a_turn_that_two_paths_share_is_drawn_in_the_first_and_history_to_the_other():
    nodes = [*TWO_TURNS, node("user", "Else?", 1, [16]), drawn("Six", 4, [23])]
    first, second = samples_of("verifiers", trace(nodes))
    assert first.drawn_ids == (20, 21, 22)
    assert (second.prompt_ids, second.drawn_ids) == ((10, 11, 12, 20, 21, 16), (23,))
    assert [message["content"] for message in second.prompt] == ["2 and 3?", "Let me see.", "Else?"]
    assert (first.episode, second.episode) == ("t-1", "t-1") and first.group_id == second.group_id
    assert (first.sample_id, second.sample_id) == ("t-1", "t-1#1")


def test_an_assistants_message_that_the_model_did_not_say_is_history():
    nodes = [
        *TWO_TURNS[:2],
        node("user", "No.", 1, [13]),
        node("assistant", "Put in", 2, [14]),
        node("user", "Well?", 3, [15]),
        drawn("Five", 4, [22]),
    ]
    first, second = samples_of("verifiers", trace(nodes))
    assert first.drawn_ids == (20, 21) and second.drawn_ids == (22,)
    assert second.prompt[3] == {"role": "assistant", "content": "Put in"}
    assert second.prompt_ids == (10, 11, 12, 20, 21, 13, 14, 15)


def test_what_was_not_scored_has_no_reward_and_an_agent_that_is_not_trained_no_sample():
    assert sample_of("verifiers", trace(TWO_TURNS, rewards={"correct": None})).reward is None
    assert sample_of("verifiers", trace(TWO_TURNS, rewards={})).reward is None
    assert samples_of("verifiers", trace(TWO_TURNS, agent={"config": {}, "trainable": False})) == []


def test_calls_with_different_settings_are_no_mu():
    row = trace(TWO_TURNS)
    row["calls"][1]["sampling"] = {"temperature": 0.5}
    assert sample_of("verifiers", row).log_mu_provenance == "estimated"


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (
            [TWO_TURNS[0], drawn("x", 0, [1, 2], logprobs=[-1.0])],
            "another number of log-probabilities than of drawn tokens",
        ),
        ([TWO_TURNS[0], {**drawn("x", 0, [1, 2]), "mask": [True]}], "a mask of another length than its tokens"),
        (
            [TWO_TURNS[0], {**drawn("x", 0, [1, 2, 3], logprobs=[-1.0, -1.0]), "mask": [True, False, True]}],
            "a drawn turn with tokens in it that were not drawn",
        ),
        ([*TWO_TURNS[:3], drawn("x", 2, [])], "a response of which some turns have no token ids"),
        ([node("user", "x", 3), *TWO_TURNS[1:]], "nodes that are no graph of messages"),
    ],
)
def test_a_trace_that_does_not_say_what_was_drawn_is_rejected(nodes: list[dict[str, Any]], reason: str):
    assert reason_of("verifiers", trace(nodes)) == reason


QUESTION = {"role": "user", "content": "2 and 3?"}
SAID = {"role": "assistant", "content": "", "tool_calls": [json.dumps(CALL)]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "5"}
ANSWER = {"role": "assistant", "content": "Five"}


def step(asked: list[Any], said: Any, prompt_ids: list[int], ids: list[int], **more: Any) -> dict[str, Any]:
    tokens = {
        "prompt_ids": prompt_ids,
        "prompt_mask": [0] * len(prompt_ids),
        "completion_ids": ids,
        "completion_mask": [1] * len(ids),
        "completion_logprobs": [-0.5] * len(ids),
        "is_truncated": False,
    }
    return {"prompt": asked, "completion": [said], "tokens": tokens, "trajectory_id": "r-1", "reward": 1.0, **more}


def rollout(**more: Any) -> dict[str, Any]:
    return {
        "example_id": 3,
        "prompt": [QUESTION],
        "completion": [SAID, RESULT, ANSWER],
        "reward": 1.0,
        "metrics": {"num_turns": 2.0},
        "tool_defs": [{"name": "add", "description": "", "parameters": {}}],
        **more,
    }


def decode(ids: Any) -> str:
    return {(20, 21): "<call>add</call>", (22,): "Five"}[tuple(ids)]


def test_steps_whose_prompts_go_on_are_turns_of_one_response():
    steps = [step([QUESTION], SAID, [10], [20, 21]), step([QUESTION, SAID, RESULT], ANSWER, [10, 20, 21, 13], [22])]
    sample = sample_of("verifiers", rollout(trajectory=steps), decode=decode)
    assert (sample.sample_id, sample.prompt_ids, sample.response_ids) == ("r-1", (10,), (20, 21, 13, 22))
    assert sample.drawn_ids == (20, 21, 22) and sample.log_mu == (-0.5,) * 3
    assert [(turn.role, turn.name, turn.num_tokens, turn.reward) for turn in sample.turns] == [
        ("assistant", "", 2, None),
        ("tool", "add", 1, None),
        ("assistant", "", 1, None),
    ]
    assert sample.metadata["metric num_turns"] == "2.0"


def test_a_step_whose_prompt_is_another_begins_a_sample_and_own_rewards_are_of_turns():
    steps = [
        step([QUESTION], SAID, [10], [20, 21], reward=0.25),
        step([QUESTION, SAID, RESULT], ANSWER, [10, 20, 99, 13], [22], is_truncated=True),
    ]
    first, second = samples_of("verifiers", rollout(trajectory=steps), decode=decode)
    assert (first.drawn_ids, second.prompt_ids, second.drawn_ids) == ((20, 21), (10, 20, 99, 13), (22,))
    assert (first.turns[0].reward, second.turns[0].reward) == (0.25, 1.0)
    assert (first.episode, second.episode, second.finish_reason) == ("r-1", "r-1", "length")
    assert second.prompt[2] == {"role": "tool", "content": "5", "name": "add"}


def test_a_rollout_without_steps_is_turns_of_text():
    sample = sample_of("verifiers", rollout())
    assert [(turn.role, turn.text, turn.name) for turn in sample.turns] == [
        ("assistant", "", ""),
        ("tool", "5", "add"),
        ("assistant", "Five", ""),
    ]
    assert sample.turns[0].calls[0].name == "add" and (sample.response_ids, sample.log_mu) == ((), None)
    assert sample_of("verifiers", rollout(error={"error": "TunnelError"})).reward is None


@pytest.mark.parametrize("row", [episode(trace(TWO_TURNS)), trace(TWO_TURNS), rollout()])
def test_rows_of_verifiers_are_guessed(row: dict[str, Any]):
    assert guess_importer(as_row(row)).name == "verifiers"
