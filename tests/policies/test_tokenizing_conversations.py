"""Ids and texts of a conversation: each drawn turn is checked, and what was put in is not made up."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conversations import ids_of, talk

from klimb.experience import Sample, ToolCall, Turn
from klimb.policies import TokenMismatch, with_token_ids
from klimb.policies.tokenizing import UnusableSample, encode_turns, fit_sample


def test_a_conversation_whose_turns_decode_to_their_texts_comes_back_as_it_is(tiny_policy):
    sample = talk(tiny_policy)
    assert with_token_ids(tiny_policy, sample) is sample


@pytest.mark.parametrize("number", [0, 2])
def test_a_drawn_turn_with_another_text_than_its_tokens_is_refused(tiny_policy, number: int):
    sample = talk(tiny_policy)
    turns = [replace(turn, text="other") if place == number else turn for place, turn in enumerate(sample.turns)]
    with pytest.raises(TokenMismatch, match=f"talk-0: its drawn turn {number // 2 + 1} decodes to"):
        with_token_ids(tiny_policy, replace(sample, turns=tuple(turns)))


def test_the_text_of_what_was_put_in_is_not_compared(tiny_policy):
    sample = talk(tiny_policy)
    turns = (sample.turns[0], replace(sample.turns[1], text="as the tool wrote it"), sample.turns[2])
    assert with_token_ids(tiny_policy, replace(sample, turns=turns)).turns == turns


def test_tokens_of_the_context_must_be_the_models_own(tiny_policy):
    sample = talk(tiny_policy)
    ids = list(sample.response_ids)
    ids[sample.is_drawn.index(False)] = tiny_policy.num_vocab
    with pytest.raises(TokenMismatch, match="no token of"):
        with_token_ids(tiny_policy, replace(sample, response_ids=tuple(ids)))


def test_a_turn_with_its_control_tokens_in_its_text_is_its_own(tiny_policy):
    first = "<|im_start|>x"
    sample = talk(tiny_policy)
    drawn = ids_of(tiny_policy, f"{first}<|im_end|>")
    changed = replace(
        sample,
        response_ids=(*drawn, *sample.response_ids[sample.turns[0].num_tokens :]),
        turns=(replace(sample.turns[0], text=first, num_tokens=len(drawn)), *sample.turns[1:]),
        log_mu=None,
        log_mu_provenance="absent",
    )
    assert with_token_ids(tiny_policy, changed) is changed


def test_a_conversation_without_token_ids_is_refused_where_the_template_tells_nothing_of_tools(tiny_policy):
    sample = talk(tiny_policy)
    bare = replace(
        sample,
        response_ids=(),
        turns=tuple(replace(turn, num_tokens=0) for turn in sample.turns),
        log_mu=None,
        log_mu_provenance="absent",
    )
    with pytest.raises(UnusableSample, match="offers tools and has no token ids"):
        with_token_ids(tiny_policy, bare)
    with pytest.raises(UnusableSample, match="writes no tool calls, of the assistant's turn 1"):
        with_token_ids(tiny_policy, replace(bare, tools=""))


def test_a_prompt_without_ids_is_rendered_with_its_tools(tiny_policy):
    tiny_policy.tokenizer.chat_template = (
        "{% for tool in tools or [] %}{{ tool['function']['name'] }}: {% endfor %}{{ messages[0]['content'] }}"
    )
    rendered = with_token_ids(tiny_policy, replace(talk(tiny_policy), prompt_ids=())).prompt_ids
    assert tiny_policy.decode(rendered) == "look: look it up"


@pytest.mark.parametrize("tools", ["{", '{"a": 1}'])
def test_tools_that_nobody_can_read_are_refused(tiny_policy, tools: str):
    with pytest.raises(UnusableSample, match="its tools are"):
        with_token_ids(tiny_policy, replace(talk(tiny_policy), prompt_ids=(), tools=tools))


def test_the_room_of_the_model_is_for_all_tokens(tiny_policy):
    sample, room = talk(tiny_policy, result="4" * 250), tiny_policy.max_positions
    assert len(sample.prompt_ids) + sample.num_drawn < room
    with pytest.raises(UnusableSample, match=f"more than the model's context of {room}"):
        fit_sample(tiny_policy, sample)


TOOL_TEMPLATE = Path("examples/templates/smollm2-tools.jinja")
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object"}}}]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
THOUGHTLESS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content.split('</think>')[-1] if m.role == 'assistant' and not loop.last else m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def logged(**changes):
    """A conversation of texts, with a call of a tool."""
    turns = (
        Turn(role="assistant", text="", num_tokens=0, calls=(ToolCall(name="add", arguments='{"a": 2}'),)),
        Turn(role="tool", text="5", num_tokens=0, name="add"),
        Turn(role="assistant", text="Five", num_tokens=0),
    )
    whole = Sample(
        sample_id="logged",
        group_id="g",
        prompt=({"role": "user", "content": "2 and 3?"},),
        prompt_ids=(),
        response="Five",
        response_ids=(),
        finish_reason="unknown",
        turns=turns,
        tools=json.dumps(TOOLS),
    )
    return replace(whole, **changes)


def test_turns_without_ids_are_encoded_as_the_template_writes_them_and_the_rest_is_context(tiny_policy):
    tiny_policy.tokenizer.chat_template = TOOL_TEMPLATE.read_text()
    sample = with_token_ids(tiny_policy, logged())
    said = [
        *sample.prompt,
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "5", "name": "add"},
    ]
    until_the_answer = tiny_policy.render(said, TOOLS)
    whole = (*sample.prompt_ids, *sample.response_ids)
    assert sample.prompt_ids == tiny_policy.render(sample.prompt, TOOLS)
    assert whole == (*until_the_answer, *ids_of(tiny_policy, "Five<|im_end|>"))
    call, result, answer = sample.turns
    assert call.text == '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>'
    assert (result.name, result.text, answer.text) == ("add", "5", "Five")
    assert sample.drawn_ids == ids_of(tiny_policy, f"{call.text}<|im_end|>Five<|im_end|>")
    assert (sample.tokenizer, sample.log_mu, sample.episode) == (tiny_policy.fingerprint, None, "")
    assert with_token_ids(tiny_policy, sample) is sample


def test_a_cut_turn_has_no_end_and_what_came_in_behind_the_last_turn_has_no_tokens(tiny_policy):
    turns = (
        Turn(role="assistant", text="one", num_tokens=0),
        Turn(role="user", text="more", num_tokens=0),
        Turn(role="assistant", text="two", num_tokens=0, finish_reason="length"),
        Turn(role="user", text="and?", num_tokens=0),
    )
    sample = with_token_ids(tiny_policy, logged(turns=turns, tools=""))
    between = "\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n"
    assert sample.response_ids == ids_of(tiny_policy, f"one<|im_end|>{between}two")
    assert [turn.num_tokens for turn in sample.turns] == [4, len(ids_of(tiny_policy, between)), 3, 0]
    assert sample.finish_reason == "length"


def test_turns_of_a_template_that_drops_thoughts_are_samples_of_their_own(tiny_policy):
    tiny_policy.tokenizer.chat_template = THOUGHTLESS
    turns = (
        Turn(role="assistant", text="<think>hm</think>a", num_tokens=0),
        Turn(role="user", text="more", num_tokens=0),
        Turn(role="assistant", text="<think>so</think>b", num_tokens=0),
    )
    parts = encode_turns(tiny_policy, logged(turns=turns, tools=""))
    assert [(part.sample_id, part.episode, part.response) for part in parts] == [
        ("logged-t00", "logged", "<think>hm</think>a"),
        ("logged-t01", "logged", "<think>so</think>b"),
    ]
    assert "hm" not in tiny_policy.decode(parts[1].prompt_ids)
    assert parts[1].prompt[1] == {"role": "assistant", "content": "<think>hm</think>a"}
    assert all(with_token_ids(tiny_policy, part) is part for part in parts)
    with pytest.raises(UnusableSample, match="rewrites the history") as caught:
        with_token_ids(tiny_policy, logged(turns=turns, tools=""))
    assert "logged" not in caught.value.reason


def test_a_turn_that_the_template_leaves_out_is_refused(tiny_policy):
    tiny_policy.tokenizer.chat_template = THOUGHTLESS.replace(" and not loop.last", "")
    turns = (Turn(role="assistant", text="<think>hm</think>a", num_tokens=0),)
    with pytest.raises(UnusableSample, match="leaves out '<think>hm"):
        with_token_ids(tiny_policy, logged(turns=turns, tools=""))


def test_a_prompt_with_tools_is_rendered_with_them_where_the_template_tells_of_tools(tiny_policy):
    tiny_policy.tokenizer.chat_template = TOOL_TEMPLATE.read_text()
    sample = with_token_ids(tiny_policy, logged(turns=()))
    assert sample.prompt_ids == tiny_policy.render(sample.prompt, TOOLS)
    assert '"add"' in tiny_policy.decode(sample.prompt_ids)
