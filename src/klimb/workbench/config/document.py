"""Every setting with what it takes, its default and its meaning: for `klimb config` and for docs/settings.md.

`python -m klimb.workbench.config.document docs/settings.md` makes the page's tables anew.
"""

import sys
from pathlib import Path

from klimb.errors import ConfigError
from klimb.losses.settings import LOSSES
from klimb.workbench.config.errors import nearest_keys
from klimb.workbench.config.fields import TABLE, FieldFacts, known_fields
from klimb.workbench.config.recipe import DEFAULT_RECIPE

BEGIN = "<!-- settings: made by `python -m klimb.workbench.config.document docs/settings.md` -->"


END = "<!-- /settings -->"


OF_THE_RECIPE = ("objective", "advantages", "credit", "reference")
"""The sections whose defaults the recipe gives."""


def fields_of(key: str = "") -> list[FieldFacts]:
    """Return the settings of a section, or the one key, or all there are.

    Args:
        key: such as `sampling`, `objective.clip`, `objective.beta`, or a last part that is enough, `beta`.

    Raises:
        ConfigError: there is no such section and no such key.
    """
    named = [facts for facts in known_fields() if not facts.path.endswith(".*")]
    settings = [facts for facts in named if facts.allowed != TABLE or not _has_keys(facts.path)]
    found = [facts for facts in settings if not key or facts.path == key or facts.path.startswith(f"{key}.")]
    found = found or [facts for facts in settings if facts.path.endswith(f".{key}")]
    if not found:
        near = nearest_keys(key)
        sections = dict.fromkeys(facts.path.partition(".")[0] for facts in settings)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the sections are {', '.join(sections)}"
        raise ConfigError(f"there is no section and no key {key!r}; {hint}")
    return found


def default_in_words(facts: FieldFacts) -> str:
    """Return the default as TOML, or where it comes from."""
    if facts.path == "objective.recipe":
        return f'"{DEFAULT_RECIPE}"'
    if facts.path.partition(".")[0] in OF_THE_RECIPE and not {*facts.kinds} - {*LOSSES}:
        return "the recipe's"
    return facts.default


def settings_tables() -> str:
    """Return a heading and a table for each section, a row for each key, as Markdown."""
    sections: dict[str, list[FieldFacts]] = {}
    for facts in fields_of():
        sections.setdefault(facts.path.partition(".")[0] if "." in facts.path else "", []).append(facts)
    meanings = {facts.path: facts.meaning for facts in known_fields()}
    return "\n\n".join(_section_table(name, meanings.get(name, ""), rows) for name, rows in sections.items())


def with_tables(page: str) -> str:
    """Return the page with what stands between its two markers made anew.

    Raises:
        ValueError: it has no markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {BEGIN!r} and {END!r}, between which the tables stand")
    return f"{before}{begin}\n\n{settings_tables()}\n\n{end}{after}"


def _has_keys(path: str) -> bool:
    return any(facts.path.startswith(f"{path}.") and facts.path != f"{path}.*" for facts in known_fields())


def _section_table(name: str, meaning: str, rows: list[FieldFacts]) -> str:
    heading = f"## [{name}]\n\n{meaning}" if name else "## Before any section"
    columns = "| key | takes | default | meaning |\n|---|---|---|---|"
    return "\n".join([heading, "", columns, *(_row(facts, name) for facts in rows)])


def _row(facts: FieldFacts, section: str) -> str:
    key = facts.path.removeprefix(f"{section}.").replace("*", "NAME")
    kind = f" ({facts.kinds[-1]})" if facts.kinds and not facts.path.endswith((".kind", ".recipe")) else ""
    default = default_in_words(facts)
    cells = (f"`{key}`{kind}", facts.allowed, f"`{default}`" if facts.default else default, facts.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
