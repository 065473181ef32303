"""Conversations of several turns, token in and token out.

What was drawn is never encoded again: the next turn's prompt is the history's ids, then the ids of the text that the
chat template itself has between a drawn turn and the beginning of the next answer. Whether the template, given the
longer conversation, would still render the history so is a question of its own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from klimb.experience import Message
from klimb.policies.call_forms import call_form_of
from klimb.policies.tokenizer import (
    PromptError,
    TemplateText,
    control_tokens,
    decode_ids,
    encode_template_text,
    find_control_tokens,
    id_of,
    render_chat,
    render_template,
    texts_in,
)

Schemas = Sequence[Mapping[str, Any]]


_OPENED_THOUGHT = re.compile(r"<think>\s*\Z")


def ids_between(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    new: Sequence[Message],
    *,
    tools: Schemas = (),
    last_id: int,
) -> tuple[int, ...]:
    """Token ids of the template's own text behind a drawn turn, with the new messages, up to the next answer.

    They do not depend on what was drawn: only on where the turn stands, on the names of the tools that it calls, and
    on what came in. They begin behind the turn's end token if `last_id` is that token, or another control token that
    stands in for it; otherwise (a stop string ended the turn) they begin with the template's end token. The text is
    encoded as it is behind that token, which is exact because nothing merges with a control token. Where a
    template ends turns without one (`end_of_turn` is None), the text is encoded by itself.

    Args:
        tokenizer: with a chat template.
        messages: the conversation so far, the drawn turn as its last message, with the calls that it makes.
        new: what came in: results of tools, a user's turn.
        tools: schemas of the tools on offer.
        last_id: last token of the drawn turn.

    Raises:
        ValueError: the last message is not the assistant's, or nothing came in.
        PromptError: the template refuses the messages, or leaves out the turn or something that came in.
    """
    _check_messages(messages, new)
    rendered, start = _render_behind(tokenizer, messages, new, tools)
    behind = rendered.text[start:]
    end = _find_end(tokenizer, messages, new, tools, behind)
    last = _control_token(tokenizer, last_id)
    if last is None:
        return encode_template_text(tokenizer, TemplateText(text=behind[end.begin :], mask=rendered.mask))
    stops = [stop for token, stop in find_control_tokens(tokenizer, behind[: end.limit]) if token == last]
    tail = TemplateText(text=behind[stops[0] if stops else end.stop :], mask=rendered.mask)
    return _encode_behind(tokenizer, last, tail)


def _check_messages(messages: Sequence[Message], new: Sequence[Message]) -> None:
    if not messages or messages[-1]["role"] != "assistant":
        came = messages[-1]["role"] if messages else "none"
        raise ValueError(f"the last message so far must be the assistant's drawn turn, got {came}")
    if not new:
        raise ValueError("nothing came in behind the drawn turn: new has no messages, so no next turn begins")


def _encode_behind(tokenizer: PreTrainedTokenizerBase, token: str, rendered: TemplateText) -> tuple[int, ...]:
    """Encode a text as it is behind a control token, which may eat spaces and is where words begin."""
    ids = encode_template_text(tokenizer, TemplateText(text=token + rendered.text, mask=rendered.mask))
    if not ids or ids[0] != id_of(tokenizer, token):
        raise PromptError(f"this tokenizer does not encode its control token {token!r} as one token")
    return ids[1:]


def _render_behind(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], new: Sequence[Message], tools: Schemas
) -> tuple[TemplateText, int]:
    """Render the conversation with a word in place of what was drawn; return it and where the word's last one ends."""
    word = unused_word([*messages, *new], tools)
    turn = _marked_turn(tokenizer, messages[-1], word)
    rendered = render_template(tokenizer, [*messages[:-1], turn, *new], tools)
    place = rendered.text.rfind(word)
    if place < 0:
        raise PromptError(
            f"the chat template of {tokenizer.name_or_path!r} leaves out the assistant's turn before what follows it"
        )
    return rendered, place + len(word)


def _marked_turn(tokenizer: PreTrainedTokenizerBase, turn: Message, word: str) -> Message:
    """Return the turn with the word as its content and as the only argument of each call."""
    calls = cast(Sequence[Mapping[str, Any]], turn.get("tool_calls") or ())
    if not calls:
        return cast(Message, {"role": turn["role"], "content": word})
    marked = [{**call, "function": {"name": call["function"]["name"], "arguments": {"x": word}}} for call in calls]
    # Some templates write calls only of a turn that says nothing beside them, some put what it says behind the results.
    content = "" if call_form_of(tokenizer).is_rendered else word
    return cast(Message, {"role": turn["role"], "content": content, "tool_calls": marked})


def unused_word(messages: Sequence[Message], tools: Schemas, stem: str = "klimbword") -> str:
    """Return a word of plain letters, which no template changes, that is nowhere in the messages and tools."""
    texts = [*texts_in(messages), *texts_in(tools)]
    word = stem
    while any(word in text for text in texts):
        word += "q"
    return word


