"""The body of a request: read whole within its limits, and looked at before any route sees it."""

import asyncio
import json
import math
from collections.abc import MutableMapping
from typing import Any, cast

from klimb.experience.reading.records import RowError
from klimb.experience.reading.strict_json import DECODER
from klimb.web.asgi import Receive, Scope, header_values
from klimb.web.serve.limits import Limits
from klimb.web.serve.openai_errors import RequestRefused


async def read_body(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """Return the body.

    Raises:
        RequestRefused: it is too long, too slow, or breaks off.
    """
    stated = header_values(scope, b"content-length")
    if stated and stated[0].isdecimal() and int(stated[0][:20]) > limits.max_body_bytes:
        raise _too_long(limits)
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _collect(receive, limits)
    except TimeoutError:
        raise RequestRefused(
            f"the body had not arrived after {limits.body_seconds:g} s", status=408, code="body_timeout"
        ) from None


async def _collect(receive: Receive, limits: Limits) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestRefused("the connection ended before the body did", code="body_cut_off")
        body += message.get("body", b"")
        if len(body) > limits.max_body_bytes:
            raise _too_long(limits)
        if not message.get("more_body", False):
            return bytes(body)


def _too_long(limits: Limits) -> RequestRefused:
    return RequestRefused(f"a body has at most {limits.max_body_bytes:,} bytes", status=413, code="request_too_large")


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once, and then what the server has to say: that the client is gone."""
    is_given = False

    async def receiving() -> MutableMapping[str, Any]:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving


def parse_body(body: bytes) -> object:
    """Return the JSON that the body is; no name twice, no NaN, no half characters.

    Raises:
        RequestRefused: it is none.
    """
    try:
        text = body.decode("utf-8")
        parsed: object = DECODER.decode(text)
        if "\\ud" in text.lower():
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise RequestRefused("the body is not UTF-8, or has half a character in it", code="invalid_json") from None
    except RecursionError:
        raise RequestRefused("the body is nested too deep", code="nested_too_deep") from None
    except RowError as error:
        raise RequestRefused(f"the body has {error}", code="invalid_json") from None
    except json.JSONDecodeError as error:
        raise RequestRefused(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}", code="invalid_json"
        ) from None
    except ValueError:
        raise RequestRefused("the body has a number of thousands of digits", code="invalid_json") from None
    return parsed


def check_content(parsed: object, limits: Limits) -> None:
    """Return if the content is within the limits.

    Raises:
        RequestRefused: it is not, and this names the field.
    """
    _check_depth(parsed, limits.max_json_depth)
    if not isinstance(parsed, dict):
        return
    fields = cast(dict[str, object], parsed)
    messages = fields.get("messages")
    if isinstance(messages, list) and len(cast(list[object], messages)) > limits.max_messages:
        raise _beyond("messages", len(cast(list[object], messages)), limits.max_messages)
    for name, most in (
        ("max_tokens", limits.max_new_tokens),
        ("max_completion_tokens", limits.max_new_tokens),
        ("n", limits.max_choices),
        ("best_of", limits.max_choices),
    ):
        value = fields.get(name)
        if isinstance(value, int) and value > most:
            raise _beyond(name, value, most)


def _beyond(name: str, value: int, most: int) -> RequestRefused:
    shown = f"{value:,}" if value < 10**12 else "more than 10^12"
    return RequestRefused(f"{name} is {shown}, and at most {most:,} here", code="limit_exceeded", param=name)


def _check_depth(parsed: object, most: int) -> None:
    """Return if lists and objects are at most so deep in each other, and every number is one."""
    level: list[object] = [parsed]
    for depth in range(most + 1):
        if depth == most and any(isinstance(value, dict | list) for value in level):
            raise RequestRefused(f"the body is nested deeper than {most} levels", code="nested_too_deep")
        entries: list[object] = []
        for value in level:
            if isinstance(value, dict):
                entries += cast(dict[str, object], value).values()
            elif isinstance(value, list):
                entries += cast(list[object], value)
            elif isinstance(value, float) and not math.isfinite(value):
                raise RequestRefused("the body has NaN or an infinite number, which is no JSON", code="invalid_json")
        level = entries
