"""Which encoding text is in: said by a mark at its beginning, or else UTF-8; what else it looks like is only named."""

import codecs
import io
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

UTF8_MARK = codecs.BOM_UTF8


_MARKS: Mapping[bytes, str] = MappingProxyType(
    {
        codecs.BOM_UTF32_LE: "utf-32",
        codecs.BOM_UTF32_BE: "utf-32",
        codecs.BOM_UTF16_LE: "utf-16",
        codecs.BOM_UTF16_BE: "utf-16",
    }
)
"""Byte order mark -> encoding; that of UTF-32 begins like one of UTF-16, so it comes first."""


_NUM_LOOKED_AT = 64
"""Bytes at the beginning by which UTF-16 without a mark is told."""


def marked_encoding(head: bytes) -> str:
    """Return the encoding that a byte order mark says; empty for UTF-8."""
    return next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), "")


def check_is_marked(head: bytes, path: Path) -> None:
    """Raise ValueError for what looks like UTF-16 or UTF-32 without a mark: NUL as every other of the first bytes."""
    head = head[: min(_NUM_LOOKED_AT, len(head) // 4 * 4)]
    if marked_encoding(head) or not head:
        return
    halves = head[::2], head[1::2]
    if any(half.count(0) == len(half) for half in halves):
        raise ValueError(f"{path}: looks like UTF-16 or UTF-32 without a byte order mark; save it as UTF-8")


class Transcoded(io.RawIOBase):
    """Text of another encoding as UTF-8. Broken text raises ValueError when it is reached."""

    def __init__(self, file: io.BufferedReader, encoding: str, path: Path) -> None:
        self._file, self._encoding, self._path = file, encoding, path
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._waiting = b""
        self._is_over = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Fill the buffer with UTF-8; return how many bytes, 0 at the end."""
        while not self._waiting and not self._is_over:
            block = self._file.read(len(buffer))
            self._is_over = not block
            try:
                self._waiting = self._decoder.decode(block, final=self._is_over).encode("utf-8")
            except UnicodeError as error:
                raise ValueError(
                    f"{self._path}: begins like {self._encoding.upper()} and is broken ({error}); save it as UTF-8"
                ) from error
        given, self._waiting = self._waiting[: len(buffer)], self._waiting[len(buffer) :]
        buffer[: len(given)] = given
        return len(given)


_RUN = re.compile(rb"[\x80-\xff]+")


_LETTERS = re.compile(rb"[A-Za-z\x80-\xff]")


def describe_bytes(line: bytes, error: UnicodeDecodeError) -> str:
    """Return why bytes are not UTF-8, which encoding they look like, and what to do.

    Western letters of one byte stand by ones and twos among those of ASCII; other alphabets stand together.
    """
    if error.reason == "unexpected end of data":
        return f"the last character, at byte {error.start} of the line, is cut off"
    runs = [len(run) for run in _RUN.findall(line)]
    is_western = max(runs) <= 2 and 3 * sum(runs) <= len(_LETTERS.findall(line))
    name = "windows-1252" if is_western else ""
    others = "it is in another code page, such as windows-1251 of Cyrillic"
    likely = f"it looks like {name} (Latin-1)" if name else others
    command = f"iconv -f {name or 'CODEPAGE'} -t utf-8 FILE"
    return f"{error.reason} at byte {error.start} of the line; {likely}: save the file as UTF-8, or `{command}`"
