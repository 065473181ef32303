"""How a finding's status looks in a terminal, whatever it is a finding of."""

from collections.abc import Mapping

from klimb.findings.finding import Status

STATUS_STYLES: Mapping[Status, str] = {
    "bad": "bold red",
    "warning": "yellow",
    "unknown": "dim",
    "note": "cyan",
    "good": "green",
}
