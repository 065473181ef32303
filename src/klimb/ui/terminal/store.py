"""How a store and a sample look in a terminal.

The view that shows whether recorded log-probabilities belong to their tokens. Pure.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from klimb.experience import Sample, SamplingSettings
from klimb.experience.importing.log_probs import NO_LIMIT
from klimb.experience.store_summary import Part, StoreSummary
from klimb.ui.conversation import DRAWN, PUT_IN, Said, asked_in, facts_of, said_in
from klimb.ui.terminal.run import print_facts
from klimb.ui.text import UNSEEN_CATEGORIES, in_bytes, printable

NUM_LARGEST = 3


SHIFTS = (-1, 0, 1)


SHIFT_FACTOR = 2.0
"""A neighbour's place must fit better by this factor before one sample is said to look shifted."""


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """The drawn tokens of one response.

    Attributes:
        tokens: text of each token, made visible; ids where no model says their text.
        other_name: what stands beside log_mu: `log_pi` or `log_ref`.
        columns: log_mu, the other, and other − log_mu, in nats; None where there is no value.
        largest: positions of the largest differences.
        notes: what the numbers say together.
    """

    tokens: tuple[str, ...]
    other_name: str
    columns: tuple[tuple[float | None, ...], ...]
    largest: frozenset[int]
    notes: tuple[str, ...]


def token_rows(
    sample: Sample, *, log_pi: Sequence[float] | None = None, texts: Sequence[str] | None = None
) -> TokenRows:
    """Each token with log_mu, log_pi (else log_ref) and their difference, log_pi − log_mu = log w.

    Args:
        sample: with token ids.
        log_pi: at the temperature of the sample, one number a drawn token.
        texts: of each drawn token.
    """
    other = sample.log_ref if log_pi is None else log_pi
    size = sample.num_drawn
    left: Sequence[float | None] = (None,) * size if sample.log_mu is None else sample.log_mu
    right: Sequence[float | None] = (None,) * size if other is None else other
    gaps = [None if mu is None or pi is None else pi - mu for mu, pi in zip(left, right, strict=True)]
    sized = [(abs(gap), row) for row, gap in enumerate(gaps) if gap]
    return TokenRows(
        tokens=tuple(map(visible, texts)) if texts is not None else tuple(map(str, sample.drawn_ids)),
        other_name="log_ref" if log_pi is None and other is not None else "log_pi",
        columns=(tuple(left), tuple(right), tuple(gaps)),
        largest=frozenset(row for _, row in sorted(sized, key=lambda pair: -pair[0])[:NUM_LARGEST]),
        notes=_notes(sample, log_pi),
    )


def shift_errors(log_mu: Sequence[float], log_pi: Sequence[float]) -> tuple[float | None, ...]:
    """Mean |log_mu[t + s] − log_pi[t]| in nats for s = −1, 0, +1; None where no position has such a neighbour."""
    return tuple(_mean_gap(log_mu[max(s, 0) :], log_pi[max(-s, 0) :]) for s in SHIFTS)


def visible(token: str) -> str:
    r"""Return a token's text with its spaces and line breaks shown and its invisible characters named.

    >>> visible(" a\n\u202e")
    '␣a⏎<202e>'
    """
    replaced = {" ": "␣", "\n": "⏎", "\t": "⇥"}
    return "".join(
        replaced.get(c) or (f"<{ord(c):x}>" if unicodedata.category(c) in UNSEEN_CATEGORIES else c) for c in token
    )


def _mean_gap(left: Sequence[float], right: Sequence[float]) -> float | None:
    gaps = [abs(mu - pi) for mu, pi in zip(left, right, strict=False)]
    return sum(gaps) / len(gaps) if gaps else None


def _notes(sample: Sample, log_pi: Sequence[float] | None) -> tuple[str, ...]:
    notes: list[str] = []
    if sample.log_mu is not None and log_pi is not None:
        found = dict(zip(SHIFTS, shift_errors(sample.log_mu, log_pi), strict=True))
        means = {shift: error for shift, error in found.items() if error is not None}
        listed = ", ".join(f"{error:.4f} at s = {shift}" for shift, error in means.items())
        notes.append(f"mean |log_mu[t + s] − log_pi[t]|: {listed}; the smallest should be at 0")
        notes += _shift_note(means)
        if sample.support is not None:
            notes.append("log_pi is renormalised on the recorded support: on the tokens that could be drawn")
        if sample.sampling is None or not sample.draws_at(sample.sampling.temperature):
            notes.append(
                "log_pi has nothing cut off; this sample was drawn with top-p, top-k, min-p, min_new_tokens, a "
                "repetition penalty or greedily, or it is not known how"
            )
    if log_pi is None:
        notes.append("--model MODEL shows the tokens' texts and log_pi beside log_mu")
    return tuple(notes)


