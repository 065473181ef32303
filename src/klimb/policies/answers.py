"""An answer that is text alone, as token ids: the part of the whole conversation that stands behind its prompt.

A text by itself has other tokens than the same text behind a prompt: many tokenizers put a space in front of it. So the
prompt's text and the answer's are encoded together, with what the chat template itself writes around an answer: white
space, a channel, and the token that ends the turn, which need not be the tokenizer's end of a text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from klimb.experience import Message
from klimb.policies.policy import Policy
from klimb.policies.tokenizer import (
    PromptError,
    TemplateText,
    append_text,
    decode_ids,
    encode_template_text,
    render_template,
)
from klimb.policies.turns import end_behind, unused_word

Schemas = Sequence[Mapping[str, Any]]


NUM_BEFORE = 8
"""Tokens of a prompt behind which an answer's are decoded, to see that they spell it there too."""


_ANCHORS = ("", "\n", "x")
"""Texts behind which an answer is encoded where it would merge with its prompt; one leaves it as it is."""


_OPENED = re.compile(r"<think>(\s*)\Z")


class AnswerError(ValueError):
    """A text that cannot become the answer to its prompt in this tokenizer's tokens."""


@dataclass(frozen=True, kw_only=True)
class AnswerParts:
    """An answer with what the chat template writes around it.

    Attributes:
        prompt: what it stands behind; None where only ids are known.
        lead: of the template, between the prompt and the words.
        words: the answer, without the beginning of a thought that the prompt has already.
        tail: of the template, between the words and the end token.
        end_id: the token that ends it; None for an answer that was cut.
    """

    prompt: TemplateText | None
    lead: str
    words: str
    tail: str
    end_id: int | None

    @property
    def text(self) -> str:
        """All that is drawn, but for the end token."""
        return f"{self.lead}{self.words}{self.tail}"


def encode_answer(
    policy: Policy,
    messages: Sequence[Message],
    answer: str,
    *,
    prompt_ids: Sequence[int],
    tools: Schemas = (),
    is_cut: bool = False,
) -> tuple[int, ...]:
    """Return the ids of an answer that is text, behind its prompt: the end token included unless the answer was cut.

    Text in it that spells a control token stays text.

    Args:
        policy: with its tokenizer and end tokens.
        messages: the prompt.
        answer: its text.
        prompt_ids: of the prompt; not those of the template for another rendering, which the answer then follows.
        tools: schemas that the prompt offers.
        is_cut: it was not ended by the model.

    Raises:
        AnswerError: the tokenizer cannot write the text behind this prompt, or the prompt begins a thought that the
            answer does not end.
        ValueError: there are neither prompt ids nor a chat template.
    """
    parts = parts_of_answer(policy, messages, answer, tools=tools, is_cut=is_cut)
    end = () if parts.end_id is None else (parts.end_id,)
    tokenizer = policy.tokenizer
    before = tuple(prompt_ids)
    whole = _encode_whole(tokenizer, parts, before)
    if whole is not None and _holds(tokenizer, whole, parts):
        return (*whole, *end)
    for anchor in _ANCHORS:
        ids = _encode_behind(tokenizer, anchor, parts)
        if ids is not None and _spells(tokenizer, before, ids, parts):
            return (*ids, *end)
    raise AnswerError(
        f"the tokenizer of {policy.name} cannot write this text behind its prompt{_example(policy, parts)}"
    )


