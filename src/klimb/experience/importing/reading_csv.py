"""CSV: the first line names the columns."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from klimb.experience.importing.bytes_of_files import lines, opened
from klimb.experience.importing.json_text import UTF8_BOM
from klimb.experience.importing.rows import ReadLimits, Record, Reject, Row


def read_csv(path: Path, limits: ReadLimits) -> Iterator[Record]:
    """Yields one record per row; an empty cell is None.

    Raises:
        ValueError: no header, a column twice in it, or a line longer than `limits` allows.
    """
    # The module's own bound is 131 kB, and it is for the whole process; a log's cell may be longer.
    csv.field_size_limit(limits.max_line_bytes)
    with opened(path, limits) as file:
        texts = (
            _text(path, line.content, line.number, line.is_too_long) for line in lines(file, limits.max_line_bytes)
        )
        reader = csv.reader(texts, strict=True)
        header = next(reader, list[str]())
        if len(set(header)) != len(header) or not any(header):
            raise ValueError(f"{path}: the first line of a CSV file names each column once, got {header}")
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield Reject(f"{path.name}:{reader.line_num}", "not CSV", str(error), "")
                continue
            if cells is None:
                return
            if cells:
                yield _record(f"{path.name}:{reader.line_num}", header, cells)


def _record(place: str, header: Sequence[str], cells: Sequence[str]) -> Record:
    raw = json.dumps(cells, ensure_ascii=True)
    if len(cells) != len(header):
        detail = f"{len(cells)} cells for {len(header)} columns; put text with commas between double quotes"
        return Reject(place, "wrong number of cells", detail, raw)
    if not "".join(cells).isascii() and any("\udc80" <= character <= "\udcff" for character in "".join(cells)):
        return Reject(place, "not UTF-8", "save the file as UTF-8", raw)
    values = {name: cell or None for name, cell in zip(header, cells, strict=True)}
    return Row(place, values, json.dumps(values, ensure_ascii=False), is_text=True)


def _text(path: Path, content: bytes, number: int, is_too_long: bool) -> str:
    if is_too_long:
        raise ValueError(f"{path}, line {number}: longer than a CSV line may be; write long texts as JSONL")
    content = content.removeprefix(UTF8_BOM) if number == 1 else content
    return content.decode("utf-8", "surrogateescape")
