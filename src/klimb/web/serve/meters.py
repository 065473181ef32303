"""What Prometheus reads of the server, in its text format.

Source: Prometheus documentation, "Exposition formats", version 0.0.4.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets of durations."""


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


Labels = tuple[tuple[str, str], ...]


@dataclass
class Histogram:
    """How many durations fell below each bound."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


class Meters:
    """Counts since the start. Any thread may add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[tuple[str, Labels], float] = {}
        self._histograms = {name: Histogram() for name in _HISTOGRAMS}

    def count(self, name: str, number: float = 1, **labels: str) -> None:
        """Add to one of `COUNTERS`."""
        key = (name, tuple(sorted(labels.items())))
        if name not in COUNTERS:
            raise ValueError(f"no such counter: {name!r}; there are {', '.join(COUNTERS)}")
        with self._lock:
            self._counters[key] = self._counters.get(key, 0) + number

    def observe(self, name: str, seconds: float) -> None:
        """Count a duration in one of the histograms."""
        with self._lock:
            self._histograms[name].observe(seconds)

    def write(self, gauges: Sequence[tuple[str, Mapping[str, str], float]] = ()) -> str:
        """Return all of them as text.

        Args:
            gauges: what is so at this moment, by names of `GAUGES`: name, labels, value.
        """
        with self._lock:
            lines = [*self._write_counters(), *self._write_histograms(), *_write_gauges(gauges)]
        return "\n".join(lines) + "\n"

    def _write_counters(self) -> Iterator[str]:
        for name, meaning in COUNTERS.items():
            yield from _head(name, meaning, "counter")
            found = {labels: value for (each, labels), value in self._counters.items() if each == name}
            for labels, value in sorted((found or ({} if name in _LABELLED else {(): 0.0})).items()):
                yield f"{name}{_labels(labels)} {value:.17g}"

    def _write_histograms(self) -> Iterator[str]:
        for name, histogram in self._histograms.items():
            yield from _head(name, _HISTOGRAMS[name], "histogram")
            below = 0
            for bound, number in zip((*map(str, SECONDS), "+Inf"), histogram.counts, strict=True):
                below += number
                yield f'{name}_bucket{{le="{bound}"}} {below}'
            yield f"{name}_sum {histogram.total:.17g}"
            yield f"{name}_count {below}"


COUNTERS: Mapping[str, str] = {
    "klimb_requests_total": "Requests that were answered, by route and status.",
    "klimb_prompt_tokens_total": "Tokens of prompts.",
    "klimb_drawn_tokens_total": "Tokens that were drawn, by policy.",
    "klimb_samples_written_total": "Samples that were written to the store.",
    "klimb_samples_lost_total": "Samples that could not be written to the store.",
    "klimb_cancelled_total": "Requests whose client went away.",
    "klimb_feedback_total": "Requests with ratings, preferences or corrections that were taken.",
}
"""By name, what is counted."""


_LABELLED = ("klimb_requests_total", "klimb_drawn_tokens_total")


_HISTOGRAMS: Mapping[str, str] = {
    "klimb_first_token_seconds": "From a request to its first token.",
    "klimb_token_seconds": "From a token to the next of the same answer, on average over the answer.",
}


GAUGES: Mapping[str, str] = {
    "klimb_running": "Answers that are being drawn, by policy.",
    "klimb_waiting": "Answers that wait to be drawn, by policy.",
    "klimb_policy_version": "Optimiser steps that the policy has seen, by policy.",
    "klimb_store_is_writable": "1 if the last answer was written to the store, 0 if it could not be.",
}
"""By name, what is read at the moment of asking."""


def _write_gauges(gauges: Sequence[tuple[str, Mapping[str, str], float]]) -> Iterator[str]:
    for name, meaning in GAUGES.items():
        yield from _head(name, meaning, "gauge")
        for each, labels, value in gauges:
            if each == name:
                yield f"{name}{_labels(tuple(sorted(labels.items())))} {value:.17g}"


def _head(name: str, meaning: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    escapes = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
    return "{" + ",".join(f'{name}="{value.translate(escapes)}"' for name, value in labels) + "}"
