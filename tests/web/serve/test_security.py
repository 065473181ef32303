"""What a server lets pass: each line of `Secured`, with what must not pass beside it."""

import asyncio
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi.testclient import TestClient

from klimb.errors import ConfigError
from klimb.web.serve.keys import Keys, add_key, revoke_key
from klimb.web.serve.limits import Limits, Rate, Turnstile
from klimb.web.serve.openai_errors import RequestRefused
from klimb.web.serve.security import Secured, check_binding, scope_needed

HERE = ("127.0.0.1", 50_000)


def app() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse("<p>", headers={"Access-Control-Allow-Origin": "*"})

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def echo(path: str, request: Request) -> dict:
        if path == "fault":
            raise RuntimeError("the secret of the trace")
        return {"path": path, "body": (await request.body()).decode()}

    return app


def client(*, keys: Keys | None = None, names: tuple[str, ...] = (), address=HERE, **limits) -> TestClient:
    secured = Secured(app(), keys or Keys(), Limits(**limits), frozenset(names))
    return TestClient(secured, base_url="http://localhost", client=address, raise_server_exceptions=False)


@pytest.fixture
def keys_path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_without_keys_this_machine_alone_is_answered():
    assert client().get("/v1/models").status_code == 200
    assert client(address=("::1", 1)).get("/v1/models").status_code == 200
    assert client(address=("::ffff:127.0.0.1", 1)).get("/v1/models").status_code == 200
    for address in ("192.168.0.7", "testclient", "::ffff:10.0.0.1", ""):
        answer = client(address=(address, 1)).get("/v1/models")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_this_machine")


def test_a_server_without_keys_may_not_listen_elsewhere(keys_path):
    for host in ("127.0.0.1", "::1", "localhost"):
        check_binding(host, Keys())
    add_key(keys_path, ["serve"])
    check_binding("0.0.0.0", Keys(keys_path))
    for host in ("0.0.0.0", "::", "192.168.0.7", "box.example"):
        with pytest.raises(ConfigError, match="klimb keys new"):
            check_binding(host, Keys())


def test_each_key_opens_its_own_scope_and_no_other(keys_path):
    keys = {scope: add_key(keys_path, [scope])[0] for scope in ("serve", "feedback", "admin")}
    paths = {
        "serve": ["/v1/chat/completions", "/v1/models", "/anything"],
        "feedback": ["/v1/feedback", "/v1/feedback/x", "/v1/logs", "/people/queue"],
        "admin": ["/metrics", "/admin/x"],
    }
    for opened, places in paths.items():
        for place in places:
            assert scope_needed(place) == opened
            for scope, key in keys.items():
                answer = client(keys=Keys(keys_path), address=("10.0.0.1", 1)).get(place, headers=bearer(key))
                assert answer.status_code == (200 if scope == opened else 403), (place, scope)


def test_without_a_valid_key_nothing_is_opened_but_the_page_and_health(keys_path):
    key, row = add_key(keys_path, ["serve"])
    asking = client(keys=Keys(keys_path))
    for headers in ({}, bearer("klimb-x"), bearer(""), {"Authorization": key}, {"Authorization": f"Basic {key}"}):
        answer = asking.get("/v1/models", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert key not in answer.text
    assert asking.get("/v1/models", headers=bearer(key)).status_code == 200
    assert {asking.get(path).status_code for path in ("/", "/health", "/static/x.js")} == {200}
    assert asking.get("/metrics").status_code == 401
    revoke_key(keys_path, row.key_id)
    assert asking.get("/v1/models", headers=bearer(key)).status_code == 401


def test_when_the_keys_are_gone_nothing_is_opened_and_nothing_is_told(keys_path):
    key, _ = add_key(keys_path, ["serve"])
    asking = client(keys=Keys(keys_path))
    keys_path.unlink()
    answer = asking.get("/v1/models", headers=bearer(key))
    assert answer.status_code == 503
    assert str(keys_path) not in answer.text


def test_guessing_keys_is_ended_for_the_address(keys_path):
    key, _ = add_key(keys_path, ["serve"])
    asking = client(keys=Keys(keys_path), refusals_per_minute=3)
    assert [asking.get("/x", headers=bearer(f"guess-{n}")).status_code for n in range(4)] == [401, 401, 401, 429]
    assert asking.get("/x", headers=bearer(key)).status_code != 429  # behind a proxy all have one address


def test_whether_the_server_lives_is_told_however_much_is_asked():
    asking = client(requests_per_minute=2)
    assert [asking.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]
    assert {asking.get("/health").status_code for _ in range(5)} == {200}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "localhost:x", ""])
