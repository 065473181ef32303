"""The page for people in a real browser: by keyboard, by a finger's width, and with answers that mean harm."""

import shutil
import socket
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import pytest
import uvicorn
from tests.web.serve.people_app import FIRST, PeopleApp, answer

from klimb.training.deployment import Deployment
from klimb.web.serve.keys import add_key

playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
expect = playwright.expect
pytestmark = pytest.mark.slow

HOSTILE = (
    "<img src=x onerror=alert(1)> <script>alert(2)</script> [click](javascript:alert(3)) "
    "\u202eabc\u202c a\u200bb \x1b[31mred \u2028 {{7*7}} <a href='javascript:alert(4)'>link</a>"
)
SHOWN = (
    "<img src=x onerror=alert(1)> <script>alert(2)</script> [click](javascript:alert(3)) "
    "[U+202E]abc[U+202C] a[U+200B]b [U+001B][31mred [U+2028] {{7*7}} <a href='javascript:alert(4)'>link</a>"
)


@pytest.fixture(scope="module")
def chromium() -> Generator:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("the browser test needs chromium on the path")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@dataclass
class Served:
    """The app behind an address."""

    people: PeopleApp
    address: str


@pytest.fixture
def served(tmp_path, request) -> Generator[Served]:
    keys = tmp_path / "keys.json" if "key_is_asked_for" in request.node.name else None
    if keys:
        add_key(keys, ["admin"])
    people = PeopleApp(tmp_path / "store", keys=keys)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(people.build(), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield Served(people, f"http://127.0.0.1:{listener.getsockname()[1]}/")
    server.should_exit = True
    thread.join(timeout=10)
    listener.close()


@dataclass
class Opened:
    """A page, with what it complained about and whom it asked."""

    page: object
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)


@pytest.fixture
def opening(chromium, served) -> Generator:
    """Opens the page; at the end it must have asked nobody else and shown no dialog."""
    contexts, pages = [], []

    def opens(view: str = "chat", *, width: int = 1280, **options) -> Opened:
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, **options))
        opened = Opened(contexts[-1].new_page())
        opened.page.on(
            "console", lambda said: said.type in ("error", "warning") and opened.complaints.append(said.text)
        )
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("dialog", lambda dialog: (opened.complaints.append(dialog.message), dialog.dismiss()))
        opened.page.on("request", lambda request: opened.hosts.add(urlsplit(request.url).netloc))
        opened.page.set_default_timeout(10_000)
        opened.page.goto(f"{served.address}#{view}")
        pages.append(opened)
        return opened

    yield opens
    for opened in pages:
        assert opened.hosts <= {urlsplit(served.address).netloc, ""}
    for context in contexts:
        context.close()


def ask(page, words: str) -> None:
    page.fill("#question", words)
    page.press("#question", "Enter")


def soon(claim) -> None:
    """Wait until the claim holds."""
    ends = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_an_answer_is_shown_rated_and_part_of_what_is_asked_next(opening, served):
    opened = opening()
    page = opened.page
    ask(page, "one")
    expect(page.locator(".answer .words")).to_have_text("answer 0 to one")
    page.click(".answer .up")
    expect(page.locator(".answer .up")).to_have_attribute("aria-pressed", "true")
    ask(page, "two")
    expect(page.locator(".answer .words").nth(1)).to_have_text("answer 0 to two")
    first, second = served.people.requests
    assert [message["content"] for message in second["messages"]] == ["one", "answer 0 to one", "two"]
    assert first["metadata"]["conversation"] == second["metadata"]["conversation"]
    assert "n" not in first and "user" not in first
    (said,) = served.people.said()
    rated = served.people.store.sample(said.sample_id)
    assert (rated.reward, rated.response, said.user) == (1.0, "answer 0 to one", "")
    page.click("#new")
    ask(page, "three")
    expect(page.locator(".answer .words")).to_have_text("answer 0 to three")
    third = served.people.requests[-1]
    assert len(third["messages"]) == 1 and third["metadata"] != first["metadata"]
    assert not opened.complaints


