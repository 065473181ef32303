"""What the user states about a file. Nothing in it is guessed from the rows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

LogProbKind = Literal["raw", "processed"]
"""`raw`: of the model before temperature and truncation, as servers log by default. `processed`: after them."""


@dataclass(frozen=True, kw_only=True)
class ImportRules:
    """How rows become samples.

    Attributes:
        columns: our name of a column -> its name in the file.
        scale: (lowest, highest) rating; ratings become (value − lowest)/(highest − lowest).
        value_map: text of a rating -> its value; with it, no other text is a rating.
        sampling: settings that the user states for what a request does not say, e.g. `{"temperature": 1.0}`.
        log_probs: what the file's log-probabilities are of.
        max_reward: a reward of larger magnitude is rejected.
        max_tokens: more prompt and response tokens than this are rejected; None asks nothing.
        num_vocab: token ids from here on are rejected; None knows no vocabulary.
        keep_users: user ids stay as they are; else they are hashed with `salt`.
        salt: kept with the store, so that a user has one hash in all files.
        resolve: token byte strings -> token ids, ValueError if one of them is not a token; None without a model.
        tokenizer: fingerprint of the tokenizer behind `resolve`.
        score_name: keep the scores of this name alone.
        now: seconds since the epoch; later rows are rejected.
    """

    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    scale: tuple[float, float] | None = None
    value_map: Mapping[str, float] = field(default_factory=dict[str, float])
    sampling: Mapping[str, float] = field(default_factory=dict[str, float])
    log_probs: LogProbKind = "raw"
    max_reward: float = math.inf
    max_tokens: int | None = None
    num_vocab: int | None = None
    keep_users: bool = False
    salt: bytes = b""
    resolve: Callable[[Sequence[bytes]], tuple[int, ...]] | None = None
    tokenizer: str = ""
    score_name: str = ""
    now: float = math.inf

    def __post_init__(self) -> None:
        if self.scale is not None and not self.scale[0] < self.scale[1]:
            raise ValueError(f"a scale goes from the lowest to the highest rating, got {self.scale[0]} {self.scale[1]}")
        if not self.max_reward > 0:
            raise ValueError(f"max_reward must be > 0, got {self.max_reward}")
        unknown = set(self.sampling) - set(SAMPLING_NAMES)
        if unknown:
            raise ValueError(f"sampling settings are {', '.join(SAMPLING_NAMES)}, got {', '.join(sorted(unknown))}")


SAMPLING_NAMES = ("temperature", "top_p", "top_k", "min_p", "max_new_tokens")
