"""What `klimb import` prints when it is over: what was taken for what, the counts, and what to do next."""

from collections.abc import Sequence
from pathlib import Path, PurePath
from textwrap import wrap

from rich.console import Console
from rich.text import Text

from klimb.experience.importing import ImportReport, ImportRules
from klimb.experience.importing.guessing import has_name_of, quoted
from klimb.experience.importing.log_probs import UNKNOWN_TEMPERATURE
from klimb.experience.importing.parsed_row import WITHOUT_IDS
from klimb.experience.importing.served_answers import BY_ID, BY_TEXT, NOT_FOUND
from klimb.experience.importing.users import SALT_FILE
from klimb.own_parts import is_own
from klimb.ui.terminal.import_guesses import guess_facts
from klimb.ui.terminal.run import print_commands
from klimb.ui.text import printable, relative_to_working_directory

RATED_KINDS = ("kto", "langfuse", "feedback", "mlflow", "label-studio", "argilla", "langsmith")


NOT_UTF8 = "not UTF-8"
"""The reason of rows in another encoding."""


MOST_COLUMNS = 12
"""Columns that were not used are named up to so many."""


NARROWEST = 20
"""Columns of text that are left beside a label however narrow the terminal is."""


def print_import(
    console: Console, report: ImportReport, rules: ImportRules, into: Path, *, model: str = "", is_part: bool = False
) -> None:
    """Print what the rows were taken for, what became of them, and what to do next, wrapped to the console's width.

    Args:
        console: where to.
        report: of the import.
        rules: what the user stated.
        into: the store.
        model: that the user named.
        is_part: of a command that says itself what comes next.
    """
    for label, text in _facts(report, rules, into):
        _print_wrapped(console, f"{label:<10} ", printable(text, limit=2000), label_style="dim")
    for reason, count in report.rejected.items():
        label = f"  {count:>9,} × "
        _print_wrapped(console, label, printable(reason), label_style="yellow", style="yellow")
        _print_wrapped(console, " " * len(label), printable(report.examples[reason], limit=400), style="dim")
    for advice in [*_advice(report), *_notes(report, rules, model)]:
        _print_wrapped(console, "- ", printable(advice, limit=800), style="yellow")
    console.print()
    if is_part:
        return
    print_commands(console, [(f"klimb audit {into}", "what this data can teach, and with which recipe")])


def _facts(report: ImportReport, rules: ImportRules, into: Path) -> Sequence[tuple[str, str]]:
    facts = [("kind", _kind(report)), *guess_facts(report, rules), ("rows", _rows(report))]
    if report.tally.num_samples:
        facts.append(("samples", _samples(report)))
    if report.tally.num_joined:
        facts.append(("served", _served(report)))
    if report.num_waiting is not None:
        facts.append(("ratings", _ratings(report)))
    facts += [("rewards", _reward_map(report, rules)), ("users", _users(report, rules, into))]
    if rules.redact is not None:
        facts.append(("redacted", f"{report.tally.num_redacted:,} rows held personal data, which was replaced"))
    if report.tally.num_samples:
        facts.append(("log-probs", _log_probs(report)))
    if report.tally.unread:
        facts.append(("not used", _unread(report)))
    if report.reject_file is not None:
        facts.append(("rejected", f"{report.num_rejected:,}, in {relative_to_working_directory(report.reject_file)}"))
    return facts


def _print_wrapped(console: Console, label: str, text: str, *, label_style: str = "", style: str = "") -> None:
    """Print the text beside its label. A word longer than the line stays whole, so that a path can be copied."""
    width = max(NARROWEST, console.width - len(label))
    for line in wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]:
        console.print(Text.assemble((label, label_style), (line, style)), soft_wrap=True)
        label = " " * len(label)


def _kind(report: ImportReport) -> str:
    guessed = f"; guessed: {report.why_kind}. If that is wrong, say --as KIND" if report.why_kind else ""
    return f"{report.kind}: {report.summary}{guessed}"


