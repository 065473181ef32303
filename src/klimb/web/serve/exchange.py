"""One request and its answers: drawn, given out as they grow, and stored before they are said to be whole."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from klimb.experience.importing.served_answers import MESSAGE_ID
from klimb.experience.samples import POLICY_ROLE, FinishReason, Message, Sample, SamplingSettings, Turn
from klimb.policies.tokenizer import PromptError
from klimb.samplers.completion import Completion, cut_at_stop
from klimb.samplers.service.requests import DrawnToken, DrawRequest
from klimb.tasks.tools.call_format import CallFormat, ParsedTurn
from klimb.tasks.tools.foreign import call_entry, offered
from klimb.web.serve.drawing import draw
from klimb.web.serve.growing_text import GrowingText
from klimb.web.serve.history import Histories, Remembered
from klimb.web.serve.meters import Meters
from klimb.web.serve.openai_errors import RequestRefused
from klimb.web.serve.policies import LoadedPolicy
from klimb.web.serve.recording import NotRecorded, Recorder
from klimb.web.serve.seeds import seed_of
from klimb.web.serve.settings import ServeSettings

logger = logging.getLogger(__name__)


SERVED_BY, CANCELLED, USER, API, ASKED_FOR = "served_by", "cancelled", "user", "api", "asked_for"
"""Keys of a sample's metadata."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is answered: messages and the ids that were made of them."""

    messages: tuple[Message, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request, once it is known what is drawn for it.

    Attributes:
        request_id: of its answer.
        prompts: one of a chat, or several texts.
        num_choices: answers to each prompt.
        sampling: how they are drawn.
        seed: as the request has it; None takes a new one.
        tools: schemas on offer.
        call_format: how calls are read; None where none are on offer.
        user: a hash of whoever asks, as the request names them; empty for nobody.
        episode: id of the conversation.
        num_top: alternatives of each token.
        message_id: what a program in front calls the answer; empty where it does not say.
        is_chat: a conversation, not a bare text.
        asked_for: the policy, where the request named it and chance did not choose; empty else.
        created: seconds since the epoch.
    """

    request_id: str
    prompts: tuple[Prompt, ...]
    num_choices: int
    sampling: SamplingSettings
    seed: int | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    call_format: CallFormat | None = None
    user: str = ""
    episode: str = ""
    num_top: int = 0
    message_id: str = ""
    is_chat: bool = True
    asked_for: str = ""
    created: float = field(default_factory=time.time)


@dataclass(kw_only=True)
class Answer:
    """One answer as it grows.

    Attributes:
        number: its place among those of the request.
        prompt: that it answers.
        sample_id: under which it is stored.
        group_id: of the answers to the same prompt.
        text: what it says so far.
        tokens: drawn so far.
        finish_reason: `unknown` until it ends.
        content: what it says, without calls and without a stop string, once it has ended.
        parsed: its calls, where tools were on offer.
        completion: the whole of it, once it has ended.
        first_at: when its first token came, by the monotonic clock.
    """

    number: int
    prompt: Prompt
    sample_id: str
    group_id: str
    text: GrowingText
    tokens: list[DrawnToken] = field(default_factory=list[DrawnToken])
    finish_reason: FinishReason = "unknown"
    content: str = ""
    parsed: ParsedTurn | None = None
    completion: Completion | None = None
    first_at: float = 0.0

    @property
    def ids(self) -> tuple[int, ...]:
        """Tokens drawn so far."""
        return tuple(token.token_id for token in self.tokens)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What there is to send: more of an answer's text, with its tokens, or its end.

    Attributes:
        answer: as it is at this moment.
        text: to be added.
        tokens: to which the text belongs.
        is_end: whether the answer is whole, and stored.
    """

    answer: Answer
    text: str
    tokens: tuple[DrawnToken, ...]
    is_end: bool = False


@dataclass(kw_only=True)
class Exchange:
    """A request that is being answered by one policy.

    Attributes:
        ask: what is drawn.
        loaded: by which policy.
        recorder: stores the answers.
        histories: remember them.
        meters: count them.
        settings: of the server.
    """

    ask: Ask
    loaded: LoadedPolicy
    recorder: Recorder
    histories: Histories
    meters: Meters
    settings: ServeSettings
    answers: list[Answer] = field(init=False)
    _begun_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.answers = [
            self._begin(prompt, number + place * self.ask.num_choices)
            for place, prompt in enumerate(self.ask.prompts)
            for number in range(self.ask.num_choices)
        ]

    @property
    def model(self) -> str:
        """The policy that answers."""
        return self.loaded.served.name

    @property
    def fingerprint(self) -> str:
        """The policy that answers, and its version."""
        return f"{self.model}-{self.loaded.served.policy_version}"

    @property
    def spellings(self) -> Mapping[int, bytes]:
        """What each token of the policy stands for, by its id."""
        return self.loaded.spellings

    async def pieces(self) -> AsyncGenerator[Piece]:
        """Yield the answers as they grow. One that is said to have ended is in the store.

        Where the iterator is closed early, because the client went away, what was drawn is stored as cancelled.

        Raises:
            RequestRefused: nothing can be drawn now, or an answer could not be stored.
            DrawFailed: drawing failed.
        """
        waiting: dict[int, list[DrawnToken]] = {}
        try:
            async with aclosing(draw(self.loaded.engine, self._requests())) as events:
                async for number, what in events:
                    answer = self.answers[number]
                    if isinstance(what, DrawnToken):
                        text = self._take(answer, what)
                        waiting.setdefault(number, []).append(what)
                        if text:
                            yield Piece(answer=answer, text=text, tokens=tuple(waiting.pop(number)))
                    else:
                        text = await self._end(answer, what)
                        yield Piece(answer=answer, text=text, tokens=tuple(waiting.pop(number, ())), is_end=True)
        except (GeneratorExit, asyncio.CancelledError):
            self.meters.count("klimb_cancelled_total")
            raise
        finally:
            self._store_cancelled()

    def _begin(self, prompt: Prompt, number: int) -> Answer:
        ask, policy = self.ask, self.loaded.policy
        is_alone = len(ask.prompts) * ask.num_choices == 1
        prompt_place = number // ask.num_choices
        return Answer(
            number=number,
            prompt=prompt,
            sample_id=ask.request_id if is_alone else f"{ask.request_id}-{number}",
            group_id=ask.request_id if len(ask.prompts) == 1 else f"{ask.request_id}-p{prompt_place}",
            text=GrowingText(policy.decode, ask.sampling.stop),
        )

    def _requests(self) -> list[DrawRequest]:
        first = secrets.randbits(64) if self.ask.seed is None else self.ask.seed
        return [
            DrawRequest(
                prompt_ids=answer.prompt.ids,
                settings=self.ask.sampling,
                seed=seed_of(first, answer.number % self.ask.num_choices),
                num_top_log_probs=self.ask.num_top,
                keep_support=True,
            )
            for answer in self.answers
        ]

    def _take(self, answer: Answer, token: DrawnToken) -> str:
        """Return the text that a token makes certain; calls are read of the whole turn, so nothing is sent before."""
        if not answer.tokens:
            answer.first_at = time.monotonic()
            self.meters.observe("klimb_first_token_seconds", answer.first_at - self._begun_at)
        answer.tokens.append(token)
        return "" if self.ask.call_format is not None else answer.text.add(token.token_id)

    async def _end(self, answer: Answer, completion: Completion) -> str:
        """Store the answer and return the text that was not sent."""
        answer.completion, answer.finish_reason = completion, completion.finish_reason
        policy, ids = self.loaded.policy, completion.response_ids
        said = policy.decode(ids)
        answer.content = said[: cut_at_stop(said, self.ask.sampling.stop)]
        if self.ask.call_format is None:
            rest = answer.text.finish()
        else:
            tools = [offered(schema) for schema in self.ask.tools]
            answer.parsed = self.ask.call_format.parse(policy.decode_turn(ids), tools)
            answer.content = answer.parsed.content if answer.parsed.calls else answer.content
            rest = answer.content
        self._count(answer)
        await record(self.recorder, [self.sample_of(answer)], self.settings, self.meters)
        if self.ask.is_chat:
            await asyncio.to_thread(self._remember, answer)
        return rest

    def _count(self, answer: Answer) -> None:
        num_tokens = len(answer.tokens)
        self.meters.count("klimb_drawn_tokens_total", num_tokens, policy=self.loaded.served.name)
        self.meters.count("klimb_prompt_tokens_total", len(answer.prompt.ids))
        if num_tokens > 1:
            self.meters.observe("klimb_token_seconds", (time.monotonic() - answer.first_at) / (num_tokens - 1))

    def _store_cancelled(self) -> None:
        """Store what was drawn of answers that did not end; nobody waits for it."""
        cut = [answer for answer in self.answers if answer.completion is None and answer.tokens]
        if not cut:
            return
        samples = [
            replace(sample, metadata={**sample.metadata, CANCELLED: "yes"}) for sample in map(self.sample_of, cut)
        ]
        try:
            written = self.recorder.record(samples)
        except RuntimeError as error:
            logger.error("%d cancelled answers were not recorded: %s", len(samples), error)
        else:
            written.add_done_callback(partial(self._count_written, len(samples)))

    def _count_written(self, number: int, written: Any) -> None:
        name = "klimb_samples_lost_total" if written.exception() else "klimb_samples_written_total"
        self.meters.count(name, number)

    def sample_of(self, answer: Answer) -> Sample:
        """Return the answer as a sample: what has been drawn of it."""
        ask, served, policy = self.ask, self.loaded.served, self.loaded.policy
        tokens = answer.tokens
        has_support = any(token.support is not None for token in tokens)
        named = {USER: ask.user, MESSAGE_ID: ask.message_id, ASKED_FOR: ask.asked_for}
        metadata = {SERVED_BY: self.settings.name, **{name: text for name, text in named.items() if text}}
        return Sample(
            sample_id=answer.sample_id,
            group_id=answer.group_id,
            prompt=answer.prompt.messages,
            prompt_ids=answer.prompt.ids,
            response=policy.decode(answer.ids),
            response_ids=answer.ids,
            finish_reason=answer.finish_reason,
            log_mu=tuple(token.log_mu for token in tokens),
            log_mu_provenance="sampler",
            support=tuple(token.support or () for token in tokens) if has_support else None,
            sampling=ask.sampling,
            model=served.name,
            policy_version=served.policy_version,
            source="rollout",
            created_at=ask.created,
            metadata=metadata if ask.is_chat else {**metadata, API: "completions"},
            tokenizer=policy.fingerprint,
            turns=self._turns(answer),
            tools=json.dumps(ask.tools, ensure_ascii=False) if ask.tools else "",
            episode=ask.episode,
        )

    def _turns(self, answer: Answer) -> tuple[Turn, ...]:
        """Return the answer as a turn, where it called tools or was on the way to."""
        parsed = answer.parsed
        if parsed is None or not (parsed.calls or parsed.error):
            return ()
        turn = Turn(
            role=POLICY_ROLE,
            text=self.loaded.policy.decode_turn(answer.ids),
            num_tokens=len(answer.tokens),
            finish_reason=answer.finish_reason,
            calls=parsed.calls,
            error=parsed.error,
        )
        return (turn,)

    def _remember(self, answer: Answer) -> None:
        ask, loaded = self.ask, self.loaded
        messages = answer.prompt.messages
        said: Message = {"role": POLICY_ROLE, "content": answer.content}
        parsed = answer.parsed if answer.parsed is not None and answer.parsed.calls else None
        if parsed is not None:
            said["tool_calls"] = [call_entry(call.name, call.arguments) for call in parsed.calls]
        try:
            drawn = loaded.as_message(messages, ask.tools, loaded.policy.decode(answer.ids), parsed)
        except PromptError:
            return  # the template refuses what was said: no conversation can go on from it
        remembered = Remembered(
            episode=ask.episode,
            messages=(*messages, drawn),
            ids=(*answer.prompt.ids, *answer.ids),
            tokenizer=loaded.policy.fingerprint,
            policy=loaded.served.name,
        )
        self.histories.remember((*messages, said), remembered, user=ask.user)


async def record(recorder: Recorder, samples: Sequence[Sample], settings: ServeSettings, meters: Meters) -> None:
    """Return once the samples are on the disk.

    Raises:
        RequestRefused: they are not, and the settings let no answer go out that is not recorded.
    """
    try:
        await asyncio.wrap_future(recorder.record(samples))
    except (NotRecorded, RuntimeError) as error:
        meters.count("klimb_samples_lost_total", len(samples))
        if settings.on_store_error == "refuse":
            raise RequestRefused(
                f"the answer was not recorded, so it is not given: {error}",
                status=503,
                kind="server_error",
                code="not_recorded",
            ) from error
    else:
        meters.count("klimb_samples_written_total", len(samples))
