"""Conversations to imitate: which tokens are the policy's, and what is refused."""

from pathlib import Path

import pytest
import torch

from klimb.training.cloning import cloning_batch
from klimb.training.demonstrations import (
    Demonstration,
    demonstration_as_samples,
    read_demonstration,
    why_not_shown,
)

TEMPLATE = Path("examples/templates/smollm2-tools.jinja")
TOOLS = (
    {
        "type": "function",
        "function": {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}},
    },
)
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
ROW = {
    "messages": [
        {"role": "user", "content": "2 and 3?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "name": "add", "content": "5"},
        {"role": "assistant", "content": "Five"},
    ],
    "tools": list(TOOLS),
}


@pytest.fixture
def policy(tiny_policy):
    tiny_policy.tokenizer.chat_template = TEMPLATE.read_text()
    return tiny_policy


def test_turns_are_encoded_as_the_template_writes_them_and_the_rest_is_context(policy):
    shown = read_demonstration(ROW, "row 1")
    (sample,) = demonstration_as_samples(policy, shown, name="d")
    assert [(turn.role, turn.name, turn.is_drawn) for turn in sample.turns] == [
        ("assistant", "", True),
        ("tool", "add", False),
        ("assistant", "", True),
    ]
    assert sample.prompt == shown.messages[:1] and sample.prompt_ids == policy.render(shown.messages[:1], TOOLS)
    whole = (*sample.prompt_ids, *sample.response_ids)
    before_the_answer = policy.render(shown.messages[:3], TOOLS)
    assert whole[: len(before_the_answer)] == before_the_answer
    call, _, answer = sample.turns
    assert call.text == '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>' and answer.text == "Five"
    assert [call.name for call in call.calls] == ["add"]
    ends = [ids for ids in sample.drawn_ids if ids in policy.end_ids]
    assert len(ends) == 2 and sample.drawn_ids[-1] in policy.end_ids


def test_what_others_said_is_not_imitated(policy):
    messages = [
        {"role": "system", "content": "-"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    (sample,) = demonstration_as_samples(policy, read_demonstration({"messages": messages}, "row 1"), name="d")
    batch = cloning_batch([sample])
    scored = policy.log_probs(batch.prompts, batch.prompt_index, batch.response_ids, batch.mask)
    assert bool((scored.log_pi[~batch.mask] == 0).all()) and int(batch.mask.sum()) < batch.mask.shape[1]
    assert torch.equal(batch.mask[0], torch.tensor(batch.samples[0].is_drawn))


def test_a_template_that_rewrites_what_was_said_makes_a_sample_of_each_turn(policy):
    rewriting = TEMPLATE.read_text().replace(
        "(message['content'] or '')", "(message['content'] if loop.last or message['role'] != 'assistant' else '-')"
    )
    assert rewriting != TEMPLATE.read_text()
    policy.tokenizer.chat_template = rewriting
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    samples = demonstration_as_samples(policy, read_demonstration({"messages": messages}, "row 1"), name="d")
    assert [len(sample.turns) for sample in samples] == [1, 1] and {sample.episode for sample in samples} == {"d"}
    assert [sample.turns[0].text for sample in samples] == ["b", "d"]


def test_arguments_as_text_are_read(policy):
    row = {**ROW, "messages": [*ROW["messages"]]}
    row["messages"][1] = {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}],
    }
    assert read_demonstration(row, "row 1") == read_demonstration(ROW, "row 1")


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("hello", "row 1: .*has a turn of the assistant, got roles user"),
        ([{"role": "assistant", "content": "a"}], "row 1: .*begins with a user's"),
        ([{"role": "user", "content": "a"}], "row 1: .*has a turn of the assistant"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}], "nothing to imitate"),
        ([{"role": "judge", "content": "a"}], "row 1: .*another role.*got 'judge'; roles are"),
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{"function": {"name": 1}}]}],
            "row 1: .*a tool call without a name",
        ),
    ],
)
def test_what_is_no_conversation_is_refused_by_its_row(messages, words: str):
    with pytest.raises(ValueError, match=words):
        read_demonstration({"messages": messages}, "row 1")


def test_a_conversation_that_is_too_long_is_told(policy):
    shown = Demonstration(messages=({"role": "user", "content": "a" * 5000}, {"role": "assistant", "content": "b"}))
    assert "positions" in why_not_shown(policy, shown)
