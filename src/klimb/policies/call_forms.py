"""Messages with tool calls, in the form that a chat template reads.

Templates agree on OpenAI's form but not on all of it: some want a call's arguments as an object and some as JSON text,
some render calls only of a message without content, some need ids that tie a result to its call.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

from transformers import PreTrainedTokenizerBase

from klimb.experience import Message


@dataclass(frozen=True, kw_only=True)
class CallForm:
    """How a chat template wants an assistant's tool calls.

    Attributes:
        arguments_as_text: arguments as JSON text; otherwise as an object.
        omits_no_content: a message that only calls has no content at all; otherwise an empty text.
        is_rendered: the template writes calls at all; otherwise they are left out of what the model reads.
    """

    arguments_as_text: bool = False
    omits_no_content: bool = False
    is_rendered: bool = True


def call_form_of(tokenizer: PreTrainedTokenizerBase) -> CallForm:
    """Return how the tokenizer's chat template wants tool calls, found by trying; kept."""
    return _find_form(tokenizer, json.dumps(tokenizer.chat_template, sort_keys=True))


def template_messages(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return the messages as the tokenizer's chat template reads them.

    A call has an id by its place in the conversation (nine letters and digits, which the strictest templates ask for)
    unless its message gives one, and the results that follow have the ids of the calls in their order.
    """
    has_calls = any(_calls_of(message) for message in messages)
    return _written(messages, call_form_of(tokenizer) if has_calls else CallForm())


def _calls_of(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return message.get("tool_calls") or ()


def _written(messages: Sequence[Mapping[str, Any]], form: CallForm) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = []
    open_ids: list[str] = []
    num_calls = 0
    for message in messages:
        entry: dict[str, Any] = {"role": message["role"], "content": message["content"]}
        if calls := _calls_of(message):
            entry["tool_calls"] = [_call(call, num_calls + place, form) for place, call in enumerate(calls)]
            num_calls += len(calls)
            open_ids = [call["id"] for call in entry["tool_calls"]]
            if form.omits_no_content and not message["content"].strip():
                del entry["content"]
        if message["role"] == "tool":
            given = message.get("tool_call_id")
            entry["tool_call_id"] = given or (open_ids.pop(0) if open_ids else _id(num_calls))
        if name := message.get("name"):
            entry["name"] = name
        written.append(entry)
    return written


def _call(call: Mapping[str, Any], place: int, form: CallForm) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    if form.arguments_as_text and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    elif not form.arguments_as_text and isinstance(arguments, str):
        arguments = _object(arguments)
    return {
        "id": call.get("id") or _id(place),
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _object(text: str) -> Any:
    """Return the JSON object in the text; a text that is none stays one."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _id(place: int) -> str:
    return f"call{place:05}"


_PROBE_NAME, _PROBE_KEY, _PROBE_VALUE = "klimbprobe", "klimbkey", "klimbvalue"


@lru_cache(maxsize=16)
def _find_form(tokenizer: PreTrainedTokenizerBase, template: str) -> CallForm:
    """Return the first form whose call the template writes; the template is part of the key, as it may be changed."""
    for omits, as_text in product((False, True), (False, True)):
        form = CallForm(arguments_as_text=as_text, omits_no_content=omits)
        if _writes_call(tokenizer, form):
            return form
    return CallForm(is_rendered=False)


def _writes_call(tokenizer: PreTrainedTokenizerBase, form: CallForm) -> bool:
    call = {"function": {"name": _PROBE_NAME, "arguments": {_PROBE_KEY: _PROBE_VALUE}}}
    conversation = [
        {"role": "user", "content": "klimb"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "klimbother", "content": "klimb"},
    ]
    try:
        text = str(tokenizer.apply_chat_template(_written(conversation, form), tokenize=False))
    # A template is a program: it may raise anything, and that it does so is the answer.
    except Exception:
        return False
    # Python's way to write an object is never what a model is trained on, nor is JSON text as a JSON string.
    is_mangled = f"{{'{_PROBE_KEY}'" in text or f'\\"{_PROBE_KEY}' in text
    return _PROBE_NAME in text and _PROBE_VALUE in text and not is_mangled
