"""The tables of docs/chat-templates.md: `python -m tests.policies.template_table docs/chat-templates.md`."""

import importlib.util
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from tests.policies.chat_tokenizers import chat_tokenizer

from klimb.policies.model_names import EMBEDDED_MODELS
from klimb.policies.stability import CONVERSATIONS, Stability, check_history

OWN = Path(__file__).parent / "templates"
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {
                "x": {"type": "integer", "description": "The first."},
                "y": {"type": "integer", "description": "The second."},
            },
            "required": ["x", "y"],
        },
    },
}
PARTS = ("formats", "embedded", "trl")


def templates_of(part: str) -> dict[str, str]:
    """Return name -> template; none where the package that has them is not installed."""
    if part == "formats":
        return _in_folder(OWN)
    if part == "embedded":
        return _embedded()
    spec = importlib.util.find_spec("trl")
    folder = Path(str(spec.origin)).parent / "chat_templates" if spec else None
    return _in_folder(folder) if folder and folder.is_dir() else {}


def _in_folder(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jinja"))}


def _embedded() -> dict[str, str]:
    found: dict[str, str] = {}
    for name, model in EMBEDDED_MODELS.items():
        spec = importlib.util.find_spec(model.module)
        if spec:
            from gguf import GGUFReader

            reader = GGUFReader(Path(str(spec.origin)).parent / model.file)
            found[name] = str(reader.fields["tokenizer.chat_template"].contents())
    return found


@lru_cache(maxsize=256)
def stability_of(template: str) -> Stability:
    return check_history(chat_tokenizer(template), tools=[TOOL])


def table_of(part: str) -> str:
    """Return the rows of one part of the page, as Markdown, with the words of the templates that refuse."""
    columns = ["template", "what klimb does", "ends a turn by", *CONVERSATIONS]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    refusals: dict[str, list[str]] = {}
    for name, template in templates_of(part).items():
        found = stability_of(template)
        end = f"`{found.end_of_turn}`" if found.end_of_turn else "the next turn's beginning, or plain text"
        cells = [f"`{name}`", what_klimb_does(found), end, *_cells(found)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        for trial in found.refused:
            refusals.setdefault(trial.what, [])
            if f"`{name}`" not in refusals[trial.what]:
                refusals[trial.what].append(f"`{name}`")
    told = [f"| {', '.join(names)} | {words} |" for words, names in sorted(refusals.items())]
    return "\n".join([*lines, *(["", "| refused by | in its words |", "|---|---|", *told] if told else [])])


def _cells(found: Stability) -> Iterator[str]:
    for trial in found.trials:
        yield {"stable": "kept", "rewrites": trial.what, "refuses": "refused"}[trial.verdict]


def what_klimb_does(found: Stability) -> str:
    """Return it in a few words."""
    if found.kind == "refuses":
        return "refuses the prompt"
    kept = "one sample a conversation"
    does = f"{kept} where the history is kept, else a sample a turn" if found.rewritten else kept
    notes = []
    if found.offers_tools is False:
        notes.append("the prompt has to tell of the tools")
    if not found.writes_calls:
        notes.append("calls stay in the text as they were drawn")
    return "; ".join([does, *notes])


def _heading(part: str) -> str:
    return f"TRL {version('trl')}:" if part == "trl" else ""


def markers(part: str) -> tuple[str, str]:
    """Return the lines between which a part of the page stands."""
    made = "made by `python -m tests.policies.template_table docs/chat-templates.md`"
    return f"<!-- {part}: {made} -->", f"<!-- /{part} -->"


def with_tables(page: str, parts: tuple[str, ...] = PARTS) -> str:
    """Return the page with those parts made anew whose templates are at hand.

    Raises:
        ValueError: it has no markers.
    """
    for part in parts:
        if not templates_of(part):
            continue
        first, last = markers(part)
        before, begin, rest = page.partition(first)
        _, end, after = rest.partition(last)
        if not begin or not end:
            raise ValueError(f"the page has no lines {first!r} and {last!r}, between which the tables stand")
        heading = _heading(part)
        made = "\n\n".join(filter(None, [begin, heading, table_of(part), end]))
        page = f"{before}{made}{after}"
    return page


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
