"""A JSON file of one array of objects, or of objects one behind the other, read one by one with bounded memory."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path

from klimb.experience.importing.bytes_of_files import BLOCK_BYTES, Readable, opened
from klimb.experience.importing.json_text import DECODER, UTF8_BOM, as_row_object
from klimb.experience.importing.rows import ReadLimits, Record, Reject, Row, RowError

LONGEST_KEPT = 2000
_BLANK = " \t\r\n"


def read_json(path: Path, limits: ReadLimits) -> Iterator[Record]:
    """Yields a record per element. What follows a broken element cannot be found and is rejected as one record."""
    with opened(path, limits) as file:
        text, number = _Text(file), 0
        try:
            is_array = text.next_character() == "["
            if is_array:
                text.drop(1)
            while text.next_character() not in ("", "]"):
                number += 1
                yield _element(text, f"{path.name}:element {number}", limits)
                if is_array:
                    text.drop_comma()
            if is_array or text.next_character():
                text.close()
        except RowError as error:
            place = f"{path.name}: after element {number}" if number else path.name
            yield Reject(place, error.reason, error.detail, text.kept[:LONGEST_KEPT])


def _element(text: "_Text", place: str, limits: ReadLimits) -> Record:
    raw, parsed = text.take_value(limits.max_line_bytes)
    try:
        return Row(place, as_row_object(parsed, raw), raw)
    except RowError as error:
        return Reject(place, error.reason, error.detail, raw[:LONGEST_KEPT])


class _Text:
    """The part of the file's text that is held: from where reading stands to the last block read."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        # Python's decoder for this mark drops a part of it silently where the file ends there.
        self._start = file.read(len(UTF8_BOM)).removeprefix(UTF8_BOM)
        self.kept = ""
        self._at_end = False

    def next_character(self) -> str:
        """The next character that is not blank, which stays; empty at the end of the file."""
        while True:
            self.kept = self.kept.lstrip(_BLANK)
            if self.kept or not self._more(BLOCK_BYTES):
                return self.kept[:1]

    def drop(self, count: int) -> None:
        """Go on behind `count` characters."""
        self.kept = self.kept[count:]

    def drop_comma(self) -> None:
        """Go on behind the comma between elements, if another one follows."""
        following = self.next_character()
        if following == ",":
            self.drop(1)
            if self.next_character() in ("", "]"):
                raise RowError("not JSON", "a comma with no element behind it")
        elif following not in ("", "]"):
            raise RowError("not JSON", f"expected a comma between the elements of an array, got {following!r}")

    def close(self) -> None:
        """Check that the array is closed and that nothing follows."""
        if self.next_character() != "]":
            raise RowError("cut off", "the array is not closed; the elements before were read")
        self.drop(1)
        if self.next_character():
            raise RowError("not JSON", f"text behind the array: {self.kept[:20]!r}")

    def take_value(self, most: int) -> tuple[str, object]:
        """The next value's text and what it is. Raises RowError if it is broken or longer than `most` characters."""
        size = BLOCK_BYTES
        while True:
            try:
                parsed, end = DECODER.raw_decode(self.kept)
                # What touches the end of the block may go on in the next one: 1|2.
                if end < len(self.kept) or not self._more(size):
                    raw = self.kept[:end]
                    self.drop(end)
                    return raw, parsed
            except json.JSONDecodeError as error:
                if len(self.kept) > most:
                    raise RowError("line too long", f"an element of more than {most} characters, or broken") from error
                if not self._more(size):
                    raise RowError("not JSON", f"{error.msg}, {len(self.kept)} characters before the end") from error
            except RecursionError as error:
                raise RowError("JSON nested too deep", str(error)) from error
            except RowError:
                raise
            except ValueError as error:  # an integer of thousands of digits
                raise RowError("JSON that cannot be read", str(error)) from error
            size *= 2  # so that a long value is tried a few times only

    def _more(self, size: int) -> bool:
        """Read another block; False at the end of the file."""
        if self._at_end:
            return False
        block, self._start = self._start + self._file.read(size), b""
        self._at_end = not block
        try:
            self.kept += self._decoder.decode(block, final=self._at_end)
        except UnicodeDecodeError as error:
            raise RowError("not UTF-8", f"{error.reason}; save the file as UTF-8") from error
        return not self._at_end
