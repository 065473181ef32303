"""The audit: its expected interval, drift and correlations where there are none, and its forecast of prompts."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.coverage.cells import Alarms, Cell, Coverage, coverage
from klimb.experience.samples import Message, Sample
from klimb.findings.audit.feedback import feedback_block
from klimb.findings.audit.lengths import length_block
from klimb.findings.audit.signal import signal_block
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.statistics import mean_reward, pearson, spearman

Numbers = NDArray[np.float64]


Counts = NDArray[np.int64]


Z_95 = 1.959963984540054


LIMITS = Thresholds()


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How many prompts, answers to each, and how alike answers to one prompt are."""

    prompts: int
    answers: int = 1
    alike: float = 0.0
    is_uneven: bool = False

    def __str__(self) -> str:
        spread = "1 to " if self.is_uneven else ""
        return f"{self.prompts} prompts x {spread}{self.answers}, correlation {self.alike:g}"

    def clusters(self, generator: np.random.Generator) -> Counts:
        """Return the prompt of each answer."""
        sizes = generator.integers(1, self.answers + 1, self.prompts) if self.is_uneven else self.answers
        return np.repeat(np.arange(self.prompts), sizes)


@dataclass(frozen=True)
class Kind:
    """How rewards come about: their mean, and a draw of one for each answer."""

    name: str
    mean: float
    draw: Callable[[Counts, float, np.random.Generator], Numbers]


def passes(rate: float) -> Kind:
    """0 or 1; the prompts' rates are beta distributed."""

    def draw(clusters: Counts, alike: float, generator: np.random.Generator) -> Numbers:
        rates = np.full(int(clusters.max()) + 1, rate)
        if alike:
            strength = 1 / alike - 1
            rates = generator.beta(rate * strength, (1 - rate) * strength, len(rates))
        return (generator.uniform(size=len(clusters)) < rates[clusters]).astype(np.float64)

    return Kind(f"rate {rate:g}", rate, draw)


def _normal(clusters: Counts, alike: float, generator: np.random.Generator) -> Numbers:
    shared = generator.normal(size=int(clusters.max()) + 1)[clusters]
    return math.sqrt(alike) * shared + math.sqrt(1 - alike) * generator.normal(size=len(clusters))


def _lengths(clusters: Counts, alike: float, generator: np.random.Generator) -> Numbers:
    return np.round(np.exp(4 + _normal(clusters, alike, generator))).astype(np.float64)


def _skewed(clusters: Counts, alike: float, generator: np.random.Generator) -> Numbers:
    return np.exp(_normal(clusters, alike, generator) / 2)


NORMAL = Kind("normal rewards", 0.0, _normal)


SKEWED = Kind("skewed rewards", math.exp(1 / 8), _skewed)


SHAPES = (
    *(Shape(prompts=prompts) for prompts in (5, 20, 100)),
    *(Shape(prompts=prompts, answers=4, alike=alike) for prompts in (5, 20, 50) for alike in (0.0, 0.3, 0.7)),
    *(Shape(prompts=prompts, answers=4, alike=0.3) for prompts in (10, 200)),
    Shape(prompts=20, answers=16, alike=0.3),
    Shape(prompts=20, answers=16, alike=0.3, is_uneven=True),
    Shape(prompts=100, answers=16, alike=0.3, is_uneven=True),
)


KINDS = (*map(passes, (0.01, 0.1, 0.5, 0.9, 0.99)), SKEWED)