def _shift_note(means: Mapping[int, float]) -> list[str]:
    best = min(means, key=lambda shift: means[shift], default=0)
    if best == 0 or means[0] < SHIFT_FACTOR * means[best]:
        return []
    return [f"log_mu fits the tokens {'after' if best < 0 else 'before'} its own: it looks moved by one place"]


BAR_WIDTH = 24


MOST_PARTS = 8


NAME_WIDTH = 40


LONGEST_TURN = 2_000
"""Characters of a turn that are shown."""


SIGNS = {DRAWN: "▶", PUT_IN: "·"}


BLOCKS = " ▏▎▍▌▋▊▉█"


def print_summary(console: Console, summary: StoreSummary, *, title: str) -> None:
    """Totals, then the samples by source, provenance and policy, and their rewards."""
    console.print(Text(printable(title), style="bold"))
    print_facts(console, _totals(summary))
    parts = {
        "source": summary.by(lambda cell: cell.source),
        "log_mu": summary.by(lambda cell: cell.log_mu_provenance),
        "policy": summary.by(lambda cell: f"{cell.model or '(no model named)'} · version {cell.policy_version}"),
    }
    if summary.cells:
        console.print()
        console.print(_parts_table(parts))
    if summary.rewards:
        console.print()
        console.print(_histogram(summary.rewards))
    for path in summary.unfinished:
        console.print(
            Text(
                f"{printable(path.name)} is no part of the store: a writer is at work on it, or was stopped and it can "
                "be removed",
                style="yellow",
            )
        )


def print_sample(console: Console, sample: Sample) -> None:
    """Everything that is known of a sample, but its tokens."""
    console.print(Text(printable(f"{sample.sample_id} of group {sample.group_id}"), style="bold"))
    for asked in asked_in(sample):
        _print_said(console, asked, limit=None)
    if sample.turns:
        for said in said_in(sample):
            _print_said(console, said, limit=LONGEST_TURN)
    else:
        _print_text(console, "response", sample.response)
    console.print()
    print_facts(console, [(label, printable(value, limit=500)) for label, value in _facts(sample) if value])


