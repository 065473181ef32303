"""What a person sees while a run goes on: a live panel in a terminal, one plain line per step elsewhere."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from klimb.ui.statuses import LOOKS
from klimb.ui.text import duration, printable, sparkline

logger = logging.getLogger(__name__)


REFRESHES_PER_SECOND = 4


LABEL_WIDTH, VALUE_WIDTH = 13, 8


ANSWER_LINES = 3


EDGE_WIDTH = 4
"""Columns that the panel's frame and its inner margin take."""


@dataclass(frozen=True)
class Gauge:
    """One number of the panel: its name for people, its metric, how it is written."""

    label: str
    key: str
    style: str


LEFT = (
    Gauge("reward", "reward_mean", "{:.3f}"),
    Gauge("accuracy", "accuracy", "{:.3f}"),
    Gauge("held-out", "evaluation_mean", "{:.3f}"),
    Gauge("length", "length_mean", "{:.1f}"),
)


RIGHT = (
    Gauge("KL(π‖ref)", "kl_pi_ref", "{:.2e}"),
    Gauge("entropy", "entropy", "{:.3f}"),
    Gauge("gradient norm", "grad_norm", "{:.2f}"),
    Gauge("tokens/s", "tokens_per_second", "{:,.0f}"),
)


PLAIN = (*LEFT, *RIGHT)


@dataclass(frozen=True, kw_only=True)
class Glimpse:
    """One sampled answer: the end of its prompt, the answer and what it was worth (None: could not be scored)."""

    prompt: str
    answer: str
    reward: float | None


class View(Protocol):
    """Where progress is shown. Every text may come from a model or a file and is made safe before it is shown."""

    def phase(self, name: str) -> None:
        """Say what is going on now, e.g. `evaluating`."""
        ...

    def step(self, number: int, metrics: Mapping[str, float], glimpse: Glimpse | None) -> None:
        """One finished step."""
        ...

    def note(self, text: str) -> None:
        """Show a message that stays."""
        ...

    def close(self) -> None:
        """No more is coming."""
        ...


ENDLESS = 1_000_000
"""A run of so many steps ends by another limit, on tokens or on time: its steps are counted, not counted down."""