def cells(num_sets: int, generator: np.random.Generator) -> Iterator[Cell]:
    """Yield the audit's cells; all but the interval are drawn less often, for their time."""
    fewer = max(num_sets // 5, 2)
    for shape in SHAPES:
        for kind in KINDS:
            yield expected(shape, kind, num_sets, generator)
    for shape in CORRELATED:
        yield correlations(shape, 2 * fewer, generator)
    for layout in LAYOUTS:
        yield drift(layout, fewer, generator)
    for shape, kind, gain in FORECASTS:
        yield forecast(shape, kind, gain, max(fewer // 2, 2), generator)
    for shape in REPORTS:
        yield report(shape, fewer, generator)


def expected(shape: Shape, kind: Kind, num_sets: int, generator: np.random.Generator) -> Coverage:
    """Return how often the expected interval holds the mean of all prompts."""
    found, old = [], 0
    for _ in range(num_sets):
        clusters = shape.clusters(generator)
        rewards = kind.draw(clusters, shape.alike, generator)
        found.append(mean_reward(rewards, clusters, unit="prompt").interval)
        old += abs(float(rewards.mean()) - kind.mean) <= old_half_width(rewards, clusters)
    return coverage(
        found, kind.mean, number="expected interval", case=f"{shape}, {kind.name}", before=float(old / num_sets)
    )


def old_half_width(values: Numbers, clusters: Counts) -> float:
    """Return the normal quantile times the cluster-robust error, at least that of independent values."""
    centred = values - values.mean()
    sums = np.bincount(clusters, weights=centred)
    between = len(sums) / (len(sums) - 1) * (sums**2).sum()
    independent = len(values) / (len(values) - 1) * (centred**2).sum()
    return float(Z_95 * np.sqrt(max(between, independent)) / len(values))


CORRELATED = tuple(
    Shape(prompts=prompts, answers=answers, alike=0.5)
    for prompts in (5, 8, 12, 20, 50, 200)
    for answers in (1, 4, 16)
    if prompts * answers <= 1000
)


def correlations(shape: Shape, num_sets: int, generator: np.random.Generator) -> Alarms:
    """Return how often either correlation of skewed lengths with unrelated rewards is called one."""
    told, old = 0, 0
    for number in range(num_sets):
        clusters = shape.clusters(generator)
        lengths = _lengths(clusters, shape.alike, generator)
        kind = (passes(0.5), passes(0.1), NORMAL)[number % 3]
        rewards = kind.draw(clusters, shape.alike, generator)
        told += says_length(lengths, rewards, clusters)
        both = (pearson(lengths, rewards), spearman(lengths, rewards))
        old += any(abs(value) > LIMITS.max_length_correlation for value in both if value is not None)
    return Alarms(
        number="reward goes with length",
        case=f"{shape}, rates 0.1 and 0.5 and normal",
        num_sets=num_sets,
        rate=told / num_sets,
        before=old / num_sets,
    )


def says_length(lengths: Numbers, rewards: Numbers, clusters: Counts) -> bool:
    """Return True if the audit warns of either correlation."""
    rows = made(rewards, clusters, lengths=lengths)
    return any(finding.status == "warning" for finding in length_block(rows, LIMITS).findings[:2])


@dataclass(frozen=True)
class Layout:
    """Ratings in time: their number, and the time, the prompt and the user of each."""

    name: str
    times: Numbers
    prompts: Counts
    users: Counts | None = None
    change: float = 0.0
    since: float = 0.0


def _layouts() -> Iterator[Layout]:
    rows = np.arange(200)
    own = (1 + rows).astype(np.float64)
    days = np.repeat([1.0, 2.0, 3.0], (60, 80, 60))
    yield Layout("200 ratings, own times", own, rows)
    yield Layout("40 ratings, own times", own[:40], rows[:40])
    yield Layout("200 ratings, blocks of 64", 1 + own // 64, rows)
    yield Layout("200 ratings, three days", days, rows)
    yield Layout("200 ratings, one stamp but for one", np.repeat([1.0, 2.0], (1, 199)), rows)
    yield Layout("200 ratings, one stamp but for six", np.repeat([1.0, 2.0], (6, 194)), rows)
    yield Layout("25 prompts x 8, one after another", own, rows // 8)
    yield Layout("12 prompts x 16, one after another", own[:192], rows[:192] // 16)
    yield Layout("25 prompts x 8, in turns", own, rows % 25)
    yield Layout("12 users, three days each", own, rows, users=rows // 17)
    yield Layout("30 users, in turns", own, rows, users=rows % 30)
    yield Layout(
        "400 ratings, three days, 20 points more",
        np.repeat([1.0, 2.0, 3.0], (120, 160, 120)),
        np.arange(400),
        change=0.2,
        since=1.5,
    )
    yield Layout("200 ratings, own times, 20 points more", own, rows, change=0.2, since=100.5)


LAYOUTS = tuple(_layouts())


def drift(layout: Layout, num_sets: int, generator: np.random.Generator) -> Alarms:
    """Return how often a drift is found; prompts, and users where there are any, agree at 0.3."""
    told, old = 0, 0
    for _ in range(num_sets):
        clusters = layout.prompts if layout.users is None else layout.users
        rewards = passes(0.5).draw(clusters, 0.3, generator)
        is_late = layout.times > layout.since
        rewards = np.where(is_late & (generator.uniform(size=len(rewards)) < 2 * layout.change), 1.0, rewards)
        rows = made(rewards, layout.prompts, times=layout.times, users=layout.users)
        told += feedback_block(rows, LIMITS).findings[-1].status == "warning"
        old += old_drift(layout.times, rewards)
    return Alarms(
        number="drift in time",
        case=layout.name,
        num_sets=num_sets,
        rate=told / num_sets,
        truth=f"{layout.change:+g} later" if layout.change else "nothing changed",
        before=old / num_sets,
    )


def old_drift(times: Numbers, rewards: Numbers) -> bool:
    """Halves of the rows sorted by time and reward; the rows are independent; 5 %."""
    ordered = np.array([reward for _, reward in sorted(zip(times.tolist(), rewards.tolist(), strict=True))])
    first, second = ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]
    noise = Z_95 * math.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))
    moved = abs(float(second.mean() - first.mean()))
    return moved > LIMITS.max_drift and moved > noise


def _forecasts() -> Iterator[tuple[Shape, Kind, float]]:
    for prompts, answers, alike in ((5, 1, 0.0), (5, 4, 0.3), (10, 8, 0.7), (20, 1, 0.0), (20, 4, 0.3), (100, 2, 0.3)):
        for rate in (0.05, 0.3, 0.5, 0.95):
            shape = Shape(prompts=prompts, answers=answers, alike=alike)
            yield shape, passes(rate), 0.1 if prompts <= 20 else 0.05
    yield Shape(prompts=5), NORMAL, 0.3
    yield Shape(prompts=20, answers=4, alike=0.3), NORMAL, 0.2
    yield Shape(prompts=10), SKEWED, 0.2
    yield Shape(prompts=40, answers=4, alike=0.5, is_uneven=True), SKEWED, 0.1


FORECASTS = tuple(_forecasts())


def forecast(shape: Shape, kind: Kind, gain: float, num_sets: int, generator: np.random.Generator) -> Alarms:
    """Return how often the next audit is content with the interval, of those who collect what the first one says."""
    told, passed, old_told, old_passed = 0, 0, 0, 0
    for _ in range(num_sets):
        clusters = shape.clusters(generator)
        rewards = kind.draw(clusters, shape.alike, generator)
        found = mean_reward(rewards, clusters, unit="prompt")
        if found.interval.is_known and found.interval.half_width > gain:
            told += 1
            needed = found.units_for(gain) or shape.prompts
            passed += mean_reward(*_again(shape, kind, needed, generator), unit="prompt").interval.half_width <= gain
        half = old_half_width(rewards, clusters)
        if half > gain:
            old_told += 1
            needed = round(shape.prompts * round((half / gain) ** 2, 1))
            old_passed += old_half_width(*_again(shape, kind, needed, generator)) <= gain
    return Alarms(
        number="prompts that are enough",
        case=f"{shape}, {kind.name}, ± {gain:g}, {told} told",
        num_sets=num_sets,
        rate=passed / told if told else math.nan,
        truth="collected so many",
        before=old_passed / old_told if old_told else math.nan,
    )


def _again(shape: Shape, kind: Kind, prompts: int, generator: np.random.Generator) -> tuple[Numbers, Counts]:
    more = Shape(prompts=prompts, answers=shape.answers, alike=shape.alike, is_uneven=shape.is_uneven)
    clusters = more.clusters(generator)
    return kind.draw(clusters, shape.alike, generator), clusters


REPORTS = (
    Shape(prompts=6),
    Shape(prompts=12),
    Shape(prompts=24),
    Shape(prompts=60),
    Shape(prompts=200),
    Shape(prompts=8, answers=8, alike=0.3),
    Shape(prompts=24, answers=8, alike=0.3),
    Shape(prompts=48, answers=4, alike=0.5, is_uneven=True),
)


def report(shape: Shape, num_sets: int, generator: np.random.Generator) -> Alarms:
    """Return in how many whole reports something is said of how rewards come about, where nothing is the matter."""
    told, old = 0, 0
    for _ in range(num_sets):
        clusters = shape.clusters(generator)
        rewards = passes(0.5).draw(clusters, shape.alike, generator)
        lengths = _lengths(clusters, shape.alike, generator)
        times = (1 + np.arange(len(rewards)) // 16).astype(np.float64)
        told += any(
            finding == "warning" for finding in _statuses(made(rewards, clusters, lengths=lengths, times=times))
        )
        both = (pearson(lengths, rewards), spearman(lengths, rewards))
        old += (
            old_drift(times, rewards)
            or any(abs(value) > LIMITS.max_length_correlation for value in both if value is not None)
            or not LIMITS.min_pass_share <= rewards.mean() <= LIMITS.max_pass_share
        )
    return Alarms(
        number="drift, length or mean reward in a report",
        case=f"{shape}, rate 0.5, 16 rows a stamp",
        num_sets=num_sets,
        rate=told / num_sets,
        before=old / num_sets,
    )


def _statuses(rows: Sequence[Sample]) -> list[str]:
    mean = next(finding for finding in signal_block(rows, LIMITS).findings if finding.name == "mean reward")
    findings = (mean, *length_block(rows, LIMITS).findings[:2], feedback_block(rows, LIMITS).findings[-1])
    return [finding.status for finding in findings]


def made(
    rewards: Numbers,
    prompts: Counts,
    *,
    lengths: Numbers | None = None,
    times: Numbers | None = None,
    users: Counts | None = None,
) -> list[Sample]:
    """Return samples with these columns; responses differ."""
    return [
        Sample(
            sample_id=str(row),
            group_id=f"g{prompts[row]}",
            prompt=(Message(role="user", content=f"question {prompts[row]}"),),
            prompt_ids=(),
            response=f"{row:06d}" + "x" * (0 if lengths is None else int(lengths[row])),
            response_ids=(),
            finish_reason="stop",
            reward=float(rewards[row]),
            created_at=0.0 if times is None else float(times[row]),
            metadata={} if users is None else {"user": f"u{users[row]}"},
        )
        for row in range(len(rewards))
    ]
