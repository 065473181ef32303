"""The vocabulary of experience: what was asked, what was answered, and who produced it.

A sample is one response: what the policy said in one turn or in several, with what others said in between. Its
behaviour log-probabilities `log_mu` never travel without their provenance, because a ratio computed from the wrong ones
is silently wrong.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from annotated_types import Ge, Gt, Le, Lt, MaxLen

from klimb.declarations import FromList, ShortText, configurable

Provenance = Literal["sampler", "recomputed", "estimated", "absent"]
"""Where `log_mu` comes from: recorded while drawing, scored again by the same weights, guessed, or not known."""


Source = Literal["rollout", "replay", "log", "feedback"]


FinishReason = Literal["stop", "length", "unknown"]
"""`stop`: the model ended its text (by its end token or a stop string, which is part of the response). `length`: it was
cut off. `unknown`: who recorded it did not say; never what a sampler of ours reports."""


MOST_STOP_STRINGS, LONGEST_STOP_STRING = 16, 200


LEAST_PENALTY, MOST_PENALTY = 0.01, 100.0
"""Beyond these float32 logits over the penalty may be no numbers."""


MOST_REWARD = 1e15
"""Largest magnitude of a reward. Squares of rewards, and sums of those over any batch, are then numbers in float32."""


class Message(TypedDict):
    """One chat message. `role` is `system`, `user`, `assistant` or `tool`.

    `tool_calls` of an assistant are in OpenAI's form, `{"type": "function", "function": {"name", "arguments"}}` with an
    object of arguments; `name` is that of the tool whose result the message is.
    """

    role: str
    content: str
    tool_calls: NotRequired[Sequence[Mapping[str, Any]]]
    name: NotRequired[str]


@configurable
@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How tokens are drawn; together with the weights they define the behaviour policy μ."""

    temperature: Annotated[float, Ge(0), Le(100)] = 1.0
    """Softmax temperature; 0 draws the likeliest token (a point mass: its log_mu is 0), and training needs more."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Keep the smallest set of tokens whose probability reaches this; 1 keeps all."""
    top_k: Annotated[int, Ge(0), Le(1_000_000)] = 0
    """Keep this many most likely tokens; 0 keeps all."""
    min_p: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Keep tokens at least this share as likely as the likeliest; 0 keeps all."""
    max_new_tokens: Annotated[int, Ge(1), Le(1_000_000)] = 64
    """An answer is cut after this many tokens."""
    min_new_tokens: Annotated[int, Ge(0), Le(1_000_000)] = 0
    """End tokens cannot be drawn before an answer has this many tokens; a stop string may end it earlier. Above 0, what
    is drawn is not drawn from the policy itself."""
    repetition_penalty: Annotated[float, Ge(LEAST_PENALTY), Le(MOST_PENALTY)] = 1.0
    """Logits of tokens that the prompt or the answer holds already are divided by this if positive, multiplied if
    negative, before the temperature; 1 changes nothing. With another value, what is drawn is not drawn from the policy
    itself."""
    stop: Annotated[tuple[ShortText, ...], FromList(), MaxLen(MOST_STOP_STRINGS)] = ()
    """Texts that end an answer, as its end token does: with the token that completes one. The answer keeps it.
    Special tokens have no text here."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature must be finite and >= 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}; 1 keeps every token")
        if not 0 <= self.top_k < 2**63:
            raise ValueError(f"top_k must be >= 0, got {self.top_k}; 0 keeps every token")
        if not 0 <= self.min_p < 1:
            raise ValueError(f"min_p must be in [0, 1), got {self.min_p}; 0 keeps every token")
        if not 1 <= self.max_new_tokens < 2**63:
            raise ValueError(f"max_new_tokens must be >= 1, got {self.max_new_tokens}")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens must be in 0 to max_new_tokens = {self.max_new_tokens}, got {self.min_new_tokens}"
            )
        if not LEAST_PENALTY <= self.repetition_penalty <= MOST_PENALTY:
            raise ValueError(
                f"repetition_penalty must be in [{LEAST_PENALTY:g}, {MOST_PENALTY:g}], got {self.repetition_penalty}; "
                "1 changes nothing"
            )
        self._check_stop()

    def _check_stop(self) -> None:
        if isinstance(self.stop, str):
            raise ValueError(f"stop must be a tuple of texts, got {self.stop!r}; write ({self.stop!r},)")
        if len(self.stop) > MOST_STOP_STRINGS:
            raise ValueError(f"stop must hold at most {MOST_STOP_STRINGS} texts, got {len(self.stop)}")
        for text in self.stop:
            if not 1 <= len(text) <= LONGEST_STOP_STRING:
                raise ValueError(f"a stop string must have 1 to {LONGEST_STOP_STRING} characters, got {len(text)}")
            if "\N{REPLACEMENT CHARACTER}" in text:
                raise ValueError("a stop string holds the replacement character, which is no character of an answer")

    @property
    def is_untruncated(self) -> bool:
        """True when any token can be drawn: a temperature above 0, nothing cut off, not even the end."""
        return not self.cuts and self.temperature > 0

    @property
    def cuts(self) -> tuple[str, ...]:
        """Names of the settings by which some tokens cannot be drawn; the temperature aside."""
        nothing = {"top_p": 1, "top_k": 0, "min_p": 0, "min_new_tokens": 0}
        return tuple(name for name, value in nothing.items() if getattr(self, name) != value)

    @property
    def has_support(self) -> bool:
        """True where top-p, top-k or min-p leave a set of tokens that can be drawn, which is worth recording."""
        return self.temperature > 0 and bool({"top_p", "top_k", "min_p"} & {*self.cuts})

    @property
    def changes(self) -> tuple[str, ...]:
        """Names of the settings that make another distribution of softmax(logits / temperature)."""
        return self.cuts if self.repetition_penalty == 1 else (*self.cuts, "repetition_penalty")

    @property
    def scoring_temperature(self) -> float:
        """The temperature at which a model's log-probability compares with μ: its own, and 1 for a point mass."""
        return self.temperature or 1.0

    def draws_at(self, temperature: float, *, on_support: bool = False) -> bool:
        """Return True when μ is softmax(logits / temperature) itself: π, for a policy of that temperature.

        Args:
            temperature: of the policy.
            on_support: which tokens could be drawn is recorded, and π is meant renormalised on them: then no cut
                matters.
        """
        changes = tuple(name for name in self.changes if name not in self.cuts) if on_support else self.changes
        return not changes and self.temperature == temperature and temperature > 0


