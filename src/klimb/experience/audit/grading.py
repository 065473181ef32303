"""Numbers against thresholds, and numbers as people read them."""

from klimb.experience.audit.report import Finding, Status


def at_most(number: float, *, good: float, bad: float | None = None) -> Status:
    """`good` up to `good`, `bad` above `bad`, `warning` between; without `bad` nothing is worse than a warning."""
    if number <= good:
        return "good"
    return "bad" if bad is not None and number > bad else "warning"


def at_least(number: float, *, good: float, bad: float | None = None) -> Status:
    """`good` from `good` on, `bad` below `bad`, `warning` between; without `bad` nothing is worse than a warning."""
    if number >= good:
        return "good"
    return "bad" if bad is not None and number < bad else "warning"


def both_at_most(good: str, bad: str) -> str:
    """The two limits of `at_most` in words, so that a warning is read beside the number that made it one."""
    return f"good up to {good}, bad above {bad}" if good != bad else f"at most {good}"


def both_at_least(good: str, bad: str) -> str:
    """The two limits of `at_least` in words."""
    return f"good from {good}, bad below {bad}" if good != bad else f"at least {good}"


def unknown(name: str, why: str) -> Finding:
    """The finding of a check that could not be made."""
    return Finding(name=name, value="unknown", status="unknown", meaning=why)


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage; what is not 0 never reads as 0, and what is not all never as 100 %."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.3g} %"


def short(number: float) -> str:
    """Three significant digits."""
    return f"{number:.3g}"


def counted(number: int, noun: str) -> str:
    """`1 sample`, `2 samples`, `12,000 samples`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
