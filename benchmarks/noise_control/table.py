"""The results as Markdown: every cell, or one line a recipe and source; two states side by side where there are two."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.noise_control.cells import (
    NOT_JUDGED_AT_TOP_P,
    ORIGINS,
    TEMPERATURES,
    TOP_PS,
    YARDSTICK_SEEDS,
    Cell,
    has_clip,
)
from benchmarks.noise_control.judging import Verdict, Yardstick, judge, quantities
from benchmarks.noise_control.trial import Result
from benchmarks.page import table_of

SIGNS = {True: "yes", False: "**no**", None: "not judged"}


@dataclass(frozen=True)
class Judged:
    """A cell's result with its verdicts: by the recipe without its clip, and with it."""

    result: Result
    verdict: Verdict
    by_own_clip: Verdict

    @property
    def entropy_change(self) -> float:
        """Largest in size of those at the sampling temperature and at 1; 0 where there was no run."""
        return max(self._values("entropy"), key=abs, default=0.0)

    @property
    def kl(self) -> float:
        """Larger of the two; 0 where there was no run."""
        return max(self._values("KL"), default=0.0)

    def _values(self, kind: str) -> list[float]:
        drift = self.result.drift
        found = {} if drift is None else quantities(drift, self.result.cell.temperature)
        return [value for name, value in found.items() if name.startswith(kind)]


State = dict[Cell, Judged]


def judge_all(results: Sequence[Result]) -> State:
    """Return the cells with their verdicts; the yardsticks are those of the same state."""
    no_clip, own_clip = Yardstick(results, "no-clip"), Yardstick(results, "own-clip")
    return {
        result.cell: Judged(result, judge(result, no_clip), judge(result, own_clip))
        for result in results
        if result.cell.role == "cell"
    }


def full_table(states: Sequence[State]) -> str:
    """Return a line a cell. Numbers of two states stand as `before / after`."""
    names = (
        "recipe",
        "source",
        "T",
        "top-p",
        "entropy at T",
        "entropy at 1",
        "KL at T",
        "KL at 1",
        "touched",
        "within",
        "as at T = 1",
    )
    cells = dict.fromkeys(cell for state in states for cell in state)
    rows = [_cell_row(cell, [state[cell] for state in states if cell in state]) for cell in cells]
    return table_of(names, rows)


def _cell_row(cell: Cell, found: Sequence[Judged]) -> list[str]:
    at = cell.temperature
    drifts = [judged.result.drift for judged in found]
    return [
        f"`{cell.recipe}`",
        cell.origin,
        f"{at:g}",
        f"{cell.top_p:g}",
        *(
            " / ".join("-" if drift is None else f"{drift.before[t]:.2f} → {drift.after[t]:.2f}" for drift in drifts)
            for t in (at, 1.0)
        ),
        *(" / ".join("-" if drift is None else f"{drift.kl[t]:.2f}" for drift in drifts) for t in (at, 1.0)),
        " / ".join(_share(judged.result.touched) for judged in found),
        " / ".join(SIGNS[judged.verdict.is_within] for judged in found),
        " / ".join(SIGNS[judged.by_own_clip.is_within] for judged in found),
    ]


def recipe_table(states: Sequence[State]) -> str:
    """Return a line a recipe and source, over its temperatures and top-p."""
    names = (
        "recipe",
        "source",
        "outside",
        "not as at T = 1",
        "largest change of entropy",
        "largest KL",
        "most touched at step 0",
    )
    keys = dict.fromkeys((cell.recipe, cell.origin) for state in states for cell in state)
    rows = []
    for recipe, origin in keys:
        numbers = [_recipe_numbers(_chosen(state, recipe=recipe, origin=origin)) for state in states]
        rows.append([f"`{recipe}`", origin, *_merged(numbers)])
    return table_of(names, rows)


def _recipe_numbers(found: Sequence[Judged]) -> list[str]:
    judged = [each for each in found if each.verdict.is_within is not None]
    touched = [each.result.touched for each in found if each.result.touched is not None]
    return [
        _outside([each.verdict for each in found]),
        _outside([each.by_own_clip for each in found]),
        f"{max((each.entropy_change for each in judged), key=abs, default=0.0):+.2f}",
        f"{max((each.kl for each in judged), default=0.0):.2f}",
        _share(max(touched, default=None)),
    ]


