"""The endpoint of a judge: one request and its reply, sent again while the endpoint is busy or not reached."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP's status codes after which the same request may succeed."""


LARGEST_REPLY_BYTES = 4_000_000


MOST_SHOWN = 200


class JudgeFailed(Exception):
    """The endpoint gave no reply that can be read."""


class _NoRedirects(HTTPRedirectHandler):
    """A key that is meant for one host is not sent to another."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        """Refuse: the redirect is an error of the request."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a judge is asked.

    Attributes:
        url: base URL, with or without a slash at its end.
        key_env: name of the environment variable with the key; empty for none.
        retries: how often a request is sent again.
        wait_seconds: before the first of those; doubled each time.
    """

    url: str
    key_env: str
    retries: int
    wait_seconds: float

    def read_key(self) -> str:
        """Return the key; empty where none is asked for.

        Raises:
            ValueError: the environment variable is not set.
        """
        if not self.key_env:
            return ""
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise ValueError(
                f"judge.key_env = {self.key_env!r}: there is no such environment variable, or it is empty; set it to "
                "the endpoint's key before the run starts"
            )
        return key

    def ask(self, model: str, messages: Sequence[Mapping[str, str]], *, max_tokens: int, seconds: float) -> str:
        """Return what the model says to the messages, drawn at temperature 0.

        Args:
            model: name of the model.
            messages: the chat.
            max_tokens: that the reply may have.
            seconds: that all attempts may take together.

        Raises:
            JudgeFailed: no attempt gave a whole reply; why, without the key.
        """
        key, ends = self.read_key(), time.monotonic() + seconds
        body = {"model": model, "messages": list(messages), "temperature": 0, "max_tokens": max_tokens}
        wait = self.wait_seconds
        for attempt in range(self.retries + 1):
            left = ends - time.monotonic()
            reply, why, asked_wait = self._attempt(body, key, max(left, 0.001))
            if reply is not None:
                return _content(reply)
            pause = max(wait, asked_wait or 0.0)
            if asked_wait is None or attempt == self.retries or time.monotonic() + pause >= ends:
                times = "" if attempt == 0 else f", after {attempt + 1} attempts"
                raise JudgeFailed(f"the judge gave no reply: {why}{times}")
            time.sleep(pause)
            wait *= 2
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, body: Mapping[str, Any], key: str, seconds: float) -> tuple[bytes | None, str, float | None]:
        """Return the reply, or why there is none and the seconds to wait before another attempt; None for no other."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = Request(f"{self.url.rstrip('/')}/chat/completions", data=json.dumps(body).encode(), headers=headers)
        try:
            with _opener().open(request, timeout=seconds) as reply:
                content = reply.read(LARGEST_REPLY_BYTES + 1)
        except HTTPError as error:
            with error:
                said = error.read(MOST_SHOWN * 4).decode(errors="replace")
            wait = _retry_after(error.headers.get("Retry-After")) if error.code in AGAIN else None
            return None, _without_key(f"HTTP {error.code}: {' '.join(said.split())[:MOST_SHOWN]}", key), wait
        except TimeoutError:
            return None, f"timed out after {seconds:.3g} s (scoring.timeout_seconds)", 0.0
        except (URLError, HTTPException, OSError) as error:
            why = getattr(error, "reason", error)
            return None, _without_key(f"{self.url} cannot be asked ({why})", key), 0.0
        if len(content) > LARGEST_REPLY_BYTES:
            return None, f"its reply has more than {LARGEST_REPLY_BYTES:,} bytes", None
        return content, "", None


def _opener() -> OpenerDirector:
    return build_opener(_NoRedirects)


def _retry_after(said: str | None) -> float:
    """Return the seconds that the endpoint asks to wait; 0 where it says none, or a date."""
    return float(said) if said is not None and said.strip().isdigit() else 0.0


def _without_key(text: str, key: str) -> str:
    return text.replace(key, "[key]") if key else text


def _content(reply: bytes) -> str:
    """Return the text of a chat completion.

    Raises:
        JudgeFailed: it is none, or was cut off.
    """
    try:
        choice = json.loads(reply)["choices"][0]
        content = choice["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        shown = " ".join(reply.decode(errors="replace").split())[:MOST_SHOWN]
        raise JudgeFailed(f"the endpoint's reply is no chat completion: {shown}") from None
    if choice.get("finish_reason") == "length":
        raise JudgeFailed("the judge's reply was cut off at judge.max_tokens; let it write more")
    if not isinstance(content, str) or not content.strip():
        raise JudgeFailed("the judge said nothing")
    return content