class PlainView:
    """One line per step, for log files and pipes."""

    def __init__(self, console: Console, *, num_steps: int) -> None:
        self._console = console
        self._num_steps = num_steps
        self._clock = _Clock(num_steps)

    def phase(self, name: str) -> None:
        """Nothing: a log tells what happened, not what is about to."""

    def step(self, number: int, metrics: Mapping[str, float], glimpse: Glimpse | None) -> None:
        """`step 3/35  reward 0.250  …  left 2:10`."""
        self._clock.tick(number)
        values = [f"{gauge.label} {gauge.style.format(metrics[gauge.key])}" for gauge in PLAIN if gauge.key in metrics]
        left = [f"left {self._clock.left()}"] if self._num_steps < ENDLESS else []
        line = "  ".join([f"step {_of(number, self._num_steps)}", *values, *left])
        self._console.print(Text(line), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print the text on its own line."""
        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Nothing to undo."""


class LiveView:
    """A panel of constant height that is drawn in place, so that nothing jumps."""

    def __init__(self, console: Console, *, title: str, num_steps: int) -> None:
        self._panel = _RunPanel(title=title, num_steps=num_steps)
        self._live = Live(self._panel, console=console, refresh_per_second=REFRESHES_PER_SECOND)
        self._live.start()

    def phase(self, name: str) -> None:
        """Shown beside the spinner."""
        self._panel.phase = name

    def step(self, number: int, metrics: Mapping[str, float], glimpse: Glimpse | None) -> None:
        """Take the numbers in; the next refresh shows them."""
        self._panel.take(number, metrics, glimpse)

    def note(self, text: str) -> None:
        """Print the text above the panel."""
        self._live.console.print(Text(text))

    def close(self) -> None:
        """Draws the last state and leaves it in the terminal."""
        self._panel.is_finished = True
        self._live.stop()


class FailSafeView:
    """A view whose failures never reach the run: the first one is told in the log, and nothing is shown any more."""

    def __init__(self, open_inner: Callable[[], View]) -> None:
        self._inner: View | None = None
        self._try(lambda: setattr(self, "_inner", open_inner()))

    def phase(self, name: str) -> None:
        """As the view does."""
        self._show(lambda view: view.phase(name))

    def step(self, number: int, metrics: Mapping[str, float], glimpse: Glimpse | None) -> None:
        """As the view does."""
        self._show(lambda view: view.step(number, metrics, glimpse))

    def note(self, text: str) -> None:
        """As the view does."""
        self._show(lambda view: view.note(text))

    def close(self) -> None:
        """As the view does."""
        self._show(lambda view: view.close())

    def _show(self, what: Callable[[View], None]) -> None:
        if self._inner is not None:
            view = self._inner
            self._try(lambda: what(view))

    def _try(self, what: Callable[[], None]) -> None:
        try:
            what()
        # A closed pipe, a terminal that is gone, a fault of the panel; for the first, rich would exit the process.
        except (Exception, SystemExit) as error:
            self._inner = None
            logger.error(
                "the display failed (%s: %s): nothing more is shown, and the run goes on", type(error).__name__, error
            )


def open_view(console: Console, *, title: str, num_steps: int) -> View:
    """Return the live panel in a terminal, plain lines anywhere else."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(console, title=title, num_steps=num_steps)
    return PlainView(console, num_steps=num_steps)


class _Clock:
    """Elapsed time, and the time left at the pace so far."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._begin = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None

    def tick(self, number: int) -> None:
        now = time.monotonic()
        self._first = self._first or (number - 1, self._begin)
        self._last = (number, now)

    def elapsed(self) -> str:
        return duration(time.monotonic() - self._begin)

    def left(self) -> str:
        if self._first is None or self._last is None:
            return "?"
        (first, begin), (last, end) = self._first, self._last
        pace = (end - begin) / max(1, last - first)
        return duration((self._num_steps - last) * pace - (time.monotonic() - end))


class _RunPanel:
    """The state of the live view, drawn anew at each refresh."""

    def __init__(self, *, title: str, num_steps: int) -> None:
        self.phase = "preparing"
        self.is_finished = False
        self._title = title
        self._num_steps = num_steps
        self._number = 0
        self._history: dict[str, list[float]] = defaultdict(list)
        self._glimpse: Glimpse | None = None
        self._clock = _Clock(num_steps)
        self._spinner = Spinner("dots", style="cyan")

    def take(self, number: int, metrics: Mapping[str, float], glimpse: Glimpse | None) -> None:
        self._number = number
        self._clock.tick(number)
        for gauge in PLAIN:
            if gauge.key in metrics:
                self._history[gauge.key].append(float(metrics[gauge.key]))
        self._glimpse = glimpse or self._glimpse

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inner = options.max_width - EDGE_WIDTH
        parts = Group(self._progress(inner), Text(""), self._gauges(inner), Text(""), *self._answer(inner))
        yield Panel(
            parts,
            title=Text(f" {printable(self._title, limit=max(20, inner - 10))} ", style="bold"),
            title_align="left",
            border_style=_end_style(self._is_whole()) if self.is_finished else "cyan",
            padding=(0, 1),
        )

    def _progress(self, width: int) -> Table:
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(width=1)
        row.add_column(width=12, no_wrap=True)
        row.add_column(ratio=1)
        row.add_column(justify="right", no_wrap=True)
        is_whole = self._is_whole()
        sign = (
            Text(LOOKS["good"].sign if is_whole else "■", style=_end_style(is_whole))
            if self.is_finished
            else self._spinner
        )
        total = self._num_steps if self._num_steps < ENDLESS else None
        bar = ProgressBar(total=total, completed=self._number, complete_style="cyan", finished_style="green")
        times = f"{_of(self._number, self._num_steps)} · {self._clock.elapsed()}"
        if not self.is_finished and self._num_steps < ENDLESS:
            times += f" · {self._clock.left()} left"
        row.add_row(sign, Text(self._state()), bar, Text(times))
        return row

    def _state(self) -> str:
        if not self.is_finished:
            return self.phase
        return "done" if self._is_whole() else "stopped"

    def _is_whole(self) -> bool:
        return self._number >= self._num_steps or self._num_steps >= ENDLESS

    def _gauges(self, width: int) -> Table:
        spark_width = max(4, (width - 6) // 2 - LABEL_WIDTH - VALUE_WIDTH - 2)
        table = Table.grid(padding=(0, 1))
        for side in range(2):
            table.add_column(width=LABEL_WIDTH, style="dim", no_wrap=True)
            table.add_column(width=VALUE_WIDTH, justify="right", style="bold", no_wrap=True)
            table.add_column(width=spark_width + 3 * (side == 0), style="cyan", no_wrap=True)
        for pair in zip(LEFT, RIGHT, strict=True):
            table.add_row(*(cell for gauge in pair for cell in self._cells(gauge, spark_width)))
        return table

    def _cells(self, gauge: Gauge, width: int) -> tuple[Text, Text, Text]:
        history = self._history[gauge.key]
        value = gauge.style.format(history[-1]) if history else "·"
        return Text(gauge.label), Text(value), Text(sparkline(history, width=width))

    def _answer(self, width: int) -> list[Text]:
        """Return always `ANSWER_LINES` lines, whatever the answer: the panel keeps its height."""
        if self._glimpse is None:
            return [Text("")] * ANSWER_LINES
        room = max(10, width - 9)
        answer = printable(self._glimpse.answer, limit=2 * room) or "(empty)"
        reward = self._glimpse.reward
        mark = Text("error", style="yellow") if reward is None else Text(f"{reward:g}", style=_reward_style(reward))
        return [
            Text.assemble(("prompt   ", "dim"), _line(printable(self._glimpse.prompt, limit=room), room)),
            Text.assemble(("answer   ", "dim"), _line(answer, room)),
            Text.assemble(("reward   ", "dim"), mark),
        ]


def _of(number: int, num_steps: int) -> str:
    return f"{number}/{num_steps}" if num_steps < ENDLESS else f"{number}"


def _line(text: str, room: int) -> Text:
    """Return the text on one line of at most `room` columns; wide characters count two."""
    line = Text(text, no_wrap=True)
    line.truncate(room, overflow="ellipsis")
    return line


def _end_style(is_whole: bool) -> str:
    return "green" if is_whole else "yellow"


def _reward_style(reward: float) -> str:
    return "bold green" if reward > 0 else "bold red"