def setting_table(states: Sequence[State]) -> str:
    """Return cells outside of those judged, a line a temperature and top-p, two columns a source."""
    rows: list[list[str]] = []
    for temperature in TEMPERATURES:
        for top_p in TOP_PS:
            numbers = [_setting_numbers(state, temperature=temperature, top_p=top_p) for state in states]
            rows.append([f"{temperature:g}", f"{top_p:g}", *_merged(numbers)])
    return table_of(("T", "top-p", *ORIGINS, *(f"{origin}, not as at T = 1" for origin in ORIGINS[1:])), rows)


def direction_table(states: Sequence[Sequence[Result]]) -> str:
    """Return the mean change of entropy at the temperature, over recipes with a clip: one run may wander, all do not.

    In parentheses the mean of the same recipes' runs at temperature 1 with their clip, measured at that temperature.
    """
    rows: list[list[str]] = []
    for temperature in TEMPERATURES:
        for top_p in TOP_PS:
            numbers = [_directions(results, temperature, top_p) for results in states]
            rows.append([f"{temperature:g}", f"{top_p:g}", *_merged(numbers)])
    return table_of(("T", "top-p", *ORIGINS), rows)


def _directions(results: Sequence[Result], temperature: float, top_p: float) -> list[str]:
    yardstick = Yardstick(results, "own-clip")
    return [
        _direction(
            [
                result
                for result in results
                if result.cell.role == "cell" and has_clip(result.cell.recipe)
                if (result.cell.origin, result.cell.temperature, result.cell.top_p) == (origin, temperature, top_p)
            ],
            yardstick,
        )
        for origin in ORIGINS
    ]


def _direction(found: Sequence[Result], yardstick: Yardstick) -> str:
    name = "entropy at {:g}"
    pairs = [
        (
            quantities(result.drift, result.cell.temperature)[name.format(result.cell.temperature)],
            yardstick.bands(result.cell)[name.format(result.cell.temperature)].centre,
        )
        for result in found
        if result.drift is not None
    ]
    if not pairs:
        return "-"
    own, centre = (statistics.fmean(values) for values in zip(*pairs, strict=True))
    return f"{own:+.2f} ({centre:+.2f})"


def _setting_numbers(state: State, **wanted: float) -> list[str]:
    found = {origin: _chosen(state, origin=origin, **wanted) for origin in ORIGINS}
    return [
        *(_outside([each.verdict for each in found[origin]]) for origin in ORIGINS),
        *(_outside([each.by_own_clip for each in found[origin]]) for origin in ORIGINS[1:]),
    ]


def _chosen(state: State, **wanted: object) -> list[Judged]:
    return [
        judged for cell, judged in state.items() if all(getattr(cell, name) == value for name, value in wanted.items())
    ]


def _outside(verdicts: Sequence[Verdict]) -> str:
    judged = [verdict.is_within for verdict in verdicts if verdict.is_within is not None]
    return f"{sum(not is_within for is_within in judged)} of {len(judged)}" if judged else "-"


def _merged(columns: Sequence[Sequence[str]]) -> list[str]:
    return [" / ".join(values) for values in zip(*columns, strict=True)]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def summary(states: Sequence[State]) -> str:
    """How many cells are outside, how many are not judged and why, in a few lines."""
    lines = [
        f"Cells outside the spread of T = 1 without a clip: {_all_outside(states, 'verdict')};\nof T = 1 with the "
        f"recipe's own clip: {_all_outside(states, 'by_own_clip')}. "
        f"Seeds of each: {', '.join(map(str, YARDSTICK_SEEDS))}.",
        "",
        "Shown and not judged where top-p < 1:",
        "",
        *(f"- `{recipe}`: {reason}" for recipe, reason in NOT_JUDGED_AT_TOP_P.items()),
    ]
    refused = dict.fromkeys(
        (judged.result.cell.recipe, judged.result.cell.origin, judged.result.refused)
        for state in states
        for judged in state.values()
        if judged.result.refused
    )
    if refused:
        lines += ["", "Cells that do not exist:", ""]
        lines += [f"- `{recipe}`, {origin}: {reason}" for recipe, origin, reason in refused]
    return "\n".join(lines)


def _all_outside(states: Sequence[State], name: Literal["verdict", "by_own_clip"]) -> str:
    return " / ".join(_outside([getattr(judged, name) for judged in state.values()]) for state in states)
