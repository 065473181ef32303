"""Conversations of the policy with environments: its turns are drawn, read, answered, and become samples.

What was drawn is never encoded again. The next turn's prompt is the history's ids, and the chat template's own text for
what came in. Where the template would render that history otherwise (it drops earlier thoughts, say), the next turn
begins a sample of its own, with the history as the template renders it as its prompt.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch

from klimb.experience import Message, Sample, SamplingSettings, Turn
from klimb.experience.samples import POLICY_ROLE
from klimb.findings.conversations import ENDED, ENVIRONMENT_ERROR
from klimb.policies import Policy
from klimb.policies.stability import Stability
from klimb.policies.tokenizer import PromptError
from klimb.policies.turns import (
    history_is_kept,
    ids_between,
    message_of_turn,
    opened_thought,
    rendered_history,
)
from klimb.samplers import Completion, ConversationSampler, Dialogue, Sampler, converse_in_rounds
from klimb.samplers.sampler import Answer
from klimb.tasks import Problem, Response, Score
from klimb.tasks.environments import Environments, Episode, Outcome, Reply
from klimb.training.completions import attach_draws
from klimb.training.response_scorer import CountingScorer, ResponseScorer


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A prompt, and what was drawn and put in behind it without the history being rewritten."""

    prompt: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    dialogue: Dialogue
    turns: tuple[Turn, ...]
    tools: tuple[Mapping[str, Any], ...] | None = None
    """Schemas of what could be called; None: those of the conversation."""

    def complete(self, template: Sample, *, with_log_model: bool) -> Sample:
        """Return the template as the sample of this segment."""
        drawn = self.dialogue.turns
        said = replace(
            template if self.tools is None else replace(template, tools=_schemas_as_text(self.tools)),
            prompt=self.prompt,
            prompt_ids=self.prompt_ids,
            response="\n\n".join(turn.text for turn in self.turns if turn.is_drawn),
            response_ids=self.dialogue.response_ids,
            finish_reason=drawn[-1].finish_reason,
            turns=self.turns,
        )
        return attach_draws(said, drawn, with_log_model=with_log_model)


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A conversation that is over.

    Attributes:
        prompt: with what the environment opened with.
        prompt_ids: of the first turn.
        segments: one, unless the history was rewritten; none where nothing could be drawn.
        messages: all that came behind the prompt.
        ended: what ended it, see `ENDED`.
        outcome: of the environment.
        turn_reward: the rewards of its turns, together: parts of the environment's own where it has one.
        tools: schemas of what could be called.
        marks: further metadata of its samples.
    """

    prompt: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    segments: tuple[Segment, ...]
    messages: tuple[Message, ...]
    ended: str
    outcome: Outcome
    turn_reward: float | None
    tools: tuple[Mapping[str, Any], ...]
    marks: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def response(self) -> Response:
        """What is scored: the last turn, with all that was said."""
        drawn = [turn for segment in self.segments for turn in segment.turns if turn.is_drawn]
        own = self.outcome.reward
        return Response(
            text=drawn[-1].text if drawn else "",
            num_tokens=sum(turn.num_tokens for turn in drawn),
            finish_reason=drawn[-1].finish_reason if drawn else "unknown",
            messages=self.messages,
            environment=self.outcome.view,
            environment_reward=self.turn_reward if own is None else own,
        )

    @property
    def why_unscored(self) -> str:
        """Why there is nothing to score; empty where there is."""
        if self.outcome.error:
            return f"its environment is lost: {self.outcome.error}"
        return "" if self.segments else f"nothing could be drawn ({self.ended})"

    def samples(self, template: Sample, *, with_log_model: bool) -> list[Sample]:
        """Return the samples of the conversation; `template` has its id and what they share."""
        marks = {ENDED: self.ended} | ({ENVIRONMENT_ERROR: self.outcome.error} if self.outcome.error else {})
        shared = replace(
            template,
            prompt=self.prompt,
            prompt_ids=self.prompt_ids,
            metadata={**template.metadata, **self.marks, **marks},
            tools=_schemas_as_text(self.tools),
        )
        if not self.segments:
            return [replace(shared, finish_reason="unknown")]
        if len(self.segments) == 1:
            return [self.segments[0].complete(shared, with_log_model=with_log_model)]
        name = shared.sample_id
        return [
            segment.complete(
                replace(shared, sample_id=f"{name}-t{number:02d}", episode=name), with_log_model=with_log_model
            )
            for number, segment in enumerate(self.segments)
        ]


def _schemas_as_text(tools: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(tools, ensure_ascii=False) if tools else ""


@runtime_checkable
class Talks(Protocol):
    """Whatever lets the policy talk, and says what came of it."""

    def hold(
        self,
        problems: Sequence[Problem],
        *,
        seeds: Sequence[int],
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> list[Conversation]:
        """Return a conversation on each problem; the arguments are those of `Dialogues.hold`."""
        ...


def score_conversations(
    scorer: ResponseScorer, problems: Sequence[Problem], held: Sequence[Conversation]
) -> list[Score]:
    """Return a score for each conversation; one whose environment is lost, or that has no turn, has no reward.

    The scorer counts those too, so that a run whose environments all fail ends as one whose rewards do.
    """
    asked = [place for place, each in enumerate(held) if not each.why_unscored]
    found = scorer.score_many([problems[place] for place in asked], [held[place].response for place in asked])
    scores = dict(zip(asked, found, strict=True))
    count = scorer.count if isinstance(scorer, CountingScorer) else None
    for place, each in enumerate(held):
        if each.why_unscored:
            lost = Score(reward=None, reason=each.why_unscored)
            scores[place] = lost if count is None else count(lost)
    return [scores[place] for place in range(len(held))]


def draw_turns(
    policy: Policy,
    sampler: Sampler,
    prompts: Sequence[Sequence[int]],
    *,
    settings: SamplingSettings,
    generator: torch.Generator,
    answer: Answer,
    max_turns: int,
) -> Iterator[tuple[int, Dialogue]]:
    """Yield each prompt's number with what was said behind it, in the order in which they end.

    A sampler that only samples draws in rounds.
    """
    if isinstance(sampler, ConversationSampler):
        return sampler.converse(prompts, settings=settings, generator=generator, answer=answer, max_turns=max_turns)
    return converse_in_rounds(
        sampler,
        prompts,
        settings=settings,
        generator=generator,
        answer=answer,
        max_turns=max_turns,
        context=policy.max_positions,
    )


@dataclass(frozen=True, kw_only=True)
class Dialogues:
    """Who talks with whom.

    Attributes:
        policy: renders and decodes; its model draws.
        sampler: draws its turns.
        environments: answer them; running.
        stability: what the chat template does with histories.
    """

    policy: Policy
    sampler: Sampler
    environments: Environments
    stability: Stability

    def hold(
        self,
        problems: Sequence[Problem],
        *,
        seeds: Sequence[int],
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> list[Conversation]:
        """Return a conversation on each problem, its environment seeded by the number beside it.

        Args:
            problems: one a conversation.
            seeds: of the environments.
            settings: of the draws; the limits on tokens are those of a turn.
            generator: of the tokens.
        """
        episodes = self.environments.open(problems, seeds)
        try:
            talks = [
                _Talk(self, problem, episode, settings.max_new_tokens)
                for problem, episode in zip(problems, episodes, strict=True)
            ]
            waiting = [talk for talk in talks if talk.goes_on]
            while waiting:
                for place, dialogue in self._draw(waiting, settings, generator):
                    waiting[place].close_segment(dialogue)
                waiting = [talk for talk in waiting if talk.goes_on]
            outcomes = self.environments.finish(episodes)
        except BaseException:
            for episode in episodes:
                episode.close()
            raise
        return [talk.finish(outcome) for talk, outcome in zip(talks, outcomes, strict=True)]

    def _draw(
        self, talks: Sequence["_Talk"], settings: SamplingSettings, generator: torch.Generator
    ) -> Iterator[tuple[int, Dialogue]]:
        return draw_turns(
            self.policy,
            self.sampler,
            [talk.prompt_ids for talk in talks],
            settings=settings,
            generator=generator,
            answer=lambda number, completion: talks[number].hear(completion),
            max_turns=self.max_turns,
        )

    @property
    def max_turns(self) -> int:
        """Turns of the policy in a conversation."""
        return self.environments.settings.max_turns


@dataclass
class Heard:
    """A drawn turn and what followed it."""

    completion: Completion
    text: str
    reply: Reply | None = None


@dataclass
class _Talk:
    """One conversation that is going on. Its turns come one after the other, whoever's thread brings the answers."""

    of: Dialogues
    problem: Problem
    episode: Episode
    max_new_tokens: int
    messages: list[Message] = field(default_factory=list[Message])
    prompt_ids: tuple[int, ...] = ()
    ended: str = ""
    _next_ids: tuple[int, ...] | None = None
    _num_before: int = 0
    _num_turns: int = 0
    _heard: list[Heard] = field(default_factory=list[Heard])
    _ids: list[int] = field(default_factory=list[int])
    _num_response_ids: int = 0
    _segments: list[Segment] = field(default_factory=list[Segment])
    _turn_rewards: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        opening = self.episode.opening
        *before, last = self.problem.messages
        self.messages = [*before, {**last, "content": last["content"] + opening} if opening else last]
        self._prompt = tuple(self.messages)
        if self.episode.error:
            self.ended = "error"
            return
        try:
            self._begin(self.of.policy.render(self.messages, self.episode.tools))
        except PromptError:
            self.ended = "template"

    @property
    def goes_on(self) -> bool:
        """Whether another turn is to be drawn."""
        return not self.ended

    def hear(self, completion: Completion) -> Future[tuple[int, ...] | None]:
        """Take a drawn turn; the future says what follows it before the next, None if none follows in this prompt."""
        with TOKENIZING:
            heard = Heard(completion, self.of.policy.decode_turn(completion.response_ids))
        self._heard.append(heard)
        self._ids += completion.response_ids
        self._num_response_ids += len(completion.response_ids)
        self._num_turns += 1
        following: Future[tuple[int, ...] | None] = Future()
        if completion.finish_reason == "length":
            self.messages.append({"role": POLICY_ROLE, "content": heard.text})
            is_whole = len(completion.response_ids) >= self.max_new_tokens
            self.ended = "max_new_tokens" if is_whole else "context"
            following.set_result(None)
            return following

        def go_on(answered: Future[Reply]) -> None:
            try:
                heard.reply = answered.result()
                following.set_result(self._go_on(heard, heard.reply))
            # Whatever it is belongs to whoever waits for the future.
            except BaseException as error:
                following.set_exception(error)

        self.episode.respond(heard.text).add_done_callback(go_on)
        return following

    def close_segment(self, dialogue: Dialogue) -> None:
        """Take what was drawn behind the present prompt; the next one, if there is one, begins."""
        prompt = tuple(self._prompt if not self._segments else self.messages[: self._num_before])
        self._segments.append(
            Segment(
                prompt=prompt,
                prompt_ids=self.prompt_ids,
                dialogue=dialogue,
                turns=tuple(turns_of(self._heard, dialogue)),
            )
        )
        if self.ended:
            return
        if self._num_turns >= self.of.max_turns:
            self.ended = "max_turns"
        elif self._next_ids is None:
            self.ended = "context"
        else:
            self._num_before = len(self.messages)
            self._begin(self._next_ids)

    def finish(self, outcome: Outcome) -> Conversation:
        """Return the conversation."""
        ended = "error" if outcome.error else "sample_seconds" if outcome.is_out_of_time else self.ended
        return Conversation(
            prompt=self._prompt,
            prompt_ids=self.prompt_ids if not self._segments else self._segments[0].prompt_ids,
            segments=tuple(self._segments),
            messages=tuple(self.messages[len(self._prompt) :]),
            ended=ended,
            outcome=outcome,
            turn_reward=sum(self._turn_rewards) if self._turn_rewards else None,
            tools=self.episode.tools,
        )

    def _begin(self, prompt_ids: Sequence[int]) -> None:
        self.prompt_ids = tuple(prompt_ids)
        self._ids, self._heard, self._next_ids = list(prompt_ids), [], None
        room = self.of.policy.max_positions
        if room is not None and len(prompt_ids) + self.max_new_tokens > room:
            self.ended = "context"

    def _go_on(self, heard: Heard, reply: Reply) -> tuple[int, ...] | None:
        """Return what follows the turn; None if the conversation or this prompt ends here."""
        if reply.reward is not None:
            self._turn_rewards.append(reply.reward)
        so_far = self.messages
        try:
            so_far = [*so_far, self._message_of(heard, reply)]
        except PromptError:
            # What was said before was put in by its ids: only now does the template refuse its words.
            so_far = [*so_far, Message(role=POLICY_ROLE, content=heard.text)]
            self.ended = "template"
        self.messages = [*so_far, *reply.messages]
        if reply.is_over or not reply.messages:
            self.ended = "over"
        if self.ended or self._num_turns >= self.of.max_turns:
            return None
        try:
            return self._find_next(so_far, reply.messages, heard.completion.response_ids[-1])
        except PromptError:
            self.ended = "template"
            return None

    def _find_next(self, so_far: Sequence[Message], new: Sequence[Message], last_id: int) -> tuple[int, ...] | None:
        tokenizer, tools = self.of.policy.tokenizer, self.episode.tools
        with TOKENIZING:
            between = ids_between(tokenizer, so_far, new, tools=tools, last_id=last_id)
            if self._is_kept(so_far, new, between):
                self._num_response_ids += len(between)
                self._ids += between
                following = between
            else:
                self._next_ids = rendered_history(tokenizer, [*so_far, *new], tools)
                following = None
        most = self.of.environments.settings.max_tokens
        if most is not None and self._num_response_ids >= most:
            self.ended, following = "max_tokens", None
        return following

    def _is_kept(self, so_far: Sequence[Message], new: Sequence[Message], between: Sequence[int]) -> bool:
        if self.of.stability.kind == "stable":
            return True
        return history_is_kept(self.of.policy.tokenizer, so_far, new, [*self._ids, *between], self.episode.tools)

    def _message_of(self, heard: Heard, reply: Reply) -> Message:
        calls = [
            {"type": "function", "function": {"name": call.name, "arguments": json.loads(call.arguments)}}
            for call in reply.calls
        ]
        tokenizer = self.of.policy.tokenizer
        with TOKENIZING:
            opened = opened_thought(tokenizer, self.messages, self.episode.tools)
            text = self.of.policy.decode(heard.completion.response_ids)
            return message_of_turn(tokenizer, text, content=reply.content, calls=calls, opened=opened)


TOKENIZING = threading.Lock()
"""Answers come in several threads, and a tokenizer is used by one at a time."""


def turns_of(heard: Sequence[Heard], dialogue: Dialogue) -> Iterator[Turn]:
    """Yield the turns of a segment; context behind its last drawn turn was read by nobody and has no tokens."""
    between = [*map(len, dialogue.between), 0]
    for one, num_between in zip(heard, between, strict=True):
        reply = one.reply
        yield Turn(
            role=POLICY_ROLE,
            text=one.text,
            num_tokens=len(one.completion.response_ids),
            finish_reason=one.completion.finish_reason,
            reward=None if reply is None else reply.reward,
            calls=() if reply is None else reply.calls,
            error="" if reply is None else reply.call_error,
        )
        if reply is None:
            continue
        num_tokens = num_between
        for message, error, seconds in zip(reply.messages, reply.errors, reply.seconds, strict=True):
            yield Turn(
                role=message["role"],
                text=message["content"],
                num_tokens=num_tokens,
                name=message.get("name", ""),
                error=error,
                seconds=seconds,
            )
            num_tokens = 0
