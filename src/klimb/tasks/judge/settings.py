"""What a judge can be told. Read without what speaks HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le, MaxLen

from klimb.declarations import LongText, Matching, ShortText, configurable, require

JUDGE = "judge"
"""Name of this reward where a run file names rewards."""


NO_CACHE = "none"


LARGEST_RUBRIC_BYTES = 100_000


@configurable
@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """A model that judges answers, behind any endpoint that speaks OpenAI's chat completions."""

    url: Annotated[str, MaxLen(2_000), Matching(r"^https?://[^\s]+$", "http://HOST:PORT/v1 or https://…/v1")]
    """Base URL of the endpoint, such as `http://127.0.0.1:8000/v1`; `/chat/completions` is asked below it."""
    model: ShortText
    """Name of the model that judges, as the endpoint calls it."""
    rubric: LongText = ""
    """What makes an answer good, in the words that the judge reads. Give this or `rubric_file`."""
    rubric_file: Annotated[str, MaxLen(4_000)] = ""
    """The same from a text file."""
    key_env: Annotated[str, Matching(r"^[A-Za-z_][A-Za-z0-9_]*$|^$", "the name of an environment variable")] = ""
    """Name of the environment variable that holds the key; the key itself is written nowhere. Empty for no key."""
    lowest: Annotated[float, Ge(-1_000_000), Le(1_000_000)] = 0.0
    """The least score that the judge may give; it becomes a reward of 0."""
    highest: Annotated[float, Ge(-1_000_000), Le(1_000_000)] = 10.0
    """The largest score that the judge may give; it becomes a reward of 1."""
    max_tokens: Annotated[int, Ge(1), Le(1_000_000)] = 1024
    """Tokens that the judge may write; a verdict that is cut off is an error of that answer."""
    retries: Annotated[int, Ge(0), Le(100)] = 3
    """How often a request is sent again after the endpoint was busy, broken or not reached, with growing waits."""
    wait_seconds: Annotated[float, Gt(0), Le(600)] = 1.0
    """Before the first of them; doubled before each next one. What the endpoint says itself (Retry-After) counts."""
    cache: Annotated[str, MaxLen(4_000)] = ""
    """Folder that keeps verdicts, so that nothing is asked twice: hashes and scores, no text. Empty is the cache folder
    of klimb; `none` keeps nothing."""

    def __post_init__(self) -> None:
        require(self.lowest < self.highest, "lowest", self.lowest, f"below highest = {self.highest:g}")
        if bool(self.rubric.strip()) == bool(self.rubric_file):
            raise ValueError("a judge needs a rubric: give judge.rubric or judge.rubric_file, one of them")
        if "@" in urlsplit(self.url).netloc:
            raise ValueError("judge.url holds a user or a password; name the key's variable in judge.key_env instead")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"judge.url must begin with http:// or https://, got {self.url!r}")

    def read_rubric(self) -> str:
        """Return the rubric's words.

        Raises:
            ValueError: the file is not there, empty, too large or no text.
        """
        if not self.rubric_file:
            return self.rubric.strip()
        path = Path(self.rubric_file)
        here = f"judge.rubric_file = {self.rubric_file!r}"
        if not path.is_file():
            raise ValueError(f"{here}: there is no such file in {path.absolute().parent}")
        if path.stat().st_size > LARGEST_RUBRIC_BYTES:
            raise ValueError(f"{here}: it has more than {LARGEST_RUBRIC_BYTES:,} bytes; a rubric is a page of text")
        try:
            text = path.read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError:
            raise ValueError(f"{here}: it is no text in UTF-8") from None
        if not text:
            raise ValueError(f"{here}: it is empty; say what makes an answer good")
        return text