def message_of_turn(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    content: str,
    calls: Sequence[Mapping[str, Any]] = (),
    opened: str = "",
) -> Message:
    """Return a drawn turn as the message that the chat template reads.

    Args:
        tokenizer: with a chat template.
        text: all that was drawn, without control tokens.
        content: what the turn says beside its calls.
        calls: the calls that it makes, in OpenAI's form. A template that writes no calls gets the whole text instead.
        opened: the thought that the template had begun for it, see `opened_thought`.
    """
    if calls and call_form_of(tokenizer).is_rendered:
        return cast(Message, {"role": "assistant", "content": opened + content, "tool_calls": list(calls)})
    return Message(role="assistant", content=opened + text)


def opened_thought(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Schemas = ()) -> str:
    """Return the beginning of a thought with which the template begins the next answer; empty if it does not.

    It belongs in front of what is drawn in the content of the turn's message, as templates read a thought only with its
    tag. The drawn ids do not have it: the prompt does.

    Raises:
        PromptError: the template refuses the messages.
    """
    found = _OPENED_THOUGHT.search(render_template(tokenizer, messages, tools).text)
    return found[0] if found else ""


def split_at_turn_end(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], new: Sequence[Message], tools: Schemas = ()
) -> tuple[str, str]:
    """Return the template's text of the conversation up to the end of its drawn turn, and the text behind it.

    The former is empty if what follows a turn depends on what it says, as where results come before the words.

    Raises:
        ValueError: the last message is not the assistant's, or nothing came in.
        PromptError: the template refuses the messages, or leaves out the turn or something that came in.
    """
    _check_messages(messages, new)
    rendered, start = _render_behind(tokenizer, messages, new, tools)
    behind = rendered.text[start:]
    rest = behind[_find_end(tokenizer, messages, new, tools, behind).stop :]
    whole = render_template(tokenizer, [*messages, *new], tools).text
    return (whole.removesuffix(rest) if whole.endswith(rest) else ""), rest


@dataclass(frozen=True, kw_only=True)
class _End:
    """Places of a turn's end in what the template has behind the turn's words.

    Attributes:
        begin: where the end begins; what is before belongs to the turn.
        stop: where it stops, for a turn that was drawn to its end.
        limit: what can have been drawn is before this.
    """

    begin: int
    stop: int
    limit: int


def _find_end(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], new: Sequence[Message], tools: Schemas, behind: str
) -> _End:
    """Return where the turn ends in what the template has behind the turn's words.

    Raises:
        PromptError: the template leaves out a message that came in.
    """
    gap = _gap_before(tokenizer, messages, new, tools, behind)
    closing = _read_closing(tokenizer, len(tokenizer), str(tokenizer.chat_template))
    has_calls = bool(messages[-1].get("tool_calls"))
    place = gap.find(closing) if closing else -1
    if place >= 0:
        # Behind a call, what is before the closing is the rest of the call, and was drawn.
        stop = place + len(closing)
        return _End(begin=place if has_calls else 0, stop=stop, limit=stop)
    begin = _len_of_rest(tokenizer, messages, tools, gap) if has_calls else 0
    return _End(begin=begin, stop=begin, limit=len(gap))


def _gap_before(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], new: Sequence[Message], tools: Schemas, behind: str
) -> str:
    """Return the part of what is behind the turn's words that stands before the first of the new messages."""
    word = unused_word([*messages, *new], tools, stem="klimbnew")
    places = [f"{word}{number}z" for number in range(len(new))]
    marked = [cast(Message, {**message, "content": place}) for message, place in zip(new, places, strict=True)]
    rendered, start = _render_behind(tokenizer, messages, marked, tools)
    for message, place in zip(new, places, strict=True):
        if place not in rendered.text[start:]:
            raise PromptError(
                f"the chat template of {tokenizer.name_or_path!r} leaves out a message of the role "
                f"{message['role']} that came in behind the assistant's turn"
            )
    before = rendered.text[start : rendered.text.index(places[0], start)]
    return behind[: num_common(behind, before)]


def _len_of_rest(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Schemas, gap: str) -> int:
    """Return how much of the gap the template has behind the turn's last words where nothing follows."""
    word = unused_word(messages, tools)
    alone = [*messages[:-1], _marked_turn(tokenizer, messages[-1], word)]
    text = render_template(tokenizer, alone, tools, add_generation_prompt=False).text
    return num_common(text.rpartition(word)[2], gap)


def num_common(text: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False)))


