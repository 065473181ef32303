"""Did noise move a policy further than noise must? The rule, fixed before the first table was made.

For entropy change and KL, each at the sampling temperature and at 1, of a cell of recipe and source:

    centre     mean over the seeds of the yardstick of the same recipe and source, measured at the same temperature
    spread     largest, over the recipes of the family, of largest − smallest of the seeds, in the same source
    within     |change of entropy − centre| ≤ 1.5·spread + 0.01 and KL − centre ≤ 1.5·spread + 0.01, in nats

A KL below the yardstick's is no fault. All four numbers must be within. The yardstick of the verdict is the recipe
without its clip. Beside it stands a second verdict by the recipe with its clip, which is sharper where data is old: a
clip holds the policy back there, and weights without one are noise.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.noise_control.cells import Cell, Origin, Role, family_of, reason_not_judged, roles_of, stand_in
from benchmarks.noise_control.drift import Drift
from benchmarks.noise_control.trial import Result

SPREADS = 1.5
ROUNDING = 0.01
"""Nats: what rounding may do to entropy or KL in a run of so many steps."""


@dataclass(frozen=True)
class Band:
    """Of one quantity of one recipe, source and temperature."""

    centre: float
    width: float


@dataclass(frozen=True)
class Verdict:
    """Whether a cell is within; `reason` says why it is not judged, or which numbers are outside."""

    is_within: bool | None
    reason: str = ""


def quantities(drift: Drift, temperature: float) -> dict[str, float]:
    """Return what is judged, by name."""
    found: dict[str, float] = {}
    for at in dict.fromkeys((temperature, 1.0)):
        found[f"entropy at {at:g}"] = drift.after[at] - drift.before[at]
        found[f"KL at {at:g}"] = drift.kl[at]
    return found


class Yardstick:
    """The runs of one role at temperature 1, by recipe and source."""

    def __init__(self, results: Iterable[Result], role: Role) -> None:
        self._drifts: dict[tuple[str, Origin], list[Drift]] = {}
        for result in results:
            cell = result.cell
            if result.drift is not None and cell.role == (
                role if role in roles_of(cell.recipe, cell.origin) else "no-clip"
            ):
                self._drifts.setdefault((cell.recipe, cell.origin), []).append(result.drift)

    def bands(self, cell: Cell) -> Mapping[str, Band]:
        """Return the band of each quantity of the cell; none where the yardstick has no run."""
        own = self._values(self._drifts.get((stand_in(cell.recipe), cell.origin), []), cell.temperature)
        spreads = self._family_spreads(cell)
        return {
            name: Band(centre=sum(values) / len(values), width=SPREADS * spreads[name] + ROUNDING)
            for name, values in own.items()
        }

    def _family_spreads(self, cell: Cell) -> dict[str, float]:
        spreads: dict[str, float] = {}
        for (recipe, origin), drifts in self._drifts.items():
            if origin == cell.origin and family_of(recipe) == family_of(cell.recipe):
                for name, values in self._values(drifts, cell.temperature).items():
                    spreads[name] = max(spreads.get(name, 0.0), max(values) - min(values))
        return spreads

    @staticmethod
    def _values(drifts: Sequence[Drift], temperature: float) -> dict[str, list[float]]:
        rows = [quantities(drift, temperature) for drift in drifts]
        return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}


def judge(result: Result, yardstick: Yardstick) -> Verdict:
    """Return whether the cell is within the yardstick's spread."""
    if result.drift is None:
        return Verdict(None, f"does not exist: {result.refused}")
    bands = yardstick.bands(result.cell)
    if not bands:
        return Verdict(None, "the yardstick has no run")
    outside = [
        name
        for name, value in quantities(result.drift, result.cell.temperature).items()
        if _is_outside(name, value, bands[name])
    ]
    excuse = reason_not_judged(result.cell)
    return Verdict(None, excuse) if excuse else Verdict(not outside, ", ".join(outside))


def _is_outside(name: str, value: float, band: Band) -> bool:
    distance = value - band.centre
    return not (distance if name.startswith("KL") else abs(distance)) <= band.width
