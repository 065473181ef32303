import io

from rich.console import Console

from klimb.findings.finding import Finding
from klimb.ui.terminal.run import print_findings

ESCAPE = "\x1b[31mred\x1b]0;title\x07\nnext"


def printed(*findings: Finding, is_terminal: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=is_terminal, color_system=None)
    print_findings(console, findings)
    return out.getvalue()


def finding(**others: str) -> Finding:
    texts = {"title": "A title", "evidence": "Its evidence.", "advice": "Do this.", **others}
    return Finding(name="a-key", status="warning", metrics=("entropy",), anchor="metrics.md#the-objective", **texts)


def test_a_finding_is_printed_with_severity_evidence_and_advice():
    lines = [line.strip() for line in printed(finding()).splitlines()]
    assert lines == ["warning A title  a-key", "Its evidence.", "try: Do this."]


def test_a_good_finding_has_no_advice_line():
    assert "try:" not in printed(finding(advice=""))


def test_no_findings_are_said_to_be_none():
    assert printed().startswith("no findings")


def test_control_characters_in_a_finding_do_not_reach_the_terminal():
    for is_terminal in (False, True):
        shown = printed(finding(title=ESCAPE, evidence=ESCAPE, advice=ESCAPE), is_terminal=is_terminal)
        assert "\x1b" not in shown and "\x07" not in shown


def test_square_brackets_are_text_and_not_markup():
    assert "[guard] and [/nothing]" in printed(finding(advice="see [guard] and [/nothing]"))


def test_outside_of_a_terminal_a_long_line_is_not_broken():
    assert "word " * 60 + "end" in printed(finding(evidence="word " * 60 + "end"))
