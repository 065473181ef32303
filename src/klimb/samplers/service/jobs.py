"""A request on its way: what has been drawn of it so far, and what its next step brought."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from klimb.experience.samples import FinishReason
from klimb.samplers.completion import Completion
from klimb.samplers.service.requests import DrawnToken, DrawRequest, OnEnd, OnToken


@dataclass(eq=False)
class Job:
    """A request that was submitted.

    Attributes:
        request: what is to be drawn.
        on_token: called with each token.
        on_end: called with the whole.
        drawn: the tokens so far, all of which were handed over.
        is_over: nothing more is to be handed over: it ended, or was cancelled by any thread.
    """

    request: DrawRequest
    on_token: OnToken
    on_end: OnEnd
    drawn: list[DrawnToken] = field(default_factory=list)
    is_over: bool = False

    @property
    def drawn_ids(self) -> list[int]:
        """Ids of the tokens so far."""
        return [token.token_id for token in self.drawn]

    @property
    def length(self) -> int:
        """Tokens of the prompt and the answer so far."""
        return len(self.request.prompt_ids) + len(self.drawn)

    def completion(self, finish_reason: FinishReason) -> Completion:
        """Return the whole answer."""
        support = tuple(token.support for token in self.drawn if token.support is not None)
        return Completion(
            response_ids=tuple(self.drawn_ids),
            log_mu=tuple(token.log_mu for token in self.drawn),
            log_model=tuple(token.log_model for token in self.drawn),
            finish_reason=finish_reason,
            support=support or None,
            top=tuple(token.top for token in self.drawn) if self.request.num_top_log_probs else None,
        )


@dataclass(frozen=True)
class Step:
    """What happened to a job.

    Attributes:
        job: whose step it is.
        token: its next one; None where none was drawn.
        end: why the answer is over with this step, or what kept it from going on; None where it goes on.
    """

    job: Job
    token: DrawnToken | None = None
    end: FinishReason | Exception | None = None


@runtime_checkable
class DrawBatch(Protocol):
    """Draws several jobs at once.

    Attributes:
        max_jobs: at once, at most.
    """

    max_jobs: int

    @property
    def num_reused_tokens(self) -> int:
        """Tokens of prompts that were not read, since their states were there already."""
        ...

    def choose(self, waiting: Sequence[Job]) -> list[Job]:
        """Return those that may begin now, of all that wait; quick, and changes nothing."""
        ...

    def enter(self, jobs: Sequence[Job]) -> None:
        """Begin these, which were chosen, or go on with them behind what was drawn of them."""
        ...

    def remove(self, jobs: Sequence[Job]) -> None:
        """Stop drawing these."""
        ...

    def advance(self) -> list[Step]:
        """One pass through the model; what it brought."""
        ...

    def tidy(self) -> None:
        """Put away what is left of those that are over; called when they were told."""
        ...

    def clear(self) -> bool:
        """Forget all jobs and whatever takes memory; True if some of it belonged to no job."""
        ...
