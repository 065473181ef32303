"""One sample of a program: its calls, which go on from each other or begin anew, and the turns that answer them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from klimb.experience.history_keys import history_keys
from klimb.experience.samples import POLICY_ROLE, Message, SamplingSettings
from klimb.policies import Policy
from klimb.policies.tokenizer import PromptError
from klimb.policies.turns import history_is_kept, ids_between, message_of_turn, opened_thought
from klimb.samplers.completion import Completion, cut_at_stop
from klimb.samplers.sampler import Dialogue
from klimb.tasks import Problem
from klimb.tasks.environments import EnvironmentSettings, Outcome, Reply
from klimb.tasks.environments.environments import row_of
from klimb.tasks.programs.outcome import ProgramEnd
from klimb.tasks.programs.program import Program, ProgramLimits
from klimb.tasks.tools.call_format import CallFormat, ParsedTurn
from klimb.tasks.tools.foreign import call_entry, offered
from klimb.training.agents.calls import Call, CallRefused, Endpoint, Inbox, Said
from klimb.training.dialogues import TOKENIZING, Conversation, Heard, Segment, turns_of

OVERRULED = "overruled"
"""Key of a sample's metadata: settings that its program asked for and did not get, by their names."""


HERE = "127.0.0.1,localhost"
"""Names that no proxy is asked for."""


@dataclass(frozen=True, kw_only=True)
class TalkSettings:
    """What the talks of a batch share.

    Attributes:
        policy: renders and decodes.
        endpoint: where the programs call.
        words: the program and its arguments.
        environment: its limits.
        sampling: how turns are drawn.
        is_stable: whether the chat template keeps histories without tools, whatever was drawn.
    """

    policy: Policy
    endpoint: Endpoint
    words: tuple[str, ...]
    environment: EnvironmentSettings
    sampling: SamplingSettings
    is_stable: bool = False


@dataclass(frozen=True)
class _Accepted:
    """A call that is to be answered, and the ids after which it is."""

    call: Call
    ids: tuple[int, ...]


