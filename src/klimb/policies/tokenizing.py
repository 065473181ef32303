"""Texts of a log to token ids, and a check that ids and text of a sample are one response of this policy's tokenizer.

What the policy can take: prompts with room for an answer, samples within its positions.

Ids that are not exactly the text would make every log-probability that of another response, without any error. So what
does not fit is refused, and nothing is repaired.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from klimb.experience import Message, Sample, Turn
from klimb.policies.answers import AnswerError, encode_answer, parts_of_answer
from klimb.policies.call_forms import call_form_of
from klimb.policies.policy import Policy, find_foreign
from klimb.policies.tokenizer import (
    PromptError,
    decode_ids,
    encode_template_text,
    render_template,
    vocabulary_of,
)
from klimb.policies.turns import message_of_turn, opened_thought

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What decoders write for bytes that are no whole character."""


class UnusableSample(ValueError):
    """A sample that this policy cannot score, while it can others.

    Attributes:
        reason: without the sample's own values, so that samples can be counted by it.
    """

    reason = "this model cannot score it"

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or type(self).reason


class TokenMismatch(UnusableSample):
    """Text and token ids do not belong together under this tokenizer."""

    reason = "text and token ids are not of this model's tokenizer"


def why_no_room(
    policy: Policy, messages: Sequence[Message], *, max_new_tokens: int, tools: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Return why the policy cannot answer these messages with so many tokens; empty where it can.

    The prompt tells of `tools`, given as their schemas.

    Raises:
        ValueError: the tokenizer has no chat template, so that no message can become a prompt.
    """
    try:
        ids = policy.render(messages, tools)
    except PromptError as error:
        return str(error)
    place = find_foreign(ids, policy.num_vocab)
    if place is not None:
        return f"token {place} of the prompt has the id {ids[place]}, and the model knows 0 to {policy.num_vocab - 1}"
    room = policy.max_positions
    if room is None or len(ids) + max_new_tokens <= room:
        return ""
    return (
        f"the prompt has {len(ids)} tokens, and with an answer of {max_new_tokens} it needs more than the model's "
        f"{room} positions"
    )


def fit_sample(policy: Policy, sample: Sample) -> Sample:
    """Return the sample as `with_token_ids` does, known to be no longer than the model's positions.

    Raises:
        UnusableSample: naming the sample and why it cannot be scored.
        ValueError: the tokenizer has no chat template.
    """
    complete = with_token_ids(policy, sample)
    length, room = len(complete.prompt_ids) + len(complete.response_ids), policy.max_positions
    if room is not None and length > room:
        raise UnusableSample(
            f"sample {sample.sample_id}: {length} tokens are more than the model's context of {room}",
            reason=f"longer than the model's context of {room} tokens",
        )
    return complete


def with_token_ids(policy: Policy, sample: Sample) -> Sample:
    """Return the sample with token ids of this policy's tokenizer, known to decode to the sample's text.

    A response without ids is encoded behind its prompt, as a part of the whole conversation in the chat template (what
    spells a control token stays text), with the template's end token behind it unless the finish reason is `length`;
    log-probabilities are not carried over to new ids. A prompt without ids is rendered with the chat template. A sample
    that has both comes back as it is, once it is checked: same fingerprint if it says one, every id one of the model's,
    and the ids decode to the response. An end token, what the template writes around an answer, and replacement
    characters behind a response that was cut inside a character, may be in one and not in the other. Of several turns
    each one that was drawn must decode to its text. What was put in between is not read: its text does not say what the
    template wrote around it. Turns without ids are encoded as the chat template writes them.

    Raises:
        TokenMismatch: naming the sample and what does not fit.
        UnusableSample: the prompt cannot be rendered (no messages, or the chat template refuses them), or the response
            is a conversation without token ids that the template does not write as one text.
        ValueError: the tokenizer has no chat template.
    """
    if (sample.prompt_ids or sample.response_ids) and sample.tokenizer not in ("", policy.fingerprint):
        raise TokenMismatch(
            f"sample {sample.sample_id}: its ids belong to tokenizer {sample.tokenizer}, and {policy.name} has "
            f"tokenizer {policy.fingerprint}; take the model that drew it, with the chat template that "
            "it had then (a run's folder has its own), or import the texts alone"
        )
    if sample.response_ids:
        _check_ids(policy, sample, sample.response_ids, "response_ids")
        _check_text(policy, sample)
    if sample.prompt_ids:
        _check_ids(policy, sample, sample.prompt_ids, "prompt_ids")
    if sample.prompt_ids and sample.response_ids:
        return sample
    if sample.turns and not sample.response_ids:
        return _as_one(encode_turns(policy, sample), policy)
    completed = replace(sample, prompt_ids=sample.prompt_ids or _render(policy, sample), tokenizer=policy.fingerprint)
    if sample.response_ids:
        return completed
    response_ids = _encode(policy, completed)
    _check_ids(policy, sample, response_ids, "response_ids")
    return replace(
        completed, response_ids=response_ids, log_mu=None, log_mu_provenance="absent", log_ref=None, support=None
    )


def _as_one(parts: Sequence[Sample], policy: Policy) -> Sample:
    if len(parts) == 1:
        return parts[0]
    raise UnusableSample(
        f"sample {parts[0].episode}: the chat template of {policy.name} rewrites the history of this conversation, so "
        f"its turns have {len(parts)} prompts; import it with --model {policy.name}, which makes a sample of each",
        reason="a conversation without token ids whose history the chat template rewrites",
    )


def encode_turns(policy: Policy, sample: Sample) -> tuple[Sample, ...]:
    """Return a conversation of texts with the token ids of this policy: one sample, or several of one episode.

    Each turn is what the chat template writes behind the prompt that it answers, its end included (unless the finish
    reason is `length`); what the template has between two turns is context. Where its next prompt does not begin with
    what was there before, as in templates that drop earlier thoughts, that turn begins a sample of its own, with the
    history as the template renders it. The text of a turn becomes what its tokens spell, with its calls.

    Raises:
        UnusableSample: the template refuses the conversation, or leaves out or changes what was said.
        ValueError: the tokenizer has no chat template.
    """
    try:
        return _Encoding(policy, sample).run()
    except PromptError as error:
        raise UnusableSample(f"sample {sample.sample_id}: {error}", reason="the prompt cannot be rendered") from error


@dataclass
class _Encoding:
    """A conversation while its turns get their tokens, one after the other."""

    policy: Policy
    sample: Sample
    messages: list[Message] = field(default_factory=list[Message])
    _parts: list[Sample] = field(default_factory=list[Sample])
    _ids: tuple[int, ...] = ()
    _put_in: list[Turn] = field(default_factory=list[Turn])

    def run(self) -> tuple[Sample, ...]:
        """Return the samples."""
        self.messages = list(self.sample.prompt)
        self.tools = _tools_of(self.sample)
        _check_tools_are_told(self.policy, self.sample, self.messages, self.tools)
        for turn in self.sample.turns:
            if turn.is_drawn:
                self._take(turn)
            else:
                self._put_in.append(replace(turn, num_tokens=0))
                self.messages.append(_message_put_in(turn))
        last = self._parts[-1]
        # What came in behind the last turn was read by nobody, and has no tokens.
        self._parts[-1] = replace(last, turns=(*last.turns, *self._put_in))
        if len(self._parts) == 1:
            return tuple(self._parts)
        name = self.sample.episode or self.sample.sample_id
        return tuple(
            replace(part, sample_id=f"{self.sample.sample_id}-t{number:02d}", episode=name)
            for number, part in enumerate(self._parts)
        )

    def _take(self, turn: Turn) -> None:
        prompt_ids = self._render()
        prompt = tuple(self.messages)
        message = self._message_of(turn)
        self.messages.append(message)
        drawn_ids = self._encode(turn, prompt_ids)
        drawn = replace(turn, text=self.policy.decode_turn(drawn_ids), num_tokens=len(drawn_ids))
        if self._parts and prompt_ids[: len(self._ids)] == self._ids:
            self._extend(prompt_ids[len(self._ids) :], drawn, drawn_ids)
        else:
            self._begin(prompt, prompt_ids, drawn, drawn_ids)
        self._ids, self._put_in = (*prompt_ids, *drawn_ids), []

    def _begin(self, prompt: tuple[Message, ...], prompt_ids: tuple[int, ...], turn: Turn, ids: Sequence[int]) -> None:
        self._parts.append(
            replace(
                self.sample,
                prompt=prompt,
                prompt_ids=prompt_ids,
                response=turn.text,
                response_ids=tuple(ids),
                finish_reason=turn.finish_reason,
                turns=(turn,),
                tokenizer=self.policy.fingerprint,
                log_mu=None,
                log_mu_provenance="absent",
                log_ref=None,
                support=None,
            )
        )

    def _extend(self, between: Sequence[int], turn: Turn, ids: Sequence[int]) -> None:
        part = self._parts[-1]
        # Between two turns with nothing put in stands the template's own text, which needs a turn to belong to.
        context = self._put_in or ([Turn(role="system", text="", num_tokens=0)] if between else [])
        context = [replace(each, num_tokens=0 if place else len(between)) for place, each in enumerate(context)]
        self._parts[-1] = replace(
            part,
            response=f"{part.response}\n\n{turn.text}",
            response_ids=(*part.response_ids, *between, *ids),
            finish_reason=turn.finish_reason,
            turns=(*part.turns, *context, turn),
        )

    def _render(self) -> tuple[int, ...]:
        ids = tuple(self.policy.render(self.messages, self.tools))
        _check_ids(self.policy, self.sample, ids, "prompt_ids")
        given = self.sample.prompt_ids
        if given and not self._parts and given != ids:
            raise UnusableSample(
                f"sample {self.sample.sample_id}: the chat template of {self.policy.name} renders its prompt to other "
                "token ids than those that are recorded; log the token ids of its turns too",
                reason="a conversation whose prompt was rendered otherwise",
            )
        return ids

    def _message_of(self, turn: Turn) -> Message:
        if turn.calls and not call_form_of(self.policy.tokenizer).is_rendered:
            raise self._refusal("writes no tool calls", 1)
        calls = [
            {"type": "function", "function": {"name": call.name, "arguments": json.loads(call.arguments)}}
            for call in turn.calls
        ]
        opened = opened_thought(self.policy.tokenizer, self.messages, self.tools)
        is_thinking = "</think>" in turn.text and not turn.text.lstrip().startswith("<think>")
        return message_of_turn(
            self.policy.tokenizer, turn.text, content=turn.text, calls=calls, opened=opened if is_thinking else ""
        )

    def _encode(self, turn: Turn, prompt_ids: tuple[int, ...]) -> tuple[int, ...]:
        """Return what the template writes of the last message behind the prompt, up to its end."""
        tokenizer = self.policy.tokenizer
        rendered = render_template(tokenizer, self.messages, self.tools, add_generation_prompt=False)
        whole = encode_template_text(tokenizer, rendered)
        if whole[: len(prompt_ids)] != prompt_ids:
            raise self._refusal("does not write it behind the prompt that it answers")
        ids = whole[len(prompt_ids) :]
        ends = self.policy.end_ids
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        said = ids if end is None else ids[:end]
        text = decode_ids(tokenizer, said, skip_special_tokens=False)
        for part in (turn.text.strip(), *(call.name for call in turn.calls)):
            if part not in text:
                raise self._refusal(f"leaves out {part[:60]!r}")
        if turn.finish_reason == "length":
            return self._checked(said)
        return self._checked((*said, ends[0] if end is None else ids[end]))

    def _checked(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        _check_ids(self.policy, self.sample, ids, "response_ids")
        if not ids:
            raise self._refusal("writes no token of it")
        return ids

    def _refusal(self, what: str, num_more: int = 0) -> UnusableSample:
        number = sum(message["role"] == "assistant" for message in self.messages) + num_more
        return UnusableSample(
            f"sample {self.sample.sample_id}: the chat template of {self.policy.name} {what}, of the assistant's turn "
            f"{number}, so its tokens cannot be told; log the token ids, or take another model.chat_template",
            reason="a turn without token ids that the chat template does not write",
        )


def _check_tools_are_told(
    policy: Policy, sample: Sample, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> None:
    """Raise unless the chat template writes the tools on offer and those that the history calls; some write none."""
    without = [cast(Message, {name: part for name, part in each.items() if name != "tool_calls"}) for each in messages]
    tokenizer = policy.tokenizer
    for what, has_any, bare, offered in (
        ("offers tools", bool(tools), messages, ()),
        ("has tool calls", without != list(messages), without, tools),
    ):
        text = render_template(tokenizer, messages, tools).text if has_any else ""
        if has_any and text == render_template(tokenizer, bare, offered).text:
            raise UnusableSample(
                f"sample {sample.sample_id}: its prompt {what} and has no token ids, and the chat template of "
                f"{policy.name} leaves them out; log the prompt's token ids, or take a template that writes them "
                "(model.chat_template)",
                reason="a prompt with tools and without token ids, of which the chat template does not tell",
            )


def _message_put_in(turn: Turn) -> Message:
    message = Message(role=turn.role, content=turn.text)
    return {**message, "name": turn.name} if turn.name else message


def _render(policy: Policy, sample: Sample) -> tuple[int, ...]:
    tools = _tools_of(sample)
    try:
        ids = tuple(policy.render(sample.prompt, tools))
        _check_tools_are_told(policy, sample, sample.prompt, tools)
    except PromptError as error:
        message = f"sample {sample.sample_id}: {error}"
        raise UnusableSample(message, reason="the prompt cannot be rendered") from error
    _check_ids(policy, sample, ids, "prompt_ids")
    return ids


def _tools_of(sample: Sample) -> list[Mapping[str, Any]]:
    """Return the schemas of the tools that its prompt offers."""
    if not sample.tools:
        return []
    try:
        tools = json.loads(sample.tools)
    except (ValueError, RecursionError) as error:
        raise UnusableSample(
            f"sample {sample.sample_id}: its tools are no JSON list of schemas ({error}), so its prompt cannot be "
            "rendered",
            reason="the prompt cannot be rendered",
        ) from error
    if not isinstance(tools, list):
        raise UnusableSample(
            f"sample {sample.sample_id}: its tools are {type(tools).__name__}, expected a JSON list of schemas",
            reason="the prompt cannot be rendered",
        )
    return tools


def render_prompt(policy: Policy, sample: Sample) -> tuple[int, ...]:
    """Return the ids of a sample's prompt under the policy's chat template, with the tools that it offers.

    Raises:
        ValueError: it cannot be rendered.
    """
    return tuple(policy.render(sample.prompt, _tools_of(sample)))


def ids_of_tokens(policy_or_tokenizer: Policy | PreTrainedTokenizerBase, tokens: Sequence[bytes]) -> tuple[int, ...]:
    """Return the id of each token that is given by its bytes, as in the `bytes` lists of OpenAI's log-probabilities.

    Byte-level vocabularies are read with GPT-2's table of characters, sentencepiece ones with ▁ for a space and
    `<0x41>` for a byte; control tokens are their texts. Some servers write other bytes than the token's (without the
    space at its beginning, or the replacement character for part of a character): the latter are refused here, the
    former show in `with_token_ids`, where the ids must decode to the response.

    Raises:
        TokenMismatch: naming the first token that is not exactly one token of this vocabulary.
    """
    is_policy = isinstance(policy_or_tokenizer, Policy)
    known = vocabulary_of(policy_or_tokenizer.tokenizer if is_policy else policy_or_tokenizer).ids_of_bytes
    return tuple(_id_of(known, token, position) for position, token in enumerate(tokens))


def _id_of(known: Mapping[bytes, tuple[int, ...]], token: bytes, position: int) -> int:
    ids = known.get(token, ())
    if REPLACEMENT.encode() in token:
        reason = "holds the replacement character, so its own bytes were lost when the log was written"
    elif len(ids) != 1:
        reason = "is no token of this vocabulary" if not ids else f"is each of the tokens {', '.join(map(str, ids))}"
    else:
        return ids[0]
    raise TokenMismatch(
        f"token {position} of the log, {token!r}, {reason}; was it drawn by a model with another tokenizer? "
        "Its log-probabilities cannot be used; import the text alone"
    )


def _check_ids(policy: Policy, sample: Sample, ids: Sequence[int], name: str) -> None:
    place = find_foreign(ids, policy.num_vocab)
    if place is not None:
        raise TokenMismatch(
            f"sample {sample.sample_id}: {name}[{place}] is {ids[place]}, which is no token of {policy.name} "
            f"(ids 0 to {policy.num_vocab - 1}); was it drawn with another tokenizer?"
        )


def _check_text(policy: Policy, sample: Sample) -> None:
    """Raise unless the ids decode to the response; of several turns, each drawn one to its text."""
    if not sample.turns:
        decoded = _readings(policy, sample.response_ids)
        is_read = _reads(decoded, sample.response, is_cut=sample.finish_reason != "stop")
        if not (is_read or _reads_around(policy, sample, decoded)):
            raise _mismatch(sample, "response_ids decode", decoded[0], sample.response)
        return
    for number, (turn, ids) in enumerate(sample.drawn_turns, start=1):
        decoded = _readings(policy, ids) if ids else [""]
        if not _reads(decoded, turn.text, is_cut=turn.finish_reason != "stop"):
            raise _mismatch(sample, f"drawn turn {number} decodes", decoded[0], turn.text)


def _reads(decoded: Sequence[str], text: str, *, is_cut: bool) -> bool:
    """Return whether the text is one of the readings.

    After a cut inside a character some decoders write replacement characters for the rest of it, others nothing.
    """
    if text in decoded:
        return True
    return is_cut and text.rstrip(REPLACEMENT) in [reading.rstrip(REPLACEMENT) for reading in decoded]


def _reads_around(policy: Policy, sample: Sample, decoded: Sequence[str]) -> bool:
    """Return whether a reading is the response with what the chat template writes around an answer.

    Decoders strip the space at the beginning, where the template may have one.
    """
    try:
        parts = parts_of_answer(
            policy,
            sample.prompt,
            sample.response,
            tools=_tools_of(sample),
            is_cut=sample.finish_reason == "length",
        )
    except AnswerError:
        return False
    return any(text in decoded for text in (parts.text, parts.text.removeprefix(" ")))


def _mismatch(sample: Sample, what: str, decoded: str, text: str) -> TokenMismatch:
    return TokenMismatch(
        f"sample {sample.sample_id}: its {what} to {_difference(decoded, text)}; ids and "
        "text are not the same response, so log-probabilities of the ids say nothing of the text"
    )


def _readings(policy: Policy, ids: Sequence[int]) -> list[str]:
    """Texts that a recorder may have written for the ids: with and without control tokens and the end token."""
    without_end = list(ids[:-1]) if ids[-1] in policy.end_ids else list(ids)
    with_control = decode_ids(policy.tokenizer, without_end, skip_special_tokens=False)
    return [policy.decode(ids), policy.decode(without_end), with_control]


def _encode(policy: Policy, sample: Sample) -> tuple[int, ...]:
    """Ids of the response's text behind its prompt, and the end token unless the response was cut."""
    is_cut = sample.finish_reason == "length"
    if sample.finish_reason != "stop" and sample.response.endswith(REPLACEMENT):
        raise TokenMismatch(
            f"sample {sample.sample_id}: the response ends in a replacement character: it was cut inside a character "
            "whose first bytes are lost, so its last tokens cannot be found; leave the sample out"
        )
    if is_cut and not sample.response:
        raise TokenMismatch(f"sample {sample.sample_id}: the response is empty and was cut off, so it holds no token")
    try:
        return encode_answer(
            policy,
            sample.prompt,
            sample.response,
            prompt_ids=sample.prompt_ids,
            tools=_tools_of(sample),
            is_cut=is_cut,
        )
    except AnswerError as error:
        raise TokenMismatch(f"sample {sample.sample_id}: {error}") from error


def _difference(decoded: str, response: str, *, width: int = 30) -> str:
    """Both texts around their first difference, as one phrase."""
    pairs = enumerate(zip(decoded, response, strict=False))
    first = next((place for place, (a, b) in pairs if a != b), min(len(decoded), len(response)))
    start = max(0, first - width // 2)
    return (
        f"{decoded[start : start + width]!r} where the text has {response[start : start + width]!r} "
        f"(from character {start}; the first difference is at {first})"
    )
