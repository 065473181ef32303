"""How a policy is served. Read without torch and without fastapi."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from klimb.declarations import Count, Seconds, ShortText, configurable, require

StoreErrorRule = Literal["refuse", "answer"]


@configurable
@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """What requests may ask for, and what is kept of them."""

    name: ShortText = "klimb"
    """The model's name for clients. The policy that answers has its own, which clients may ask for as well."""
    max_batch: Annotated[int, Ge(1), Le(4096)] = 32
    """Answers that are drawn at the same time; others wait."""
    max_waiting: Annotated[int, Ge(1), Le(100_000)] = 256
    """Answers that may wait; a request beyond is told to come again (429)."""
    default_max_tokens: Count = 512
    """Tokens after which an answer is cut where a request does not say it."""
    max_tokens: Count = 4096
    """The most that a request may ask for."""
    max_choices: Annotated[int, Ge(1), Le(1024)] = 16
    """The largest `n` of a request."""
    max_top_log_probs: Annotated[int, Ge(0), Le(1000)] = 20
    """The largest `top_logprobs` of a request."""
    on_store_error: StoreErrorRule = "refuse"
    """What is done with an answer that cannot be written to the store: `refuse` sends an error that says so, `answer`
    sends it all the same. /health says it in both cases."""
    commit_seconds: Annotated[float, Ge(0), Le(10)] = 0.02
    """Answers that end within this time are written to the disk together."""
    watch_seconds: Annotated[float, Gt(0), Le(3600)] = 1.0
    """Between two looks at the deployment's file."""
    drain_seconds: Seconds = 30.0
    """How long requests in flight may take to end once the server is told to stop."""
    max_conversations: Count = 10_000
    """Turns that are remembered, so that a longer conversation is known as the continuation of a shorter one."""
    log_requests: bool = False
    """Write prompts and answers to the log, beside the store."""

    def __post_init__(self) -> None:
        require(
            self.default_max_tokens <= self.max_tokens,
            "default_max_tokens",
            self.default_max_tokens,
            f"at most max_tokens = {self.max_tokens}",
        )