@dataclass
class ProgramTalk:
    """A program and the policy, one turn after the other, whoever's thread brings the calls."""

    of: TalkSettings
    problem: Problem
    seed: int
    prompt_ids: tuple[int, ...] = ()
    overruled: set[str] = field(default_factory=set[str])
    _inbox: Inbox = field(default_factory=Inbox)
    _end: ProgramEnd | None = None
    _limit: str = ""
    _refused: str = ""
    _next: _Accepted | None = None
    _call: Call | None = None
    _prompt: tuple[Message, ...] = ()
    _tools: tuple[Mapping[str, Any], ...] = ()
    _said: tuple[bytes, ...] = ()
    # As the template reads them: the messages of the present call, and those with the turn that answered the last.
    _context: tuple[Message, ...] = ()
    _so_far: tuple[Message, ...] = ()
    _ids: list[int] = field(default_factory=list[int])
    _heard: list[Heard] = field(default_factory=list[Heard])
    _segments: list[Segment] = field(default_factory=list[Segment])
    _messages: list[Message] = field(default_factory=list[Message])
    _num_turns: int = 0
    _num_response_ids: int = 0

    def start(self) -> Future[tuple[int, ...] | None]:
        """Start the program; the future is resolved when it has made its first call, or has ended."""
        self._key = self.of.endpoint.open(self._inbox.put)
        self._program = Program(
            self.of.words,
            problem=json.dumps({**row_of(self.problem), "seed": self.seed}, ensure_ascii=False) + "\n",
            environment=self._variables(),
            limits=ProgramLimits.of(self.of.environment),
            on_end=self._inbox.put,
        )
        return self._wait()

    def _variables(self) -> dict[str, str]:
        """Return the program's environment: this process's own, with where it calls."""
        not_by_proxy = ",".join(filter(None, (os.environ.get("NO_PROXY", ""), HERE)))
        return {
            # Sets of texts have the same order in each run, which exact resume needs.
            "PYTHONHASHSEED": "0",
            **os.environ,
            "OPENAI_BASE_URL": self.of.endpoint.base_url,
            "OPENAI_API_KEY": self._key,
            "KLIMB_MODEL": self.of.policy.name,
            "KLIMB_PROBLEM_ID": self.problem.problem_id,
            "KLIMB_SEED": str(self.seed),
            "NO_PROXY": not_by_proxy,
            "no_proxy": not_by_proxy,
        }

    def close(self) -> None:
        """End the program, and take no more calls."""
        self.of.endpoint.close(self._key)
        self._program.close()

    @property
    def goes_on(self) -> bool:
        """Whether a call waits that begins a prompt of its own."""
        return self._next is not None

    def begin_segment(self) -> None:
        """Make the call that waits the prompt."""
        assert self._next is not None
        self._call, self.prompt_ids, self._next = self._next.call, self._next.ids, None
        self._prompt = self._context = self._call.messages
        self._tools = self._call.tools
        self._ids, self._heard = list(self.prompt_ids), []

    def hear(self, completion: Completion) -> Future[tuple[int, ...] | None]:
        """Answer the call with the turn; the future says what follows it before the next, None if nothing does."""
        call = self._call
        assert call is not None
        text, parsed, said, drawn = self._read(call, completion)
        nothing = Reply(is_over=False, content=said["content"], calls=parsed.calls, call_error=parsed.error)
        self._heard.append(Heard(completion, text, nothing))
        prompt_ids = tuple(self._ids)
        self._ids += completion.response_ids
        self._num_response_ids += len(completion.response_ids)
        self._num_turns += 1
        self._said = tuple(history_keys([*call.messages, said]))
        self._so_far = (*self._context, drawn)
        self._messages.append(drawn)
        self._call = None
        self._program.begin_wait()
        following = self._wait()
        call.say(
            Said(
                prompt_ids=prompt_ids,
                completion=completion,
                content=said["content"],
                parsed=parsed if call.tools else None,
            )
        )
        return following

    def close_segment(self, dialogue: Dialogue) -> None:
        """Take what was drawn behind the present prompt."""
        self._segments.append(
            Segment(
                prompt=self._prompt,
                prompt_ids=self.prompt_ids,
                dialogue=dialogue,
                turns=tuple(turns_of(self._heard, dialogue)),
                tools=self._tools,
            )
        )

    def finish(self) -> Conversation:
        """Return what came of it; the program has ended."""
        end = self._end
        assert end is not None
        error = end.error or self._why_nothing_drawn()
        first = self._segments[0] if self._segments else None
        turns = [turn for segment in self._segments for turn in segment.turns if turn.is_drawn]
        return Conversation(
            prompt=tuple(self.problem.messages) if first is None else first.prompt,
            prompt_ids=() if first is None else first.prompt_ids,
            segments=tuple(self._segments),
            messages=tuple(self._messages),
            ended="error" if error else self._limit or "over",
            outcome=Outcome(
                reward=None if error else end.reward,
                error=error,
                seconds=end.seconds,
                num_calls=sum(len(turn.calls) for turn in turns),
                num_unread_turns=sum(bool(turn.error) for turn in turns),
                is_out_of_time=end.is_out_of_time,
            ),
            turn_reward=None,
            tools=() if first is None else first.tools or (),
            marks={OVERRULED: ", ".join(sorted(self.overruled))} if self.overruled else {},
        )

    def _why_nothing_drawn(self) -> str:
        if self._segments:
            return ""
        refused = f"; its last was refused: {self._refused}" if self._refused else ""
        return f"the program ended, and made no call that could be answered{refused}"

    def _wait(self) -> Future[tuple[int, ...] | None]:
        following: Future[tuple[int, ...] | None] = Future()
        self._listen(following)
        return following

    def _listen(self, following: Future[tuple[int, ...] | None]) -> None:
        self._inbox.next().add_done_callback(lambda found: self._take(found.result(), following))

    def _take(self, what: Call | ProgramEnd, following: Future[tuple[int, ...] | None]) -> None:
        """Resolve what follows by what the program did; a call that cannot be answered is waited behind."""
        if isinstance(what, ProgramEnd):
            self._end = what
            following.set_result(None)
            return
        try:
            found = self._accept(what)
        except CallRefused as refused:
            self._refused = str(refused)
            what.refuse(refused)
            self._listen(following)
        # Whatever it is belongs to whoever waits for the future.
        except BaseException as error:
            what.refuse(CallRefused("the answer could not be drawn", code="draw_failed"))
            following.set_exception(error)
        else:
            self._program.end_wait()
            following.set_result(found)

    def _accept(self, call: Call) -> tuple[int, ...] | None:
        """Return the ids between the last turn and the next; None where the call begins a prompt of its own.

        Raises:
            CallRefused: a limit is reached, or the call cannot be a prompt.
        """
        self._check_limits()
        self.overruled.update(call.overruled)
        if call.tools:
            self._format()
        new = self._new_messages(call)
        between = self._ids_between(new)
        if between is None:
            self._next = _Accepted(call, self._render(call))
        else:
            self._heard[-1].reply = _with_messages(self._heard[-1].reply, new)
            self._ids += between
            self._num_response_ids += len(between)
            self._call, self._context = call, (*self._so_far, *new)
        self._messages += self._messages_between(call, new)
        self._limit = self._refused = ""
        return between

    def _check_limits(self) -> None:
        limits = self.of.environment
        if self._num_turns >= limits.max_turns:
            self._limit = "max_turns"
            raise CallRefused(
                f"the program has made environment.max_turns = {limits.max_turns} calls, and gets no answer to more",
                code="max_turns",
            )
        if limits.max_tokens is not None and self._num_response_ids >= limits.max_tokens:
            self._limit = "max_tokens"
            raise CallRefused(
                f"the program's turns have {self._num_response_ids} tokens, environment.max_tokens is "
                f"{limits.max_tokens}: it gets no answer to more calls",
                code="max_tokens",
            )

    def _new_messages(self, call: Call) -> tuple[Message, ...]:
        """Return what the call adds to the last turn and all before it; nothing where it does not go on from there."""
        num_said = len(self._said)
        keys = tuple(history_keys(call.messages))
        is_same = bool(self._said) and keys[num_said - 1 : num_said] == self._said[-1:]
        return call.messages[num_said:] if is_same and call.tools == self._tools else ()

    def _messages_between(self, call: Call, new: Sequence[Message]) -> Sequence[Message]:
        """Return what a reward function has not seen of the call; of the first, its prompt is what was there before."""
        if new or not self._said:
            return new
        keys = tuple(history_keys(call.messages))
        num_common = next((i for i, pair in enumerate(zip(keys, self._said, strict=False)) if len(set(pair)) > 1), None)
        return call.messages[min(len(keys), len(self._said)) if num_common is None else num_common :]

    def _ids_between(self, new: Sequence[Message]) -> tuple[int, ...] | None:
        """Return the ids of what is new behind the last turn; None where the history cannot stay as it was drawn."""
        if not new:
            return None
        tokenizer = self.of.policy.tokenizer
        with TOKENIZING:
            try:
                between = ids_between(tokenizer, self._so_far, new, tools=self._tools, last_id=self._ids[-1])
                ids = [*self._ids, *between]
                is_stable = self.of.is_stable and not self._tools
                is_kept = is_stable or history_is_kept(tokenizer, self._so_far, new, ids, self._tools)
            except PromptError:
                return None
        room = self.of.policy.max_positions
        if is_kept and room is not None and len(ids) >= room:
            raise self._too_long(len(ids), room)
        return between if is_kept else None

    def _render(self, call: Call) -> tuple[int, ...]:
        policy, num_new = self.of.policy, self.of.sampling.max_new_tokens
        with TOKENIZING:
            try:
                ids = tuple(policy.render(call.messages, call.tools))
            except PromptError as error:
                raise CallRefused(str(error)) from error
        room = policy.max_positions
        if room is not None and len(ids) + num_new > room:
            raise self._too_long(len(ids) + num_new, room)
        return ids

    def _too_long(self, length: int, room: int) -> CallRefused:
        self._limit = "context"
        return CallRefused(
            f"the prompt, with the tokens that the answer may have, has {length} tokens, and the policy has only "
            f"{room} positions",
            code="context_length_exceeded",
        )

    def _format(self) -> CallFormat:
        try:
            return self.of.environment.find_format(str(self.of.policy.tokenizer.chat_template))
        except ValueError as error:
            raise CallRefused(f"tools cannot be offered: {error}", code="unsupported_parameter") from error

    def _read(self, call: Call, completion: Completion) -> tuple[str, ParsedTurn, Message, Message]:
        """Return the turn's text, its calls of tools, the turn as the program has it, and as the template reads it."""
        policy, ids = self.of.policy, completion.response_ids
        with TOKENIZING:
            text = policy.decode(ids)
            shown = text[: cut_at_stop(text, self.of.sampling.stop)]
            whole = policy.decode_turn(ids)
            parsed = ParsedTurn(content=shown)
            if call.tools:
                parsed = self._format().parse(whole, [offered(schema) for schema in call.tools])
            calls = [call_entry(each.name, each.arguments) for each in parsed.calls]
            opened = opened_thought(policy.tokenizer, self._context, call.tools)
            content = parsed.content if calls else shown
            drawn = message_of_turn(policy.tokenizer, text, content=content, calls=calls, opened=opened)
        said: Message = {"role": POLICY_ROLE, "content": content}
        if calls:
            said["tool_calls"] = calls
        return whole, parsed, said, drawn


def _with_messages(reply: Reply | None, new: Sequence[Message]) -> Reply:
    """Return what followed a turn with the messages that came behind it."""
    assert reply is not None
    nothing = ("",) * len(new)
    return Reply(
        messages=tuple(new),
        errors=nothing,
        seconds=(0.0,) * len(new),
        is_over=False,
        content=reply.content,
        calls=reply.calls,
        call_error=reply.call_error,
    )
