"""What a store's segments hold of one person, and the segments without it."""

# pyarrow ships no type information:
# pyright: basic

import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from klimb.experience.feedback import Feedback
from klimb.experience.samples import Sample
from klimb.experience.segments import kind_of, stream_samples, write_samples
from klimb.experience.store_feedback import read_feedback, write_feedback

SHORTEST_NEEDLE = 24
"""Characters of a line from which on it is taken for this person's wherever it stands; `hello` is everybody's."""


NEEDLE_CHARACTERS = 40
"""Of a line: pages cut long texts."""


SHORTEST_NAME = 6
"""Characters of an id or a name that is searched for in texts."""


_BATCH = 256


_CHOICE = re.compile(r"-\d{1,4}$")


@dataclass(frozen=True, kw_only=True)
class Person:
    """By what a person's things are known.

    Attributes:
        users: names, and the hashes that stores have of them.
        ids: of samples, completions, requests and conversations.
        needles: pieces of what the person wrote, in the forms that files have of them.
        names: users and ids that are searched for in texts; only whole, since `row-1` is not `row-12`.
    """

    users: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    needles: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def is_of(self, sample: Sample) -> bool:
        """Tell whether a sample is this person's, by who asked or by an id."""
        named = (sample.sample_id, _CHOICE.sub("", sample.sample_id), sample.episode, sample.group_id)
        return sample.metadata.get("user", "") in self.users or not self.ids.isdisjoint(filter(None, named))

    def said(self, row: Feedback) -> bool:
        """Tell whether feedback is this person's, or of this person's samples."""
        named = (row.sample_id, row.over, row.feedback_id)
        return (bool(row.user) and row.user in self.users) or not self.ids.isdisjoint(filter(None, named))

    def holds(self, text: str) -> bool:
        """Tell whether a text has a piece of what the person wrote, or a name or id."""
        return any(needle in text for needle in self.needles) or any(_has_whole(text, name) for name in self.names)

    def of_bytes(self) -> "Person":
        """Return the person as looked for in bytes that were decoded as Latin-1."""

        def coded(pieces: Iterable[str]) -> tuple[str, ...]:
            return tuple(piece.encode("utf-8", "surrogatepass").decode("latin-1") for piece in pieces)

        return Person(needles=coded(self.needles), names=coded(self.names))


@dataclass
class Found:
    """What is known of a person after a look at segments.

    Attributes:
        ids: of samples and conversations.
        texts: what the person wrote.
        models: policies that answered.
        since: seconds since the epoch of the earliest sample; infinite without one.
    """

    ids: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    since: float = float("inf")

    def add(self, sample: Sample) -> None:
        """Note a sample of the person."""
        self.ids.update(filter(None, (sample.sample_id, sample.episode)))
        self.texts.update(message["content"] for message in sample.prompt if message["role"] == "user")
        self.texts.update(turn.text for turn in sample.turns if turn.role == "user")
        self.models.update(filter(None, (sample.model,)))
        if sample.created_at > 0:
            self.since = min(self.since, sample.created_at)


def _has_whole(text: str, name: str) -> bool:
    place = text.find(name)
    while place >= 0:
        around = text[max(0, place - 1) : place] + text[place + len(name) : place + len(name) + 1]
        if not any(character.isalnum() or character in "_-" for character in around):
            return True
        place = text.find(name, place + 1)
    return False


def names_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the names and ids that are long enough to be searched for in texts."""
    return tuple(sorted({name for name in names if len(name) >= SHORTEST_NAME}))


def needles_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the pieces by which texts are searched for: beginnings of long lines, also as JSON and HTML write them."""
    lines = (line.strip() for text in texts for line in text.splitlines())
    pieces = [line[:NEEDLE_CHARACTERS] for line in lines if len(line) >= SHORTEST_NEEDLE]
    forms = dict.fromkeys(form for piece in pieces for form in _forms(piece))
    return tuple(forms)


