"""What the training of a reward model can be told. Read without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt

from klimb.declarations import Count, Seed, configurable, require, require_known

Trained = Literal["head", "lora"]


@configurable
@dataclass(frozen=True, kw_only=True)
class RewardModelSettings:
    """What of the model is trained, how, and what is held out."""

    train: Trained = "head"
    """`head` fits a linear head on the model's last hidden state: seconds, one exact solution. `lora` goes on from
    there and trains a low-rank adapter of the body too."""
    seed: Seed = 0
    """Of the split, of the choice of pairs and of the order of `lora`."""
    held_out_fraction: Annotated[float, Gt(0), Le(0.5)] = 0.2
    """Share of the prompts that is not trained on, with all of the same users; it judges the model."""
    max_pairs: Count = 16
    """Of the pairs that the ratings of one prompt make, so many are taken at most, at random. Preferences all count."""
    max_rater_fraction: Annotated[float, Gt(0), Le(1)] = 1.0
    """One named person's share of the ratings, and of the preferences, that count; 1 counts all."""
    rank: Annotated[int, Ge(1), Le(1024)] = 8
    """Rank of the adapter, for `lora`; its scale is 2."""
    learning_rate: Annotated[float, Gt(0), Lt(1)] = 2e-4
    """Of AdamW, for `lora`."""
    weight_decay: Annotated[float, Ge(0), Le(1)] = 0.01
    """Of AdamW, for `lora`."""
    num_epochs: Annotated[int, Ge(1), Le(1_000)] = 2
    """Passes over the judgements, for `lora`."""
    batch_size: Annotated[int, Ge(1), Le(100_000)] = 16
    """Judgements in a step, for `lora`; a pair is one."""

    def __post_init__(self) -> None:
        require_known("train", self.train, get_args(Trained))
        fraction = self.held_out_fraction
        require(0 < fraction <= 0.5, "held_out_fraction", fraction, "in (0, 0.5]: what is not held out cannot judge")
        cap = self.max_rater_fraction
        require(0 < cap <= 1, "max_rater_fraction", cap, "above 0 and at most 1, which counts all")
        for name in ("max_pairs", "rank", "num_epochs", "batch_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), ">= 1")
        require(0 < self.learning_rate < 1, "learning_rate", self.learning_rate, "in (0, 1)")
        require(math.isfinite(self.weight_decay) and self.weight_decay >= 0, "weight_decay", self.weight_decay, ">= 0")