POLICY_ROLE = "assistant"
"""The role of the turns that the policy drew."""


SERVED_BY = "served_by"
"""In the metadata of a sample that `klimb serve` recorded: the deployment's name."""


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A tool that the policy asked for.

    Attributes:
        name: of the tool.
        arguments: a JSON object, as text.
    """

    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of a response: a span of its tokens.

    Attributes:
        role: `assistant` is what the policy drew. Others (`tool`, `user`, `system`) are context: they were put in, and
            nothing is learnt from their tokens.
        text: of the message. A drawn turn's is decoded with its special tokens, but for the one that ended it.
        num_tokens: of the response, behind those of the turns before. The template's own text around a context turn
            counts as its. Of several context turns in a row the first has all tokens.
        finish_reason: of a drawn turn.
        seconds: that it took: to draw, or until the tool had answered.
        reward: of this turn alone, part of the sample's; None where there is none.
        calls: tools that a drawn turn asked for.
        name: of the tool that answered.
        error: what went wrong: of a drawn turn why its calls could not be read, of a tool's why it failed.

    Raises:
        ValueError: a turn with fewer than 0 tokens, or without a role.
    """

    role: str
    text: str
    num_tokens: int
    finish_reason: FinishReason = "unknown"
    seconds: float | None = None
    reward: float | None = None
    calls: tuple[ToolCall, ...] = ()
    name: str = ""
    error: str = ""

    def __post_init__(self) -> None:
        if self.num_tokens < 0:
            raise ValueError(f"a turn has at least 0 tokens, got {self.num_tokens}")
        if not self.role:
            raise ValueError("a turn needs a role: 'assistant', 'tool', 'user' or 'system'")

    @property
    def is_drawn(self) -> bool:
        """True for a turn of the policy."""
        return self.role == POLICY_ROLE


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One response with everything a loss, a report or an auditor needs to know of it.

    The response is one sequence of tokens. In a conversation some of them were not drawn but put in: results of tools,
    a user's turns, and the chat template's own text around them. They are context, as the prompt is.

    Attributes:
        sample_id: unique within a store.
        group_id: responses to the same prompt drawn together share it; baselines are computed within it.
        prompt: the chat messages.
        prompt_ids: token ids of the rendered prompt; empty when only the text was recorded.
        response: what the policy said: decoded, without special tokens. Of several turns the texts, with an empty line
            between.
        response_ids: token ids, the end token or the last token of a stop string included when `finish_reason` is
            `stop`; empty when only the text was recorded.
        finish_reason: of the last turn that the policy drew.
        reward: None when no reward could be computed; such a sample is never averaged in.
        reward_parts: named parts, e.g. `{"correct": 1.0, "overlong": -0.2}`.
        reward_reason: one line for people: why this reward.
        log_mu: log-probability in nats of each drawn token under μ, settings included; None when absent. It has a value
            for each of `drawn_ids`; of a response of one turn those are all.
        log_ref: log-probability (log-mass, if unnormalised) of each drawn token under the reference, once scored.
        support: ids of the tokens that could be drawn, the drawn one among them, for each of `drawn_ids`, where top-k,
            top-p or min-p cut the others off and it was recorded which; None otherwise. μ is then 0 outside of it.
        policy_version: number of optimiser steps the sampling weights had seen.
        created_at: seconds since the epoch.
        tokenizer: fingerprint of the tokenizer that the ids belong to (`Policy.fingerprint`); empty when not known.
        raw: the row that an importer made this sample from, as JSON, so that any mapping can be redone.
        turns: the response's parts in their order; empty when it is one turn of the policy. `conversation` has them
            always.
        tools: schemas of the tools that were offered, as a JSON list; empty for none.
        episode: shared by samples that are turns of one conversation, where the chat template rewrites what was said
            before, so that each turn has a prompt of its own; empty when the sample is the whole conversation.
    """

    sample_id: str
    group_id: str
    prompt: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    response: str
    response_ids: tuple[int, ...]
    finish_reason: FinishReason
    reward: float | None = None
    reward_parts: Mapping[str, float] = field(default_factory=dict[str, float])
    reward_reason: str = ""
    log_mu: tuple[float, ...] | None = None
    log_mu_provenance: Provenance = "absent"
    log_ref: tuple[float, ...] | None = None
    sampling: SamplingSettings | None = None
    model: str = ""
    policy_version: int = 0
    source: Source = "rollout"
    created_at: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    tokenizer: str = ""
    raw: str = ""
    turns: tuple[Turn, ...] = ()
    tools: str = ""
    episode: str = ""
    support: tuple[tuple[int, ...], ...] | None = None

    @cached_property
    def conversation(self) -> tuple[Turn, ...]:
        """The turns of the response; one of the policy where no others are recorded."""
        if self.turns:
            return self.turns
        length, text = len(self.response_ids), self.response
        return (Turn(role=POLICY_ROLE, text=text, num_tokens=length, finish_reason=self.finish_reason),)

    @cached_property
    def is_drawn(self) -> tuple[bool, ...]:
        """Whether the policy drew each of the response's tokens."""
        return tuple(turn.is_drawn for turn in self.conversation for _ in range(turn.num_tokens))

    @property
    def num_drawn(self) -> int:
        """Number of tokens that the policy drew."""
        if not self.turns:
            return len(self.response_ids)
        return sum(turn.num_tokens for turn in self.turns if turn.is_drawn)

    @property
    def drawn_ids(self) -> tuple[int, ...]:
        """The tokens that the policy drew, those of all its turns one after another."""
        if not self.turns:
            return self.response_ids
        return tuple(token for token, drawn in zip(self.response_ids, self.is_drawn, strict=True) if drawn)

    @property
    def drawn_turns(self) -> tuple[tuple[Turn, tuple[int, ...]], ...]:
        """Each turn of the policy with its tokens."""
        found: list[tuple[Turn, tuple[int, ...]]] = []
        begin = 0
        for turn in self.conversation:
            end = begin + turn.num_tokens
            if turn.is_drawn:
                found.append((turn, self.response_ids[begin:end]))
            begin = end
        return tuple(found)

    def draws_at(self, temperature: float) -> bool:
        """Return True when μ is π, for a policy of that temperature: on the recorded support where there is one."""
        return self.sampling is not None and self.sampling.draws_at(temperature, on_support=self.support is not None)

    @property
    def lacks_support(self) -> bool:
        """True where some tokens could not be drawn, and no ratio can know which: a greedy draw, or one cut off."""
        if self.sampling is None or self.sampling.is_untruncated:
            return False
        return self.sampling.temperature == 0 or self.support is None

    def __post_init__(self) -> None:
        if self.turns:
            self._check_turns()
        if (self.log_mu is None) != (self.log_mu_provenance == "absent"):
            raise ValueError(
                f"sample {self.sample_id}: log_mu is {'absent' if self.log_mu is None else 'given'} but its "
                f"provenance is {self.log_mu_provenance!r}; state where the log-probabilities come from"
            )
        for name in ("log_mu", "log_ref"):
            values = getattr(self, name)
            if values is not None and len(values) != self.num_drawn:
                raise ValueError(
                    f"sample {self.sample_id}: {name} has {len(values)} values for {self.num_drawn} "
                    f"{'drawn' if self.turns else 'response'} tokens; position t must hold the log-probability of "
                    "token t"
                )
        if self.support is not None:
            self._check_support(self.support)

    def _check_support(self, support: tuple[tuple[int, ...], ...]) -> None:
        if len(support) != self.num_drawn:
            raise ValueError(
                f"sample {self.sample_id}: support has {len(support)} sets for {self.num_drawn} drawn tokens; "
                "position t must hold the tokens that could be drawn as token t"
            )
        for position, (token, kept) in enumerate(zip(self.drawn_ids, support, strict=True)):
            if len(set(kept)) < len(kept):
                raise ValueError(
                    f"sample {self.sample_id}: the support at position {position} names {len(kept)} tokens, and only "
                    f"{len(set(kept))} different ones; name each token once"
                )
            if token not in kept:
                raise ValueError(
                    f"sample {self.sample_id}: token {token} was drawn at position {position} and is not in its "
                    f"support of {len(kept)} tokens; what was drawn could be drawn"
                )

    def _check_turns(self) -> None:
        num_tokens = sum(turn.num_tokens for turn in self.turns)
        if num_tokens != len(self.response_ids):
            raise ValueError(
                f"sample {self.sample_id}: its turns have {num_tokens} tokens together and the response has "
                f"{len(self.response_ids)}; each token belongs to one turn"
            )
        if not any(turn.is_drawn for turn in self.turns):
            roles = ", ".join(dict.fromkeys(turn.role for turn in self.turns))
            raise ValueError(
                f"sample {self.sample_id}: none of its turns is the policy's ({roles}): it has no response"
            )
