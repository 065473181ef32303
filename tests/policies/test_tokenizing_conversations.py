"""Ids and texts of a conversation: each drawn turn is checked, and what was put in is not made up."""

from dataclasses import replace

import pytest
from tests.conversations import ids_of, talk

from klimb.policies import TokenMismatch, with_token_ids
from klimb.policies.tokenizing import UnusableSample, fit_sample


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


def test_a_conversation_without_token_ids_is_refused_rather_than_read_as_one_answer(tiny_policy):
    sample = talk(tiny_policy)
    bare = replace(
        sample,
        response_ids=(),
        turns=tuple(replace(turn, num_tokens=0) for turn in sample.turns),
        log_mu=None,
        log_mu_provenance="absent",
    )
    with pytest.raises(UnusableSample, match="has 3 turns and no token ids"):
        with_token_ids(tiny_policy, bare)


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