def test_of_two_answers_the_better_one_is_a_preference_and_the_conversation_goes_on_with_it(opening, served):
    page = opening().page
    page.check("#two")
    ask(page, "one")
    expect(page.locator(".choice")).to_be_visible()
    ask(page, "too early")
    expect(page.locator(".choice .saved")).to_contain_text("Choose first")
    assert len(served.people.requests) == 1
    page.keyboard.press("2")
    expect(page.locator("[data-choice=second]")).to_have_attribute("aria-pressed", "true")
    (said,) = served.people.said()
    assert said.value is None
    assert said.sample_id.endswith("-1") and said.over == said.sample_id[:-1] + "0"
    page.uncheck("#two")
    page.press("#question", "Enter")
    expect(page.locator("#turns > .answer .words")).to_have_text("answer 0 to too early")
    sent = served.people.requests[-1]["messages"]
    assert [message["content"] for message in sent] == ["one", "answer 1 to one", "too early"]


@pytest.mark.parametrize(("key", "value"), [("3", 1.0), ("4", 0.0)])
def test_both_good_and_both_bad_rate_both(opening, served, key: str, value: float):
    page = opening().page
    page.check("#two")
    ask(page, "one")
    expect(page.locator(".choice")).to_be_visible()
    page.locator(".choice button").first.focus()
    page.keyboard.press(key)
    soon(lambda: len(served.people.said()) == 2)
    assert [said.value for said in served.people.said()] == [value, value]
    assert {said.sample_id[-2:] for said in served.people.said()} == {"-0", "-1"}


def test_comment_and_correction_are_stored_with_the_name_that_was_given(opening, served):
    page = opening().page
    page.click("#open-settings")
    page.fill("#rater", "Änne")
    page.press("#rater", "Enter")
    ask(page, "one")
    page.click(".answer .comment")
    page.keyboard.type("too short")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".answer .saved")).to_have_text("Comment saved")
    expect(page.locator(".answer .comment")).to_be_focused()
    page.click(".answer .correct")
    expect(page.locator(".words-form textarea")).to_have_value("answer 0 to one")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".answer .saved")).to_have_text("Nothing changed")
    page.fill(".words-form textarea", "a longer answer to one")
    page.click(".words-form .main")
    expect(page.locator(".answer .saved")).to_have_text("Correction saved")
    comment, correction = served.people.said()
    assert (comment.comment, comment.value, comment.correction) == ("too short", None, "")
    assert (correction.correction, correction.comment) == ("a longer answer to one", "")
    assert comment.user == correction.user == served.people.hashed("Änne")
    assert served.people.requests[0]["user"] == "Änne"


def test_an_answer_can_be_stopped_and_the_page_goes_on(opening, served):
    served.people.say, served.people.pause = lambda messages, index: "word " * 500, 0.05
    page = opening().page
    ask(page, "one")
    expect(page.locator(".answer .words")).to_contain_text("word word")
    page.click("#stop")
    expect(page.locator(".answer .remark")).to_have_text("You stopped this answer.")
    expect(page.locator("#send")).to_be_visible()
    assert len(page.locator(".answer .words").text_content()) < 1000
    served.people.say, served.people.pause = lambda messages, index: "short", 0
    ask(page, "two")
    expect(page.locator(".answer .words").nth(1)).to_have_text("short")


def test_text_of_a_model_is_text_whatever_is_in_it(opening, served):
    served.people.say = lambda messages, index: HOSTILE
    served.people.deployment = Deployment(current=replace(FIRST, name="<b onclick=x>p", reason=HOSTILE))
    served.people.store.append([answer("old", question=HOSTILE, response=HOSTILE, model="<i>m")])
    opened = opening()
    page = opened.page
    ask(page, HOSTILE)
    expect(page.locator(".answer .words")).to_have_text(SHOWN)
    expect(page.locator(".answer .by")).to_have_text("<b onclick=x>p")
    page.goto(f"{served.address}#queue")
    page.keyboard.press("j")
    for shown in page.locator("#queue-item .words").all():
        expect(shown).to_have_text(SHOWN)
    page.goto(f"{served.address}#counts")
    expect(page.locator("#policies")).to_contain_text("<i>m, version 0")
    assert page.locator("main img, main script, main a, main i, main b").count() == 0
    assert not opened.complaints
    refused = "() => { try { document.body.innerHTML = '<p>x'; return false; } catch { return true; } }"
    assert page.evaluate(refused)


