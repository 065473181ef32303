"""The board's answers: the page, the list of runs, charts, settings, reports.

What a request must be to get an answer: to a name of this server, and reading only.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.middleware.gzip import GZipMiddleware

from klimb.errors import ConfigError
from klimb.training.run_folder import flat_settings, read_run
from klimb.ui.pages.frame import render
from klimb.ui.pages.run import report_page
from klimb.web.asgi import App, Receive, Scope, Send, is_own_name, with_headers
from klimb.web.curves import AXES, CurveReader, board_charts, short_names
from klimb.web.files import open_beneath, parts_of, read_table
from klimb.web.listing import Watcher


@dataclass(frozen=True)
class ReadOnlyApp:
    """The app, behind the checks.

    Attributes:
        app: what answers.
        names: host names that are ours, besides `localhost` and addresses.
    """

    app: App
    names: frozenset[str] = frozenset()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers the request, or refuses it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, with_headers(send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not is_own_name(hosts[0], self.names):
            await _refuse(
                send, 421, "this server is not known by that name: use its address, or start it with --host NAME"
            )
        elif scope["method"] not in ("GET", "HEAD"):
            await _refuse(send, 405, "the board only reads")
        elif scope["method"] == "HEAD":
            # The app's routes are of GET; what they say of a body is to be told without it (RFC 9110, 9.3.2).
            await self.app({**scope, "method": "GET"}, receive, _without_body(send))
        else:
            await self.app(scope, receive, send)


def _without_body(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return sending


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})


STATIC = {
    "style.css": ("klimb.ui.pages", "text/css"),
    "charts.js": ("klimb.ui.pages", "text/javascript"),
    "board.js": ("klimb.web", "text/javascript"),
    "runs.js": ("klimb.web", "text/javascript"),
    "tables.js": ("klimb.web", "text/javascript"),
}
"""Files of the page, with the package each is in and its type."""


SERVED = {
    ".html": "text/html; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".csv": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".tex": "text/plain; charset=utf-8",
}
"""Files of runs and studies that may be opened, by ending."""


LARGEST_SERVED_BYTES = 64_000_000


MOST_NAMES = 100


MOST_LISTED = 200
"""Runs, and studies, whose reports are linked for a reader without script."""


REFRESH_SECONDS = 30
"""After which a browser asks anew for the report of a run that goes on."""


PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""A report is made of model text. It gets an origin of its own: whatever ran in it could read nothing of the server."""


