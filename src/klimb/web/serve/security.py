"""Who may ask what: every request passes here before the server sees it."""

import json
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from klimb.errors import ConfigError
from klimb.web.asgi import HEADERS, App, Receive, Scope, Send, header_values, is_loopback, is_own_name
from klimb.web.serve.bodies import check_content, parse_body, read_body, replay
from klimb.web.serve.keys import Key, Keys, KeyScope
from klimb.web.serve.limits import Limits, Rate, Turnstile, too_many
from klimb.web.serve.openai_errors import RequestRefused, error_body

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of an HTML page: scripts and styles are files of this server, nothing else is loaded, nobody frames it."""


ANSWER_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""Of every other answer."""


OPEN = ("/", "/health", "/favicon.ico")
"""Opened without a key: they say nothing of anybody."""


METHODS = frozenset({"GET", "HEAD", "POST"})


def scope_needed(path: str) -> KeyScope | None:
    """Return the scope that opens a path; None for what is open to all who may connect.

    >>> [scope_needed(path) for path in ("/v1/models", "/v1/feedback/x", "/metrics", "/people/queue", "/static/a.js")]
    ['serve', 'feedback', 'admin', 'feedback', None]
    """
    if path in OPEN or path.startswith("/static/"):
        return None
    if path in ("/v1/feedback", "/v1/logs", "/people") or path.startswith(("/v1/feedback/", "/people/")):
        return "feedback"
    return "admin" if path == "/metrics" or path.startswith("/admin") else "serve"


def check_binding(host: str, keys: Keys) -> None:
    """Return if a server may listen on this address.

    Raises:
        ConfigError: others than this machine reach it, and no keys are required.
    """
    if not keys.are_required and host != "localhost" and not is_loopback(host):
        raise ConfigError(
            f"--host {host} lets other machines ask, and there are no keys: make some with klimb keys new --scope "
            "serve --into keys.json, and give them with --keys keys.json"
        )


