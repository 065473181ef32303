"""Verdicts on disk, by the hash of all that they depend on: no text is kept, so nothing in it names a person."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klimb.working_directory import cache_folder


def default_folder() -> Path:
    """Return `judge` in klimb's cache folder."""
    return cache_folder() / "judge"


@dataclass(frozen=True)
class VerdictCache:
    """Scores in a folder, one small file each; processes may share it."""

    folder: Path

    @staticmethod
    def key_of(asked: Any) -> str:
        """Return the hash of what was asked, which must be plain values."""
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> float | None:
        """Return the score that is kept; None where there is none, or its file cannot be read."""
        try:
            score = json.loads(self._path(key).read_text(encoding="utf-8"))["score"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return float(score) if isinstance(score, int | float) and math.isfinite(score) else None

    def put(self, key: str, score: float) -> None:
        """Keep a score; the file appears whole or not at all."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as aside:
            json.dump({"score": score}, aside)
        os.replace(aside.name, path)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
