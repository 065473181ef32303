"""JSON text read value by value, of which only the part between two blocks is held."""

import codecs
import io
import json
import re

from klimb.experience.reading import packing
from klimb.experience.reading.encodings import UTF8_MARK, describe_bytes
from klimb.experience.reading.records import RowError
from klimb.experience.reading.strict_json import DECODER

_BLANKS = re.compile(r"[ \t\r\n]*")


_END_FINDER = json.JSONDecoder(parse_int=str)
"""Finds the end of a value in which a name is there twice, or an integer of thousands of digits."""


class JsonText:
    """The part of a file's text that is held: the last blocks read, and where reading stands in them."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        # Python's decoder for this mark drops a part of it silently where the file ends there.
        self._start = file.read(len(UTF8_MARK)).removeprefix(UTF8_MARK)
        self._text, self._at = "", 0
        self._at_end = False
        self._fault: RowError | None = None

    def ahead(self, count: int) -> str:
        """Return the next characters, at most `count`, of what is held."""
        return self._text[self._at : self._at + count]

    def next_character(self) -> str:
        """Return the next character that is not blank, which stays; empty at the end of the file."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()  # pyright: ignore[reportOptionalMemberAccess]
            if self._at < len(self._text) or not self._more(packing.BLOCK_BYTES):
                return self.ahead(1)

    def drop(self, count: int) -> None:
        """Go on behind `count` characters."""
        self._at = min(self._at + count, len(self._text))

    def drop_comma(self, closing: str) -> None:
        """Go on behind the comma between elements, if another one follows before the closing bracket."""
        following = self.next_character()
        if following == ",":
            self.drop(1)
            if self.next_character() in ("", closing):
                raise RowError("not JSON", "a comma with no element behind it")
        elif following not in ("", closing):
            raise RowError("not JSON", f"expected a comma between elements, got {following!r}")

    def drop_closing(self, closing: str) -> None:
        """Go on behind the closing bracket; raises RowError if the file ends before it."""
        if self.next_character() != closing:
            raise RowError("cut off", f"{closing!r} is missing at the end; the elements before were read")
        self.drop(1)

    def take_name(self, most: int) -> str:
        """Take a name of an object and its colon."""
        _, name = self.take_value(most)
        if not isinstance(name, str) or self.next_character() != ":":
            raise RowError("not JSON", f"expected a name and a colon, got {str(name)[:20]!r}")
        self.drop(1)
        return name

    def take_value(self, most: int) -> tuple[str, object]:
        """Take the next value and its text; of one that is JSON and must not be read so, the RowError that says why.

        Raises:
            RowError: it is broken, or longer than `most` characters, so that nobody knows where the next one begins.
        """
        size = packing.BLOCK_BYTES
        while True:
            try:
                end, parsed = self._decode()
                # What touches the end of the block may go on in the next one: 1|2.
                if end < len(self._text) or not self._more(size):
                    return self._take_to(end), parsed
            except json.JSONDecodeError as error:
                if self._num_ahead > most:
                    raise RowError("line too long", f"an element of more than {most} characters, or broken") from error
                if not self._more(size):
                    raise RowError("not JSON", f"{error.msg}, {self._num_ahead} characters before the end") from error
            except RecursionError as error:
                raise RowError("JSON nested too deep", str(error)) from error
            size *= 2  # so that a long value is tried a few times only

    def _decode(self) -> tuple[int, object]:
        """Return where the next value ends, and the value or the refusal."""
        try:
            parsed, end = DECODER.raw_decode(self._text, self._at)
            return end, parsed
        except (json.JSONDecodeError, RecursionError):
            raise
        except RowError as error:
            refusal = error
        except ValueError as error:
            refusal = RowError("JSON that cannot be read", str(error))
        return _END_FINDER.raw_decode(self._text, self._at)[1], refusal

    def _take_to(self, end: int) -> str:
        raw, self._at = self._text[self._at : end], end
        return raw

    @property
    def _num_ahead(self) -> int:
        return len(self._text) - self._at

    def _more(self, size: int) -> bool:
        """Read another block; False at the end of the file. What stands before a fault is read before it is met."""
        if self._fault is not None:
            raise self._fault
        if self._at_end:
            return False
        block, self._start = self._start + self._file.read(size), b""
        self._at_end = not block
        try:
            self._hold(self._decoder.decode(block, final=self._at_end))
        except UnicodeDecodeError as error:
            self._hold(error.object[: error.start].decode("utf-8"))
            self._fault = RowError("not UTF-8", describe_bytes(*_line_around(error)))
        return not self._at_end or self._fault is not None

    def _hold(self, more: str) -> None:
        self._text, self._at = self._text[self._at :] + more, 0


def _line_around(error: UnicodeDecodeError) -> tuple[bytes, UnicodeDecodeError]:
    """Return the line with the bad byte, and the error as it is there."""
    given: bytes = error.object
    start = given.rfind(b"\n", 0, error.start) + 1
    end = given.find(b"\n", error.start)
    line = given[start : end if end >= 0 else len(given)]
    return line, UnicodeDecodeError(error.encoding, line, error.start - start, error.end - start, error.reason)
