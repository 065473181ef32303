"""The bytes of a file, unpacked on the way if it is a .gz, and its lines, none of which is held beyond a bound."""

import gzip
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from klimb.experience.importing.rows import ReadLimits

BLOCK_BYTES = 1024**2
LONGEST_KEPT = 2000
"""Bytes kept of a line that is too long."""


@runtime_checkable
class Readable(Protocol):
    """What is asked of an open file."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...

    def readline(self, size: int, /) -> bytes:
        """Up to the next line feed, at most `size` bytes; none at the end."""
        ...


@contextmanager
def opened(path: Path, limits: ReadLimits) -> Generator[Readable]:
    """The file, to be read; a .gz raises ValueError once it has grown beyond `limits` or is found to be broken."""
    with path.open("rb") as file:
        if path.suffix.lower() != ".gz":
            yield file
            return
        most = max(limits.free_expansion_bytes, int(limits.max_expansion * path.stat().st_size))
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield _Unpacked(unpacked, most, path)


class _Unpacked:
    """A .gz that is read until it has given more than `most` bytes."""

    def __init__(self, file: gzip.GzipFile, most: int, path: Path) -> None:
        self._file, self._left, self._path = file, most, path

    def read(self, size: int, /) -> bytes:
        try:
            return self._counted(self._file.read(size))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self._broken(error) from error

    def readline(self, size: int, /) -> bytes:
        try:
            return self._counted(self._file.readline(size))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self._broken(error) from error

    def _counted(self, block: bytes) -> bytes:
        self._left -= len(block)
        if self._left < 0:
            raise ValueError(
                f"{self._path}: grows far more than text does when it is unpacked (a bomb?); "
                "unpack it yourself if you trust it, and import the unpacked file"
            )
        return block

    def _broken(self, error: Exception) -> ValueError:
        return ValueError(f"{self._path}: not a whole gzip file ({error}); the rows before the damage were read")


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its line feed. Of one that is too long, `content` is the beginning."""

    number: int
    offset: int
    content: bytes
    is_too_long: bool = False


def lines(file: Readable, max_line_bytes: int) -> Iterator[Line]:
    """Yields the lines. They end at line feeds alone: JSON text may contain what text mode takes for a line's end."""
    number, offset = 0, 0
    while content := file.readline(max_line_bytes + 1):
        number += 1
        if len(content) <= max_line_bytes or content.endswith(b"\n"):
            yield Line(number, offset, content)
            offset += len(content)
            continue
        kept, length = content[:LONGEST_KEPT], len(content)
        while content and not content.endswith(b"\n"):
            content = file.readline(BLOCK_BYTES)
            length += len(content)
        yield Line(number, offset, kept, is_too_long=True)
        offset += length
