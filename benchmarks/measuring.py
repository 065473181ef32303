"""What every benchmark needs: wall and CPU seconds, other processes' load, peak memory, and ratios that pair runs.

On a shared machine the same run differs by 20 to 30 % within hours. So contenders take turns, each run is compared with
its neighbour in time, and every line says how many cores other processes kept busy meanwhile.
"""

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

KIB_PER_GIB = 2**20
SPINNING_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_RESET_PEAK = "5"
"""What clears a process's peak in /proc/self/clear_refs; see proc(5)."""


@dataclass(frozen=True)
class Timing:
    """One run: wall seconds, CPU seconds of this process, and cores that other processes kept busy (nan: unknown)."""

    seconds: float
    cpu_seconds: float
    foreign_cores: float


class Stopwatch:
    """Starts at once; `stop` says what has passed since."""

    def __init__(self) -> None:
        self._busy, self._own, self._start = busy_seconds(), time.process_time(), time.perf_counter()

    def stop(self) -> Timing:
        """Return the time since the start."""
        seconds, own = time.perf_counter() - self._start, time.process_time() - self._own
        return Timing(seconds, own, foreign_cores(busy_seconds() - self._busy, own, seconds))


def timed(run: Callable[[], object]) -> Timing:
    """Return the time of one call, up to the end of what it started on a GPU."""
    watch = Stopwatch()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return watch.stop()


def foreign_cores(busy: float, own: float, seconds: float) -> float:
    """Cores that others kept busy: the machine's CPU seconds less one's own, per second of wall time; never below 0."""
    # max(0, nan) would be 0: a machine that cannot tell must not look quiet.
    cores = (busy - own) / seconds if seconds > 0 else float("nan")
    return 0.0 if cores < 0 else cores


def busy_seconds() -> float:
    """CPU seconds that all processes have used since the machine started; nan where /proc/stat is missing."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return float("nan")
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, stat.read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def peak_gib() -> float:
    """Largest resident memory of this process so far, or since `reset_peak`."""
    status = _status_kib("VmHWM")
    if status is not None:
        return status / KIB_PER_GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def reset_peak() -> float:
    """Make `peak_gib` start anew; returns the resident memory now, in GiB.

    Raises:
        OSError: the system cannot do that (it takes Linux); measure in a fresh process instead.
    """
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    resident = _status_kib("VmRSS")
    if resident is None:
        raise OSError("/proc/self/status has no VmRSS")
    return resident / KIB_PER_GIB


def _status_kib(name: str) -> float | None:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return float(found[0]) if found else None


@dataclass(frozen=True)
class Ratios:
    """Ratios of runs that were neighbours in time.

    With six pairs the range from the lowest to the highest holds the median of all such ratios with 97 %
    (1 − 2 · ½⁶), whatever their distribution.
    """

    median: float
    lowest: float
    highest: float
    num_pairs: int

    def __str__(self) -> str:
        """As in a table: the median, the range, and how many pairs."""
        return f"{self.median:.2f} ({self.lowest:.2f}–{self.highest:.2f}, {self.num_pairs} pairs)"


def paired_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Ratios:
    """Median, lowest and highest of numerators[i] / denominators[i].

    Raises:
        ValueError: there are no pairs, their numbers differ, or a denominator is not positive.
    """
    if not numerators or len(numerators) != len(denominators):
        raise ValueError(f"expected as many numerators as denominators, got {len(numerators)} and {len(denominators)}")
    if not all(value > 0 for value in denominators):
        raise ValueError(f"denominators must be > 0, got {min(denominators)}")
    ratios = [above / below for above, below in zip(numerators, denominators, strict=True)]
    return Ratios(statistics.median(ratios), min(ratios), max(ratios), len(ratios))


def in_turns(names: Sequence[str], num_rounds: int) -> Iterator[tuple[int, str]]:
    """(round, name): everyone once a round, in reversed order every other round, so that drift favours nobody."""
    for number in range(num_rounds):
        for name in names if number % 2 == 0 else reversed(names):
            yield number, name


def machine() -> str:
    """One line: processor, cores, threads, torch and the settings of OpenMP, for the head of a result."""
    variables = [f"{name}={os.environ[name]}" for name in SPINNING_VARIABLES if name in os.environ]
    parts = [
        _processor(),
        f"{os.cpu_count()} cores",
        f"{torch.get_num_threads()} threads",
        f"torch {torch.__version__}",
        *variables,
    ]
    return ", ".join(parts)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
