"""What was asked and what was said, as tracers write it of a call: OpenAI's form, Anthropic's, LangChain's, or text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from klimb.experience.importing.cells import first_of, listed, mapping, messages
from klimb.experience.importing.chat import finish_reason_of
from klimb.experience.importing.conversations import Said, said_in
from klimb.experience.importing.langchain import openai_form
from klimb.experience.reading.records import RowError
from klimb.experience.reading.strict_json import DECODER
from klimb.experience.samples import FinishReason, Message

_HISTORIES = ("chat_history", "history", "messages")


_TEXTS_ASKED = ("input", "question", "query", "prompt", "q", "text", "user_input", "message")


_SETTINGS = ("model", "user", "stop", "metadata", "config", "tags", "response_format")
"""Inputs of a call that are no part of what the model reads."""


_TEXTS_SAID = ("output", "answer", "response", "result", "text", "content", "completion", "output_text", "generation")


_THOUGHTS = "thoughts"
"""In the reason why words with thoughts beside them are refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a call gave back.

    Attributes:
        said: the response.
        finish_reason: as the server logged it.
    """

    said: Said
    finish_reason: FinishReason = "unknown"


def unpacked(value: object) -> object:
    """Return what a JSON text says, of a list, an object or a text in quotes; other text is text."""
    is_json = isinstance(value, str) and value.lstrip()[:1] in ("[", "{", '"')
    return decoded(value) if is_json else value


def decoded(value: object) -> object:
    """Return what a JSON text says, of whatever it is; text that is none, and what is no text, stay."""
    if not isinstance(value, str):
        return value
    try:
        return cast(object, DECODER.decode(value))
    except (ValueError, RecursionError):
        return value


def asked_in(inputs: object) -> tuple[Message, ...]:
    """Return what a call was asked: its messages, or the one text among its inputs behind their history.

    A text is a text, also one that is JSON: what a tracer wrote as JSON is unpacked before.

    Raises:
        RowError: no messages, and no text or several: then what the model read is not known.
    """
    if isinstance(inputs, str):
        return messages(inputs, what="input")
    if (entries := listed(inputs)) is not None:
        return _messages_in(entries)
    given = mapping(inputs)
    history = first_of(given, *_HISTORIES)
    entries = listed(history)
    if entries and "messages" in given and history is given["messages"]:
        return (*_system(given), *_messages_in(entries))
    if (prompts := listed(given.get("prompts"))) is not None and len(prompts) == 1:
        return messages(prompts[0], what="input")
    return (*(_messages_in(entries) if entries else ()), *_text_asked(given))


def _messages_in(entries: Sequence[object]) -> tuple[Message, ...]:
    """Read messages; LangChain wraps those of one call in a further list."""
    if len(entries) == 1 and (inner := listed(entries[0])) and not isinstance(inner[0], str):
        entries = inner
    return messages([openai_form(entry) for entry in entries], what="input")


def _system(given: Mapping[str, object]) -> tuple[Message, ...]:
    """Anthropic's system prompt stands beside the messages."""
    system = given.get("system")
    return messages([{"role": "system", "content": system}], what="input") if system else ()


def _text_asked(given: Mapping[str, object]) -> tuple[Message, ...]:
    texts = {
        name: value
        for name, value in given.items()
        if name not in (*_HISTORIES, *_SETTINGS) and not name.lower().endswith("id")
    }
    texts = {name: value for name, value in texts.items() if value and not isinstance(value, bool | int | float)}
    if len(texts) == 1:
        (name, value), *_ = texts.items()
        if isinstance(value, str) or name in _TEXTS_ASKED:
            return asked_in(value)
    if not texts:
        raise RowError("no prompt", "the inputs hold no text and no messages")
    raise RowError("inputs that are no messages and not one text", f"there are {', '.join(texts)[:120]}")