def test_another_name_for_this_machine_gets_no_answer(host):
    answer = client().get("/v1/models", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "unknown_host")


def test_own_names_get_one():
    for host in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "box.example", "BOX.example:1"):
        assert client(names=("box.example",)).get("/v1/models", headers={"Host": host}).status_code == 200


def test_pages_of_other_origins_may_not_ask_and_read_nothing():
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:81"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        answer = client().post("/v1/feedback", json={}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_origin"), headers
    own = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert client().post("/v1/feedback", json={}, headers=own).status_code == 200


def test_no_answer_opens_the_server_to_other_origins():
    asking = client()
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (asking.options("/v1/feedback", headers=preflight), asking.get("/"), asking.get("/v1/models")):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert asking.options("/v1/feedback").status_code == 405


def test_a_post_of_a_form_that_any_page_could_send_is_refused():
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = client().post("/v1/feedback", content='{"a": 1}', headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert client().post("/v1/feedback", content=b"x", headers={"Content-Encoding": "gzip"}).status_code == 415
    assert client().post("/x", json={"a": 1}).json()["body"] == '{"a":1}', "and what passes arrives as it was"


def test_every_answer_has_the_headers_and_a_page_its_policy():
    asking = client()
    for answer in (asking.get("/"), asking.get("/v1/models"), asking.put("/v1/models"), asking.get("/fault")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
    policy = asking.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in asking.get("/v1/models").headers["content-security-policy"]


def test_a_fault_of_the_server_shows_no_trace():
    answer = client().get("/fault")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_a_body_beyond_the_limit_is_refused_said_or_unsaid():
    asking = client(max_body_bytes=1_000)
    assert asking.post("/x", json={"a": "x" * 900}).status_code == 200
    assert asking.post("/x", json={"a": "x" * 1_000}).status_code == 413
    unsaid = asking.post("/x", content=iter([b"x" * 600, b"x" * 600]), headers={"Content-Type": "application/json"})
    assert unsaid.status_code == 413
    wrong = {"Content-Type": "application/json", "Content-Length": "9" * 30}
    assert asking.post("/x", content=b"{}", headers=wrong).status_code == 413


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[" * 6 + b"]" * 6, "nested_too_deep"),
        (b"[" * 100_000, "nested_too_deep"),
        (b'{"a":' * 100_000, "nested_too_deep"),
        (b'{"a": NaN}', "invalid_json"),
        (b'{"a": 1e999}', "invalid_json"),
        (b'{"a": -Infinity}', "invalid_json"),
        (b'{"a": 1, "a": 2}', "invalid_json"),
        (b'{"a": "\\ud800"}', "invalid_json"),
        (b'{"a": "\xff"}', "invalid_json"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "invalid_json"),
        (b"{", "invalid_json"),
        (b"", "invalid_json"),
        (b'{"messages": [1, 2, 3, 4]}', "limit_exceeded"),
        (b'{"max_tokens": 101}', "limit_exceeded"),
        (b'{"max_completion_tokens": 101}', "limit_exceeded"),
        (b'{"max_tokens": ' + b"9" * 4_000 + b"}", "limit_exceeded"),
        (b'{"n": 5}', "limit_exceeded"),
    ],
)
def test_a_body_that_is_deep_broken_or_asks_too_much_is_a_400(body, code):
    asking = client(max_json_depth=5, max_messages=3, max_new_tokens=100, max_choices=4)
    answer = asking.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_a_body_at_the_limits_passes():
    asking = client(max_json_depth=5, max_messages=3, max_new_tokens=100, max_choices=4)
    body = {"messages": [{}, {}, {}], "max_tokens": 100, "n": 4, "deep": [[[[]]]], "emoji": "\U0001f600"}
    assert asking.post("/v1/chat/completions", json=body).status_code == 200