def _reward_map(report: ImportReport, rules: ImportRules) -> str:
    kind = report.kind
    if kind == "prompt-completion" and not report.tally.num_rated:
        return "none: these rows are unrated"
    if kind == "preference":
        return "chosen → 1, rejected → 0"
    if rules.value_map:
        return ", ".join(f"{text} → {value:g}" for text, value in rules.value_map.items())
    if rules.scale is not None:
        return f"{rules.scale[0]:g} to {rules.scale[1]:g} → 0 to 1; a row without a rating stays unrated"
    if kind == "open-webui":
        return "thumbs up → 1, down → 0; an answer without one stays unrated"
    if kind in RATED_KINDS:
        return "true and up → 1, false and down → 0, numbers from 0 to 1 as they are; the rest is unrated"
    if is_own(kind):
        return "as your importer gives them; a row without one stays unrated"
    return "as they are; a row without one stays unrated"


def _users(report: ImportReport, rules: ImportRules, into: Path) -> str:
    if rules.keep_users:
        return "kept as they are"
    if not report.tally.num_user_ids:
        return "none in these rows"
    return f"hashed; the salt is {into / SALT_FILE}"


def _rows(report: ImportReport) -> str:
    """Return where each row went: the counts sum to the rows that were read."""
    tally = report.tally
    counts = [(tally.num_rows_there, "were there already"), (tally.num_rows_refused, "were refused")]
    counts += [(count, what) for what, count in tally.held_nothing.most_common()]
    parts = [f"{tally.num_rows_in:,} came in", *(f"{count:,} {what}" for count, what in counts if count)]
    cut_off = "; the last line is cut off and was left: import the file again when it is whole"
    return f"{tally.num_rows:,} read = {' + '.join(parts)}{cut_off if tally.num_cut_off else ''}"


def _unread(report: ImportReport) -> str:
    """Return the columns of which nothing was taken: first those of all rows, then how many rows have them."""
    tally = report.tally
    num_rows = tally.num_rows_in + tally.num_rows_there + tally.num_conflicts
    names = [
        printable(name) if count >= num_rows else f"{printable(name)} (in {count:,} rows)"
        for name, count in tally.unread.most_common(MOST_COLUMNS)
    ]
    more = len(tally.unread) - len(names)
    return f"columns {', '.join(names)}{f' and {more:,} more' if more else ''}"


def _samples(report: ImportReport) -> str:
    tally = report.tally
    parts = [f"{tally.num_added:,} added", f"{tally.num_duplicates:,} were there already"]
    if tally.num_later_ratings:
        parts.append(f"{tally.num_later_ratings:,} of them with a later rating")
    if tally.num_conflicts:
        parts.append(f"{tally.num_conflicts:,} conflict with what is there")
    own = " of their own" if tally.num_ratings else ""
    return f"{', '.join(parts)}; {tally.num_rated:,} of {tally.num_samples:,} have a reward{own}"


def _served(report: ImportReport) -> str:
    """Return how many answers are those that a server of this store gave."""
    found = report.tally.num_joined
    num_joined = found.total() - found[NOT_FOUND]
    ways = ", ".join(f"{found[way]:,} {way}" for way in (BY_ID, BY_TEXT) if found[way])
    others = f"; {found[NOT_FOUND]:,} were not found among the served ones and are samples of their own"
    return (
        f"{num_joined:,} of {found.total():,} answers were joined to those served from this store"
        f"{f' ({ways})' if ways else ''}{others if found[NOT_FOUND] else ''}"
    )


def _log_probs(report: ImportReport) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in report.tally.provenances.most_common())
    notes = "; ".join(f"{count:,} × {note}" for note, count in report.tally.notes.most_common(5))
    return f"{counts}{f' ({notes})' if notes else ''}"


def _ratings(report: ImportReport) -> str:
    tally = report.tally
    known = tally.num_ratings - tally.num_ratings_added
    later = tally.num_later_ratings if not tally.num_samples else 0
    waiting = f"; {report.num_waiting:,} in the store wait for their response" if report.num_waiting else ""
    anew = f", {later:,} of them with another rating, which counts if it is not older" if later else ""
    return f"{tally.num_ratings_added:,} added, {known:,} were there already{anew}{waiting}"


