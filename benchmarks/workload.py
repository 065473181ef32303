"""What a step benchmark trains on: prompts of an exact length, and a reward that always differs.

Every response has its own reward, a checksum of its text, so no group is without a spread: both sides of a comparison
train on every token that they draw. With `learning`, the problems are one-digit sums and the reward is theirs.
"""

import dataclasses
import json
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from klimb.experience import Message
from klimb.tasks import Problem, ProblemSet, Response, Score, arithmetic

NEVER = 1_000_000
"""Steps that no benchmark reaches."""

QUESTION = "Go on:"

Render = Callable[[Sequence[Message]], Sequence[int]]

CASES: Mapping[str, Mapping[str, int]] = {
    "short": {"num_prompts": 8, "prompt_tokens": 40, "response_tokens": 16},
    "medium": {"num_prompts": 8, "prompt_tokens": 40, "response_tokens": 64},
    "long": {"num_prompts": 4, "prompt_tokens": 512, "response_tokens": 64},
}
"""Sizes of the comparison; groups of 8 everywhere."""

LEARNING = {"num_prompts": 16, "response_tokens": 16, "learning_rate": 1e-5}
"""One-digit addition; about four minutes to learn on two cores."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One batch and what is done with it; plain values, so that processes can hand it over.

    Attributes:
        model: a name or a path that `load_policy` takes.
        dtype: of matrix products; weights are float32.
        prompt_tokens: of every prompt, the chat template's included; unused with `learning`.
        response_tokens: of every response, exactly; at most so many with `learning`.
        num_epochs: optimizer steps on each batch, all of it each time.
        reference: `fixed` scores each response under the initial weights.
        micro_batch_tokens: klimb's; 0 leaves it at its default.
        checkpointing: whether klimb computes activations again in the backward pass; see `Policy`.
        threads: of torch; 0 leaves it at its default.
    """

    model: str = "smollm2-135m"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    num_prompts: int = 8
    group_size: int = 8
    prompt_tokens: int = 40
    response_tokens: int = 16
    num_epochs: int = 1
    reference: Literal["none", "fixed"] = "none"
    recipe: str = "grpo"
    learning_rate: float = 1e-6
    learning: bool = False
    micro_batch_tokens: int = 0
    checkpointing: Literal["auto", "never", "always"] = "auto"
    threads: int = 0
    seed: int = 0

    @property
    def num_responses(self) -> int:
        """Rows of a batch."""
        return self.num_prompts * self.group_size

    def to_json(self) -> str:
        """Return the fields that are not at their default: another version may lack some of the others."""
        defaults = dataclasses.asdict(Workload())
        return json.dumps({name: value for name, value in dataclasses.asdict(self).items() if value != defaults[name]})

    @classmethod
    def from_json(cls, text: str) -> "Workload":
        """Return what `to_json` wrote."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        """One line for the head of a result."""
        sizes = f"{self.num_prompts} x {self.group_size} x ({self.prompt_tokens} + {self.response_tokens}) tokens"
        if self.learning:
            sizes = (
                f"one-digit addition, {self.num_prompts} x {self.group_size} x at most {self.response_tokens} tokens"
            )
        return f"{self.model}, {sizes}, {self.num_epochs} epochs, reference {self.reference}, {self.dtype}"


@dataclass(frozen=True)
class Checksum:
    """A reward in [0, 1) that says nothing and differs from text to text."""

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the checksum of the text as a fraction of the largest one."""
        return Score(reward=zlib.crc32(response.text.encode()) / 2**32)


def make_task(workload: Workload, render: Render) -> ProblemSet:
    """Return the problems of every step: as many as a step takes, or the training side of one-digit addition."""
    if workload.learning:
        return arithmetic(operators="+", digits=1, seed=workload.seed)
    generator = random.Random(workload.seed)
    problems = tuple(
        Problem(problem_id=f"p{number}", messages=prompt_of(render, workload.prompt_tokens, generator), answer="")
        for number in range(workload.num_prompts)
    )
    return ProblemSet(name="checksum", train=problems, held_out=(), score=Checksum(), trusted=True)


def prompt_of(render: Render, num_tokens: int, generator: random.Random) -> tuple[Message, ...]:
    """Return a question that is `num_tokens` long as rendered: random digits, each of which is a token.

    Raises:
        ValueError: the chat template alone is longer, or the tokenizer merges digits.
    """
    template = len(render(({"role": "user", "content": QUESTION},)))
    digits = "".join(generator.choices("0123456789", k=max(0, num_tokens - template)))
    messages: tuple[Message, ...] = ({"role": "user", "content": QUESTION + digits},)
    if len(render(messages)) != num_tokens:
        raise ValueError(
            f"a prompt of {num_tokens} tokens came out {len(render(messages))} long; ask for more than the {template} "
            "of the chat template, from a model whose tokenizer splits digits"
        )
    return messages


@dataclass(frozen=True, kw_only=True)
class Phases:
    """Seconds of one step.

    Attributes:
        sample: drawing tokens.
        score: rewards, and forward passes without gradient: the reference, old log-probabilities.
        update: all the rest: batches, forward and backward passes, the optimizer, metrics.
    """

    sample: float
    score: float
    update: float

    @property
    def total(self) -> float:
        """Of the whole step."""
        return self.sample + self.score + self.update