def test_joined_emoji_and_scripts_that_need_joiners_stay_whole(opening, served):
    words = "👩‍🔬 می‌خواهم क्‍ष pay‍pal"
    served.people.say = lambda messages, index: words
    page = opening().page
    ask(page, "one")
    expect(page.locator(".answer .words")).to_have_text(words.replace("pay‍pal", "pay[U+200D]pal"))


def test_the_queue_is_worked_off_by_single_keys(opening, served):
    served.people.store.append([answer(f"s{n}", response=f"text {n}", created_at=float(n)) for n in range(30)])
    page = opening("queue").page
    words = page.locator("#queue-item .answer .words")
    expect(words).to_have_text("text 29")
    page.keyboard.press("u")
    expect(words).to_have_text("text 28")
    page.keyboard.press("d")
    expect(words).to_have_text("text 27")
    page.keyboard.press("ArrowRight")
    expect(words).to_have_text("text 26")
    page.keyboard.press("k")
    page.keyboard.press("k")
    expect(words).to_have_text("text 28")
    expect(page.locator("#queue-item .down")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("c")
    page.keyboard.type("juuud?")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#queue-item .saved")).to_have_text("Comment saved")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("u")
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    for _ in range(27):
        page.keyboard.press("j")
        page.wait_for_timeout(30)
    expect(words).to_have_text("text 1")
    said = served.people.said()
    assert [(each.sample_id, each.value, each.comment) for each in said] == [
        ("s29", 1.0, ""),
        ("s28", 0.0, ""),
        ("s28", None, "juuud?"),
    ]


def test_single_keys_can_be_switched_off(opening, served):
    served.people.store.append([answer("s")])
    page = opening("queue").page
    expect(page.locator("#queue-item .answer")).to_be_visible()
    page.click("#open-help")
    page.uncheck("#use-keys")
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    page.wait_for_timeout(300)
    assert served.people.said() == []


def test_feedback_that_is_refused_is_told_and_not_shown_as_given(opening, served):
    served.people.is_broken = True
    page = opening().page
    ask(page, "one")
    page.click(".answer .up")
    expect(page.locator("#trouble")).to_contain_text("the disk is full")
    expect(page.locator(".answer .saved")).to_have_text("Not saved")
    expect(page.locator(".answer .up")).to_have_attribute("aria-pressed", "false")


def test_a_key_is_asked_for_sent_and_kept_in_the_tab_alone(opening, served):
    key, _ = add_key(served.people.keys, ["serve", "feedback"])
    page = opening().page
    ask(page, "one")
    expect(page.locator("#settings")).to_be_visible()
    page.fill("#key", key)
    page.press("#key", "Enter")
    expect(page.locator("#question")).to_have_value("one")
    page.focus("#question")
    page.keyboard.press("Enter")
    expect(page.locator(".answer .words")).to_have_text("answer 0 to one")
    kept = "[JSON.stringify(localStorage), document.cookie, location.href, document.documentElement.outerHTML].join()"
    assert key not in page.evaluate(kept)
    assert page.evaluate("sessionStorage.getItem('klimb-key')") == key
    page.click(".answer .up")
    expect(page.locator(".answer .saved")).to_have_text("Saved")
    page.locator("nav a[href='#counts']").click()
    expect(page.locator("#tiles")).to_contain_text("answers1")


def test_a_new_policy_is_noticed_while_the_page_is_open(opening, served):
    page = opening().page
    expect(page.locator("#policy")).to_contain_text("policy-0001 answers · version 0")
    expect(page.locator("#notice")).to_be_hidden()
    after = replace(FIRST, name="policy-0002", policy_version=40, reason="better on 200 ratings")
    served.people.deployment = served.people.deployment.promote(after)
    expect(page.locator("#notice")).to_contain_text("policy-0002 answers now; before, it was policy-0001.")
    expect(page.locator("#notice")).to_contain_text("better on 200 ratings")
    served.people.deployment = served.people.deployment.try_out(replace(FIRST, name="policy-0003"), 0.25)
    asked = []
    page.on("request", lambda request: "/people/policy" in request.url and asked.append(request.url))
    served.people.name = "policy-0003"
    served.people.say = lambda messages, index: "word " * 200
    ask(page, "one")
    expect(page.locator(".answer .by")).to_have_text("policy-0003")
    assert len(asked) < 5
    expect(page.locator("#policy")).to_contain_text("policy-0003 is tried out on 25 % of the requests")


def test_a_screen_reader_hears_whole_sentences_once(opening, served):
    served.people.say, served.people.pause = lambda messages, index: "One is here. Two is there! And 3.14 is pi", 0.02
    page = opening().page
    ask(page, "one")
    expect(page.locator("#spoken p")).to_have_text(["One is here.", "Two is there!", "And 3.14 is pi"])
    assert page.locator("#spoken").get_attribute("aria-live") == "polite"


def test_everything_is_reached_by_tab_and_the_focus_is_seen(opening, served):
    page = opening().page
    ask(page, "one")
    expect(page.locator(".answer .tools")).to_be_visible()
    page.locator("#question").focus()
    seen = []
    for _ in range(18):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "() => { const on = document.activeElement, style = getComputedStyle(on); "
            "return [on.id || on.className || on.textContent.trim(), style.outlineStyle, style.outlineWidth]; }"
        )
        seen.append(found[0])
        assert found[0] == "people" or (found[1] != "none" and found[2] != "0px"), found
    for name in ("two", "send", "new", "open-settings", "open-help", "up", "down", "comment", "correct", "Queue"):
        assert name in seen, (name, seen)


