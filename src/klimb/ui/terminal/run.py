"""What a person reads when a run or an evaluation is over.

What a person reads of the guard when a run is over.

Findings in a terminal: one line each, with evidence and advice below what asks for attention.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from klimb.findings.evaluations import (
    EvaluationRecord,
    ProblemRecord,
    change_between,
    means_that_changed,
    pass_intervals,
)
from klimb.findings.finding import Finding
from klimb.findings.guard.events import GuardEvent, events_of, in_one_sentence
from klimb.findings.statistics.interval import Interval
from klimb.training.guard.settings import GuardSettings
from klimb.training.run_folder import Finished, read_object
from klimb.ui.statuses import LOOKS
from klimb.ui.text import duration, printable, relative_to_working_directory

NAMES = {
    "guard/perplexity": "perplexity of the text",
    "guard/general_mean": "general problems, score",
    "guard/refusal_fraction": "general answers, refusals",
    "guard/empty_fraction": "general answers, empty",
    "guard/repetition_fraction": "general answers, in a loop",
    "guard/rollout_refusal_fraction": "rollouts, refusals",
    "guard/rollout_empty_fraction": "rollouts, empty",
    "guard/rollout_repetition_fraction": "rollouts, in a loop",
    "guard/format_valid_fraction": "rollouts, in the form asked for",
}
"""Metric -> how it is called here; sets of general problems follow by their own name."""


GENERAL = "guard/general/"


LONGEST_REASON = 500


def print_guard(console: Console, path: Path) -> None:
    """Print a table of the base metrics before and after, and what the guard did; nothing without a guard.

    Args:
        console: where it is shown.
        path: of guard.json in the run's folder.
    """
    if not path.is_file():
        return
    stored, why = read_object(path)
    if why:
        console.print(Text(f"{path}: {why}; what the guard did is not shown", style="yellow"), soft_wrap=True)
        return
    before, after = stored["before"], stored["after"]
    table = Table(title="base metrics: what the model could do before", title_justify="left")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right", style="bold")
    for metric, label in _rows(before):
        table.add_row(Text(label), _guard_number(metric, before), _guard_number(metric, after))
    if table.row_count:
        console.print(table)
    for event in events_of(stored):
        console.print(Text(_in_words(event), style="yellow"), soft_wrap=True)


def guard_facts(settings: GuardSettings | None, seen: Sequence[str]) -> list[tuple[str, str]]:
    """Return the guard in labelled lines, for the beginning of a run; none where nothing is guarded.

    Args:
        settings: of the guard.
        seen: what it can see, a sentence each.
    """
    if settings is None:
        return []
    sets = ", ".join(settings.general) or "no general problems"
    text = "no text" if settings.text == "none" else f"text {settings.text}"
    watched = f"{text}, {sets} · every {settings.every_steps} steps · beyond a limit: {settings.action}"
    return [("guard", watched), *(("guard", sentence) for sentence in seen)]


def _rows(before: Mapping[str, Any]) -> list[tuple[str, str]]:
    sets = [
        (name, f"general problems, {printable(name[len(GENERAL) :])}") for name in before if name.startswith(GENERAL)
    ]
    rows = [(name, label) for name, label in NAMES.items() if name in before]
    return rows if len(sets) < 2 else rows + sets


def _guard_number(metric: str, values: Mapping[str, Any]) -> str:
    if metric not in values:
        return ""
    value = values[metric]
    if value is None:
        return "not finite"
    return f"{value:.2f}" if metric == "guard/perplexity" else f"{value:.1%}"


def _in_words(event: GuardEvent) -> str:
    done = {
        "warn": "a warning",
        "stop": "the run was stopped",
        "rollback": f"went back to step {event.to_step}",
    }.get(event.action, event.action)
    return f"guard, step {event.step}: {done}: {printable(in_one_sentence(event.finding), limit=LONGEST_REASON)}"


ANSWER_WIDTH = 120


NUM_SHOWN = 3
"""Problems of which the first answers are shown."""


def print_run(console: Console, finished: Finished) -> None:
    """Before and after on held-out problems, the same problems answered twice, and where everything is."""
    console.print()
    if finished.before is not None and finished.after is not None:
        print_change(console, finished.before, finished.after)
        console.print()
        print_answers(console, finished.before, finished.after)
        console.print()
    folder = finished.folder
    if finished.held_out_log is not None:
        console.print(Text("held-out rows of the log", style="bold"))
        console.print(Text(finished.held_out_log.sentence), soft_wrap=not console.is_terminal)
        console.print()
    print_guard(console, folder.path / "guard.json")
    places = (
        ("model", folder.model),
        ("plot", folder.path / "curves.png"),
        ("report", folder.report),
        ("numbers", folder.summary),
    )
    print_facts(
        console,
        [
            *((label, relative_to_working_directory(path)) for label, path in places if path.exists()),
            *([("checkpoints", finished.checkpoints)] if finished.checkpoints else []),
            ("time", duration(finished.total_seconds)),
        ],
    )


def print_facts(console: Console, facts: Sequence[tuple[str, str]]) -> None:
    """One labelled line each; in a terminal, long ones are wrapped beside their label."""
    if not console.is_terminal:
        for label, value in facts:
            console.print(Text(f"{label:<10} {value}"), soft_wrap=True)
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, width=12)
    table.add_column()
    for label, value in facts:
        table.add_row(Text(label), Text(value))
    console.print(table)


def print_commands(console: Console, commands: Sequence[tuple[str, str]]) -> None:
    """Commands to try next, each with what it is for."""
    console.print(Text("try next", style="bold"))
    for command, purpose in commands:
        console.print(Text.assemble("  ", (command, "cyan"), (f"\n      {purpose}", "dim")), soft_wrap=True)


def print_change(console: Console, before: EvaluationRecord, after: EvaluationRecord) -> None:
    """Print a table of the two evaluations."""
    table = Table(title=f"{_what(after)} on {after.num_problems} held-out problems", title_justify="left")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right", style="bold")
    sampled = f"sampled at temperature {after.temperature:g}, {after.num_samples} answers each"
    table.add_row(sampled, _number(before.mean, before), _number(after.mean, after))
    table.add_row("95 % interval", _interval(before), _interval(after))
    if before.greedy is not None and after.greedy is not None:
        table.add_row("greedy", _number(before.greedy, before), _number(after.greedy, after))
    table.add_row("tokens per answer", f"{before.length_mean:.1f}", f"{after.length_mean:.1f}")
    if before.num_errors or after.num_errors:
        table.add_row("could not be scored", str(before.num_errors), str(after.num_errors))
    console.print(table)
    for line in _over_which_of_both(before, after):
        console.print(line)
    for reason in dict.fromkeys(made.interval.reason for made in (before, after) if made.interval.reason):
        console.print(f"no interval: {reason}")


def _over_which_of_both(before: EvaluationRecord, after: EvaluationRecord) -> Iterator[str]:
    """Yield the means of the problems that both scored, where one of the two lacks some."""
    if not before.num_problems_unscored and not after.num_problems_unscored:
        return
    yield (
        f"no answer to {before.num_problems_unscored} problems before and {after.num_problems_unscored} after could be "
        "scored: each mean is over the others"
    )
    change = change_between(before, after)
    if change is not None:
        first, second = means_that_changed(before, after)
        over = change.counted_units
        yield f"over the {over} that both scored: {_number(first, before)} before, {_number(second, after)} after"


def print_answers(console: Console, before: EvaluationRecord, after: EvaluationRecord) -> None:
    """Print the same problems answered before and after."""
    pairs = zip(before.problems[:NUM_SHOWN], after.problems[:NUM_SHOWN], strict=True)
    for first, second in pairs:
        console.print(Text(printable(first.question, limit=ANSWER_WIDTH), style="bold"))
        for label, problem in (("before", first), ("after", second)):
            answer = printable(problem.answers[0], limit=ANSWER_WIDTH) or "(empty)"
            line = Text.assemble((f"  {label:<7}", "dim"), _mark(_first_value(problem), after), " ", answer)
            is_terminal = console.is_terminal
            console.print(line, no_wrap=True, overflow="ellipsis", crop=is_terminal, soft_wrap=not is_terminal)


def print_evaluation(console: Console, measured: EvaluationRecord, *, title: str) -> None:
    """One evaluation: Mean@k with its interval, pass@k, greedy."""
    table = Table(title=printable(title), title_justify="left")
    table.add_column("")
    table.add_column(_what(measured), justify="right", style="bold")
    table.add_column("95 % interval", justify="right")
    table.add_row(f"Mean@{measured.num_samples}", _number(measured.mean, measured), _interval(measured))
    for k, interval in pass_intervals(measured).items():
        table.add_row(f"pass@{k}", f"{measured.pass_at[k]:.1%}", _ends(interval, measured))
    if measured.greedy is not None:
        table.add_row("greedy", _number(measured.greedy, measured), "")
    console.print(table)
    errors = f", {measured.num_errors} could not be scored" if measured.num_errors else ""
    for line in _over_which_problems(measured):
        console.print(line)
    if measured.interval.reason:
        console.print(f"no interval: {measured.interval.reason}")
    console.print(
        f"{measured.num_problems} problems, {measured.count} answers scored{errors}, "
        f"sampled at temperature {measured.temperature:g}, {measured.length_mean:.1f} tokens per answer, "
        f"{duration(measured.seconds)}"
    )


def _over_which_problems(measured: EvaluationRecord) -> Iterator[str]:
    """Yield what the numbers leave out for want of scored answers."""
    unscored, total = measured.num_problems_unscored, measured.num_problems
    if unscored:
        yield f"no answer to {unscored} of {total} problems could be scored: the numbers are over the others"
    if measured.pass_at and 2 * max(map(int, measured.pass_at)) <= measured.num_samples:
        left_out = 2 * max(map(int, measured.pass_at))
        short = sum(0 < len(problem.values) < left_out for problem in measured.problems)
        yield f"no pass@{left_out}: {short} of {total} problems have fewer than {left_out} scored answers"


def in_one_line(measured: EvaluationRecord) -> str:
    """`accuracy 20.6% (95 % interval 13.1% to 28.6%), greedy 66.7%, on 21 held-out problems`."""
    greedy = "" if measured.greedy is None else f", greedy {_number(measured.greedy, measured)}"
    of_mean = f"95 % interval {_interval(measured)}" if measured.interval.is_known else "no interval"
    mean = f"{_what(measured)} {_number(measured.mean, measured)} ({of_mean})"
    scored, total = measured.num_problems - measured.num_problems_unscored, measured.num_problems
    return f"{mean}{greedy}, on {total if scored == total else f'{scored} of {total}'} held-out problems"


def _what(measured: EvaluationRecord) -> str:
    return "accuracy" if measured.is_accuracy else "mean reward"


def _number(value: float, measured: EvaluationRecord) -> str:
    return f"{value:.1%}" if measured.is_accuracy else f"{value:.3f}"


def _interval(measured: EvaluationRecord) -> str:
    return _ends(measured.interval, measured)


def _ends(interval: Interval, measured: EvaluationRecord) -> str:
    if not interval.is_known:
        return "none"
    return f"{_number(interval.low, measured)} to {_number(interval.high, measured)}"


def _first_value(problem: ProblemRecord) -> float | None:
    """Return what the first answer was worth; None where it is not known which values are whose."""
    return problem.values[0] if len(problem.values) == len(problem.answers) else None


def _mark(value: float | None, measured: EvaluationRecord) -> Text:
    if value is None:
        return Text("?", style="yellow")
    if not measured.is_accuracy:
        return Text(f"{value:.2f}", style="cyan")
    look = LOOKS["good" if value > 0 else "bad"]
    return Text(look.sign, style=look.style)


LABEL_WIDTH = 10
"""The longest severity, two spaces before it and one behind."""


LONG = 2000


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print them in their order; says so if there are none."""
    if not findings:
        console.print(Text("no findings: too few steps, or nothing out of the ordinary", style="dim"), soft_wrap=True)
        return
    for finding in findings:
        look = LOOKS[finding.status]
        label = Text(f"  {look.word} ".ljust(LABEL_WIDTH), style=look.style)
        title = Text(printable(finding.title, limit=LONG), style="bold" if finding.advice else "")
        console.print(Text.assemble(label, title, (f"  {finding.name}", "dim")), soft_wrap=not console.is_terminal)
        _below(console, finding.evidence, style="")
        if finding.advice:
            _below(console, f"try: {finding.advice}", style="dim")


def _below(console: Console, words: str, *, style: str) -> None:
    text = Text(printable(words, limit=LONG), style=style)
    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, LABEL_WIDTH)))
    else:
        console.print(Text.assemble(" " * LABEL_WIDTH, text), soft_wrap=True)
