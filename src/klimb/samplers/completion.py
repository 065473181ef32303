"""One drawn response, with what is known of each of its tokens. Without torch, so that servers name it at no cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from klimb.experience.samples import FinishReason


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One drawn response. Position t of each field belongs to token t.

    Attributes:
        response_ids: the drawn tokens, the one that ended the response included when `finish_reason` is `stop`.
        log_mu: log-probability in nats of each token under the distribution it was really drawn from.
        log_model: log-probability in nats under the policy itself: at its own temperature, nothing cut off. It equals
            `log_mu` when that is what is drawn from, and is the one to compare with a trainer's log-probabilities.
        finish_reason: `stop` when an end token or a stop string ended the text, `length` when `max_new_tokens` cut it.
        support: ids of the tokens that could be drawn, for each of `response_ids`; None where all could, or nobody
            asked for it.
        top: ids and log-probabilities under the policy itself of the likeliest tokens, in descending order, for each of
            `response_ids`; None where nobody asked for it.
    """

    response_ids: tuple[int, ...]
    log_mu: tuple[float, ...]
    log_model: tuple[float, ...]
    finish_reason: FinishReason
    support: tuple[tuple[int, ...], ...] | None = None
    top: tuple[tuple[tuple[int, float], ...], ...] | None = None

    def __post_init__(self) -> None:
        lengths = (len(self.response_ids), len(self.log_mu), len(self.log_model))
        if len(set(lengths)) != 1:
            raise ValueError(f"response_ids, log_mu and log_model must be equally long, got lengths {lengths}")
        for name, of_tokens in (("support", self.support), ("top", self.top)):
            if of_tokens is not None and len(of_tokens) != len(self.response_ids):
                raise ValueError(f"{name} must be as long as response_ids, {lengths[0]}, got {len(of_tokens)}")


def cut_at_stop(text: str, stop: Sequence[str]) -> int:
    """Return where the first stop string begins; the length of the text if it holds none."""
    return min((place for each in stop if (place := text.find(each)) >= 0), default=len(text))