def _forms(piece: str) -> Iterator[str]:
    yield piece
    for ascii_only in (False, True):
        once = json.dumps(piece, ensure_ascii=ascii_only)[1:-1]
        yield once
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1]
    for is_quoted in (False, True):
        yield html.escape(piece, quote=is_quoted)
        yield html.escape(piece, quote=is_quoted).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")


def look_at_segment(path: Path, person: Person, found: Found) -> int:
    """Return how many rows of a segment are the person's, and note what they are."""
    if kind_of(path) == "feedback":
        rows = [row for row in read_feedback(path) if person.said(row)]
        found.texts.update(text for row in rows if row.user in person.users for text in (row.comment, row.correction))
        found.ids.update(row.feedback_id for row in rows)
        return len(rows)
    number = 0
    for sample in stream_samples(path):
        if person.is_of(sample):
            number += 1
            found.add(sample)
    return number


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of a segment.

    Attributes:
        num_removed: the person's, by name, by id, or by a text in a sample that is nobody else's.
        num_of_others: rows of somebody else that hold the same text; they stay.
    """

    num_removed: int
    num_of_others: int


def split_segment(path: Path, person: Person, *, is_dry: bool) -> Split:
    """Write the segment without the person's rows, whole or not at all; one without rows is removed.

    Args:
        path: the segment.
        person: whose rows go.
        is_dry: count only.
    """
    counts = [0, 0]
    if kind_of(path) == "feedback":
        rows = read_feedback(path)
        kept: list[Feedback] = list(_kept_feedback(rows, person, counts))
        if counts[0] and not is_dry:
            write_feedback(path, kept) if kept else path.unlink()
    elif is_dry:
        for _ in _kept_samples(path, person, counts):
            pass
    else:
        removed = split_segment(path, person, is_dry=True)
        if removed.num_removed:
            _rewrite(path, person, counts)
        return removed
    return Split(num_removed=counts[0], num_of_others=counts[1])


def _rewrite(path: Path, person: Person, counts: list[int]) -> None:
    kept = _kept_samples(path, person, counts)
    first = next(kept, None)
    if first is None:
        path.unlink()
        return

    def all_kept() -> Iterator[Sample]:
        yield first
        yield from kept

    write_samples(path, all_kept())


def _kept_samples(path: Path, person: Person, counts: list[int]) -> Iterator[Sample]:
    stream = stream_samples(path)
    while batch := list(islice(stream, _BATCH)):
        texts = [text_of(sample) for sample in batch]
        is_told = person.holds("\n".join(texts))
        for sample, text in zip(batch, texts, strict=True):
            if person.is_of(sample) or (is_told and person.holds(text) and not sample.metadata.get("user")):
                counts[0] += 1
                continue
            counts[1] += is_told and person.holds(text)
            yield sample


def _kept_feedback(rows: Iterable[Feedback], person: Person, counts: list[int]) -> Iterator[Feedback]:
    for row in rows:
        text = "\n".join((row.comment, row.correction, row.raw))
        if person.said(row) or (person.holds(text) and not row.user):
            counts[0] += 1
            continue
        counts[1] += person.holds(text)
        yield row


def text_of(sample: Sample) -> str:
    """Return all texts of a sample, one under another."""
    parts = [sample.sample_id, sample.group_id, sample.episode, sample.response, sample.raw, sample.reward_reason]
    parts += [sample.tools, *sample.metadata.values()]
    for message in sample.prompt:
        parts += [message["content"], json.dumps(message.get("tool_calls") or "", ensure_ascii=False, default=str)]
    for turn in sample.turns:
        parts += [turn.text, turn.error, *(call.arguments for call in turn.calls)]
    return "\n".join(parts)


def parquet_holds(path: Path, person: Person) -> bool:
    """Tell whether any text of a Parquet file, of whatever kind, has a piece of what the person wrote."""
    file = pq.ParquetFile(path)
    for number in range(file.num_row_groups):
        for row in file.read_row_group(number).to_pylist():
            if person.holds("\n".join(_texts_in(row))):
                return True
    return False


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts_in(inner)
