"""Open WebUI's feedback, fetched from where it runs."""

import json
import os
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from klimb.errors import ConfigError

KEY_VARIABLE = "OPEN_WEBUI_API_KEY"
"""Of the environment: an administrator's key. On a command line others could read it."""


EXPORT = "/api/v1/evaluations/feedbacks/all/export"


MOST_BYTES = 1_000_000_000


TIMEOUT_SECONDS = 120.0


def is_address(text: str) -> bool:
    """Tell the address of a server from the path of a file."""
    return text.lower().startswith(("http://", "https://"))


class _NoRedirects(HTTPRedirectHandler):
    """Follows none: the key is for the server that was named."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def fetch_feedback(address: str, environment: Mapping[str, str] = os.environ) -> Sequence[Mapping[str, Any]]:
    """Return all feedback of an Open WebUI, as its page exports it.

    Args:
        address: of its page, such as `http://127.0.0.1:3000`.
        environment: has the key.

    Raises:
        ConfigError: the address is none, or there is no key.
        ValueError: the server refused, does not answer, or is no Open WebUI.
    """
    parts = urlsplit(address)
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ConfigError(f"{address!r} is no address of an Open WebUI: give one such as http://127.0.0.1:3000")
    key = environment.get(KEY_VARIABLE, "").strip()
    if not key:
        raise ConfigError(
            f"set {KEY_VARIABLE} to an administrator's API key of {address} (Settings, Account, API keys; the server "
            "needs ENABLE_API_KEYS=True)"
        )
    request = Request(f"{address.rstrip('/')}{EXPORT}", headers={"Authorization": f"Bearer {key}"})
    return _rows_of(_read(request, address), address)


def _read(request: Request, address: str) -> bytes:
    try:
        with build_opener(_NoRedirects()).open(request, timeout=TIMEOUT_SECONDS) as answer:
            content = answer.read(MOST_BYTES + 1)
    except HTTPError as error:
        reason = error.read(500).decode(errors="replace")
        raise ValueError(
            f"{address} answered {error.code} to {EXPORT}: {reason}. It takes the API key of an administrator, and the "
            "address that it is served at without a redirect"
        ) from error
    except (URLError, HTTPException, OSError) as error:
        raise ValueError(f"{address} does not answer: {error}; is Open WebUI running there?") from error
    if len(content) > MOST_BYTES:
        raise ValueError(f"{address}: more than {MOST_BYTES:,} bytes of feedback; export it by its page, in parts")
    return content


def _rows_of(content: bytes, address: str) -> Sequence[Mapping[str, Any]]:
    try:
        rows = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{address} answered no JSON: is it the address of an Open WebUI?") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{address} answered something else than a list of feedback: is it an Open WebUI?")
    if not rows:
        raise ValueError(f"{address} has no feedback yet: nobody gave a thumb there")
    return rows
