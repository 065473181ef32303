"""Standard output and error that may go away: a closed pipe or terminal costs what is shown, never what is done."""

import errno
import os
import sys
from typing import Any, TextIO

MAY_RECOVER = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN, errno.EINTR})
"""Errors of a full disk or a busy reader: what was to be written is lost, and the next line is tried again."""


class TolerantStream:
    """A text stream that loses what cannot be written. Once its reader is gone, all goes to the null device."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text; what the stream's encoding does not have is written as an escape."""
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:
            self._lose(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: OSError | ValueError) -> None:
        if not isinstance(error, OSError) or error.errno in MAY_RECOVER:
            return
        # On the descriptor itself: the buffer's rest, the interpreter's last flush and C libraries write there too.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)


def protect_streams() -> None:
    """Make this process's standard output and error tolerant, for a program; never from a library."""
    _fill_descriptors()
    sys.stdout = TolerantStream(sys.stdout or _null_stream())
    sys.stderr = TolerantStream(sys.stderr or _null_stream())


def _fill_descriptors() -> None:
    """Open the null device where 0, 1 or 2 is closed; a file of the run would get that number, and output into it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        continue
    os.close(descriptor)


def _null_stream() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
