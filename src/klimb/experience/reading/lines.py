"""Lines of a stream of bytes, none held beyond a bound."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from klimb.experience.reading.packing import BLOCK_BYTES

LONGEST_KEPT = 2000
"""Bytes kept of a line that is too long."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its end. Of one that is too long, `content` is the beginning."""

    number: int
    offset: int
    content: bytes
    is_too_long: bool = False


def lines(file: io.BufferedReader, max_line_bytes: int, *, end: bytes = b"\n") -> Iterator[Line]:
    """Yield the lines. They end at `end` alone: JSON text may contain what text mode takes for a line's end."""
    number, offset = 0, 0
    readline = file.readline if end == b"\n" else CarriageReturns(file).readline
    while content := readline(max_line_bytes + 1):
        number += 1
        if len(content) <= max_line_bytes or content.endswith(end):
            yield Line(number, offset, content)
            offset += len(content)
            continue
        kept, length = content[:LONGEST_KEPT], len(content)
        while content and not content.endswith(end):
            content = readline(BLOCK_BYTES)
            length += len(content)
        yield Line(number, offset, kept, is_too_long=True)
        offset += length


def find_line_end(head: bytes, *, quote: bytes = b"") -> bytes:
    r"""Return what ends the first line: b"\n", or b"\r" where the file has bare carriage returns.

    Args:
        head: the beginning of the file.
        quote: between two of which no line ends; empty if there is none.
    """
    is_quoted = False
    for found in re.finditer(rb"\r\n?|\n|" + (re.escape(quote) or rb"\n"), head):
        if quote and found[0] == quote:
            is_quoted = not is_quoted
        elif not is_quoted and found.end() < len(head):
            return b"\r" if found[0] == b"\r" else b"\n"
    return b"\n"


class CarriageReturns:
    """A file whose lines end in bare carriage returns, which `readline` ends them at."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._block, self._at = b"", 0

    def readline(self, size: int, /) -> bytes:
        """Return what is up to the next carriage return, at most `size` bytes; none at the end."""
        end = self._block.find(b"\r", self._at, self._at + size) + 1
        while not end and len(self._block) - self._at < size:
            more = self._file.read(BLOCK_BYTES)
            if not more:
                break
            self._block, self._at = self._block[self._at :] + more, 0
            end = self._block.find(b"\r", 0, size) + 1
        end = end or self._at + size
        line, self._at = self._block[self._at : end], min(end, len(self._block))
        return line