def print_tokens(console: Console, tokens: TokenRows, *, most: int) -> None:
    """Print the columns of a sample's tokens: the first `most`, and the largest differences wherever they are."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("position", "token", "log_mu", tokens.other_name, "difference"):
        table.add_column(name, justify="left" if name == "token" else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    shown = [row for row in range(len(tokens.tokens)) if row < most or row in tokens.largest]
    for row in shown:
        is_large = row in tokens.largest
        cells = [str(row), _cut(tokens.tokens[row]), *(_nats(values[row]) for values in tokens.columns)]
        table.add_row(*map(Text, cells), Text("◀ largest" if is_large else ""), style="yellow" if is_large else None)
    console.print(table)
    hidden = len(tokens.tokens) - len(shown)
    if hidden:
        console.print(Text(f"{hidden} more tokens; --tokens {len(tokens.tokens)} shows all", style="dim"))
    for note in tokens.notes:
        console.print(Text(note))


def _totals(summary: StoreSummary) -> list[tuple[str, str]]:
    num_samples, num_rated = summary.total(lambda c: c.num_samples), summary.total(lambda c: c.num_rated)
    num_text_only = summary.total(lambda c: c.num_text_only)
    text_only = f" · {num_text_only:,} without token ids" if num_text_only else ""
    versions = [cell.policy_version for cell in summary.cells]
    tokens = summary.total(lambda c: c.num_tokens)
    (num_files, num_bytes), (num_feedback_files, num_feedback_bytes) = summary.segments
    num_ratings, num_rated_samples, num_waiting = summary.feedback
    age = "" if summary.created is None else f"{_date(summary.created[0])} to {_date(summary.created[1])} · "
    facts = [
        ("samples", f"{num_samples:,} in {summary.num_groups:,} groups{text_only}"),
        ("rewards", f"{num_rated:,} have one, {num_samples - num_rated:,} have none"),
        ("tokens", f"{tokens:,} of responses, {summary.total(lambda c: c.num_prompt_tokens):,} of their prompts"),
        ("segments", f"{num_files + num_feedback_files:,}, {in_bytes(num_bytes + num_feedback_bytes)}"),
    ]
    if versions:
        facts.insert(3, ("age", f"{age}policy versions {min(versions)} to {max(versions)}"))
    if num_ratings:
        waiting = f", {num_waiting:,} of them not here yet" if num_waiting else ""
        facts.insert(2, ("feedback", f"{num_ratings:,} rows on {num_rated_samples:,} samples{waiting}"))
    return facts


def _parts_table(parts: Mapping[str, Sequence[Part]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("by", style="dim", no_wrap=True)
    table.add_column("", overflow="fold")
    for name in ("samples", "response tokens", "mean reward"):
        table.add_column(name, justify="right")
    for name, members in parts.items():
        for number, part in enumerate(members[:MOST_PARTS]):
            reward = "none" if part.reward is None else f"{part.reward:.3f}"
            label = _shortened(part.label)
            cells = ("" if number else name, label, f"{part.num_samples:,}", f"{part.num_tokens:,}", reward)
            table.add_row(*map(Text, cells))
        rest = members[MOST_PARTS:]
        if rest:
            num_samples, num_tokens = sum(part.num_samples for part in rest), sum(part.num_tokens for part in rest)
            table.add_row("", f"{len(rest)} others", f"{num_samples:,}", f"{num_tokens:,}", "", style="dim")
    return table


def _histogram(rewards: Sequence[tuple[float, float, int]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("reward", justify="right", no_wrap=True)
    table.add_column("samples", justify="right", no_wrap=True)
    table.add_column("", style="cyan", no_wrap=True)
    most = max(count for _, _, count in rewards)
    for low, high, count in rewards:
        label = f"{low:.4g}" if low == high else f"{low:.3g} to {high:.3g}"
        table.add_row(label, f"{count:,}", _bar(count / most))
    return table


def _bar(share: float) -> str:
    eighths = round(share * BAR_WIDTH * 8)
    return "█" * (eighths // 8) + BLOCKS[eighths % 8].strip()


def _settings_in_words(sampling: SamplingSettings) -> str:
    limit = "no limit stated" if sampling.max_new_tokens >= NO_LIMIT else f"at most {sampling.max_new_tokens} tokens"
    least = f", at least {sampling.min_new_tokens}" if sampling.min_new_tokens else ""
    penalty = f", repetition penalty {sampling.repetition_penalty:g}" if sampling.repetition_penalty != 1 else ""
    stop = f", until {' or '.join(map(repr, sampling.stop))}" if sampling.stop else ""
    return (
        f"temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, top-k {sampling.top_k}, "
        f"min-p {sampling.min_p:g}, {limit}{least}{penalty}{stop}"
    )


def _facts(sample: Sample) -> list[tuple[str, str]]:
    settings = "not known" if sample.sampling is None else _settings_in_words(sample.sampling)
    tokens = f"{len(sample.response_ids)} tokens" if sample.response_ids else "text only"
    if sample.turns and sample.response_ids:
        tokens = f"{sample.num_drawn} drawn tokens of {len(sample.response_ids)}"
    parts = ", ".join(f"{name} {value:g}" for name, value in sample.reward_parts.items())
    return [
        ("reward", "none" if sample.reward is None else f"{sample.reward:g}"),
        ("parts", parts),
        ("reason", sample.reward_reason),
        ("source", f"{sample.source} · {sample.model or 'no model named'}, version {sample.policy_version}"),
        ("created", "" if not sample.created_at else _date(sample.created_at)),
        ("ended", f"{sample.finish_reason}, {tokens}"),
        *facts_of(sample),
        ("log_mu", sample.log_mu_provenance),
        ("sampling", settings),
        ("tokenizer", sample.tokenizer),
        ("metadata", json.dumps(dict(sample.metadata), ensure_ascii=False) if sample.metadata else ""),
        ("raw row", f"{len(sample.raw):,} characters; klimb experience export shows it" if sample.raw else ""),
    ]


def _print_said(console: Console, said: Said, *, limit: int | None) -> None:
    """Print a turn behind a line that says whose it is; a drawn one has a sign and a word besides its colour."""
    if not said.mark:
        _print_text(console, said.who, said.text)
    else:
        label = " · ".join([said.who, said.mark, *said.facts])
        is_cut = limit is not None and len(said.text) > limit
        _print_text(
            console,
            f"{SIGNS[said.mark]} {label}",
            said.text[:limit] if is_cut else said.text,
            style="bold cyan" if said.is_drawn else "dim",
        )
        if is_cut:
            hidden = len(said.text) - (limit or 0)
            console.print(Text(f"  … {hidden:,} more characters; klimb experience export writes all", style="dim"))
    for call in said.calls:
        console.print(Text(f"  calls {printable(call, limit=500)}"))
    if said.error:
        console.print(Text(f"  error: {printable(said.error, limit=500)}", style="red"))


def _print_text(console: Console, label: str, text: str, *, style: str = "dim") -> None:
    """Print the text with its own line breaks, safe for a terminal."""
    console.print(Text(printable(label), style=style))
    for line in text.split("\n") or [""]:
        kept = "".join(
            " " if c == "\t" else c for c in line if c == "\t" or unicodedata.category(c) not in UNSEEN_CATEGORIES
        )
        console.print(Text(f"  {kept}"), soft_wrap=not console.is_terminal)


def _shortened(label: str) -> str:
    """On one line, without its middle if it is long: a policy's version stands at the end."""
    shown = printable(label, limit=1000)
    return shown if len(shown) <= NAME_WIDTH else f"{shown[: NAME_WIDTH // 2]}…{shown[1 - NAME_WIDTH // 2 :]}"


def _cut(token: str, *, width: int = 20) -> str:
    return token if len(token) <= width else token[: width - 1] + "…"


def _nats(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return f"second {seconds:g}"
