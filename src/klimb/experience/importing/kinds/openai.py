"""OpenAI's chat completions, as a proxy, a batch or its store of completions writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from klimb.experience.importing.cells import first_of, listed, mapping, unpacked
from klimb.experience.importing.chat import exchange_of, found_in, is_refusal
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Row, RowError

NOT_SPELLED = "logged tokens do not spell the response"
"""Note of a response that came as text alone: servers write U+FFFD for a part of a character, or strip spaces."""


_END_OF_THOUGHTS = b"</think>"


def read_openai(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response per choice; its log-probabilities are of token strings, whose ids a model's tokenizer has to give.

    Source: OpenAI's API reference, "The chat completion object": choices[].logprobs.content[] {token, logprob, bytes}.
    """
    exchange = exchange_of(row)
    return [
        _with_token_strings(found_in(exchange, row, rules, part=part), choice)
        for part, choice in enumerate(exchange.choices)
    ]


def logged_tokens(choice: Mapping[str, object]) -> list[tuple[bytes, object]]:
    """Return the bytes and the log-probability of each token of a choice; empty if none were logged."""
    logprobs = mapping(choice.get("logprobs"))
    said = "refusal" if is_refusal(mapping(choice.get("message"))) else "content"
    if (content := listed(logprobs.get(said))) is not None:
        return [_logged(mapping(entry)) for entry in content]
    texts, values = listed(logprobs.get("tokens")), listed(logprobs.get("token_logprobs"))  # older text completions
    if texts is not None and values is not None and len(texts) == len(values):
        return [(str(text).encode("utf-8"), value) for text, value in zip(texts, values, strict=True)]
    return []


def _logged(entry: Mapping[str, object]) -> tuple[bytes, object]:
    """`bytes` is exact; `token` is text in which a part of a character cannot be written.

    Bytes that are none are as good as lost: then the tokens do not spell the response, and that is noted.
    """
    given, text = listed(entry.get("bytes")), str(entry.get("token", ""))
    if given is not None and all(type(byte) is int and 0 <= byte < 256 for byte in given):
        return bytes(cast(Sequence[int], given)), entry.get("logprob")
    return text.encode("utf-8"), entry.get("logprob")


def _with_token_strings(found: ParsedRow, choice: Mapping[str, object]) -> ParsedRow:
    """With tokens and log-probabilities, if the tokens spell the response; an end token may follow.

    Raises:
        RowError: the tokens have thoughts before the response, which a server cut out of its text.
    """
    tokens = logged_tokens(choice)
    if not tokens:
        return found
    if found.turns:  # what was drawn is not the message's text, so the tokens cannot be compared with it
        return replace(found, log_probs=[value for _, value in tokens])
    texts = tuple(text for text, _ in tokens)
    response, spelled = found.response.encode("utf-8"), b"".join(texts)
    if response in (spelled, b"".join(texts[:-1])):
        return replace(found, tokens=texts, log_probs=[value for _, value in tokens])
    if _END_OF_THOUGHTS in spelled and _END_OF_THOUGHTS not in response:
        raise RowError("thoughts kept apart from the response", "its tokens have them; log the text as it was drawn")
    return replace(found, log_probs_note=f"{NOT_SPELLED}: {spelled[:60]!r}")


def parts_of(values: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    """Return the row, its response, the response's body and its first choice."""
    response = mapping(unpacked(first_of(values, "response", "completion")))
    body = mapping(unpacked(response.get("body"))) or response or values
    choices = listed(body.get("choices"))
    return values, response, body, mapping(choices[0]) if choices else {}


def has_choices(values: Mapping[str, object]) -> bool:
    """Tell whether a row has what a server returns, with token ids or without."""
    return any("choices" in part or "meta_info" in part for part in parts_of(values))


IMPORTER = Importer(
    name="openai",
    read=read_openai,
    summary="requests and responses of OpenAI's chat completions",
    looks_alike=has_choices,
    rank=20,
    because="it has choices, without token ids",
)
