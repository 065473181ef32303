"""What another server said, as samples: its ids and log-probabilities where it gives them, and what these are of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from klimb.experience.samples import (
    POLICY_ROLE,
    FinishReason,
    Message,
    Provenance,
    Sample,
    SamplingSettings,
    ToolCall,
    Turn,
)
from klimb.web.serve.schemas import IGNORED, NEUTRAL, SamplingRequest

REASONS: Mapping[str, FinishReason] = {"stop": "stop", "tool_calls": "stop", "length": "length"}


UNLIMITED = 1_000_000
"""What stands for a limit that the other server has and nobody sent: the largest that the settings take."""


PLAIN = frozenset(
    {"logprobs", "top_logprobs", "messages", "prompt", "tools", *SamplingRequest.model_fields, "max_completion_tokens"}
)
"""Parameters that are known to leave the distribution as the sampling settings say it is."""


@dataclass(kw_only=True)
class Drawn:
    """One answer of the other server, as far as it has come.

    Attributes:
        number: its index.
        text: what it says.
        token_ids: of it; empty where the server gives none.
        log_probs: of its tokens, as the server gives them.
        mask: ids that could be drawn, for each token.
        finish_reason: as the server calls it.
        calls: names and arguments by their places.
        prompt_ids: where they stand in the answer itself.
    """

    number: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list[int])
    log_probs: list[float] = field(default_factory=list[float])
    mask: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    finish_reason: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    prompt_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What was sent, and what is known of the server.

    Attributes:
        request_id: of its answer.
        values: of the request.
        messages: that are answered.
        is_known: all settings of the draw were sent and taken.
        are_processed: its log-probabilities are of the distribution drawn from.
        prompt_ids: of the prompt; empty where the server gives none.
        model: as the server calls it.
        episode: id of the conversation.
        created: seconds since the epoch.
        metadata: of the samples.
    """

    request_id: str
    values: Mapping[str, Any]
    messages: tuple[Message, ...]
    is_known: bool
    are_processed: bool
    prompt_ids: tuple[int, ...]
    model: str
    episode: str
    created: float
    metadata: Mapping[str, str]


def read_choices(drawn: dict[int, Drawn], body: Mapping[str, Any]) -> None:
    """Add what an answer, or a chunk of a stream, says to what was said before."""
    for choice in cast(Sequence[Mapping[str, Any]], body.get("choices") or ()):
        number = int(choice.get("index") or 0)
        each = drawn.setdefault(number, Drawn(number=number))
        message = cast(Mapping[str, Any], choice.get("message") or choice.get("delta") or {})
        each.text += str(message.get("content") or choice.get("text") or "")
        each.token_ids += cast(list[int], choice.get("token_ids") or [])
        each.mask += [tuple(entry) for entry in choice.get("sampling_mask") or ()]
        each.log_probs += _log_probs(cast(Mapping[str, Any], choice.get("logprobs") or {}))
        each.finish_reason = str(choice.get("finish_reason") or each.finish_reason)
        each.prompt_ids = tuple(choice.get("prompt_token_ids") or each.prompt_ids)
        for place, call in enumerate(cast(Sequence[Mapping[str, Any]], message.get("tool_calls") or ())):
            function = cast(Mapping[str, Any], call.get("function") or {})
            known = each.calls.setdefault(int(call.get("index", place)), ["", ""])
            known[0] += str(function.get("name") or "")
            known[1] += str(function.get("arguments") or "")


def _log_probs(found: Mapping[str, Any]) -> list[float]:
    if found.get("content"):
        return [float(entry["logprob"]) for entry in found["content"]]
    return [float(value) for value in found.get("token_logprobs") or () if value is not None]


def said_by(drawn: Drawn) -> Message:
    """Return an answer as the message that a client sends back."""
    message: Message = {"role": POLICY_ROLE, "content": drawn.text}
    if drawn.calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": name, "arguments": _object_or_text(arguments)}}
            for name, arguments in drawn.calls.values()
        ]
    return message


def _object_or_text(text: str) -> object:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return cast(object, found) if isinstance(found, dict) else text


def sample_of(sent: Sent, drawn: Drawn, *, is_alone: bool) -> Sample:
    """Return an answer as a sample."""
    ids = tuple(drawn.token_ids)
    sampling = sampling_sent(sent.values)
    is_whole = bool(ids) and len(drawn.log_probs) == len(ids)
    finish_reason = REASONS.get(drawn.finish_reason, "unknown")
    calls = tuple(ToolCall(name=name, arguments=arguments) for name, arguments in drawn.calls.values())
    turn = Turn(role=POLICY_ROLE, text=drawn.text, num_tokens=len(ids), finish_reason=finish_reason, calls=calls)
    tools = sent.values.get("tools")
    return Sample(
        sample_id=sent.request_id if is_alone else f"{sent.request_id}-{drawn.number}",
        group_id=sent.request_id,
        prompt=sent.messages,
        prompt_ids=sent.prompt_ids or drawn.prompt_ids,
        response=drawn.text,
        response_ids=ids,
        finish_reason=finish_reason,
        log_mu=tuple(drawn.log_probs) if is_whole else None,
        log_mu_provenance=_provenance(sent, sampling) if is_whole else "absent",
        support=_support(drawn, ids),
        sampling=sampling,
        model=sent.model,
        source="rollout",
        created_at=sent.created,
        metadata=sent.metadata,
        turns=(turn,) if calls else (),
        tools=json.dumps(tools, ensure_ascii=False) if tools else "",
        episode=sent.episode,
    )


def sampling_sent(values: Mapping[str, Any]) -> SamplingSettings | None:
    """Return the settings that were sent; None where they are none that klimb can say."""
    stop = values.get("stop") or ()
    try:
        return SamplingSettings(
            temperature=float(values["temperature"]),
            top_p=float(values["top_p"]),
            top_k=max(int(values.get("top_k") or 0), 0),
            min_p=float(values.get("min_p") or 0.0),
            max_new_tokens=int(values.get("max_completion_tokens") or values.get("max_tokens") or UNLIMITED),
            min_new_tokens=int(values.get("min_tokens") or 0),
            repetition_penalty=float(values.get("repetition_penalty") or 1.0),
            stop=(stop,) if isinstance(stop, str) else tuple(dict.fromkeys(stop)),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _provenance(sent: Sent, sampling: SamplingSettings | None) -> Provenance:
    """Return `sampler` where the log-probabilities are of the very distribution that was drawn from."""
    if sent.are_processed:
        return "sampler"
    is_plain = sampling is not None and sampling.draws_at(1.0) and sent.is_known
    return "sampler" if is_plain and all(_is_plain(name, value) for name, value in sent.values.items()) else "estimated"


def _is_plain(name: str, value: object) -> bool:
    if name in PLAIN or name in IGNORED or value is None:
        return True
    if name == "response_format":
        return isinstance(value, Mapping) and cast(Mapping[str, Any], value).get("type") == "text"
    if name == "tool_choice":
        return value in ("auto", "none")
    return value in NEUTRAL.get(name, ())


def _support(drawn: Drawn, ids: tuple[int, ...]) -> tuple[tuple[int, ...], ...] | None:
    """Return what could be drawn, where the server says it of every token."""
    if not ids or len(drawn.mask) != len(ids):
        return None
    return tuple(drawn.mask) if all(token in kept for token, kept in zip(ids, drawn.mask, strict=True)) else None
