"""The time that a run has taken, over all the processes that worked on it."""

import time
from dataclasses import dataclass, field


@dataclass
class RunClock:
    """Counts on from where the processes before this one ended.

    Attributes:
        began: when this process began to work for the run, on the monotonic clock.
        earlier_seconds: that the processes before it took, as far as anything they wrote says so.
    """

    began: float = field(default_factory=time.monotonic)
    earlier_seconds: float = 0.0

    def seconds(self) -> float:
        """Return what the run has taken until now."""
        return self.earlier_seconds + time.monotonic() - self.began

    def continue_from(self, seconds: float) -> None:
        """Take what a checkpoint says of the earlier processes, unless something later is known of them."""
        self.earlier_seconds = max(self.earlier_seconds, seconds)