def _control_token(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str | None:
    """Return the control token with this id; None for others, and for the unknown token, which stands for text."""
    control = (token for token in control_tokens(tokenizer) if token != tokenizer.unk_token)
    return next((token for token in control if id_of(tokenizer, token) == token_id), None)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the control token with which the chat template ends an answer; None if it ends them without one.

    Some templates have plain text there; some begin the next turn at once, and their models draw that beginning.
    """
    closing = _read_closing(tokenizer, len(tokenizer), str(tokenizer.chat_template))
    tokens = find_control_tokens(tokenizer, closing)
    return tokens[-1][0] if tokens else None


def end_behind(tokenizer: PreTrainedTokenizerBase, behind: str, known: Sequence[int]) -> tuple[str, int]:
    """Return the token that ends an answer, and what the template writes between the answer and that token.

    It is the first control token, or known end token, that the template writes there; else a known end token with which
    the next turn begins; else, of a template that ends answers without one, the first known one.

    Args:
        tokenizer: with its chat template, or without one.
        behind: what the template writes behind the last answer's words.
        known: tokens that end a text by the tokenizer and the model's own settings.
    """
    tokens = ((cast(str | None, tokenizer.convert_ids_to_tokens(token_id)), token_id) for token_id in known)
    ends = {token: token_id for token, token_id in tokens if token}
    places = {token: behind.index(token) for token in (*control_tokens(tokenizer), *ends) if token in behind}
    if places:
        first = min(places, key=lambda token: (places[token], -len(token)))
        return behind[: places[first]], ends.get(first, id_of(tokenizer, first))
    follows = None if behind.strip() else _next_begins_by(tokenizer, len(tokenizer), str(tokenizer.chat_template))
    return "", ends.get(follows or "", known[0])


def answer_end(tokenizer: PreTrainedTokenizerBase, known: Sequence[int]) -> int:
    """Return the token with which the chat template ends an answer; the first known one where it ends it without."""
    question, answer = Message(role="user", content="klimbuser0"), Message(role="assistant", content="klimbassistant1")
    try:
        text = render_template(tokenizer, [question, answer], add_generation_prompt=False).text
    except ValueError:  # no template, or one that refuses a question and its answer
        return known[0]
    _, words, behind = text.rpartition(answer["content"])
    return end_behind(tokenizer, behind, known)[1] if words else known[0]


@lru_cache(maxsize=16)
def _next_begins_by(tokenizer: PreTrainedTokenizerBase, num_tokens: int, template: str) -> str | None:
    """Return the control token with which a turn begins that follows an answer; None if it begins without one."""
    question, answer, follow_up = (
        Message(role=role, content=f"klimb{role}{number}") for number, role in enumerate(("user", "assistant", "user"))
    )
    try:
        text = render_template(tokenizer, [question, answer, follow_up]).text
    except ValueError:
        return None
    between = text.partition(answer["content"])[2].partition(follow_up["content"])[0]
    tokens = find_control_tokens(tokenizer, between) if answer["content"] in text else []
    return tokens[0][0] if tokens else None


@lru_cache(maxsize=16)
def _read_closing(tokenizer: PreTrainedTokenizerBase, num_tokens: int, template: str) -> str:
    """Return the text from an answer's words to its end token; empty if the template ends answers without one.

    What the tokenizer may be given later is part of the key.
    """
    question, answer, follow_up = (
        Message(role=role, content=f"klimb{role}{number}") for number, role in enumerate(("user", "assistant", "user"))
    )
    try:
        text = render_template(tokenizer, [question, answer, follow_up]).text
        alone = render_template(tokenizer, [question, answer], add_generation_prompt=False).text
    except PromptError:
        return ""
    gap = text.partition(answer["content"])[2].partition(follow_up["content"])[0]
    last = alone.partition(answer["content"])[2]
    common = gap[: num_common(gap, last)]
    if tokens := find_control_tokens(tokenizer, common):
        return common[: tokens[-1][1]]
    # Some end the last answer by another token. What stands there only because another turn follows begins that turn.
    tokens = find_control_tokens(tokenizer, gap) if find_control_tokens(tokenizer, last) else []
    return gap[: tokens[0][1]] if tokens else ""


def rendered_history(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Schemas = ()
) -> tuple[int, ...]:
    """Token ids of the conversation as the template itself renders it now, with what was drawn encoded again.

    The prompt of the next turn where a template rewrites the history, and the turn becomes a sample of its own.

    Raises:
        PromptError: the template refuses the messages.
    """
    return render_chat(tokenizer, messages, tools)


def history_is_kept(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    new: Sequence[Message],
    ids_so_far: Sequence[int],
    tools: Schemas = (),
) -> bool:
    """Tell whether the template still renders the conversation as it was drawn and given.

    Control tokens must be the same ones at the same places, and the text between them the same; how that text is cut
    into tokens is the policy's choice, and does not matter.

    Args:
        tokenizer: with a chat template.
        messages: the conversation so far, the drawn turn as its last message.
        new: what came in behind it.
        ids_so_far: all of it as ids, up to where the next answer begins (with what `ids_between` gave).
        tools: schemas of the tools on offer.

    Raises:
        PromptError: the template refuses the messages.
    """
    rendered = rendered_history(tokenizer, [*messages, *new], tools)
    return rendered == tuple(ids_so_far) or parts_of(tokenizer, rendered) == parts_of(tokenizer, ids_so_far)


def parts_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int | str]:
    """Return control tokens as ids, and each run of other tokens as its text."""
    control = {id_of(tokenizer, token) for token in control_tokens(tokenizer)}
    parts: list[int | str] = []
    run: list[int] = []
    for token_id in [*ids, None]:
        if token_id is not None and token_id not in control:
            run.append(token_id)
            continue
        if run:
            parts.append(decode_ids(tokenizer, run, skip_special_tokens=False))
            run = []
        if token_id is not None:
            parts.append(token_id)
    return parts
