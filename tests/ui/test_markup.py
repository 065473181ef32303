"""Markup is in templates; Python prepares plain values."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import klimb

SOURCE = Path(klimb.__file__).parent
TAG = re.compile(
    r"</?(a|article|b|br|caption|code|dd|details|div|dl|dt|em|figure|footer|h\d|head|header|html|li|link|meta|nav|ol|p|"
    r"path|pre|rect|script|section|span|strong|style|summary|svg|table|tbody|td|th|thead|title|tr|ul)[\s/>]"
)
WRITERS = {"ui/svg.py", "ui/escaping.py"}
"""The engine of the charts, and the reader of cells in Markdown."""


def strings_of(path: Path) -> Iterator[str]:
    """Text in a file that is neither a comment nor a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.value


def test_no_python_file_but_the_chart_engine_writes_html():
    found = {
        path.relative_to(SOURCE).as_posix(): text
        for folder in ("ui", "web", "workbench", "findings")
        for path in sorted((SOURCE / folder).rglob("*.py"))
        for text in strings_of(path)
        if TAG.search(text)
    }
    assert found.keys() == WRITERS, found


def test_there_is_one_style_sheet_and_no_template_holds_another():
    # Reports hold the style sheet whole, so what the page for people alone needs stands on top of it, in its colours.
    sheets = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.css"))
    assert sheets == ["ui/pages/chat/chat.css", "ui/pages/style.css"]
    assert not re.search(r":[^;{]*#[0-9a-f]{3,8}\b", (SOURCE / sheets[0]).read_text(encoding="utf-8"))
    templates = list((SOURCE / "ui" / "pages" / "templates").glob("*.html"))
    assert len(templates) >= 5
    assert [path.name for path in templates if "style=" in path.read_text(encoding="utf-8")] == []
    assert [path.name for path in templates if "|safe" in path.read_text(encoding="utf-8")] == []
