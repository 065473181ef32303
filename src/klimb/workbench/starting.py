"""From files of one's own to a run file: import with guesses that are said, audit, and what to type next."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from klimb.experience.importing import ImportRules, ReadLimits, import_rows
from klimb.experience.importing.first_look import guess_kind, guess_of, stated_ratings
from klimb.experience.importing.guessing import ScaleProposal, propose_scale, with_guess
from klimb.experience.importing.registry import importer_named
from klimb.experience.reading.records import Row
from klimb.experience.reading.sources import Source, find_source
from klimb.experience.store import Store
from klimb.ui.terminal.imports import print_import
from klimb.ui.terminal.run import print_commands, print_facts
from klimb.ui.text import relative_to_working_directory
from klimb.workbench.audit_run_file import STAND_IN_MODEL
from klimb.workbench.auditing import run_audit
from klimb.workbench.import_rules import MEGABYTE, rules_of
from klimb.workbench.options import AuditOptions, ImportOptions

FEWEST_PROMPTS = 2
"""One to train on, and one to hold out."""


def store_path(files: Sequence[str]) -> Path:
    """Return where the rows go: `DATA-store` in the working directory, by the name of the first file."""
    stem = Path(files[0]).resolve().name.split(".")[0].strip("*?[]-_ ")
    return Path(f"{stem or 'data'}-store")


def run_start(files: Sequence[str], into: Path, options: ImportOptions, held_out: float, *, console: Console) -> None:
    """Import, audit, write page and run file, and say which command trains.

    The scale of ratings is guessed where the file's own go from end to end of a usual one, and the guess is said.

    Raises:
        ValueError: what `klimb import` and `klimb audit` refuse.
    """
    rules = rules_of(replace(options, model=""))
    limits = ReadLimits(max_line_bytes=options.max_line_megabytes * MEGABYTE)
    source = files[0] if len(files) == 1 else list(files)
    proposal = _find_scale(find_source(source), options.kind, rules, limits)
    if proposal is not None:
        rules = replace(rules, scale=(proposal.low, proposal.high))
    report = import_rows(
        Store(into),
        source,
        kind=options.kind,
        rules=rules,
        limits=limits,
        scores=options.scores,
        is_strict=options.strict,
    )
    print_import(console, report, rules, into, is_part=True)
    if proposal is not None:
        said = f"{proposal.low:g} to {proposal.high:g} became 0 to 1, guessed: {proposal.reason}"
        print_facts(console, [("scale", f"{said}. If that is wrong, say --scale MIN MAX and --into NEW")])
    console.print()
    page, config = Path(f"{into.name}-audit.html"), Path(f"{into.name.removesuffix('-store')}.toml")
    asked = AuditOptions(html=page, config=config)
    model = options.model or STAND_IN_MODEL
    found = run_audit(into, asked, console=console, train_model=model, held_out_fraction=held_out, is_brief=True)
    if found.contents.num_prompts < FEWEST_PROMPTS:
        print_facts(console, [("next", "one question alone: none can be held out. Start again with answers to more")])
        return
    print_commands(console, [(f"klimb train {shlex.quote(relative_to_working_directory(config))}", _purpose(model))])


def _purpose(model: str) -> str:
    return f"train {model} on it, and say whether it is better on the rows that were held out"


def _find_scale(source: Source, kind: str, rules: ImportRules, limits: ReadLimits) -> ScaleProposal | None:
    """Return the scale that the ratings of the files seem to be on; None where it is stated or cannot be told."""
    if rules.scale is not None or rules.value_map:
        return None
    importer = importer_named(kind) if kind else guess_kind(source, rules, limits)
    source = replace(source, split=importer.split)
    rules = with_guess(rules, guess_of(source, importer, rules, limits))
    rating_of = importer.rating_in or _reward_in
    return propose_scale(stated for _, _, stated in stated_ratings(source, rating_of, rules, limits))


def _reward_in(row: Row) -> list[tuple[str, object]]:
    return [("", row.values.get("reward"))]