def call(secured: Secured, receive, **scope) -> list[dict]:
    """What the server sends for one request, spoken without a client."""
    sent: list[dict] = []
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    whole = {"type": "http", "method": "POST", "path": "/x", "headers": headers, "client": HERE, "query_string": b""}

    async def send(message) -> None:
        sent.append(message)

    asyncio.run(secured({**whole, **scope}, receive, send))
    return sent


def test_a_body_that_comes_too_slowly_is_given_up():
    async def receive() -> dict:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b" ", "more_body": True}

    (start, _) = call(Secured(app(), limits=Limits(body_seconds=0.2)), receive)
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]


def test_a_body_that_breaks_off_is_no_request():
    async def receive() -> dict:
        return {"type": "http.disconnect"}

    assert call(Secured(app()), receive)[0]["status"] == 400


def test_a_websocket_is_closed():
    async def receive() -> dict:
        return {"type": "websocket.connect"}

    assert call(Secured(app()), receive, type="websocket") == [{"type": "websocket.close", "code": 1008}]


def test_more_requests_than_a_minute_allows_are_told_when_to_come_again():
    asking = client(requests_per_minute=2)
    answers = [asking.get("/v1/models") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 0 < int(answers[2].headers["retry-after"]) <= 30
    assert answers[2].json()["error"]["type"] == "rate_limit_error"


def test_keys_are_counted_apart(keys_path):
    one, two = (add_key(keys_path, ["serve"])[0] for _ in range(2))
    asking = client(keys=Keys(keys_path), requests_per_minute=1)
    assert [asking.get("/x", headers=bearer(key)).status_code for key in (one, one, two)] == [200, 429, 200]


def test_a_rate_fills_evenly():
    now = [0.0]
    rate = Rate(60, clock=lambda: now[0])
    assert [rate.take("a") for _ in range(60)] == [0] * 60
    # A token a second; half a second after the last, half of one is missing.
    now[0] = 0.5
    assert rate.take("a") == pytest.approx(0.5)
    assert rate.take("b") == 0
    now[0] = 1.0
    assert rate.take("a") == 0
    now[0] = 1000.0


def test_clients_without_end_need_no_memory_without_end(monkeypatch):
    monkeypatch.setattr("klimb.web.serve.limits.MOST_CLIENTS", 3)
    rate = Rate(1)
    assert [rate.take(f"c{number}") for number in range(10)] == [0] * 10
    assert rate.take("c9") > 0
    assert len(rate._buckets) == 3


def test_so_many_requests_at_once_and_no_more():
    turnstile = Turnstile(Limits(max_concurrent=3, max_concurrent_of_client=2))
    with turnstile.pass_one("a"), turnstile.pass_one("a"):
        with pytest.raises(RequestRefused) as refused, turnstile.pass_one("a"):
            pass
        assert refused.value.status == 429
        with turnstile.pass_one("b"):
            with pytest.raises(RequestRefused) as refused, turnstile.pass_one("c"):
                pass
            assert refused.value.status == 503
    with turnstile.pass_one("a"):
        pass


def test_a_request_that_fails_is_counted_no_longer():
    asking = client(max_concurrent=1, max_concurrent_of_client=1)
    assert [asking.get("/fault").status_code for _ in range(3)] == [500, 500, 500]


def test_nothing_of_a_request_is_logged(caplog, keys_path):
    key, _ = add_key(keys_path, ["serve"])
    asking = client(keys=Keys(keys_path))
    with caplog.at_level("DEBUG", logger="klimb"):
        asking.post("/v1/chat/completions", json={"messages": [{"content": "my secret"}]}, headers=bearer(key))
        asking.get("/v1/models", headers=bearer("klimb-wrong"))
    assert not [record for record in caplog.records if record.name.startswith("klimb")]
