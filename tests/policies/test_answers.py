"""A text-only answer has the tokens that it has in the whole conversation, and ends as the template ends a turn."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
from tests.policies.chat_tokenizers import chat_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from klimb.experience import Sample
from klimb.policies import TokenMismatch, with_token_ids
from klimb.policies.answers import AnswerError, encode_answer, parts_of_answer
from klimb.policies.tokenizer import render_chat
from klimb.policies.turns import answer_end
from klimb.training.cloning import pair_as_samples

PROMPT = ({"role": "user", "content": "Name a prime."},)
TEMPLATES = Path(__file__).parent / "templates"
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = LLAMA_2.replace("' ' + m.content.strip() + ' ' + eos_token", "m.content + eos_token")


@lru_cache(maxsize=1)
def sentencepiece() -> str:
    """Return a tokenizer that puts a space in front of every text, as Llama 2's does; unknown characters are bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "S", "e", "v", "n", "5", "\n", "|", ">", "Se", "ve", "ven", "▁Se", "\n5"]
    merges = [("S", "e"), ("v", "e"), ("ve", "n"), ("▁", "Se"), ("\n", "5")]
    tokenizer = Tokenizer(
        models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer.to_str()


def with_dummy_space(template: str) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(sentencepiece()), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = template
    return tokenizer


def policy_with(policy, tokenizer, *, known=()):
    """Return the tiny policy with another tokenizer and room for its ids."""
    policy.causal_lm.resize_token_embeddings(len(tokenizer))
    known = (tokenizer.eos_token_id, *known)
    ends = tuple(dict.fromkeys((answer_end(tokenizer, known), *known)))
    return replace(policy, tokenizer=tokenizer, end_ids=ends)


def text_only(response, **fields):
    return Sample(
        **{
            "sample_id": "s1",
            "group_id": "g1",
            "prompt": PROMPT,
            "prompt_ids": (),
            "response": response,
            "response_ids": (),
            "finish_reason": "unknown",
            **fields,
        }
    )


def tokens_of(policy, response, **fields):
    sample = with_token_ids(policy, text_only(response, **fields))
    assert with_token_ids(policy, sample) is sample
    return policy.tokenizer.convert_ids_to_tokens(list(sample.response_ids))


@pytest.mark.parametrize(
    ("template", "response", "tokens"),
    [
        (ZEPHYR, "Seven", ["Se", "ven", "</s>"]),
        (ZEPHYR, " Seven", ["▁Se", "ven", "</s>"]),
        (ZEPHYR, "5", ["5", "</s>"]),  # behind the line feed of the prompt it would be the token "\n5"
        (ZEPHYR, "", ["</s>"]),
        (LLAMA_2, "Seven", ["▁Se", "ven", "▁", "</s>"]),
        (LLAMA_2, " Seven ", ["▁Se", "ven", "▁", "</s>"]),
        (LLAMA_2, "5", ["▁", "5", "▁", "</s>"]),
        (MISTRAL, "Seven", ["Se", "ven", "</s>"]),
        (MISTRAL, " Seven", ["▁Se", "ven", "</s>"]),
    ],
)
def test_the_space_in_front_of_every_text_is_in_front_of_the_conversation_alone(
    tiny_policy, template, response, tokens
):
    policy = policy_with(tiny_policy, with_dummy_space(template))
    assert tokens_of(policy, response) == tokens
    if response not in ("", "5"):
        said = [*PROMPT, {"role": "assistant", "content": response}]
        whole = policy.tokenizer.apply_chat_template(said, tokenize=False)
        ids = policy.tokenizer(whole, add_special_tokens=False)["input_ids"]
        prompt = policy.render(PROMPT)
        assert tuple(ids[: len(prompt)]) == prompt
        behind = policy.tokenizer.convert_ids_to_tokens(ids[len(prompt) :])
        assert behind[: len(tokens)] == tokens


def test_a_cut_answer_has_no_end_and_no_space_before_it(tiny_policy):
    policy = policy_with(tiny_policy, with_dummy_space(LLAMA_2))
    assert tokens_of(policy, "Seven", finish_reason="length") == ["▁Se", "ven"]


def test_cloned_pairs_have_the_tokens_of_the_conversation_too(tiny_policy):
    policy = policy_with(tiny_policy, with_dummy_space(ZEPHYR))
    (sample,) = pair_as_samples(policy, (PROMPT, "Seven"), number=0)
    assert policy.tokenizer.convert_ids_to_tokens(list(sample.response_ids)) == ["Se", "ven", "</s>"]


def test_text_that_spells_control_tokens_stays_text_behind_a_dummy_space(tiny_policy):
    policy = policy_with(tiny_policy, with_dummy_space(ZEPHYR))
    tokens = tokens_of(policy, "Seven</s>Seven")
    assert tokens[0] == "Se" and tokens.count("</s>") == 1 and tokens[-1] == "</s>"


def test_an_answer_behind_recorded_ids_of_another_prompt_follows_those(tiny_policy):
    policy = policy_with(tiny_policy, with_dummy_space(ZEPHYR))
    recorded = tuple(policy.tokenizer("Name a prime. It is", add_special_tokens=False)["input_ids"])
    assert tokens_of(policy, "Seven", prompt_ids=recorded) == ["Se", "ven", "</s>"]
    assert tokens_of(policy, " Seven", prompt_ids=recorded) == ["▁Se", "ven", "</s>"]


ENDS = {
    "chatml": "<|im_end|>",
    "command-r": "<|END_OF_TURN_TOKEN|>",
    "gemma2": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "granite3": "<|end_of_text|>",
    "harmony": "<|return|>",
    "llama3.1": "<|eot_id|>",
    "mistral-v3": "</s>",
    "phi3": "<|end|>",
    "phi4-mini": "<|end|>",
    "plain": "</s>",
    "qwen2.5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "smollm3": "<|im_end|>",
}


@pytest.mark.parametrize("name", ENDS)
def test_an_answer_ends_by_what_the_template_writes_behind_it_and_not_by_the_tokenizers_end(tiny_policy, name):
    tokenizer = chat_tokenizer((TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8"))
    policy = policy_with(tiny_policy, tokenizer)
    ids = encode_answer(policy, PROMPT, "Seven", prompt_ids=render_chat(tokenizer, PROMPT))
    assert tokenizer.convert_ids_to_tokens(ids[-1]) == ENDS[name]
    assert policy.end_ids[0] == ids[-1] and tokenizer.eos_token_id in policy.end_ids
    assert tokenizer.decode(ids[:-1], skip_special_tokens=False).endswith("Seven")


def test_the_beginning_of_the_next_turn_ends_an_answer_where_the_model_says_so(tiny_policy):
    tokenizer = chat_tokenizer((TEMPLATES / "glm4.jinja").read_text(encoding="utf-8"))
    user = tokenizer.convert_tokens_to_ids("<|user|>")
    assert answer_end(tokenizer, [tokenizer.eos_token_id]) == tokenizer.eos_token_id
    assert answer_end(tokenizer, [tokenizer.eos_token_id, user]) == user
    policy = policy_with(tiny_policy, tokenizer, known=(user,))
    assert tokenizer.convert_ids_to_tokens(list(policy.end_ids)) == ["<|user|>", "</s>"]


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no answers') }}"])
def test_without_a_template_that_writes_an_answer_the_tokenizers_end_ends_it(template):
    tokenizer = chat_tokenizer("{{ messages }}")
    tokenizer.chat_template = template
    assert answer_end(tokenizer, [7, 9]) == 7


def test_what_the_template_writes_before_every_answer_is_drawn_with_it(tiny_policy):
    tokenizer = chat_tokenizer((TEMPLATES / "harmony.jinja").read_text(encoding="utf-8"))
    policy = policy_with(tiny_policy, tokenizer)
    ids = encode_answer(policy, PROMPT, "Seven", prompt_ids=render_chat(tokenizer, PROMPT))
    assert tokenizer.decode(ids) == "<|channel|>final<|message|>Seven<|return|>"
    sample = with_token_ids(policy, text_only("Seven"))
    assert sample.response_ids == ids and with_token_ids(policy, sample) is sample
    with pytest.raises(TokenMismatch):
        with_token_ids(policy, replace(sample, response="Eleven"))


OPENED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
CLOSED = OPENED.replace("{{ m.content.split('</think>')[-1] }}", "{{ m.content }}").replace(
    "\n{{ m.content }}", "\n{{ '<think>\n\n</think>\n\n' if m.role == 'assistant' else '' }}{{ m.content }}"
)


@pytest.mark.parametrize(
    ("response", "drawn"),
    [
        ("<think>\n2, 3, 5\n</think>\n7", "2, 3, 5\n</think>\n7"),
        ("<think>2, 3, 5</think>7", "2, 3, 5</think>7"),
        ("2, 3, 5\n</think>\n7", "2, 3, 5\n</think>\n7"),
    ],
)
def test_a_thought_that_the_prompt_begins_is_not_begun_again(tiny_policy, response, drawn):
    tiny_policy.tokenizer.chat_template = OPENED
    sample = with_token_ids(tiny_policy, text_only(response))
    assert tiny_policy.decode(sample.response_ids) == drawn
    assert tiny_policy.decode(sample.prompt_ids).endswith("<think>\n")
    assert with_token_ids(tiny_policy, sample) is sample


def test_an_answer_without_thoughts_does_not_become_one(tiny_policy):
    tiny_policy.tokenizer.chat_template = OPENED
    with pytest.raises(TokenMismatch, match=r"s1: the chat template begins each answer with a thought"):
        with_token_ids(tiny_policy, text_only("7"))
    cut = with_token_ids(tiny_policy, text_only("2, 3", finish_reason="length"))
    assert tiny_policy.decode(cut.response_ids) == "2, 3"
    tiny_policy.tokenizer.chat_template = CLOSED
    closed = with_token_ids(tiny_policy, text_only("7"))
    assert tiny_policy.decode(closed.response_ids) == "\n</think>\n\n7"


def test_the_empty_thoughts_of_a_template_stand_before_an_answer_without_any(tiny_policy):
    tiny_policy.tokenizer.chat_template = CLOSED.replace("assistant\n<think>\n{% endif %}", "assistant\n{% endif %}")
    assert parts_of_answer(tiny_policy, PROMPT, "7").text == "<think>\n\n</think>\n\n7"
    assert parts_of_answer(tiny_policy, PROMPT, "<think>hm</think>7").text == "<think>hm</think>7"


def test_a_text_that_no_tokens_spell_is_refused(tiny_policy):
    with pytest.raises(AnswerError, match="cannot write this text"):
        encode_answer(tiny_policy, PROMPT, "caf\N{LATIN SMALL LETTER E WITH ACUTE}", prompt_ids=(3,))
