"""`klimb import`: a log or a data set into a store, and what came of it."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from klimb.experience.importing import IMPORTERS, ImportReport, ImportRules, ReadLimits, import_file
from klimb.experience.importing.found import WITHOUT_IDS
from klimb.experience.importing.log_probs import UNKNOWN_TEMPERATURE
from klimb.experience.importing.users import SALT_FILE
from klimb.experience.store import Store
from klimb.policies import load_policy
from klimb.policies.tokenizing import ids_of_tokens
from klimb.workbench.reports import report_commands, report_facts
from klimb.workbench.runs import relative_to_working_directory
from klimb.workbench.text import printable

Pairs = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]

RATED_KINDS = ("kto", "langfuse", "feedback")
MEGABYTE = 1024**2


def import_rows(
    file: Path,
    /,
    *,
    into: Path,
    kind: Annotated[str, Parameter(name="--as", show_default=False)] = "",
    columns: Pairs = (),
    scale: Annotated[tuple[float, float] | None, Parameter(negative="")] = None,
    value_map: Annotated[Pairs, Parameter(name="--map")] = (),
    sampling: Pairs = (),
    log_probs: Literal["raw", "processed"] = "raw",
    model: Annotated[str, Parameter(show_default=False)] = "",
    max_reward: float = math.inf,
    max_tokens: int | None = None,
    scores: Path | None = None,
    score_name: Annotated[str, Parameter(show_default=False)] = "",
    keep_users: Flag = False,
    max_line_megabytes: int = 16,
    strict: Flag = False,
) -> None:
    """Import a log or a data set into a store. The same file twice adds nothing.

    Args:
        file: .jsonl, .json or .csv (each also with .gz), or .parquet.
        into: The store's folder; it is made if it is not there.
        kind: kto, openai, vllm, preference, prompt-completion, verl, table, langfuse or feedback; guessed without it.
        columns: Names of the file's columns, such as `prompt=question response=answer`.
        scale: Lowest and highest rating; ratings become 0 to 1.
        value_map: What texts stand for, such as `good=1 bad=0`.
        sampling: Settings that the requests do not say and you know, such as `temperature=1 top_p=1`.
        log_probs: What the recorded log-probabilities are of: the model itself, or its distribution after temperature
            and truncation.
        model: Whose tokenizer turns logged token strings into ids, and bounds ids and lengths.
        max_reward: Reject rewards of larger magnitude.
        max_tokens: Reject rows with more prompt and response tokens; without it, as many as the model takes.
        scores: Langfuse's scores of these observations.
        score_name: Import the ratings of this name alone.
        keep_users: Keep user ids as they are; else they are hashed.
        max_line_megabytes: Reject longer lines.
        strict: Stop at the first row that cannot be imported.
    """
    rules = ImportRules(
        columns=_texts(columns, "--columns"),
        scale=scale,
        value_map=_numbers(value_map, "--map"),
        sampling=_numbers(sampling, "--sampling"),
        log_probs=log_probs,
        max_reward=max_reward,
        max_tokens=max_tokens,
        keep_users=keep_users,
        score_name=score_name,
        now=time.time(),
    )
    rules = _with_model(rules, model) if model else rules
    limits = ReadLimits(max_line_bytes=max_line_megabytes * MEGABYTE)
    report = import_file(Store(into), file, kind=kind, rules=rules, limits=limits, scores=scores, is_strict=strict)
    report_import(Console(), report, rules, into)


def report_import(console: Console, report: ImportReport, rules: ImportRules, into: Path) -> None:
    """What the rows were taken for, what became of them, and what to do next."""
    facts = [
        ("kind", _kind(report)),
        ("rewards", _reward_map(report.kind, rules)),
        ("users", "kept as they are" if rules.keep_users else f"hashed; the salt is {into / SALT_FILE}"),
        ("rows", _rows(report)),
    ]
    if report.tally.num_samples:
        facts += [("samples", _samples(report)), ("log-probs", _log_probs(report))]
    if report.num_waiting is not None:
        facts.append(("ratings", _ratings(report)))
    if report.reject_file is not None:
        facts.append(("rejected", f"{report.num_rejected:,}, in {relative_to_working_directory(report.reject_file)}"))
    report_facts(console, [(label, printable(text, limit=2000)) for label, text in facts])
    for reason, count in report.rejected.items():
        console.print(Text(f"  {count:>9,} × {printable(reason)}", style="yellow"), soft_wrap=True)
        console.print(Text(f"  {'':>11} {printable(report.examples[reason])}", style="dim"), soft_wrap=True)
    for advice in _advice(report):
        console.print(Text(printable(advice, limit=400), style="yellow"), soft_wrap=True)
    console.print()
    report_commands(console, [(f"klimb audit {into}", "what this data can teach, and with which recipe")])


def _kind(report: ImportReport) -> str:
    guessed = f"; guessed: {report.why_kind}. If that is wrong, say --as KIND" if report.why_kind else ""
    return f"{report.kind}: {IMPORTERS[report.kind].summary}{guessed}"


def _reward_map(kind: str, rules: ImportRules) -> str:
    if kind == "prompt-completion":
        return "none: these rows are unrated"
    if kind == "preference":
        return "chosen → 1, rejected → 0"
    if rules.value_map:
        return ", ".join(f"{text} → {value:g}" for text, value in rules.value_map.items())
    if rules.scale is not None:
        return f"{rules.scale[0]:g} to {rules.scale[1]:g} → 0 to 1; no rating stays unrated"
    if kind in RATED_KINDS:
        return "true and up → 1, false and down → 0, numbers from 0 to 1 as they are; no rating stays unrated"
    return "as they are; none stays unrated"


def _rows(report: ImportReport) -> str:
    tally = report.tally
    parts = [f"{tally.num_rows:,} read"]
    if tally.num_skipped:
        parts.append(f"{tally.num_skipped:,} of them hold no response or are of another name")
    if tally.num_cut_off:
        parts.append("the last line is cut off and was left: import the file again when it is whole")
    return "; ".join(parts)


def _samples(report: ImportReport) -> str:
    tally = report.tally
    parts = [f"{tally.num_added:,} added", f"{tally.num_duplicates:,} were there already"]
    if tally.num_conflicts:
        parts.append(f"{tally.num_conflicts:,} conflict with what is there")
    return f"{', '.join(parts)}; {tally.num_rated:,} of {tally.num_samples:,} have a reward"


def _log_probs(report: ImportReport) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in report.tally.provenances.most_common())
    notes = "; ".join(f"{count:,} × {note}" for note, count in report.tally.notes.most_common(5))
    return f"{counts}{f' ({notes})' if notes else ''}"


def _ratings(report: ImportReport) -> str:
    tally = report.tally
    known = tally.num_ratings - tally.num_ratings_added
    waiting = f"; {report.num_waiting:,} in the store wait for their response" if report.num_waiting else ""
    return f"{tally.num_ratings_added:,} added, {known:,} were there already{waiting}"


def _advice(report: ImportReport) -> Sequence[str]:
    """What would make more of the rows."""
    tally = report.tally
    advice: list[str] = []
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


def _with_model(rules: ImportRules, name: str) -> ImportRules:
    """The rules with the model's tokenizer and bounds."""
    policy = load_policy(name)
    return replace(
        rules,
        resolve=lambda tokens: ids_of_tokens(policy, tokens),
        tokenizer=policy.fingerprint,
        num_vocab=policy.num_vocab,
        max_tokens=rules.max_tokens or policy.max_positions,
    )


def _texts(pairs: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.rpartition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} takes NAME=VALUE, got {pair!r}")
        if name in mapping:
            raise ValueError(f"{option} names {name!r} twice")
        mapping[name] = value
    return mapping


def _numbers(pairs: Sequence[str], option: str) -> dict[str, float]:
    """`NAME=NUMBER` texts as a mapping."""
    numbers: dict[str, float] = {}
    for name, text in _texts(pairs, option).items():
        try:
            numbers[name] = float(text)
        except ValueError as error:
            raise ValueError(f"{option} {name}={text}: expected a number behind the equals sign") from error
        if not math.isfinite(numbers[name]):
            raise ValueError(f"{option} {name}={text}: expected a finite number")
    return numbers
