"""What `klimb import` says of the columns that it guessed, and of dates."""

from collections.abc import Sequence

from klimb.experience.importing import ImportReport, ImportRules
from klimb.experience.importing.dates import UNDATED, WITHOUT_ZONE


def guess_facts(report: ImportReport, rules: ImportRules) -> Sequence[tuple[str, str]]:
    """Return a labelled line of what was guessed and one of how dates were read, where there is something to say."""
    facts = [("guessed", _guesses(report, rules))] if report.guess.columns or report.guess.left else []
    dates = _dates(report, rules)
    return [*facts, ("dates", dates)] if dates else facts


def _guesses(report: ImportReport, rules: ImportRules) -> str:
    guess = report.guess
    pairs = [
        f"{ours} = {theirs}{_span(report, rules) if ours == 'reward' else ''}" for ours, theirs in guess.columns.items()
    ]
    taken = f"{', '.join(pairs)}; if one is wrong: --columns {next(iter(guess.columns))}=NAME" if pairs else ""
    left = [f"no {ours}: {why}; to take one: --columns {ours}=NAME" for ours, why in guess.left.items()]
    return ". ".join(filter(None, [taken, *left]))


def _span(report: ImportReport, rules: ImportRules) -> str:
    """Say of a guessed reward between what its values lie, and that no scale was taken for granted."""
    rewards = report.tally.rewards
    if not rewards.look_like_points or rules.scale is not None or rules.value_map:
        return ""
    return f" ({rewards.low:g} to {rewards.high:g}, taken as they are: no scale was assumed)"


def _dates(report: ImportReport, rules: ImportRules) -> str:
    tally = report.tally
    parts: list[str] = []
    if report.date_order:
        parts.append(f"{report.date_order}, {'as stated' if rules.dates else 'as the whole column shows'}")
    for remark, count in tally.remarks.items():
        is_example_told = remark != WITHOUT_ZONE
        parts.append(f"{count:,} {remark}{f', {tally.remark_examples[remark]}' if is_example_told else ''}")
    if any(remark.startswith(UNDATED.partition(":")[0]) for remark in tally.remarks):
        parts.append("dates can be read from ISO 8601, RFC 2822, seconds since 1970, or day, month and year")
    return "; ".join(parts)
