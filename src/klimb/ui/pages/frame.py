"""From a template and plain values to a page that loads nothing and sends nothing.

Templates hold the markup; every value is escaped, and what no reader could see in it is written out.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from klimb import __version__
from klimb.ui.chart import Chart
from klimb.ui.escaping import cut, markdown_html, one_line, visible
from klimb.ui.statuses import LOOKS
from klimb.ui.svg import chart_data, chart_svg, legend

_UNSAFE_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class Drawing:
    """A chart with its name on the page, as the template `charts.html` shows it."""

    name: str
    chart: Chart

    @property
    def svg(self) -> Markup:
        """Return the picture."""
        return chart_svg(self.chart, name=self.name)

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Return classes and name of each line."""
        return legend(self.chart)


def drawings(prefix: str, charts: Sequence[Chart]) -> list[Drawing]:
    """Name the charts `prefix-0`, `prefix-1`, …."""
    return [Drawing(f"{prefix}-{number}", chart) for number, chart in enumerate(charts)]


def values_of(shown: Iterable[Drawing]) -> dict[str, Any]:
    """Return what the script under the pointer reads, by the charts' names."""
    return {drawing.name: chart_data(drawing.chart) for drawing in shown}


def style_sheet() -> str:
    """Return the CSS of all pages: light and dark, from 390 pixels on; see style.css for the classes."""
    return _text_of("style.css")


def tooltip_script() -> str:
    """Return the JavaScript by which a chart with `data-chart` shows its values under the pointer; see charts.js."""
    return _text_of("charts.js")


def html_page(
    template: str,
    *,
    title: str,
    generator: str,
    scripts: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
    **values: Any,
) -> str:
    """Return a whole document whose policy lets a browser load nothing, and run and apply only what stands in it.

    Args:
        template: a file of `templates`; no `style` or `on…` attribute in it has any effect.
        title: plain text.
        generator: what made it, such as `klimb report`; `is_page_of` finds it again.
        scripts: JavaScript, run in this order after the body.
        data: id -> what becomes JSON in a `<script type="application/json">` of that id.
        values: what the template shows.
    """
    style = style_sheet()
    return render(
        template,
        title=title,
        generator=generator,
        style=Markup(style),
        policy=Markup(content_security_policy([style], scripts)),
        scripts=[Markup(script) for script in scripts],
        data={name: json_for_script(content) for name, content in (data or {}).items()},
        **values,
    )


def render(template: str, **values: Any) -> str:
    """Return the template with these values in it."""
    return _environment().get_template(template).render(version=__version__, **values)


def is_page_of(text: str, generator: str) -> bool:
    """Return True for a page that `html_page` made for this generator."""
    return text.startswith("<!DOCTYPE html>") and f'name="generator" content="{generator}"' in text[:1000]


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


def json_for_script(content: Any) -> Markup:
    """Return JSON for a `<script type="application/json">` that no text in the content can end.

    Raises:
        ValueError: the content holds a NaN or an infinity.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, replacement in _UNSAFE_IN_SCRIPT.items():
        text = text.replace(character, replacement)
    return Markup(text)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("klimb.ui.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_seen,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "cut": cut,
        "one_line": one_line,
        "thousands": "{:,}".format,
        "markdown": lambda text: Markup(markdown_html(text)),
    }
    made.globals["looks"] = LOOKS
    return made


def _seen(value: Any) -> Any:
    """Write out what a reader could not see, of everything that is not markup already."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _digests(contents: Sequence[str]) -> str:
    if not contents:
        return "'none'"
    return " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" for content in contents
    )


def _text_of(name: str) -> str:
    return files("klimb.ui.pages").joinpath(name).read_text(encoding="utf-8")
