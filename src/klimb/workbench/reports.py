"""What a person reads when a run or an evaluation is over."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from klimb.workbench.guarding.terminal import report_guard
from klimb.workbench.held_out import Measured
from klimb.workbench.runs import relative_to_working_directory
from klimb.workbench.summary import Finished
from klimb.workbench.text import duration, printable

ANSWER_WIDTH = 120


def report_run(console: Console, finished: Finished) -> None:
    """Before and after on held-out problems, the same problems answered twice, and where everything is."""
    console.print()
    if finished.before is not None and finished.after is not None:
        report_change(console, finished.before, finished.after)
        console.print()
        report_answers(console, finished.before, finished.after)
        console.print()
    folder = finished.folder
    report_guard(console, folder.path / "guard.json")
    places = (
        ("model", folder.model),
        ("plot", folder.path / "curves.png"),
        ("report", folder.report),
        ("numbers", folder.summary),
    )
    report_facts(
        console,
        [
            *((label, relative_to_working_directory(path)) for label, path in places if path.exists()),
            ("time", duration(finished.total_seconds)),
        ],
    )


def report_facts(console: Console, facts: Sequence[tuple[str, str]]) -> None:
    """One labelled line each; in a terminal, long ones are wrapped beside their label."""
    if not console.is_terminal:
        for label, value in facts:
            console.print(Text(f"{label:<10} {value}"), soft_wrap=True)
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, width=9)
    table.add_column()
    for label, value in facts:
        table.add_row(Text(label), Text(value))
    console.print(table)


def report_commands(console: Console, commands: Sequence[tuple[str, str]]) -> None:
    """Commands to try next, each with what it is for."""
    console.print(Text("try next", style="bold"))
    for command, purpose in commands:
        console.print(Text.assemble("  ", (command, "cyan"), (f"\n      {purpose}", "dim")), soft_wrap=True)


def report_change(console: Console, before: Measured, after: Measured) -> None:
    """A table of the two evaluations."""
    table = Table(title=f"{_what(after)} on {after.num_problems} held-out problems", title_justify="left")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right", style="bold")
    sampled = f"sampled at temperature 1, {after.num_samples} answers each"
    table.add_row(sampled, _number(before.mean, before), _number(after.mean, after))
    table.add_row("95 % interval", _interval(before), _interval(after))
    if before.greedy is not None and after.greedy is not None:
        table.add_row("greedy", _number(before.greedy, before), _number(after.greedy, after))
    table.add_row("tokens per answer", f"{before.length_mean:.1f}", f"{after.length_mean:.1f}")
    if before.num_errors or after.num_errors:
        table.add_row("could not be scored", str(before.num_errors), str(after.num_errors))
    console.print(table)


def report_answers(console: Console, before: Measured, after: Measured) -> None:
    """The same problems answered before and after."""
    for first, second in zip(before.answers, after.answers, strict=True):
        console.print(Text(printable(first.question, limit=ANSWER_WIDTH), style="bold"))
        for label, answered in (("before", first), ("after", second)):
            answer = printable(answered.answer, limit=ANSWER_WIDTH) or "(empty)"
            line = Text.assemble((f"  {label:<7}", "dim"), _mark(answered.value, after), " ", answer)
            is_terminal = console.is_terminal
            console.print(line, no_wrap=True, overflow="ellipsis", crop=is_terminal, soft_wrap=not is_terminal)


def report_evaluation(console: Console, measured: Measured, *, title: str) -> None:
    """One evaluation: Mean@k with its interval, pass@k, greedy."""
    table = Table(title=printable(title), title_justify="left")
    table.add_column("")
    table.add_column(_what(measured), justify="right", style="bold")
    table.add_column("95 % interval", justify="right")
    table.add_row(f"Mean@{measured.num_samples}", _number(measured.mean, measured), _interval(measured))
    for k, value in measured.pass_at.items():
        interval = measured.pass_intervals.get(k)
        shown = f"{interval[0]:.1%} to {interval[1]:.1%}" if interval else ""
        table.add_row(f"pass@{k}", f"{value:.1%}", shown)
    if measured.greedy is not None:
        table.add_row("greedy", _number(measured.greedy, measured), "")
    console.print(table)
    errors = f", {measured.num_errors} could not be scored" if measured.num_errors else ""
    console.print(
        f"{measured.num_problems} problems, {measured.count} answers scored{errors}, "
        f"{measured.length_mean:.1f} tokens per answer, {duration(measured.seconds)}"
    )


def in_one_line(measured: Measured) -> str:
    """`accuracy 20.6% (95 % interval 13.1% to 28.6%), greedy 66.7%, on 21 held-out problems`."""
    greedy = "" if measured.greedy is None else f", greedy {_number(measured.greedy, measured)}"
    mean = f"{_what(measured)} {_number(measured.mean, measured)} (95 % interval {_interval(measured)})"
    return f"{mean}{greedy}, on {measured.num_problems} held-out problems"


def _what(measured: Measured) -> str:
    return "accuracy" if measured.is_accuracy else "mean reward"


def _number(value: float, measured: Measured) -> str:
    return f"{value:.1%}" if measured.is_accuracy else f"{value:.3f}"


def _interval(measured: Measured) -> str:
    return f"{_number(measured.low, measured)} to {_number(measured.high, measured)}"


def _mark(value: float | None, measured: Measured) -> Text:
    if value is None:
        return Text("?", style="yellow")
    if not measured.is_accuracy:
        return Text(f"{value:.2f}", style="cyan")
    return Text("✓", style="green") if value > 0 else Text("✗", style="red")
