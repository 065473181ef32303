"""How a finding's status is shown, whatever it is a finding of: one sign, one word, one style for every face."""

from collections.abc import Mapping
from dataclasses import dataclass

from klimb.findings.finding import Status


@dataclass(frozen=True)
class Look:
    """How a status is shown.

    Attributes:
        sign: that says it without a colour.
        word: for people.
        style: in a terminal; pages have a class of the status's name.
    """

    sign: str
    word: str
    style: str

    @property
    def label(self) -> str:
        """Sign and word, such as `✗ bad`."""
        return f"{self.sign} {self.word}"


LOOKS: Mapping[Status, Look] = {
    "bad": Look("✗", "bad", "bold red"),
    "warning": Look("!", "warning", "yellow"),
    "unknown": Look("?", "not known", "dim"),
    "note": Look("·", "note", "cyan"),
    "good": Look("✓", "good", "green"),
}
