"""Rows that were not imported, in a file of their own, counted by reason."""

import filecmp
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TextIO

from klimb.experience.reading.records import Reject

FOLDER = "rejected"


NUM_REASONS_SHOWN = 5


LONGEST_TEXT = 2000
"""Characters kept of a rejected row."""


class RejectFile:
    """`rejected/<stem>-<n>.jsonl` in the store's folder: made by the first reject, one JSON object a line.

    A file imported again has the same rejects again: if a file with a smaller number holds just these, it stays alone.

    Attributes:
        counts: rejects by reason.
        examples: for each reason, place and detail of the first row.
        path: None as long as nothing was rejected.
    """

    def __init__(self, store: Path, stem: str) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.path: Path | None = None
        self._folder = store / FOLDER
        self._stem = re.sub(r"[^A-Za-z0-9._-]", "-", stem).lstrip(".")[:100] or "file"
        self._file: TextIO | None = None

    def __enter__(self) -> "RejectFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._file is None or self.path is None:
            return
        self._file.close()
        earlier = self._same_as(self.path)
        if earlier is not None:
            self.path.unlink()
            self.path = earlier

    def add(self, reject: Reject) -> None:
        """Write one reject."""
        self.counts[reject.reason] += 1
        self.examples.setdefault(reject.reason, f"{reject.place}: {reject.detail}")
        if self._file is None:
            self._file = self._opened()
        text = reject.text
        cut = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… ({len(text)} characters)"
        record = {"place": reject.place, "reason": reject.reason, "detail": reject.detail, "row": cut}
        self._file.write(json.dumps(record, ensure_ascii=True) + "\n")

    def discard(self) -> None:
        """Take back what was written: nothing of the file came in, so these rows come again with the others."""
        if self._file is not None and self.path is not None:
            self._file.close()
            self.path.unlink()
        self._file = self.path = None
        self.counts.clear()
        self.examples.clear()

    def _opened(self) -> TextIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._paths():
            try:
                file = path.open("x", encoding="ascii")
            except FileExistsError:
                continue
            self.path = path
            return file
        raise AssertionError("the numbers have no end")

    def _same_as(self, path: Path) -> Path | None:
        """Return the first file before this one with the same content. None behind it: two imports at once keep one."""
        for earlier in self._paths():
            if earlier == path:
                return None
            if earlier.is_file() and filecmp.cmp(earlier, path, shallow=False):
                return earlier
        raise AssertionError("the numbers have no end")

    def _paths(self) -> Iterator[Path]:
        number = 0
        while True:
            number += 1
            yield self._folder / f"{self._stem}-{number}.jsonl"
