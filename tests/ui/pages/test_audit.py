import hashlib
import math
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from typing import get_args

import pytest
from rich.console import Console

from klimb.findings.audit.report import (
    AuditReport,
    Block,
    Collecting,
    Contents,
    Example,
    Figure,
    Use,
    Verdict,
    VerdictKind,
)
from klimb.findings.finding import Finding, Status
from klimb.ui.escaping import cut, escaped, one_line
from klimb.ui.pages.audit import audit_page, chart_of, interval_text, worst_status
from klimb.ui.statuses import LOOKS
from klimb.ui.svg import PLOT_HEIGHT, TOP, WIDTH, chart_svg, nice_ticks, tick_labels
from klimb.ui.terminal.audit import NAME_WIDTH, STATUS_WIDTH, VALUE_ROOM, first_screen, print_audit

VOID = {"meta"}
WORDS = [look.word for look in LOOKS.values()]
HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202eevil\u2066\u200b\x00\ud800"

FIGURES = (
    Figure(title="hist", kind="histogram", x=(0, 1, 2), y=(1, 4), x_label="nats", y_label="tokens", note="look here"),
    Figure(title="rules", kind="bars", x=(0, 1), y=(0.1, 0.4), x_label="", y_label="share", labels=("<b>", "cap")),
    Figure(title="falls", kind="line", x=(0, 50, 100), y=(1.0, 0.5, 0.0), x_label="tokens", y_label="ESS"),
    Figure(title="cloud", kind="points", x=(-2, 0), y=(-2, 0), x_label="log mu", y_label="log pi"),
)


def finding(name: str, status: Status = "good", **changes) -> Finding:
    return replace(Finding(name=name, evidence="12 %", status=status, title=f"meaning of {name}"), **changes)


def report(kind: VerdictKind = "ratio-free-rl", hostile: str = "") -> AuditReport:
    findings = tuple(
        finding(f"check {status}{hostile}", status, threshold=f"at most 5 %{hostile}", source=f"a paper{hostile}")
        for status in get_args(Status)
    )
    example = Example(
        sample_id=f"row-1{hostile}",
        prompt=f"What is 3+4?{hostile}",
        response=f"It is 7.\nSure.{hostile}",
        reward=1.0,
        note=f"drawn with top-p{hostile}",
        tokens=(" 7", f"\n{hostile}", ""),
        log_mu=(-0.25, -3.0, -0.5),
        log_pi=(-0.3, -0.125, -math.inf),
    )
    return AuditReport(
        data=f"store{hostile}",
        num_samples=1234,
        num_groups=56,
        uses=(
            Use(
                name=f"clone{hostile}",
                answer="yes",
                reason=f"many good ones{hostile}",
                num_samples=600,
                recipes=("bc-filtered", "bc"),
                next_step=f"klimb train store-audit.toml --set objective.recipe=bc-filtered{hostile}",
            ),
            Use(
                name="RL with ratios",
                answer="no",
                reason="nothing was recorded",
                num_samples=0,
                recipes=("topr",),
                next_step=f"Record them{hostile}",
            ),
            Use(
                name="estimate",
                answer="partly",
                reason="nothing was recorded",
                num_samples=3,
                recipes=(),
                next_step=f"Record them{hostile}",
            ),
        ),
        contents=Contents(
            num_samples=1234,
            num_prompts=56,
            num_rated=1000,
            num_good=600,
            good_from=0.5,
            sources=(("log", 1234),),
            kinds=((f"kto{hostile}", 1234),),
            files=((f"thumbs.jsonl{hostile}", 1234),),
            left_out=((f"no answer{hostile}", 8),),
            best=(example,),
            worst=(replace(example, reward=0.0),),
        ),
        collecting=Collecting(num_rated_prompts=56, num_more=40, half_now=0.2, half_then=0.1),
        blocks=(
            Block(name="alignment", title=f"Alignment{hostile}", findings=findings, notes=(f"a note{hostile}",)),
            Block(name="over lap", title="Overlap", findings=(finding("ess"),), figures=FIGURES),
        ),
        verdict=Verdict(
            kind=kind,
            title=f"Train without ratios{hostile}",
            reason=f"all were drawn with top-p 0.5{hostile}",
            decided_by=f"check bad{hostile}",
            next_action=f"klimb train store-audit.toml{hostile}",
            recipes=("topr", "oapl"),
            examples=(example, replace(example, sample_id="row-2", reward=None, tokens=(), log_mu=(), log_pi=())),
            interval_half_width=0.0523,
            interval_note=f"from 56 prompts{hostile}",
        ),
    )