def make_app(folder: Path, *, names: frozenset[str] = frozenset(), poll_seconds: float = 2.0) -> App:
    """Return the application over a folder of runs.

    Args:
        folder: whose runs are shown; nothing outside of it is read.
        names: host names under which the server may be addressed, besides `localhost` and addresses.
        poll_seconds: between two looks of the page at runs that go on.
    """
    root = folder.resolve()
    board = Board(root, Watcher(root, seconds=poll_seconds / 2), CurveReader(root), poll_seconds)
    app = FastAPI(title="klimb board", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(GZipMiddleware, minimum_size=2_000, compresslevel=3)
    for path, answer in board.routes.items():
        app.get(path)(answer)
    return ReadOnlyApp(app, names)


@dataclass(frozen=True)
class Board:
    """What is asked of the board, a method for each address.

    Attributes:
        root: the folder that is served.
        watcher: knows which runs there are.
        curves: reads their numbers.
        poll_seconds: between two looks of the page.
    """

    root: Path
    watcher: Watcher
    curves: CurveReader
    poll_seconds: float

    @property
    def routes(self) -> dict[str, Callable[..., Response]]:
        """Address -> what answers it."""
        return {
            "/": self.page,
            "/static/{name}": self.static,
            "/api/runs": self.runs,
            "/api/charts": self.charts,
            "/api/settings": self.settings,
            "/report": self.report,
            "/open/{path:path}": self.open_file,
        }

    def page(self) -> Response:
        """Return the page itself, which asks for all the rest."""
        listing = self.watcher.listing()
        runs = [run.id for run in listing.runs[:MOST_LISTED]]
        studies = [study for study in listing.studies[:MOST_LISTED] if study.report]
        title, interval = f"{self.root.name or '/'} · klimb board", round(self.poll_seconds * 1000)
        html = render("board.html", title=title, interval=interval, axes=AXES, runs=runs, studies=studies)
        return _answer(html.encode(), "text/html; charset=utf-8", policy=PAGE_POLICY)

    def static(self, name: str) -> Response:
        """Return a style sheet or script of the page."""
        if name not in STATIC:
            raise HTTPException(404, "no such file")
        package, kind = STATIC[name]
        return _answer(files(package).joinpath(name).read_bytes(), f"{kind}; charset=utf-8", policy=PAGE_POLICY)

    def runs(self, request: Request) -> Response:
        """Return the runs and studies there are."""
        return _json_unless_known(self.watcher.listing().as_json(), request)

    def charts(
        self,
        run: Annotated[list[str], Query(default_factory=list, max_length=MOST_NAMES)],
        colour: Annotated[list[int], Query(default_factory=list, max_length=MOST_NAMES)],
        metric: Annotated[list[str], Query(default_factory=list, max_length=MOST_NAMES)],
        x: str = "step",
        log: bool = False,
        smooth: Annotated[float, Query(ge=0, le=0.98)] = 0.0,
    ) -> Response:
        """Return these metrics of these runs as charts, the latest values, and the names of all metrics."""
        if x not in AXES or len(colour) != len(run):
            raise HTTPException(422, f"x is one of {', '.join(AXES)}; there are as many colours as runs")
        names, curves = short_names(run), self.curves
        with curves.lock:
            read = {one: curves.read(one, _run_parts(self.root, one), metric) for one in run}
            drawn = {names[one]: (read[one], number) for one, number in zip(run, colour, strict=True)}
            found = {
                "charts": board_charts(metric, drawn, axis=x, is_logarithmic=log, weight=smooth),
                "latest": {one: [_last(found.curve(name, x)[1]) for name in metric] for one, found in read.items()},
                "runs": names,
                "metrics": sorted({name for found in read.values() for name in found.names}),
            }
        return _json(found)

    def settings(self, run: str) -> Response:
        """Return a run's settings with dotted keys."""
        _run_parts(self.root, run)
        return _json({"settings": flat_settings(read_table(self.root, run, "config.json"))})

    def report(self, run: str) -> Response:
        """Return the report of a run as it is now, asked for anew while it goes on."""
        folder = self.root.joinpath(*_run_parts(self.root, run))
        if not _holds_plain_files(folder):
            raise HTTPException(404, "a file of this run is a link or no file: open its report from the disk")
        try:
            record = read_run(folder)
        except ConfigError as error:
            raise HTTPException(404, str(error)) from None
        answer = _answer(report_page([record]).encode(), "text/html; charset=utf-8", policy=REPORT_POLICY)
        if not record.is_finished:
            answer.headers["Refresh"] = f"{REFRESH_SECONDS}"
        return answer

    def open_file(self, path: str) -> Response:
        """Return a written page, figure or table of a run or a study."""
        parts = _parts(path)
        kind = SERVED.get(Path(path).suffix.lower())
        if kind is None or not _is_of_a_run(self.root, parts):
            raise HTTPException(404, "only reports, figures and tables of runs and studies are opened")
        return _answer(_content(self.root, parts), kind, policy=REPORT_POLICY)


def _last(values: Sequence[float]) -> float | None:
    return values[-1] if values and math.isfinite(values[-1]) else None


def _holds_plain_files(folder: Path) -> bool:
    """Whether everything that a report reads is in the folder itself, and no pipe."""
    with os.scandir(folder) as entries:
        read = [entry for entry in entries if entry.name.endswith((".json", ".jsonl"))]
    return all(entry.is_file(follow_symlinks=False) for entry in read)


def _parts(path: str) -> tuple[str, ...]:
    try:
        return parts_of(path)
    except ValueError as error:
        raise HTTPException(404, str(error)) from None


def _run_parts(root: Path, run: str) -> tuple[str, ...]:
    parts = _parts(run)
    if not _has(root, (*parts, "provenance.json")):
        raise HTTPException(404, "there is no such run (any more)")
    return parts


def _is_of_a_run(root: Path, parts: Sequence[str]) -> bool:
    """Whether a folder on the way to the file holds a run or a study."""
    above = [parts[:length] for length in range(len(parts))]
    return any(_has(root, (*folder, name)) for folder in above for name in ("provenance.json", "study.json"))


def _has(root: Path, parts: Sequence[str]) -> bool:
    with suppress(OSError):
        os.close(open_beneath(root, parts))
        return True
    return False


def _content(root: Path, parts: Sequence[str]) -> bytes:
    try:
        with os.fdopen(open_beneath(root, parts), "rb") as file:
            content = file.read(LARGEST_SERVED_BYTES + 1)
    except OSError:
        raise HTTPException(404, "there is no such file (any more)") from None
    if len(content) > LARGEST_SERVED_BYTES:
        raise HTTPException(413, f"the file is larger than {LARGEST_SERVED_BYTES:,} bytes: open it from the disk")
    return content


def _json(content: Any) -> Response:
    return _answer(_dumped(content), "application/json", policy="default-src 'none'")


def _json_unless_known(content: Any, request: Request) -> Response:
    """Return the content, or 304 where the browser has it: the list of thousands of runs mostly stays as it is."""
    body = _dumped(content)
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:16]}"'
    is_known = request.headers.get("if-none-match") == tag
    answer = Response(status_code=304) if is_known else _json(content)
    answer.headers.update({"ETag": tag, "Cache-Control": "no-cache"})
    return answer


def _dumped(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def _answer(content: bytes, kind: str, *, policy: str) -> Response:
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    return Response(content, media_type=kind, headers=headers)
