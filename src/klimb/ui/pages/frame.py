"""The look that all pages of klimb share, and the frame of a page that loads nothing and sends nothing."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from klimb.ui.escaping import escaped

_UNSAFE_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def style_sheet() -> str:
    """Return the CSS: light and dark, from 390 pixels on; see style.css for the classes."""
    return _text_of("style.css")


def tooltip_script() -> str:
    """Return the JavaScript by which a chart with `data-chart` shows its values under the pointer; see charts.js."""
    return _text_of("charts.js")


def html_page(
    *,
    title: str,
    body: str,
    generator: str,
    style: str | None = None,
    scripts: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
) -> str:
    """Return a whole document whose policy lets a browser load nothing, and run and apply only what stands in it.

    Args:
        title: plain text.
        body: HTML; no `style` or `on…` attribute in it has any effect.
        generator: what made it, such as `klimb report`; `is_page_of` finds it again.
        style: CSS; without it, the shared one.
        scripts: JavaScript, run in this order after the body.
        data: id -> what becomes JSON in a `<script type="application/json">` of that id.
    """
    css = style_sheet() if style is None else style
    blocks = "\n".join(json_block(name, content) for name, content in (data or {}).items())
    code = "\n".join(f"<script>{script}</script>" for script in scripts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{page_mark(generator)}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{content_security_policy([css], scripts)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{escaped(title)}</title>\n<style>{css}</style>\n</head>\n<body>\n{body}\n{blocks}\n{code}\n"
        "</body>\n</html>\n"
    )


def page_mark(generator: str) -> str:
    """Stands near the top of each page made by `generator`."""
    return f'<meta name="generator" content="{escaped(generator)}">'


def is_page_of(text: str, generator: str) -> bool:
    """Return True for a page that `html_page` made for this generator."""
    return text.startswith("<!DOCTYPE html>") and page_mark(generator) in text[:1000]


def content_security_policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    """Return a policy under which nothing is loaded, and only these style sheets and scripts count."""
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src {_digests(styles)}",
            f"script-src {_digests(scripts)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def json_block(name: str, content: Any) -> str:
    """Make a `<script type="application/json">` that no text in the content can end; numbers that are not finite: null.

    Raises:
        ValueError: the content holds a NaN or an infinity.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, replacement in _UNSAFE_IN_SCRIPT.items():
        text = text.replace(character, replacement)
    return f'<script type="application/json" id="{escaped(name)}">{text}</script>'


def _digests(contents: Sequence[str]) -> str:
    if not contents:
        return "'none'"
    return " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" for content in contents
    )


def _text_of(name: str) -> str:
    return files("klimb.ui.pages").joinpath(name).read_text(encoding="utf-8")
