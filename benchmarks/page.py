"""Tables in Markdown, and where they stand on a page."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path


def table_of(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fill_page(path: Path, mark: str, content: str) -> None:
    """Put the content between the marks `<!-- mark: … -->` and `<!-- /mark -->`.

    Raises:
        ValueError: the page has no such marks.
    """
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {mark}: [^>]*-->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{path} has no marks <!-- {mark}: … --> and <!-- /{mark} -->; add them where tables belong")
    path.write_text(pattern.sub(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", text), encoding="utf-8")
