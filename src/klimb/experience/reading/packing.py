"""A file opened as a stream of UTF-8 bytes, whatever it is packed in and whichever mark of UTF-16 or 32 it begins with.

Unpacking stops at a bomb: a file that grows far more than text does.
"""

# pyarrow ships no type information, so strict checking would only report its absence:
# pyright: basic

import gzip
import io
import zlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from klimb.experience.reading.encodings import Transcoded, check_is_marked, marked_encoding
from klimb.experience.reading.records import ReadLimits

BLOCK_BYTES = 1024**2


PACKINGS: Mapping[str, str] = MappingProxyType({".gz": "gzip", ".zst": "zstd"})
"""Ending of a packed file -> what it is packed with."""


NOT_TEXT: Mapping[bytes, str] = MappingProxyType(
    {
        b"\x1f\x8b": "packed with gzip, which its name does not say: add .gz to it",
        b"\x28\xb5\x2f\xfd": "packed with zstd, which its name does not say: add .zst to it",
        b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or save the sheet as CSV UTF-8",
        b"\xd0\xcf\x11\xe0": "an old Excel workbook: save the sheet as CSV UTF-8",
        b"%PDF-": "a PDF: export the data itself as CSV or JSON",
        b"<!DOCTYPE": "a web page: was it saved in place of the file that it offers?",
        b"<!doctype": "a web page: was it saved in place of the file that it offers?",
        b"<html": "a web page: was it saved in place of the file that it offers?",
        b"SQLite format 3": "an SQLite database: export the table as CSV",
        b"BZh": "packed with bzip2: unpack it",
        b"\xfd7zXZ\x00": "packed with xz: unpack it",
        b"PAR1": "a Parquet file: let its name end in .parquet",
        b"ARROW1": "an Arrow file: let its name end in .arrow",
    }
)
"""First bytes of what is not text -> what it is and what to do."""


@contextmanager
def open_text(path: Path, limits: ReadLimits) -> Generator[io.BufferedReader]:
    """Open a file of text to be read as UTF-8, by its name also out of gzip or zstd.

    Reading raises ValueError where a packed file is broken or has grown beyond `limits`, or text breaks its encoding.

    Raises:
        ValueError: the first bytes are those of a file that is no text, or of UTF-16 without a mark.
    """
    with path.open("rb") as file, _unpacked(path, file, limits) as content:
        head = content.peek(64)
        for start, what in NOT_TEXT.items():
            if head.startswith(start):
                raise ValueError(f"{path}: {what}")
        check_is_marked(head, path)
        encoding = marked_encoding(head)
        yield content if not encoding else io.BufferedReader(Transcoded(content, encoding, path), BLOCK_BYTES)


@contextmanager
def _unpacked(path: Path, file: io.BufferedReader, limits: ReadLimits) -> Generator[io.BufferedReader]:
    most = max(limits.free_expansion_bytes, int(limits.max_expansion * path.stat().st_size))
    packing = PACKINGS.get(path.suffix.lower())
    if packing is None:
        yield file
    elif packing == "gzip":
        # read1 gives what stands before a damage, where read would raise and give nothing.
        with gzip.GzipFile(fileobj=file) as gzipped:
            yield io.BufferedReader(_Unpacked(gzipped.read1, packing, most, path), BLOCK_BYTES)
    else:  # loaded here, because a process that reads plain text should not wait for this import
        arrow = import_module("pyarrow")
        with arrow.PythonFile(file, mode="r") as packed, arrow.CompressedInputStream(packed, packing) as content:
            yield io.BufferedReader(_Unpacked(content.read, packing, most, path), BLOCK_BYTES)


class _Unpacked(io.RawIOBase):
    """A packed file that is read until it has given more than `most` bytes."""

    def __init__(self, read: Callable[[int], bytes], packing: str, most: int, path: Path) -> None:
        self._read, self._packing, self._left, self._path = read, packing, most, path

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Fill the buffer with what is unpacked; return how many bytes, 0 at the end."""
        try:
            block = self._read(len(buffer))
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"{self._path}: not a whole {self._packing} file ({error}); the rows before the damage were read"
            ) from error
        self._left -= len(block)
        if self._left < 0:
            raise ValueError(
                f"{self._path}: grows far more than text does when it is unpacked (a bomb?); "
                "unpack it yourself if you trust it, and read the unpacked file"
            )
        buffer[: len(block)] = block
        return len(block)
