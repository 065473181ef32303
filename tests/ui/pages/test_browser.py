"""The page in a real browser: silent, alone, and no wider than the screen."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ui.pages.folders import AFTER, BEFORE, evaluation, problem, write_run

from klimb.ui.pages.files import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: install the system's package")

HOSTILE = "<script>window.hacked = 1</script><img src=//evil.example/x.png onerror='window.hacked = 1'>" + "w" * 100_000
GUARD = {
    "before": {"guard/perplexity": 20.0},
    "after": {"guard/perplexity": 30.0},
    "events": [
        {"step": 4, "action": "stop", "name": "guard/perplexity", "number": 30.0, "limit": 25.0, "title": HOSTILE}
    ],
}


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    mean = evaluation("during", 4, [problem(HOSTILE, [0, 1], [HOSTILE, "ok"]), *BEFORE.problems])
    alone = write_run(
        folder / "alone", num_steps=70, evaluations=(BEFORE, mean, AFTER), guard=GUARD, recipe=HOSTILE[:90]
    )
    several = [
        write_run(folder / f"{recipe}-with-quite-a-long-name-{seed}", recipe=recipe, seed=seed)
        for recipe in ("grpo", "rpg-reinforce-urkl")
        for seed in (0, 1)
    ]
    return {
        "one run": write_report([alone], folder / "one.html"),
        "several runs": write_report(several, folder / "several.html"),
    }


@pytest.mark.parametrize("name", ["one run", "several runs"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_report_opens_without_errors_requests_or_overflow(
    browser: "sync_api.Browser", pages: dict[str, Path], name: str, width: int, scheme: str
):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert said == []
    assert asked == [pages[name].as_uri()]
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.close()


def test_the_pointer_over_a_chart_shows_the_values_there(browser: "sync_api.Browser", pages: dict[str, Path]):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(pages["several runs"].as_uri())
    charts = json.loads(page.inner_text("#charts") or page.evaluate("document.getElementById('charts').textContent"))
    name, chart = next((name, chart) for name, chart in charts.items() if chart["curves"][0]["y"][-1] == 1.0)
    svg = page.locator(f"svg[data-chart='{name}']")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    assert box is not None
    scale = box["width"] / chart["width"]
    page.mouse.move(box["x"] + chart["right"] * scale, box["y"] + 40)
    tip = page.locator(".tip:not([hidden])")
    assert tip.inner_text().split()[:2] == [chart["axis"], "8"]
    assert all(curve["label"] in tip.inner_text() for curve in chart["curves"])
    page.mouse.move(2, 2)
    assert tip.count() == 0
    page.close()
