"""Turns that are written down, in place of a model: what a model may do well and badly with the lock."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from klimb.experience import SamplingSettings
from klimb.policies import Policy
from klimb.samplers import Completion

BEGIN = "<|im_start|>assistant"
RESULT = re.compile(r"<tool_response>\n(.*)\n</tool_response>|<\|im_start\|>tool\n(.*)<\|im_end\|>")


def call(name: str, arguments: str) -> str:
    """Return a call as the Hermes format writes it."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


OPENINGS = (
    call("turn", '{"to": 5}'),
    "I look first.\n" + call("describe", "{}"),
    "No.",
    call("turn", '{"to": 2}') + "\n" + call("turn", '{"to": 8}'),
    call("pick", '{"with": "a pin"}'),
    call("turn", '{"to": 12}'),
)
"""First turns that both trainers take in the same way."""


ODD_OPENINGS = ('<tool_call>\n{"name": "turn", "arguments": {"to": 5}\n</tool_call>', call("turn", '{"to": "five"}'))
"""First turns that they take differently: a call that is no JSON, and an argument of another type."""


def results_of(history: str) -> list[str]:
    """Return what the tools have said in a conversation, as the model reads it."""
    return ["".join(found) for found in RESULT.findall(history)]


def search(history: str) -> str:
    """Return the turn that follows: further numbers until the lock is open or jammed."""
    results = results_of(history)
    if {"open", "jammed"} & {*results}:
        return "Done."
    return call("turn", f'{{"to": {3 * len(results) % 9 + 1}}}')


class Actor:
    """Draws what is written down: the i-th of equal prompts has the i-th opening.

    Args:
        tokenizer: of the model that it stands in for.
        openings: the first turns.
        go_on: what is said in the turns after it, from the conversation as the model reads it.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        openings: Sequence[str] = OPENINGS,
        go_on: Callable[[str], str] = search,
    ) -> None:
        self._tokenizer, self._openings, self._go_on = tokenizer, openings, go_on

    def draw(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the ids of a turn for each prompt, its end included."""
        seen: Counter[tuple[int, ...]] = Counter()
        turns: list[list[int]] = []
        for prompt in map(tuple, prompts):
            opening = self._openings[seen[prompt] % len(self._openings)]
            seen[prompt] += 1
            history = str(self._tokenizer.decode([*prompt]))
            text = opening if history.count(BEGIN) == 1 else self._go_on(history)
            turns.append([*self._tokenizer.encode(text, add_special_tokens=False), self._end])
        return turns

    @property
    def _end(self) -> int:
        end = self._tokenizer.eos_token_id
        assert isinstance(end, int)
        return end


class ActingSampler:
    """A sampler of klimb's whose turns are an actor's.

    Args:
        policy: in whose place the actor stands.
        actor: says the turns.
        is_read: whether the policy reads each turn for its log-probabilities; else those of a uniform draw are stated,
            which costs nothing, and is about right for a random model.
    """

    def __init__(self, policy: Policy, actor: Actor, *, is_read: bool = True) -> None:
        self._policy, self._actor, self._is_read = policy, actor, is_read

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> list[list[Completion]]:
        """Return the turns as completions."""
        repeated = [prompt for prompt in prompts for _ in range(num_samples)]
        turns = [self._complete(*pair) for pair in zip(repeated, self._actor.draw(repeated), strict=True)]
        return [turns[start : start + num_samples] for start in range(0, len(turns), num_samples)]

    def _complete(self, prompt: Sequence[int], turn: Sequence[int]) -> Completion:
        values = self._read(prompt, turn) if self._is_read else (-math.log(len(self._policy.tokenizer)),) * len(turn)
        return Completion(response_ids=tuple(turn), log_mu=values, log_model=values, finish_reason="stop")

    def _read(self, prompt: Sequence[int], turn: Sequence[int]) -> tuple[float, ...]:
        ids = torch.tensor([[*prompt, *turn]])
        with torch.no_grad():
            log_probs = self._policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return tuple(log_probs.gather(1, ids[0, len(prompt) :, None])[:, 0].tolist())
