"""The guard of a run: what it measured, where the policy last was well, and what it decided."""

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from klimb.experience import Sample
from klimb.findings.finding import Finding
from klimb.findings.guard.events import GuardEvent, events_of
from klimb.findings.statistics import AlarmBudget
from klimb.training.checkpoints import CheckpointError
from klimb.training.guard.base_metrics import (
    BaseMetrics,
    Flags,
    MeasuresBase,
    base_metrics_from,
    flags_from,
    metrics_of,
    newest_of,
)
from klimb.training.guard.comparison import Comparison, compare
from klimb.training.guard.detection import ENOUGH_PROMPTS, Detection, Prompts, Schedule, detections
from klimb.training.guard.limits import breaches_in
from klimb.training.guard.settings import Action, GuardSettings


@dataclass(frozen=True, kw_only=True)
class GoodPoint:
    """A step at which no limit was broken and whose checkpoint is kept, with what was measured there."""

    step: int
    measured: BaseMetrics


@dataclass(kw_only=True)
class QualityGuard:
    """Compares the policy with what it was before training. Its state is part of the run's.

    Attributes:
        settings: when, the limits, and what happens beyond them.
        measurer: measures the policy of the run.
        schedule: of the checks.
        prompts: of the rollouts.
        before: the first measurement, to which the flags of the first rollouts are added.
        now: the newest measurement of the policy as it stands.
        good: the point that a rollback goes to.
        events: what was done about broken limits.
        num_rollbacks: so far.
        ending: why the run is over; empty while it goes on.
        measured_at: step of the newest measurement.
        level: of the newest check, all its tests together.
        spent: sum of the levels of all checks.
        recent: flags of the steps since the newest measurement that the next one will look at.
        seconds: that the measurement before training took; not of the state.
    """

    settings: GuardSettings
    measurer: MeasuresBase
    schedule: Schedule
    prompts: Prompts
    before: BaseMetrics = field(default_factory=BaseMetrics)
    now: BaseMetrics = field(default_factory=BaseMetrics)
    good: GoodPoint | None = None
    events: list[GuardEvent] = field(default_factory=list)
    num_rollbacks: int = 0
    ending: str = ""
    measured_at: int = 0
    level: float = 0.0
    spent: float = 0.0
    recent: list[Flags] = field(default_factory=list)
    seconds: float = 0.0
    _good_before: GoodPoint | None = None

    @property
    def is_over(self) -> bool:
        """True if the run ended here; one that is resumed with action `warn` goes on."""
        return bool(self.ending) and self.settings.action != "warn"

    @property
    def protected(self) -> frozenset[int]:
        """Steps whose checkpoint must be kept."""
        return frozenset() if self.good is None else frozenset({self.good.step})

    def measure_before(self) -> None:
        """Measures the policy that training has not touched."""
        started = time.monotonic()
        self.before = self.now = self.measurer.measure()
        self.seconds = time.monotonic() - started

    def see(self, rollouts: Sequence[Sample]) -> None:
        """Take the rollouts of a step. The first ones, drawn before the first update, are what rollouts were before."""
        if not rollouts:
            return
        flags = replace(self.measurer.flag(rollouts), prompts=tuple(map(_prompt_of, rollouts)))
        if self.before.rollouts is not None:
            self.recent = _without_spare([*self.recent, flags])
            return
        self.before = replace(self.before, rollouts=flags)
        if self.good is not None and self.good.step == 0:
            self.good = replace(self.good, measured=replace(self.good.measured, rollouts=flags))

    def is_due(self, step: int) -> bool:
        """Return True at the steps between which `every_steps` lie."""
        return step % self.settings.every_steps == 0

    def check(self, step: int) -> tuple[Finding, ...]:
        """Measures the policy and returns the limits it breaks; where it breaks none, a rollback may go to.

        What the steps drew has been seen before. At a check right after the first step, that step's are the newest.
        """
        first = self.before.rollouts if self.measured_at == 0 else None
        flags = newest_of(self.recent, num_prompts=ENOUGH_PROMPTS) if self.recent else first
        self.now, self.measured_at, self.recent = replace(self.measurer.measure(), rollouts=flags), step, []
        budget = AlarmBudget(self.settings.false_alarm_rate, self.spent)
        self.level = budget.level(self.schedule.num_left(step))
        self.spent = budget.after(self.level).spent
        breaches = breaches_in(self.before, self.now, self.settings, self.comparisons)
        if not breaches:
            self.mark_good(step)
        return breaches

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Return what is tested of the newest measurement, at the level of the newest check."""
        return compare(self.before, self.now, self.settings, level=self.level)

    @property
    def detections(self) -> tuple[Detection, ...]:
        """Return what the guard can see in a run as this one is planned."""
        num_problems = sum(map(len, self.before.general.values()))
        return detections(self.settings, self.schedule, self.prompts, num_problems=num_problems)

    def mark_good(self, step: int) -> None:
        """Make this the point that a rollback goes to, if there is to be one; the loop then saves it."""
        if self.settings.action == "rollback":
            self.good, self._good_before = GoodPoint(step=step, measured=self.now), self.good

    def wants_checkpoint(self, step: int) -> bool:
        """Return True if the step is one to go back to, and so must be saved."""
        return self.good is not None and self.good.step == step

    def forget(self, step: int) -> None:
        """Goes back to the good point before this one, whose checkpoint could not be saved."""
        if self.wants_checkpoint(step):
            self.good = self._good_before

    def may_go_on_after_rollback(self) -> bool:
        """Return True if the run goes on from the good point once it is there."""
        return (
            self.settings.rollback_learning_rate_factor is not None and self.num_rollbacks < self.settings.max_rollbacks
        )

    def add_events(self, step: int, breaches: Sequence[Finding], action: Action, *, to_step: int | None = None) -> None:
        """Keep what was done, an event for each broken limit."""
        self.events += [GuardEvent(step=step, action=action, finding=breach, to_step=to_step) for breach in breaches]

    def content(self) -> dict[str, Any]:
        """Return what guard.json holds: measured before and last, tests, what it can see, and the events.

        Null stands for what is not finite.
        """
        return {
            "before": _finite(metrics_of(self.before)),
            "after": _finite(metrics_of(self.now)),
            "tests": [compared.row() for compared in self.comparisons],
            "detects": [detection.row() for detection in self.detections],
            "events": [event.row() for event in self.events],
        }

    def write(self, path: Path) -> None:
        """Write guard.json whole or not at all."""
        aside = path.with_name(f".{path.name}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(self.content(), indent=1) + "\n", encoding="utf-8")
        aside.replace(path)

    def state(self) -> dict[str, Any]:
        """Plain values that `load_state` takes back."""
        return {
            "before": asdict(self.before),
            "now": asdict(self.now),
            "good": None if self.good is None else asdict(self.good),
            "events": [event.row() for event in self.events],
            "num_rollbacks": self.num_rollbacks,
            "ending": self.ending,
            "measured_at": self.measured_at,
            "level": self.level,
            "spent": self.spent,
            "recent": [asdict(flags) for flags in self.recent],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            CheckpointError: it was saved by a guard that did not know the prompts of rollouts.
        """
        if "spent" not in state:
            raise CheckpointError(
                "the guard of this checkpoint tested answers and not prompts, and has no first rollouts by prompt to "
                "compare with; resume without a guard (--set guard=default), or begin the run anew"
            )
        self.before, self.now = base_metrics_from(state["before"]), base_metrics_from(state["now"])
        good = state["good"]
        self.good = good and GoodPoint(step=int(good["step"]), measured=base_metrics_from(good["measured"]))
        self.events = list(events_of(state))
        self.num_rollbacks = int(state["num_rollbacks"])
        self.ending = str(state["ending"])
        self.measured_at = int(state["measured_at"])
        self.level, self.spent = float(state["level"]), float(state["spent"])
        self.recent = [flags_from(flags) for flags in state["recent"]]


def _prompt_of(sample: Sample) -> str:
    """Return what tells a prompt from another one, short enough to be kept in every checkpoint."""
    said = json.dumps([dict(message) for message in sample.prompt], sort_keys=True, default=str)
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


def _without_spare(steps: Sequence[Flags]) -> list[Flags]:
    """Return the newest steps, as many as hold the prompts that a check looks at."""
    first, seen = len(steps), set[str | int]()
    while first > 0 and len(seen) < ENOUGH_PROMPTS:
        first -= 1
        seen.update(steps[first].prompts)
    return list(steps[first:])


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
