"""CSV: a header that names the columns, then a record a row. All cells are text."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from klimb.experience.reading.csv_form import CsvForm, find_csv_form
from klimb.experience.reading.encodings import UTF8_MARK, describe_bytes
from klimb.experience.reading.lines import lines
from klimb.experience.reading.packing import open_text
from klimb.experience.reading.records import ReadLimits, Record, Reject, Row

LONGEST_KEPT = 2000


ANY_LENGTH = 2**31 - 1
"""Python's own bound of a cell, 131 kB, is for the whole process; `ReadLimits` bounds a record instead."""


QUOTES = 'write a quote inside a cell twice (""), and put a cell that begins with one between quotes'


_ENCODER = json.JSONEncoder(ensure_ascii=False)


def read_csv(path: Path, name: str, limits: ReadLimits) -> Iterator[Record]:
    """Yield one record per row, whose place is the line where it begins; an empty cell is None.

    Raises:
        ValueError: no header, a column twice in it, cells that can be cut in several ways, or a record longer than
            `limits` allows.
    """
    csv.field_size_limit(ANY_LENGTH)
    form = find_csv_form(path, limits)
    if form is None:
        return
    with open_text(path, limits) as file:
        texts = _Texts(file, path, form, limits)
        reader = csv.reader(texts, delimiter=form.delimiter, strict=True)
        while True:
            texts.begin_record()
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield Reject(f"{name}:{texts.first}", "not CSV", _describe(error, texts), texts.kept)
                continue
            if cells is None:
                return
            if texts.first > form.num_header_lines and not _is_blank(cells):
                yield _record(f"{name}:{texts.first}", form.columns, cells, texts.fault)


def _is_blank(cells: Sequence[str]) -> bool:
    return len(cells) < 2 and not "".join(cells).strip()


def _record(place: str, columns: Sequence[str], cells: Sequence[str], fault: tuple[str, str] | None) -> Record:
    if fault is not None:
        return Reject(place, *fault, json.dumps(cells))
    if len(cells) != len(columns):
        detail = f"{len(cells)} cells for {len(columns)} columns; put text with commas between double quotes"
        return Reject(place, "wrong number of cells", detail, json.dumps(cells))
    values = {column: cell or None for column, cell in zip(columns, cells, strict=True)}
    return Row(place, values, _ENCODER.encode(values), is_text=True)


def _describe(error: csv.Error, texts: "_Texts") -> str:
    where = f"line {texts.first}" if texts.first == texts.last else f"lines {texts.first} to {texts.last}"
    if str(error) == "unexpected end of data":
        return f"a quote that opens in line {texts.first} is never closed: {where} are one record; {QUOTES}"
    return f"{error}, in {where}; {QUOTES}"


class _Texts(Iterator[str]):
    """The lines of a file as text, which knows the record that is being read.

    Attributes:
        first: number of the line where the record begins.
        last: number of the line read last.
        kept: the beginning of the record.
        fault: why the record is no text, as reason and detail; None for one that is.
    """

    def __init__(self, file: io.BufferedReader, path: Path, form: CsvForm, limits: ReadLimits) -> None:
        self._lines = lines(file, limits.max_line_bytes, end=form.line_end)
        self._path, self._most = path, limits.max_line_bytes
        self.last = 0
        self.begin_record()

    def begin_record(self) -> None:
        """Count from the next line on."""
        self.first = self.last + 1
        self.kept = ""
        self.fault: tuple[str, str] | None = None
        self._num_bytes = 0

    def __next__(self) -> str:
        line = next(self._lines)
        content = line.content.removeprefix(UTF8_MARK) if line.number == 1 else line.content
        self.last = line.number
        self._num_bytes += len(content)
        if line.is_too_long or self._num_bytes > self._most:
            raise ValueError(
                f"{self._path}, line {self.first}: a record of more than {self._most} bytes; a quote that opens there "
                "may never close. Write texts that are so long as JSONL"
            )
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            self.fault = "not UTF-8", describe_bytes(content, error)
            text = content.decode("utf-8", "backslashreplace")
        if "\0" in text:
            self.fault = "a NUL byte", f"in line {line.number}; the file is damaged there, or no text"
        if len(self.kept) < LONGEST_KEPT:
            self.kept = (self.kept + text)[:LONGEST_KEPT]
        return text