class Structure(HTMLParser):
    """Elements and attributes of a page; raises where tags do not close in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def page_of(shown: AuditReport, **settings) -> str:
    return audit_page(shown, run_file="seed = 0\n[model]\n", run_path="store-audit.toml", **settings)


def test_the_tags_of_a_page_are_balanced_and_its_ids_unique():
    page = Structure(page_of(report()))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 8
    targets = [str(attributes["href"]) for tag, attributes in page.tags if tag == "a"]
    assert {target.removeprefix("#") for target in targets} <= set(ids)
    assert len(targets) == 2, "one link a block"


def test_hostile_text_makes_no_element_and_hides_nothing():
    plain = Structure(page_of(report(), facts=[("model", "m")], notes=["n"]))
    html = page_of(report(hostile=HOSTILE), facts=[("model", f"m{HOSTILE}")], notes=[f"n{HOSTILE}"])
    attacked = Structure(html)
    assert [tag for tag, _ in attacked.tags] == [tag for tag, _ in plain.tags]
    names = [sorted(attributes) for _, attributes in attacked.tags]
    assert names == [sorted(attributes) for _, attributes in plain.tags]
    for character in "\x1b\u202e\u2066\u200b\x00\ud800":
        assert character not in html
        assert f"[U+{ord(character):04X}]" in html
    assert "<script>alert(1)</script>" in attacked.text, "a reader sees what the model wrote"
    html.encode("utf-8")


def test_a_page_loads_nothing_and_runs_nothing():
    html = page_of(report(hostile="https://example.org/x.png"))
    page = Structure(html)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "form", "base", "use"}
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in {"src", "style", "action"}
            assert name != "href" or str(value).startswith("#")
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    policy = next(str(a["content"]) for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    own = f"style-src 'sha256-{digest}'; script-src 'none'"
    assert policy == f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"


@pytest.mark.parametrize("kind", get_args(VerdictKind))
def test_every_finding_and_the_verdict_are_on_the_page_and_in_the_terminal(kind: VerdictKind):
    shown = report(kind)
    console = Console(width=200, record=True, file=StringIO())
    print_audit(console, shown)
    for text in (Structure(page_of(shown)).text, console.export_text()):
        for each in (each for block in shown.blocks for each in block.findings):
            assert each.name in text and LOOKS[each.status].word in text and each.threshold in text
            assert each.status == "good" or each.title in text
        verdict = shown.verdict
        for part in (kind, verdict.title, verdict.reason, verdict.decided_by, verdict.next_action, "± 0.052"):
            assert part in text
        assert all(example.sample_id in text for example in verdict.examples)


def test_the_uses_come_first_with_their_answers_numbers_and_ways_out_on_the_page_and_in_the_terminal():
    console = Console(width=200, record=True, file=StringIO())
    print_audit(console, report())
    for text in (Structure(page_of(report())).text, console.export_text()):
        places = [
            text.index(part) for part in ("clone", "many good ones", "Record them", "technical part", "check bad")
        ]
        assert places == sorted(places)
        for part in ("yes", "no", "partly", "1,234, to 56 different questions", "1,000 of 1,234, 600 of them good"):
            assert part in text
        assert "8 rows never came in: no answer 8" in text and "thumbs.jsonl 1,234" in text
        assert "Collect rated answers to 40 more questions: the mean rating is known to ± 0.2" in text
        assert "What is 3+4?" in text.partition("technical part")[0]


def test_what_was_said_of_one_use_is_not_said_again_of_the_next():
    lines = [line.plain for line in first_screen(report(), width=80)]
    assert sum("nothing was recorded" in line for line in lines) == 1
    assert sum("Record them" in line for line in lines) == 1
    assert any("estimate: as for “RL with ratios”" in line for line in lines)


def test_the_verdict_comes_before_the_blocks_and_the_examples_and_the_run_after():
    text = Structure(page_of(report())).text
    places = [text.index(part) for part in ("Verdict:", "meaning of check good", "Rows that show it", "[model]")]
    assert places == sorted(places)


def test_the_row_of_the_finding_that_decided_is_marked_and_no_other():
    html = page_of(report())
    assert html.count('class="decided"') == 1
    assert 'check bad<span class="decided">' in html


def test_tokens_stand_beside_both_log_probabilities_and_those_apart_are_marked():
    rows = re.findall(r"<tr([^>]*)><td>(.*?)</td><td.*?>(.*?)</td><td.*?>(.*?)</td></tr>", page_of(report()))
    apart = ' class="apart"'
    # log(2) = 0.693 nats: |−0.3 + 0.25| is inside the band, |−0.125 + 3| and −inf are outside.
    assert rows == [
        ("", "␣7", "−0.250", "−0.300"),
        (apart, "⏎ *", "−3.000", "−0.125"),
        (apart, "[no text] *", "−0.500", "−inf"),
    ]


def test_long_texts_are_cut_and_the_page_says_by_how_much():
    assert cut("abcdef", 4) == "abcd … [2 more characters]"
    assert escaped("a\n\tb") == "a\n\tb"
    assert one_line(" a\n") == "␣a⏎"


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_narrow_terminal_keeps_every_status_name_and_number(width: int):
    long = "check with a name that is far too long for any terminal line there is"
    value = "12,345 of 67,890 responses at 15.6 tokens a response " + "9" * 60
    findings = tuple(finding(f"{status} {long}", status, evidence=value, title="") for status in get_args(Status))
    shown = replace(report(), blocks=(Block(name="b", title="Block", findings=findings),))
    console = Console(width=width, record=True, file=StringIO())
    print_audit(console, shown)
    lines = console.export_text().splitlines()
    assert all(len(line) <= width for line in lines[1:])
    lines = lines[lines.index("The technical part") :]
    assert [word for line in lines if (word := line[2:12].strip()) in WORDS] == WORDS
    assert not any("…" in line for line in lines)
    # The cells stand side by side: what was said is all there, in the order of its column.
    start = lines.index("Block") + 1
    rows = lines[start : lines.index("", start)]
    name_width = max(8, min(NAME_WIDTH, width - STATUS_WIDTH - 2 - VALUE_ROOM))
    names = "".join("".join(line[STATUS_WIDTH : STATUS_WIDTH + name_width].split()) for line in rows)
    values = "".join("".join(line[STATUS_WIDTH + name_width :].split()) for line in rows)
    assert names == "".join(f"{status} {long}".replace(" ", "") for status in get_args(Status))
    assert values == value.replace(" ", "") * len(get_args(Status))


def test_the_way_to_know_the_cost_first_stands_below_the_next_step():
    console = Console(width=200, record=True, file=StringIO())
    print_audit(console, report(), run_path="store-audit.toml")
    lines = console.export_text().splitlines()
    at = next(number for number, line in enumerate(lines) if "klimb train store-audit.toml  " in line)
    assert "klimb train store-audit.toml --dry-run tells time and memory first" in lines[at + 1]
    assert "klimb train store-audit.toml --dry-run" in Structure(page_of(report())).text


def test_the_terminal_gets_no_control_characters():
    console = Console(width=100, record=True, file=StringIO())
    print_audit(console, report(hostile=HOSTILE))
    text = console.export_text()
    assert "alert(1)" in text
    assert not set(text) & set("\x1b\u202e\u2066\u200b\x00")


def test_the_interval_is_stated_once():
    verdict = report().verdict
    assert interval_text(verdict) == "± 0.052; from 56 prompts"
    assert interval_text(replace(verdict, interval_note="± 0.0523 (95 %) of the mean")) == "± 0.0523 (95 %) of the mean"
    assert (
        interval_text(replace(verdict, interval_half_width=None, interval_note="no reward")) == "not known; no reward"
    )


def test_no_line_break_tears_an_option_or_a_percentage():
    torn = finding("a", "unknown", evidence="12.5 % of 3", title="needs a model (type --is-logging-model)")
    html = page_of(replace(report(), blocks=(Block(name="b", title="B", findings=(torn,)),)))
    for whole in ("12.5 %", "--is-logging-model"):
        assert f'<span class="whole">{whole}</span>' in html
    assert ".whole { white-space: nowrap; }" in html


def test_the_status_of_a_block_is_its_worst():
    assert worst_status([finding("a"), finding("b", "bad"), finding("c", "warning")]) == "bad"
    assert worst_status([finding("a"), finding("b", "unknown")]) == "unknown"
    assert worst_status([]) == "unknown"


def figure_svg(figure: Figure) -> str:
    return chart_svg(chart_of(figure), name="f")


def elements(svg: str, tag: str) -> list[dict[str, str]]:
    found = re.findall(rf"<{tag} (.*?)/?>", svg)
    return [dict(re.findall(r'([\w-]+)="(.*?)"', attributes)) for attributes in found]


def test_the_heights_of_a_histogram_are_its_counts():
    svg = figure_svg(FIGURES[0])
    low, high = elements(svg, "rect")
    # The vertical axis runs from 0 to 4, its ticks being 0, 1, 2, 3, 4.
    assert float(high["height"]) == PLOT_HEIGHT and float(high["y"]) == TOP
    assert float(low["height"]) == pytest.approx(PLOT_HEIGHT / 4, abs=0.1)
    assert float(low["y"]) + float(low["height"]) == pytest.approx(TOP + PLOT_HEIGHT, abs=0.1)
    assert float(low["width"]) == pytest.approx(float(high["width"]), abs=0.11)


def test_bins_of_unequal_width_are_drawn_so():
    svg = figure_svg(replace(FIGURES[0], x=(0, 1, 4)))
    narrow, wide = elements(svg, "rect")
    # One pixel between bars: (width + 1) is proportional to the bin.
    assert float(wide["width"]) + 1 == pytest.approx(3 * (float(narrow["width"]) + 1), abs=0.4)


def test_the_lengths_of_bars_are_their_values_negative_ones_to_the_left():
    first, second = elements(figure_svg(FIGURES[1]), "rect")
    assert float(second["width"]) == pytest.approx(4 * float(first["width"]), abs=0.3)
    assert first["x"] == second["x"]
    left, right = elements(figure_svg(replace(FIGURES[1], y=(-0.2, 0.4))), "rect")
    assert float(right["width"]) == pytest.approx(2 * float(left["width"]), abs=0.3)
    assert float(left["x"]) + float(left["width"]) == pytest.approx(float(right["x"]), abs=0.11)


def test_a_line_goes_through_its_points():
    points = elements(figure_svg(FIGURES[2]), "polyline")[0]["points"].split()
    (x0, y0), (x1, y1), (x2, y2) = ([float(value) for value in point.split(",")] for point in points)
    assert (y0, y1, y2) == (TOP, TOP + PLOT_HEIGHT / 2, TOP + PLOT_HEIGHT)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11) and x2 < WIDTH


def test_a_line_of_one_point_can_be_seen():
    assert len(elements(figure_svg(replace(FIGURES[2], x=(3.0,), y=(0.5,))), "circle")) == 1


def test_points_are_where_their_numbers_are():
    first, second = elements(figure_svg(FIGURES[3]), "circle")
    assert (float(first["cy"]), float(second["cy"])) == (TOP + PLOT_HEIGHT, TOP)
    assert float(first["cx"]) < float(second["cx"])


def test_values_that_are_not_finite_are_left_out_and_counted():
    for figure in FIGURES:
        svg = figure_svg(replace(figure, y=(math.nan, *figure.y[1:])))
        assert "1 values that are not finite are left out" in svg
        assert "nan" not in svg
        nothing = figure_svg(replace(figure, y=(math.inf,) * len(figure.y)))
        assert f"none of {len(figure.y)} values is finite" in nothing


def test_many_points_are_thinned_and_the_description_says_so():
    many = tuple(float(number) for number in range(5000))
    svg = figure_svg(replace(FIGURES[3], x=many, y=many))
    assert len(elements(svg, "circle")) == 1667  # every third of 5000
    assert "one in 3 is drawn" in svg


@pytest.mark.parametrize("kind", ["histogram", "bars", "line", "points"])
def test_constant_and_empty_figures_are_drawn(kind):
    x = (2.0, 2.0) if kind == "histogram" else (2.0,)
    figure = replace(FIGURES[0], kind=kind, x=x, y=(0.0,), labels=("a",))
    assert "nan" not in figure_svg(figure)
    empty = figure_svg(replace(figure, x=(), y=(), labels=()))
    assert "nothing to draw" in empty


def test_figures_whose_lengths_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 bins need 3 edges, got 2"):
        figure_svg(replace(FIGURES[0], x=(0, 1)))
    with pytest.raises(ValueError, match="as many labels"):
        figure_svg(replace(FIGURES[1], labels=("a",)))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 97, [0, 20, 40, 60, 80]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (3, 3.004, [3, 3.001, 3.002, 3.003, 3.004]),
    ],
)
def test_ticks_are_round_numbers_inside_the_range(low, high, ticks):
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_tick_labels_tell_neighbours_apart():
    assert tick_labels([0, 0.05, 0.1]) == ["0.00", "0.05", "0.10"]
    assert tick_labels([-2, -1, 0]) == ["−2", "−1", "0"]
    assert tick_labels([0, 20_000]) == ["0", "20,000"]
    assert tick_labels([0, 2e6]) == ["0", "2e+06"]
