"""The page in a browser: what it shows, that it goes on by itself, and that it asks nobody but its server."""

import json
import shutil
import socket
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn

from klimb.web.server import make_app

playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
expect = playwright.expect

POLL_SECONDS = 0.15
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def chromium() -> Generator:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("the browser test needs chromium on the path")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def address(runs) -> Generator[str]:
    """Of a server over the runs."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = make_app(runs.root, poll_seconds=POLL_SECONDS)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=10)
    listener.close()


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"


@dataclass
class Watched:
    """A page, with what it complained about and whom it asked."""

    page: object
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)


def opened(chromium, url: str, *, width: int) -> Watched:
    page = chromium.new_context(viewport={"width": width, "height": 900}).new_page()
    watched = Watched(page)
    page.on(
        "console",
        lambda message: watched.complaints.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on("request", lambda request: watched.hosts.add(origin_of(request.url)))
    page.goto(url)
    page.wait_for_selector("figure .line", state="attached")
    return watched


def values_of(page, metric: str):
    """The latest values that the table has, one cell a run; `expect` waits for them."""
    column = page.locator("#tables section:first-child thead th").all_text_contents().index(metric) + 1
    return page.locator(f"#tables section:first-child tbody tr > :nth-child({column})")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_shows_runs_side_by_side_and_goes_on_by_itself(chromium, address, runs, tmp_path: Path, width: int):
    first = runs.make("study/a", runs.rows(1, 5), objective={"recipe": "grpo"}, run={"name": HOSTILE, "folder": "x"})
    runs.make("study/b", runs.rows(1, 3, entropy=0.5), objective={"recipe": HOSTILE}, seed=1)
    watched = opened(chromium, f"{address}/#run=study/a&run=study/b", width=width)
    page = watched.page
    expect(values_of(page, "reward_mean")).to_have_text(["0.5", "0.3"])
    runs.append(first, runs.rows(6, 6))
    latest = page.locator("#tables td.number").first
    expect(latest).to_have_text("0.6")
    # A run that is killed in the middle of a line, cut back to its checkpoint and resumed.
    (first / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in runs.rows(1, 2, reward_mean=0.25)) + '{"st'
    )
    expect(latest).to_have_text("0.25")
    settings = page.inner_text("#tables section:nth-of-type(2)")
    assert "objective.recipe" in settings and HOSTILE in settings and "run.name" not in settings
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is as wide as the screen"
    page.screenshot(path=str(tmp_path / f"board-{width}.png"), full_page=True)
    assert watched.complaints == []
    assert watched.hosts <= {address, "data:"}
    shutil.rmtree(first)
    expect(page.locator("#runs li")).to_have_count(1)
    expect(page.locator("#legend li")).to_have_count(1)


def test_metric_axis_scale_and_ticks_can_be_chosen_and_stay_in_the_address(chromium, address, runs):
    runs.make("one", runs.rows(1, 50, own=3.0))
    runs.make("two", runs.rows(1, 50, own=1000.0))
    watched = opened(chromium, address, width=1280)
    page = watched.page
    page.fill("#search", "two")
    expect(page.locator("#runs li")).to_have_count(1)
    page.click("#untick")
    page.click("#tick-shown")
    page.fill("#search", "")
    page.check("#runs li:nth-child(2) input")
    page.fill("#metric", "own")
    page.click("#options button")
    page.select_option("#axis", "num_tokens_generated")
    page.check("#log")
    expect(page.locator("figure[data-metric=own] svg")).to_contain_text("5,000")
    expect(values_of(page, "own")).to_have_text(["1,000", "3"])
    page.reload()
    page.wait_for_selector("figure[data-metric=own] .line", state="attached")
    assert page.is_checked("#log") and page.input_value("#axis") == "num_tokens_generated"
    expect(values_of(page, "own")).to_have_text(["1,000", "3"])
    # Powers of ten around 3 and 1,000, and no line between them.
    ticks = page.locator("figure[data-metric=own] svg text[text-anchor=end]").all_text_contents()
    assert ticks[:4] == ["1", "10", "100", "1000"]
    page.hover("figure[data-metric=own] svg")
    assert page.inner_text("figure[data-metric=own] .tip b >> nth=0") == "1,000"
    assert watched.complaints == []


def test_a_script_in_a_report_can_read_nothing_of_the_server(chromium, address, runs):
    path = runs.make("one", runs.rows(1, 2))
    (path / "report.html").write_text(
        "<!DOCTYPE html><title>-</title><script>"
        "fetch('/api/runs').then(() => { document.title = 'read'; }, () => { document.title = 'refused'; });</script>"
    )
    page = chromium.new_page()
    page.goto(f"{address}/open/one/report.html")
    expect(page).to_have_title("refused")
