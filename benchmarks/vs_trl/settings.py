"""What may be tuned on TRL's side."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrlSettings:
    """What may be tuned without changing what is computed, and the dtype of the weights.

    Attributes:
        micro_batch: rows that go through the model at once while training and scoring.
        weights: dtype of the trained weights. bfloat16 is faster and loses steps as small as those of RL; klimb's are
            float32, and so are these unless told otherwise.
        keep_memory: set the C library's allocator as klimb does.
        cache: of keys and values while generating.
    """

    attention: Literal["sdpa", "eager"] = "sdpa"
    micro_batch: int = 16
    weights: Literal["float32", "bfloat16"] = "float32"
    keep_memory: bool = True
    cache: Literal["dynamic", "static"] = "dynamic"

    def to_json(self) -> str:
        """All fields."""
        return json.dumps(dataclasses.asdict(self))

    def __str__(self) -> str:
        """One line for the head of a result."""
        allocator = "keeps freed memory" if self.keep_memory else "default allocator"
        return (
            f"{self.attention} attention, micro-batch {self.micro_batch}, {self.weights} weights, {allocator}, "
            f"{self.cache} cache"
        )