@dataclass(frozen=True)
class Secured:
    """The app, behind the checks. None of them logs a key, a prompt or an address.

        which names    Host is an address, localhost or one of `names`: else 421
        which origins  Origin, where a browser sends it, is this server's own: else 403; there are no CORS headers
        who            without keys this machine only: else 403; with keys `Authorization: Bearer KEY`: else 401, 403
        how often      requests in a minute and at once, of a key or address: else 429, 503
        what           GET, HEAD, POST; a POST is JSON within the limits: else 405, 415, 413, 408, 400

    Attributes:
        app: what answers.
        keys: what the requests' keys are looked up in.
        limits: bounds on requests.
        names: host names that are ours, besides `localhost` and addresses.
    """

    app: App
    keys: Keys = field(default_factory=Keys)
    limits: Limits = field(default_factory=Limits)
    names: frozenset[str] = frozenset()

    @cached_property
    def _requests(self) -> Rate:
        return Rate(self.limits.requests_per_minute)

    @cached_property
    def _refusals(self) -> Rate:
        return Rate(self.limits.refusals_per_minute)

    @cached_property
    def _turnstile(self) -> Turnstile:
        return Turnstile(self.limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            sending = _with_policies(send)
            try:
                await self._answer(scope, receive, sending)
            except RequestRefused as refused:
                await refuse(sending, refused)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_names(scope)
        client = self._identify(scope)
        # Who asks whether the server lives is told so, whoever else asks much from the same address.
        if scope["path"] != "/health" and (seconds := self._requests.take(client)):
            raise too_many(f"more than {self.limits.requests_per_minute:g} requests in a minute", seconds=seconds)
        with self._turnstile.pass_one(client):
            if scope["method"] == "POST":
                receive = await self._checked_body(scope, receive)
            await self.app(scope, receive, send)

    def _check_names(self, scope: Scope) -> None:
        hosts = header_values(scope, b"host")
        if len(hosts) != 1 or not is_own_name(hosts[0], self.names):
            raise RequestRefused(
                "this server is not known by that name: use its address, or start it with --host NAME",
                status=421,
                code="unknown_host",
            )
        if scope["method"] not in METHODS:
            raise RequestRefused("only GET, HEAD and POST are answered", status=405, code="method_not_allowed")
        own = {f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}"}
        is_foreign = any(origin.lower() not in own for origin in header_values(scope, b"origin"))
        sites = header_values(scope, b"sec-fetch-site")
        if is_foreign or (scope["method"] == "POST" and not set(sites) <= {"same-origin", "none"}):
            raise RequestRefused("pages of other origins may not ask this server", status=403, code="foreign_origin")

    def _identify(self, scope: Scope) -> str:
        """Return who is asking, for counting: a key's id, or the address."""
        address = (scope.get("client") or ("", 0))[0]
        needed = scope_needed(scope["path"])
        if not self.keys.are_required:
            if not is_loopback(address):
                raise RequestRefused(
                    "without keys this server answers its own machine only", status=403, code="not_this_machine"
                )
            return address
        if needed is None:
            return address
        key = self._key_of(scope)
        if key is None:
            # A valid key is heard all the same: behind a proxy all have one address.
            if seconds := self._refusals.take(address):
                raise too_many("too many requests with a key that opens nothing", seconds=seconds)
            raise RequestRefused(
                "no valid API key: send Authorization: Bearer KEY, with a key of klimb keys new",
                status=401,
                kind="authentication_error",
                code="invalid_api_key",
            )
        if needed not in key.scopes:
            raise RequestRefused(
                f"this key is for {', '.join(key.scopes)}, and {scope['path'][:80]} needs one for {needed}",
                status=403,
                kind="permission_error",
                code="wrong_scope",
            )
        scope.setdefault("state", {})["key_id"] = key.key_id
        return f"key {key.key_id}"

    def _key_of(self, scope: Scope) -> Key | None:
        given = header_values(scope, b"authorization")
        scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        try:
            return self.keys.find(key.strip()) if scheme.lower() == "bearer" else None
        except ConfigError:  # what is wrong with the file is for who runs the server
            raise RequestRefused(
                "the keys cannot be read just now", status=503, kind="server_error", code="keys_unreadable"
            ) from None

    async def _checked_body(self, scope: Scope, receive: Receive) -> Receive:
        kinds = [value.partition(";")[0].strip().lower() for value in header_values(scope, b"content-type")]
        if header_values(scope, b"content-encoding"):
            raise RequestRefused("send the body as it is, not compressed", status=415, code="unsupported_encoding")
        body = await read_body(scope, receive, self.limits)
        if body or kinds:
            if kinds != ["application/json"]:
                raise RequestRefused(
                    "send JSON, with Content-Type: application/json", status=415, code="unsupported_media_type"
                )
            check_content(parse_body(body), self.limits)
        return replay(body, receive)


async def refuse(send: Send, refused: RequestRefused) -> None:
    """Answer with the refusal in OpenAI's form."""
    body = json.dumps(error_body(refused)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refused.retry_after is not None:
        headers.append((b"retry-after", str(round(refused.retry_after)).encode()))
    if refused.status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_policies(send: Send) -> Send:
    """Return `send` with the headers of `HEADERS`, and a content security policy and no caching where none is said."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = [(name.lower(), value) for name, value in message.get("headers", ())]
            said = dict(given)
            is_page = said.get(b"content-type", b"").startswith(b"text/html")
            added = {
                b"content-security-policy": (PAGE_POLICY if is_page else ANSWER_POLICY).encode(),
                b"cache-control": b"no-store",
            }
            kept = [(name, value) for name, value in given if not name.startswith(b"access-control-")]
            missing = [(name, value) for name, value in {**added, **HEADERS}.items() if name not in said]
            message = {**message, "headers": [*kept, *missing]}
        await send(message)

    return sending
