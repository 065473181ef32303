"""What stands beside an answer and must not be lost without a word: thoughts, and images.

One gate behind all kinds: a kind that forgets to look cannot lose them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from klimb.experience.feedback import Feedback
from klimb.experience.importing.cells import are_messages, content_of, first_of, listed, mapping
from klimb.experience.importing.conversations import is_rated
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.thoughts import ADVICE, REASON, may_hold_thoughts, thoughts_of, words_in
from klimb.experience.reading.records import Columns, Row, RowError
from klimb.experience.reading.strict_json import DECODER

_REASONING = re.compile(r"reasoning(?!_tokens|_effort)")


_COT = re.compile(r"cot\b")


_NOT_SAID = frozenset(
    {"arguments", "parameters", "tools", "functions", "tool_calls", "function_call", "function", "input_schema"}
)
"""Fields whose contents are no message, whatever their names."""


MEDIA = ("images", "image", "videos", "video", "audios", "audio")


_SIDES = ("chosen", "rejected")
"""With which columns begin that are of one answer of a pair."""


DEEPEST = 40
"""Levels of lists and objects that are looked through for messages."""


@dataclass(frozen=True, slots=True)
class _Beside:
    """Thoughts of one message.

    Attributes:
        words: the thoughts.
        text: what the message says; empty if that is not a text.
        is_past: a user asks something behind it, in the same list.
    """

    words: Sequence[str]
    text: str
    is_past: bool


def check_beside(row: Row, found: Sequence[ParsedRow | Feedback]) -> None:
    """Raise RowError if the row has images, or thoughts that nothing that became of it holds.

    Thoughts of turns before the last question are left out, as chat templates leave them out, and so are those of
    history without log-probabilities; both are named among what was not used. Token ids hold the thoughts themselves.

    Raises:
        RowError: thoughts of an answer, or of a history whose log-probabilities are given them; images.
    """
    parts = [part for part in found if isinstance(part, ParsedRow) and part.sample is None]
    if not parts:
        return
    cells = row.values.cells if isinstance(row.values, Columns) else row.values
    _check_media(cells)
    _name_ratings(row.values, cells, parts)
    if all(part.response_ids for part in parts) or not _hints_at_thoughts(row.raw):
        return
    _check_columns(row.values, cells, parts)
    for name, cell in cells.items():
        for beside in _messages_with_thoughts(cell, DEEPEST):
            if not _is_kept(beside.words, parts):
                _check_history(beside, parts)
                if isinstance(row.values, Columns):
                    row.values.also_unread.add(f"{name}: thoughts of the history")


def _hints_at_thoughts(text: str) -> bool:
    """Tell whether to look through a row. One expression for all of the words would cost many times as much."""
    text = text.lower()
    if "think" in text or "thought" in text or "scratchpad" in text:
        return True
    if "reasoning" in text and _REASONING.search(text):
        return True
    return "cot" in text and _COT.search(text) is not None


def _name_ratings(values: Mapping[str, object], cells: Mapping[str, object], parts: Sequence[ParsedRow]) -> None:
    """Name ratings of single turns among what was not read, unless those turns are what the row became."""
    if not isinstance(values, Columns):
        return
    for name, cell in cells.items():
        if not (entries := listed(cell)):
            continue
        rated = {place for place, entry in enumerate(entries) if is_rated(mapping(entry))}
        # A system message of a column of its own stands before them, and moves each by one.
        if rated and {part.part for part in parts} not in (rated, {place + 1 for place in rated}):
            values.also_unread.add(f"{name}: ratings of turns")


def _check_media(cells: Mapping[str, object]) -> None:
    for name in MEDIA:
        value = cells.get(name)
        if value not in (None, "", "[]") and (listed(value) is None or listed(value)):
            raise RowError(f"a row with {name}", "klimb trains on text alone: what was seen is not in the prompt")


def _check_columns(values: Mapping[str, object], cells: Mapping[str, object], parts: Sequence[ParsedRow]) -> None:
    """Look at columns of their own, unless the kind read them.

    Beside several answers they are of none of them, but where their names say of which (`chosen_reasoning`).
    """
    read = values.read if isinstance(values, Columns) else ()
    for name, value in cells.items():
        if name in read or not may_hold_thoughts(str(name)):
            continue
        if len(parts) != 1 and not str(name).startswith(_SIDES):
            continue
        if (words := words_in(value)) and not _is_kept(words, parts):
            theirs = values.names.get(name, name) if isinstance(values, Columns) else name
            raise RowError(REASON, f"in the column {theirs!r}; {ADVICE}. If they are others': --ignore {theirs}")


def _check_history(beside: _Beside, parts: Sequence[ParsedRow]) -> None:
    texts = {part.response for part in parts} | {turn.text for part in parts for turn in part.turns if turn.is_drawn}
    if beside.text and beside.text in texts:
        raise RowError(REASON, ADVICE)
    if not beside.is_past and not any(_is_asked(beside.text, part) for part in parts):
        raise RowError(REASON, ADVICE)
    if not beside.is_past and any(part.log_probs is not None and not part.prompt_ids for part in parts):
        raise RowError(
            "log-probabilities given thoughts that are kept apart", "log the token ids of the prompt, or its whole text"
        )


def _is_asked(text: str, part: ParsedRow) -> bool:
    """Tell whether the words belong to a message of the prompt."""
    return any(message["role"] == "assistant" and message["content"] == text for message in part.prompt)


def _is_kept(words: Sequence[str], parts: Sequence[ParsedRow]) -> bool:
    said = [text for part in parts for text in (part.response, *(turn.text for turn in part.turns))]
    return all(any(word.strip() in text for text in said) for word in words)


def _messages_with_thoughts(value: object, depth: int) -> Iterator[_Beside]:
    """Go through the messages of a cell, in JSON text too, that have thoughts beside their words."""
    value = _decoded(value)
    if depth == 0 or isinstance(value, str | bytes):
        return
    entries = listed(value)
    if entries is not None:
        asked = [place for place, entry in enumerate(entries) if _is_question(mapping(entry))]
        last = asked[-1] if asked else -1
        for place, entry in enumerate(entries):
            yield from _of_message(mapping(entry), is_past=place < last)
            yield from _inside(mapping(entry), depth)
        return
    yield from _of_message(mapping(value), is_past=False)
    yield from _inside(mapping(value), depth)


def _of_message(entry: Mapping[str, object], *, is_past: bool) -> Iterator[_Beside]:
    if ("content" in entry or are_messages(entry)) and (words := thoughts_of(entry)):
        yield _Beside(words, _plain(content_of(entry)), is_past)


def _inside(entry: Mapping[str, object], depth: int) -> Iterator[_Beside]:
    for name, value in entry.items():
        if name not in _NOT_SAID:
            yield from _messages_with_thoughts(value, depth - 1)


def _is_question(entry: Mapping[str, object]) -> bool:
    return first_of(entry, "role", "from") in ("user", "human")


def _plain(content: object) -> str:
    """Return the words of a message; of parts, those that are words."""
    if isinstance(content, str):
        return content
    texts = [mapping(part).get("text") for part in listed(content) or () if not thoughts_of({"content": [part]})]
    return "".join(text for text in texts if isinstance(text, str))


def _decoded(value: object) -> object:
    if not (isinstance(value, str) and value.lstrip()[:1] in ("[", "{") and _hints_at_thoughts(value)):
        return value
    try:
        return DECODER.decode(value)
    except (json.JSONDecodeError, RowError, RecursionError):
        return value
