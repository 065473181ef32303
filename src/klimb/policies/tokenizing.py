"""Texts of a log to token ids, and a check that ids and text of a sample are one response of this policy's tokenizer.

What the policy can take: prompts with room for an answer, samples within its positions.

Ids that are not exactly the text would make every log-probability that of another response, without any error. So what
does not fit is refused, and nothing is repaired.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from klimb.experience import Message, Sample
from klimb.policies.policy import Policy, find_foreign
from klimb.policies.tokenizer import PromptError, decode_ids, vocabulary_of

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

    A response without ids is encoded as plain text (what spells a control token stays text), with the end token behind
    it unless the finish reason is `length`; log-probabilities are not carried over to new ids. A prompt without ids
    is rendered with the chat template. A sample that has both comes back as it is, once it is checked: same
    fingerprint if it says one, every id one of the model's, and the ids decode to the response. An end token, and
    replacement characters behind a response that was cut inside a character, may be in one and not in the other.
    Of several turns each one that was drawn must decode to its text. What was put in between is not read: its text
    does not say what the template wrote around it.

    Raises:
        TokenMismatch: naming the sample and what does not fit.
        UnusableSample: the prompt cannot be rendered (no messages, or the chat template refuses them), or the response
            is a conversation without token ids.
        ValueError: the tokenizer has no chat template.
    """
    if (sample.prompt_ids or sample.response_ids) and sample.tokenizer not in ("", policy.fingerprint):
        raise TokenMismatch(
            f"sample {sample.sample_id}: its ids belong to tokenizer {sample.tokenizer}, and {policy.name} has "
            f"tokenizer {policy.fingerprint}; take the model that drew it, or import the texts alone"
        )
    if sample.response_ids:
        _check_ids(policy, sample, sample.response_ids, "response_ids")
        _check_text(policy, sample)
    if sample.prompt_ids:
        _check_ids(policy, sample, sample.prompt_ids, "prompt_ids")
    if sample.prompt_ids and sample.response_ids:
        return sample
    completed = replace(sample, prompt_ids=sample.prompt_ids or _render(policy, sample), tokenizer=policy.fingerprint)
    if sample.response_ids:
        return completed
    if sample.turns:
        raise UnusableSample(
            f"sample {sample.sample_id}: its response has {len(sample.turns)} turns and no token ids, so which tokens "
            "were drawn is not known; log the token ids, or take each turn as a response of its own",
            reason="a response of several turns has no token ids",
        )
    response_ids = _encode(policy, sample)
    _check_ids(policy, sample, response_ids, "response_ids")
    return replace(completed, response_ids=response_ids, log_mu=None, log_mu_provenance="absent", log_ref=None)


def _render(policy: Policy, sample: Sample) -> tuple[int, ...]:
    try:
        ids = render_prompt(policy, sample)
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
        if not _reads(decoded, sample.response, is_cut=sample.finish_reason != "stop"):
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
    """Ids of the response's text, and the end token unless the response was cut."""
    if sample.finish_reason != "stop" and sample.response.endswith(REPLACEMENT):
        raise TokenMismatch(
            f"sample {sample.sample_id}: the response ends in a replacement character: it was cut inside a character "
            "whose first bytes are lost, so its last tokens cannot be found; leave the sample out"
        )
    # Text that looks like a control token is text: data must not be able to end a response early.
    encoded = policy.tokenizer(sample.response, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ids: tuple[int, ...] = tuple(encoded)
    decoded = policy.decode(ids)
    if decoded != sample.response:
        raise TokenMismatch(
            f"sample {sample.sample_id}: the response encoded and decoded again is "
            f"{_difference(decoded, sample.response)}; the tokenizer of {policy.name} cannot write this text"
        )
    if sample.finish_reason != "length":
        return (*ids, policy.end_ids[0])
    if not ids:
        raise TokenMismatch(f"sample {sample.sample_id}: the response is empty and was cut off, so it holds no token")
    return ids


def _difference(decoded: str, response: str, *, width: int = 30) -> str:
    """Both texts around their first difference, as one phrase."""
    pairs = enumerate(zip(decoded, response, strict=False))
    first = next((place for place, (a, b) in pairs if a != b), min(len(decoded), len(response)))
    start = max(0, first - width // 2)
    return (
        f"{decoded[start : start + width]!r} where the text has {response[start : start + width]!r} "
        f"(from character {start}; the first difference is at {first})"
    )
