"""vLLM's and SGLang's servers: as OpenAI's, with token ids, so that nothing has to be guessed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from klimb.experience.importing.cells import first_of, listed, mapping, token_ids
from klimb.experience.importing.chat import Exchange, echoes, exchange_of, found_in
from klimb.experience.importing.conversations import has_thoughts
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.kinds.openai import has_choices, logged_tokens, parts_of
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Row, RowError

_TOKEN_ID = re.compile(rb"token_id:(\d{1,18})")


def read_vllm(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response per choice, with its token ids and, if they were asked for, their log-probabilities.

    Source: vLLM's documentation, "OpenAI-Compatible Server": return_token_ids (prompt_token_ids, choices[].token_ids),
    return_tokens_as_token_ids; "Sampling Mask": choices[].sampling_mask [[id, ...], ...]. SGLang's, "Native APIs":
    meta_info.output_token_logprobs [[log-prob, id, text], ...], output_token_sampling_mask.
    """
    exchange = exchange_of(row)
    exchange = replace(exchange, choices=tuple(_as_drawn(choice, exchange, rules) for choice in exchange.choices))
    return [
        _with_token_ids(found_in(exchange, row, rules, part=part), choice, exchange)
        for part, choice in enumerate(exchange.choices)
    ]


def _as_drawn(choice: Mapping[str, object], exchange: Exchange, rules: ImportRules) -> Mapping[str, object]:
    """Return the choice with the text that its ids spell, where its thoughts were cut out of its message.

    Raises:
        RowError: the ids spell another message.
    """
    entry = mapping(choice.get("message"))
    if not has_thoughts(entry) or entry.get("tool_calls") or rules.decode is None:
        return choice
    ids, _ = _drawn(choice, exchange)
    if not ids:
        return choice
    text, content = rules.decode(ids), entry.get("content")
    if isinstance(content, str) and content.strip() not in text:
        raise RowError("token ids that do not spell the turn", f"{text[:60]!r}; is --model the one that drew?")
    return {**choice, "message": {"role": "assistant", "content": text}}


def _with_token_ids(found: ParsedRow, choice: Mapping[str, object], exchange: Exchange) -> ParsedRow:
    if echoes(exchange.request):
        raise RowError("token ids with those of the prompt", "echo was asked for; import the text with --as openai")
    ids, log_probs = _drawn(choice, exchange)
    if not ids:
        raise RowError("no token ids", "the server was not asked for return_token_ids; import it with --as openai")
    support = first_of({**_meta_info(choice, exchange), **choice}, "sampling_mask", "output_token_sampling_mask")
    return replace(found, response_ids=ids, log_probs=log_probs, support=support)


def _drawn(choice: Mapping[str, object], exchange: Exchange) -> tuple[tuple[int, ...], Sequence[object] | None]:
    """Return the ids of a choice's tokens and their log-probabilities, which need not be there."""
    triples = first_of(_meta_info(choice, exchange), "output_token_logprobs")
    given = token_ids(first_of(choice, "token_ids", "output_ids"), what="token_ids")
    if triples is not None:
        ids, log_probs = _read_triples(triples)
        if any(one != other for one, other in zip(ids, given, strict=False)):  # a server may cut off the last ones
            raise RowError("two lists of token ids that differ", "those of the log-probabilities and output_ids")
        return ids, log_probs
    tokens = logged_tokens(choice)
    ids = given or _ids_in_texts(tokens)
    return ids, [value for _, value in tokens] if tokens else None


def _meta_info(choice: Mapping[str, object], exchange: Exchange) -> Mapping[str, object]:
    is_alone = len(exchange.choices) == 1
    return mapping(choice.get("meta_info")) or (mapping(exchange.response.get("meta_info")) if is_alone else {})


def _read_triples(triples: object) -> tuple[tuple[int, ...], Sequence[object]]:
    entries: list[Sequence[object]] = [listed(entry) or () for entry in listed(triples) or ()]
    if not entries or any(len(entry) < 2 for entry in entries):
        raise RowError("output_token_logprobs without ids", "expected [log-probability, token id, text] of each token")
    ids = token_ids([entry[1] for entry in entries], what="output_token_logprobs")
    return ids, [entry[0] for entry in entries]


def _ids_in_texts(tokens: Sequence[tuple[bytes, object]]) -> tuple[int, ...]:
    """Ids that the server wrote in place of the tokens' texts: `token_id:123`."""
    matches = [_TOKEN_ID.fullmatch(text) for text, _ in tokens]
    return tuple(int(match[1]) for match in matches if match) if all(matches) else ()


def _has_token_ids(values: Mapping[str, object]) -> bool:
    names = ("token_ids", "prompt_token_ids", "meta_info", "output_ids")
    return has_choices(values) and any(part.get(name) is not None for part in parts_of(values) for name in names)


IMPORTER = Importer(
    name="vllm",
    read=read_vllm,
    summary="requests and responses of vLLM or SGLang, with token ids",
    looks_alike=_has_token_ids,
    rank=10,
    because="it has choices with token ids",
)
