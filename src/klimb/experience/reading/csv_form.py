"""How a CSV file is written: its columns, what parts the cells, and what ends a line."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from klimb.experience.reading.encodings import UTF8_MARK
from klimb.experience.reading.lines import find_line_end
from klimb.experience.reading.packing import BLOCK_BYTES, open_text
from klimb.experience.reading.records import ReadLimits

DELIMITERS: Mapping[str, str] = MappingProxyType({",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"})
"""What may part cells, and its name."""


NUM_COMPARED = 50
"""Records at the beginning that are cut in each way."""


_EXCEL_SAYS = re.compile(r'^"?sep=(.)"?\s*$')


_BEGINS_JSON = re.compile(r'\s*(?:\[\s*)?\{\s*"[^"]*"\s*:|\s*[\[{]\s*$')


@dataclass(frozen=True, kw_only=True)
class CsvForm:
    """The form of one file.

    Attributes:
        delimiter: between cells.
        line_end: at the end of lines outside of cells.
        columns: names of the header.
        num_header_lines: lines before the first row.
    """

    delimiter: str
    line_end: bytes
    columns: Sequence[str]
    num_header_lines: int


def find_csv_form(path: Path, limits: ReadLimits) -> CsvForm | None:
    """Return how a file is written, by its header and, where that can be cut in several ways, by its first records.

    None for a file of nothing but blank lines. A line `sep=;` before the header, as Excel writes it, says what parts
    the cells.

    Raises:
        ValueError: no header, a column twice in it, or cells that can be cut in several ways.
    """
    with open_text(path, limits) as file:
        head = file.read(BLOCK_BYTES)
    line_end = find_line_end(head, quote=b'"')
    texts = _split(head.removeprefix(UTF8_MARK).decode("utf-8", "replace"), line_end.decode())
    if len(head) == BLOCK_BYTES:  # the last line may go on
        texts = texts[:-1] or texts
    num_before, stated = _lead(texts)
    header = _record_at(texts, num_before)
    if not header:
        return None
    if "\0" in "".join(header):
        raise ValueError(f"{path}: NUL bytes in the first line; the file is damaged, or no text")
    if _BEGINS_JSON.match(header[0]):
        raise ValueError(f"{path}: begins like JSON and not like a table; let its name end in .jsonl or .json")
    delimiter = stated or _find_delimiter(header, texts[num_before:], path)
    return CsvForm(
        delimiter=delimiter,
        line_end=line_end,
        columns=_columns(_names(header, delimiter, path), path),
        num_header_lines=num_before + len(header),
    )


def _split(text: str, line_end: str) -> list[str]:
    return [line + line_end for line in text.split(line_end)] if text else []


def _lead(texts: Sequence[str]) -> tuple[int, str]:
    """Return how many lines stand before the header, and what parts cells if one of them says it."""
    stated = ""
    for number, text in enumerate(texts):
        says = _EXCEL_SAYS.match(text)
        if says is None and text.strip():
            return number, stated
        stated = says[1] if says else stated
    return len(texts), stated


def _record_at(texts: Sequence[str], start: int) -> Sequence[str]:
    """Return the lines of a record: up to the one behind which no quote is open."""
    num_quotes = 0
    for number, text in enumerate(texts[start:], start=start + 1):
        num_quotes += text.count('"')
        if num_quotes % 2 == 0:
            return texts[start:number]
    return texts[start:]


def _find_delimiter(header: Sequence[str], texts: Sequence[str], path: Path) -> str:
    """Return the one by which the header can be cut; of several, the only one that cuts the records alike."""
    bare = re.sub(r'"[^"]*"', "", "".join(header))
    found = [delimiter for delimiter in DELIMITERS if delimiter in bare]
    if len(found) < 2:
        return found[0] if found else ","
    shares = {delimiter: _share_of_fitting(texts, delimiter) for delimiter in found}
    for fitting in ([d for d in found if shares[d] == 1], [d for d in found if shares[d] > 0]):
        if len(fitting) == 1:
            return fitting[0]
    ways = " or at ".join(DELIMITERS[delimiter] for delimiter in found)
    raise ValueError(
        f"{path}: its first line can be cut at {ways}; say which with a line before it that is `sep={found[0]}`, or "
        "put names with such characters between double quotes"
    )


def _share_of_fitting(texts: Sequence[str], delimiter: str) -> float:
    """Return the share of the first records that have as many cells as the header."""
    widths: list[int] = []
    try:
        for cells in csv.reader(texts, delimiter=delimiter):
            if cells:
                widths.append(len(cells))
            if len(widths) > NUM_COMPARED:
                break
    except csv.Error:
        return 0.0
    return sum(width == widths[0] for width in widths[1:]) / max(1, len(widths) - 1)


def _names(header: Sequence[str], delimiter: str, path: Path) -> Sequence[str]:
    try:
        return next(csv.reader(header, delimiter=delimiter))
    except csv.Error as error:  # a bare carriage return in a file of line feeds
        raise ValueError(f"{path}: its first line is not CSV: {error}") from error


def _columns(names: Sequence[str], path: Path) -> Sequence[str]:
    """Return the names without blanks around them. One may be empty, as pandas leaves that of its index."""
    names = [name.strip() for name in names]
    if not any(names):
        raise ValueError(f"{path}: the first line of a CSV file names the columns, and this one has no name")
    if names.count("") > 1:
        names = [name or f"column {number}" for number, name in enumerate(names, start=1)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{path}: the column {twice!r} is there twice; each needs a name of its own")
    return names