def _example(policy: Policy, parts: AnswerParts) -> str:
    ids = policy.tokenizer(parts.text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    written = policy.decode(ids)
    place = next((i for i, (a, b) in enumerate(zip(written, parts.text, strict=False)) if a != b), None)
    if place is None:
        return ""
    start = max(0, place - 15)
    return f": {written[start : start + 30]!r} where the text has {parts.text[start : start + 30]!r}"


def parts_of_answer(
    policy: Policy, messages: Sequence[Message], answer: str, *, tools: Schemas = (), is_cut: bool = False
) -> AnswerParts:
    """Return an answer with what the policy's chat template writes around it; nothing where there is no template.

    Raises:
        AnswerError: the prompt begins a thought, and the answer neither goes on with it nor can stand behind it.
    """
    tokenizer = policy.tokenizer
    bare = AnswerParts(prompt=None, lead="", words=answer, tail="", end_id=None if is_cut else policy.end_ids[0])
    if not (messages and tokenizer.chat_template):
        return bare
    word = unused_word([*messages, Message(role="user", content=answer)], tools)
    said = [*messages, Message(role="assistant", content=word)]
    try:
        prompt = render_template(tokenizer, messages, tools)
    except PromptError:
        return bare
    try:
        whole = render_template(tokenizer, said, tools, add_generation_prompt=False).text
    except PromptError:
        whole = ""
    place = whole.rfind(word)
    is_written = place >= 0 and whole.startswith(prompt.text) and place >= len(prompt.text)
    lead = whole[len(prompt.text) : place] if is_written else ""
    behind = whole[place + len(word) :]
    tail, end_id = end_behind(tokenizer, behind, policy.end_ids) if place >= 0 else ("", policy.end_ids[0])
    lead, words = _fit_thoughts(prompt.text, lead, answer, is_cut=is_cut)
    return AnswerParts(
        prompt=prompt,
        lead=_kept(lead, before=words[:1]),
        words=words,
        tail="" if is_cut else _kept(tail, before=words[-1:]),
        end_id=None if is_cut else end_id,
    )


def _kept(around: str, *, before: str) -> str:
    """Return the template's white space beside an answer, unless the answer has its own there, or is empty."""
    return "" if around.isspace() and (not before or before.isspace()) else around


def _fit_thoughts(prompt: str, lead: str, answer: str, *, is_cut: bool) -> tuple[str, str]:
    """Return lead and words of an answer, of which the template may write the beginning of its thoughts, or empty ones.

    Raises:
        AnswerError: the words would be a thought, as nothing ends it.
    """
    opened = _OPENED.search(prompt)
    is_thinking = answer.lstrip().startswith("<think>")
    if opened is None:
        return ("" if is_thinking and "<think>" in lead else lead), answer
    if is_thinking:
        return "", answer.lstrip().removeprefix("<think>").removeprefix(opened[1])
    if "</think>" in answer or is_cut:
        return "", answer
    if "</think>" in lead:
        return lead, answer
    raise AnswerError(
        "the chat template begins each answer with a thought (<think>), and this one has none that ends: log it with "
        "its thoughts, or take a template or its arguments that begin none (model.chat_template, "
        "model.template_arguments)"
    )


def _encode_whole(
    tokenizer: PreTrainedTokenizerBase, parts: AnswerParts, before: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Return what stands behind the prompt where both are encoded together; None where the prompt's ids are others."""
    if parts.prompt is not None:
        ids = _encode(tokenizer, parts.prompt, parts)
        if ids is not None and ids[: len(before)] == before:
            return ids[len(before) :]
    recorded = TemplateText(text=decode_ids(tokenizer, before, skip_special_tokens=False))
    ids = _encode(tokenizer, recorded, parts)
    return ids[len(before) :] if ids is not None and ids[: len(before)] == before else None


def _encode_behind(tokenizer: PreTrainedTokenizerBase, anchor: str, parts: AnswerParts) -> tuple[int, ...] | None:
    """Return the ids of the answer behind a text that does not merge with it; None if it does."""
    before = tuple(tokenizer(anchor, add_special_tokens=False)["input_ids"]) if anchor else ()
    ids = _encode(tokenizer, TemplateText(text=anchor), parts)
    if ids is None and not parts.lead.strip():
        ids = tuple(tokenizer(anchor + parts.text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    return ids[len(before) :] if ids is not None and ids[: len(before)] == before else None


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: TemplateText, parts: AnswerParts) -> tuple[int, ...] | None:
    """Return the ids of prompt and answer without its end token; None if the tokenizer cannot keep its text apart."""
    begun = TemplateText(text=prompt.text + parts.lead, mask=prompt.mask)
    try:
        return encode_template_text(tokenizer, append_text(tokenizer, begun, parts.words, own=parts.tail))
    except PromptError:
        return None


def _holds(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...], parts: AnswerParts) -> bool:
    """Tell whether the ids that stand behind a prompt have the answer's words in them, whole.

    Decoders strip the space at the beginning, and some tokenizers put one behind each control token.
    """
    return parts.words.removeprefix(" ") in decode_ids(tokenizer, ids, skip_special_tokens=False)


def _spells(
    tokenizer: PreTrainedTokenizerBase, before: tuple[int, ...], ids: tuple[int, ...], parts: AnswerParts
) -> bool:
    """Tell whether the ids spell the answer where they stand, where no decoder strips a space."""
    context = before[-NUM_BEFORE:]
    text = decode_ids(tokenizer, (*context, *ids), skip_special_tokens=False)
    return text == decode_ids(tokenizer, context, skip_special_tokens=False) + parts.text
