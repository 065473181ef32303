"""Personal data, replaced in all that is kept of a row."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from klimb.experience.feedback import Feedback
from klimb.experience.samples import Message, Sample, ToolCall, Turn

Redact = Callable[[str], str]


WITHOUT_IDS = "personal data was replaced, so the recorded tokens are no longer those of the text"
"""Note of a sample that lost its token ids and log-probabilities."""


NOT_WORDS = frozenset(
    {"user", "completion_id", "trace_id", "imported_as", "importer_source", "log_mu_note", "sampling_assumed"}
)
"""Metadata that klimb writes or joins rows by."""


TOKENS = frozenset(
    {"token_ids", "prompt_token_ids", "response_ids", "prompt_ids", "input_ids", "output_ids", "completion_ids"}
    | {"sampling_mask", "output_token_sampling_mask"}
    | {"logprobs", "log_probs", "output_token_logprobs", "input_token_logprobs", "prompt_logprobs", "tokens"}
)
"""Names of what spells a text once more, token by token."""


def redact_part(part: Sample | Feedback, redact: Redact) -> Sample | Feedback:
    """Return a sample or a rating without personal data in its texts and in its row.

    What was asked and said is then another text than the one that was drawn, so recorded token ids and
    log-probabilities go, and a note says so. A part without personal data stays as it is.
    """
    if isinstance(part, Feedback):
        return replace(part, comment=redact(part.comment), raw=redact_raw(part.raw, redact))
    texts = {
        "prompt": tuple(_message(message, redact) for message in part.prompt),
        "response": redact(part.response),
        "turns": tuple(_turn(turn, redact) for turn in part.turns),
        "tools": redact_raw(part.tools, redact),
    }
    rest = replace(
        part,
        raw=redact_raw(part.raw, redact),
        reward_reason=redact(part.reward_reason),
        metadata={
            name: text if name in NOT_WORDS else redact_raw(text, redact) for name, text in part.metadata.items()
        },
    )
    if all(getattr(part, name) == value for name, value in texts.items()):
        return rest
    return _with_texts(replace(rest, raw=redact_raw(part.raw, redact, dropped=TOKENS)), texts)


def redact_raw(text: str, redact: Redact, *, dropped: frozenset[str] = frozenset()) -> str:
    """Return a text without personal data; of JSON, each text in it, so that it stays JSON.

    What stands under a name of `dropped` becomes null.
    """
    if text.lstrip()[:1] in ("[", "{", '"'):
        try:
            parsed = cast(object, json.loads(text))
            redacted = _through(parsed, redact, dropped)
        except (ValueError, RecursionError):
            return redact(text)
        return text if redacted == parsed else json.dumps(redacted, ensure_ascii=False)
    return redact(text)


def _with_texts(sample: Sample, texts: Mapping[str, object]) -> Sample:
    if not (sample.response_ids or sample.prompt_ids):
        return replace(sample, **texts)  # type: ignore[arg-type]
    without: dict[str, object] = {
        "prompt_ids": (),
        "response_ids": (),
        "log_mu": None,
        "log_mu_provenance": "absent",
        "log_ref": None,
        "support": None,
        "tokenizer": "",
        "metadata": {**sample.metadata, "log_mu_note": WITHOUT_IDS},
        "turns": tuple(replace(turn, num_tokens=0) for turn in cast(tuple[Turn, ...], texts["turns"])),
    }
    return replace(sample, **{**texts, **without})  # type: ignore[arg-type]


def _message(message: Message, redact: Redact) -> Message:
    redacted: Message = {**message, "content": redact(message["content"])}
    if calls := message.get("tool_calls"):
        redacted["tool_calls"] = cast(list[Mapping[str, object]], _through(list(calls), redact))
    return redacted


def _turn(turn: Turn, redact: Redact) -> Turn:
    calls = tuple(ToolCall(name=call.name, arguments=redact_raw(call.arguments, redact)) for call in turn.calls)
    return replace(turn, text=redact(turn.text), calls=calls)


def _through(value: object, redact: Redact, dropped: frozenset[str] = frozenset()) -> object:
    if isinstance(value, str):
        return redact_raw(value, redact, dropped=dropped)
    if isinstance(value, list):
        return [_through(entry, redact, dropped) for entry in cast(list[object], value)]
    if isinstance(value, Mapping):
        entries = cast(Mapping[str, object], value)
        return {name: None if name in dropped else _through(entry, redact, dropped) for name, entry in entries.items()}
    return value