def _advice(report: ImportReport) -> Sequence[str]:
    """Return what would make more of the rows."""
    tally = report.tally
    advice: list[str] = []
    if num_foreign := report.rejected.get(NOT_UTF8, 0):
        advice.append(
            f"{num_foreign:,} rows are not UTF-8 and were left out, mostly those with letters such as ä or я. "
            "Save the file as UTF-8 (Excel: Save as, CSV UTF-8) and import it into a new store: --into NEW."
        )
    if tally.notes[WITHOUT_IDS]:
        advice.append(
            f"{tally.notes[WITHOUT_IDS]:,} samples came as text only: their log-probabilities are of token strings. "
            "Name the model that wrote them (--model M) and they get their ids, if its tokenizer fits."
        )
    if tally.notes[UNKNOWN_TEMPERATURE]:
        advice.append(
            f"{tally.notes[UNKNOWN_TEMPERATURE]:,} samples do not say how they were drawn, so their log-probabilities "
            "are estimates. If you know, say so: --sampling temperature=1."
        )
    for names, count in tally.assumed.items():
        advice.append(
            f"{count:,} samples do not state {names}; they were taken as off. A server may take others from the "
            "model's generation_config.json: if so, state them with --sampling."
        )
    return advice


def _notes(report: ImportReport, rules: ImportRules, model: str) -> Sequence[str]:
    """Return what was taken as it stands and may be meant in another way, and how to read it so."""
    tally = report.tally
    notes: list[str] = []
    unused = [name for name in tally.unread if has_name_of("reward", name)]
    if unused and tally.num_samples and not tally.num_rated and not tally.num_ratings:
        notes.append(
            f"Nothing is rated, and {unused[0]} was not used. If it holds the ratings, import the file into a new "
            f"store: --into NEW --columns reward={quoted(unused[0])}."
        )
    if tally.num_later_ratings:
        notes.append(
            f"{tally.num_later_ratings:,} rows are later ratings of answers that were there already. The newest "
            'counts, by its date and else by its order; all are kept: klimb experience query STORE "from feedback".'
        )
    if tally.num_written_otherwise:
        notes.append(
            f"{tally.num_written_otherwise:,} samples that were there already came from rows that differ in what is "
            "not used; the first rows are kept."
        )
    if tally.num_prose_users:
        notes.append(
            f"{tally.num_prose_users:,} cells under the name of a user hold sentences and no ids, so no user was taken "
            "from them, and the kept rows have hashes in their place. If they are what was asked, say --columns "
            "prompt=NAME; if they are ids, --columns user=NAME."
        )
    if tally.rewards.look_like_points and rules.scale is None and not rules.value_map:
        notes.append(
            f"The rewards are whole numbers from {tally.rewards.low:g} to {tally.rewards.high:g} and were taken as "
            "they are. If they are stars or points, import the file into a new store with the lowest and the highest "
            "that can be given: --into NEW --scale 1 5."
        )
    for logged, count in tally.models_of_ids.items():
        if model and logged and _last_part(logged) != _last_part(model):
            notes.append(
                f"{count:,} samples are of {logged}, by their rows, and --model is {model}: their token strings fit "
                f"its tokenizer and got its ids, and their log_mu is of {logged}. Whether the two share a tokenizer is "
                "yours to know."
            )
    if tally.num_conflicts:
        notes.append(_conflicts(report))
    return notes


def _last_part(model: str) -> str:
    """`smollm2-135m` of `someone/SmolLM2-135M`."""
    return PurePath(model).name.lower()


def _conflicts(report: ImportReport) -> str:
    return (
        f"{report.tally.num_conflicts:,} rows have an id that the store has with other content. A store is only ever "
        "added to and keeps the first. If ids of the file are not unique, --ids content names each row by its content. "
        "To read a file in another way (--scale, --map, --columns, --sampling, --model), import it into a new store: "
        "--into NEW."
    )
