"""How a process that worked on a run ended without finishing it, as its folder says it."""

from dataclasses import dataclass
from typing import Literal

from klimb.findings.finding import Finding

During = Literal["before training", "training", "after training"]


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How it ended.

    Attributes:
        kind: a signal asked for it, or an error made it.
        during: what part of the run.
        reason: one line; what is not printable is escaped.
        step: the last complete one.
        is_saved: a resume goes on from that step; False: from an older one.
        resumes_from: the step that it goes on from.
        time: in UTC.
    """

    kind: Literal["error", "signal"]
    during: During
    reason: str
    step: int
    is_saved: bool
    resumes_from: int
    time: str


def say_where(ending: Ending) -> str:
    """Return in a few words in what part of the run it ended."""
    return f"in step {ending.step + 1}" if ending.during == "training" else ending.during


def say_what_is_saved(ending: Ending) -> str:
    """Return in a few words from where a resume goes on."""
    if ending.during == "before training":
        return "nothing was trained yet"
    if ending.is_saved:
        return f"saved after step {ending.step}"
    lost = ending.step - ending.resumes_from
    again = f"its last {lost} steps are done again" if lost > 1 else "its last step is done again"
    return f"NOT saved after step {ending.step}: {again}"


def finding_of(ending: Ending, *, folder: str) -> Finding:
    """Return the reason, what is saved, and how to go on.

    Args:
        ending: of the run's last process.
        folder: of the run, as a command takes it.
    """
    go_on = f"klimb train --resume {folder}"
    if ending.kind == "signal":
        return Finding(
            status="note",
            title=f"The run was stopped {say_where(ending)}",
            evidence=f"{ending.reason}; {say_what_is_saved(ending)}.",
            advice=f"Go on with: {go_on}",
        )
    return Finding(
        status="bad",
        title=f"The run ended with an error {say_where(ending)}",
        evidence=f"{ending.reason}\n{say_what_is_saved(ending)}.",
        advice=f"Mend what the reason names (more is in {folder}/traceback.txt), then go on with: {go_on}",
    )