def answer_in(outputs: object) -> Answer:
    """Return what a call gave back.

    Raises:
        RowError: nothing, several choices, or in a form that is not known.
    """
    if outputs is None or outputs == {} or outputs == []:
        raise RowError("no response", "there are no outputs")
    if isinstance(outputs, str):
        return Answer(said=Said(text=outputs))
    entries = listed(outputs)
    if entries is None:
        return _answer_of(mapping(outputs))
    if len(entries) == 1:
        return answer_in(entries[0])
    return Answer(said=said_of(entries))


def said_of(entries: Sequence[object]) -> Said:
    """Return what is said in messages of any form."""
    forms = [openai_form(entry) for entry in entries]
    return said_in(forms, messages(forms, what="output"), what="output")


def _answer_of(outputs: Mapping[str, object]) -> Answer:
    for name in ("choices", "generations"):
        if (options := listed(outputs.get(name))) is not None:
            return _only_choice(options)
    form = openai_form(outputs)
    if "role" in form:
        reasons = (outputs, mapping(outputs.get("response_metadata")), mapping(outputs.get("kwargs")))
        return Answer(said=said_of([form]), finish_reason=_finish_reason(*reasons))
    if (spoken := listed(outputs.get("messages"))) is not None:
        return Answer(said=said_of(spoken))
    texts = {
        name: value for name, value in outputs.items() if value and (isinstance(value, str) or name in _TEXTS_SAID)
    }
    named = [name for name in _TEXTS_SAID if name in texts] or list(texts)
    if len(named) != 1:
        raise RowError("outputs that are no message and not one text", f"there are {', '.join(outputs)[:120]}")
    return answer_in(texts[named[0]])


def _only_choice(options: Sequence[object]) -> Answer:
    if len(options) != 1:
        raise RowError("a call of several choices", f"{len(options)}, and a rating of the call is of none of them")
    if (inner := listed(options[0])) is not None:
        return _only_choice(inner)
    choice = mapping(options[0])
    spoken = choice.get("message")
    reason = _finish_reason(choice, mapping(choice.get("generation_info")))
    if spoken is not None:
        return Answer(said=said_of([{"role": "assistant", **openai_form(spoken)}]), finish_reason=reason)
    if not isinstance(choice.get("text"), str):
        raise RowError("a choice without message or text", f"it has {', '.join(choice)[:80]}")
    return Answer(said=Said(text=str(choice["text"])), finish_reason=reason)


def _finish_reason(*places: Mapping[str, object]) -> FinishReason:
    for place in places:
        if (reason := first_of(place, "finish_reason", "stop_reason")) is not None:
            return finish_reason_of(reason)
    return "unknown"


def chosen_call(outputs: Sequence[object], given_back: object) -> int | None:
    """Return which of the calls of models in a trace said what the trace gave back: the last that did.

    A call that gave back other words (a title, a check of the answer) is not what was rated. Where the trace gave
    nothing back, or it is the only call, the last one is it.

    Args:
        outputs: of the calls, in their order.
        given_back: the outputs of the whole.

    Returns:
        Its place; None where none of them said it, or there are none.

    Raises:
        RowError: none said it that can be read, and one has thoughts beside its words: they would be lost.
    """
    if not outputs:
        return None
    if given_back in (None, "", {}, []):
        return len(outputs) - 1
    texts = set(_texts_in(given_back))
    lost: RowError | None = None
    for place in range(len(outputs) - 1, -1, -1):
        try:
            said = _last_words(outputs[place])
        except RowError as error:
            lost = lost or (error if _THOUGHTS in error.reason else None)
            continue
        if said and (said in texts or unpacked(said) == given_back):
            return place
    if lost is not None:
        raise lost
    return None


def _texts_in(value: object) -> Iterator[str]:
    """Yield each text in a value, blanks at its ends aside, however deep."""
    left: list[object] = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each.strip()
        elif isinstance(each, Mapping):
            left += mapping(cast(object, each)).values()
        else:
            left += listed(each) or ()


def _last_words(output: object) -> str:
    said = answer_in(output).said
    return (said.text or (said.turns[-1].text if said.turns else "")).strip()