UNNAMED = """() => [...document.querySelectorAll("button, input, textarea, select, a")].filter((on) =>
  !(on.textContent.trim() || on.getAttribute("aria-label") || on.labels?.length)).map((on) => on.outerHTML)"""

WEAK = """() => {
  const channel = (v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (c) => .2126 * channel(c[0]) + .7152 * channel(c[1]) + .0722 * channel(c[2]);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (on) => { for (; on; on = on.parentElement) { const c = parse(getComputedStyle(on).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
  const weak = [];
  for (const on of document.querySelectorAll("body *")) {
    const own = [...on.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !on.offsetParent || on.disabled || on.closest(":disabled")) continue;
    const [a, b] = [light(parse(getComputedStyle(on).color)), light(behind(on))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) weak.push([on.textContent.trim().slice(0, 30), ratio]);
  }
  return weak;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_view_is_wider_than_the_screen_and_all_text_has_contrast_and_names(opening, served, width: int, scheme: str):
    served.people.store.append([answer(f"s{n}", response="w" * 3000, created_at=86_400.0 * n) for n in range(3)])
    opened = opening(width=width, color_scheme=scheme)
    page = opened.page
    page.check("#two")
    ask(page, "long " + "x" * 2000)
    expect(page.locator(".choice")).to_be_visible()
    page.keyboard.press("Tab")
    page.locator(".answer .up").first.click()
    page.locator(".answer .comment").first.click()
    for view in ("chat", "queue", "counts"):
        page.locator(f"nav a[href='#{view}']").click()
        page.wait_for_timeout(400)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        assert page.evaluate(WEAK) == [], view
        assert page.evaluate(UNNAMED) == [], view
    for opener, dialog in (("#open-help", "#help"), ("#open-settings", "#settings")):
        page.click(opener)
        expect(page.locator(dialog)).to_be_visible()
        assert page.evaluate(WEAK) == []
        page.keyboard.press("Escape")
    assert not opened.complaints


def test_nothing_moves_for_those_who_asked_for_that(opening, served):
    served.people.say, served.people.pause = lambda messages, index: "word " * 50, 0.05
    page = opening(reduced_motion="reduce").page
    ask(page, "one")
    expect(page.locator(".answer.writing")).to_be_visible()
    moving = "getComputedStyle(document.querySelector('.writing .words'), '::after').animationName"
    assert page.evaluate(moving) == "none"
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
