"""What a row says of one response, and the one gate through which it becomes a sample."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import compress

from klimb.experience.importing.conversations import join_texts, with_drawn_text
from klimb.experience.importing.log_probs import (
    CHOSEN,
    NOT_REPORTED,
    PROMPT_IS_ANOTHER,
    Stated,
    checked_log_mu,
    checked_support,
    has_gaps,
    provenance_of,
    read_settings,
)
from klimb.experience.importing.request_settings import continues_message, flat_settings
from klimb.experience.importing.rules import FUTURE_SLACK, ImportRules
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import MOST_REWARD, POLICY_ROLE, FinishReason, Message, Provenance, Sample, Turn

WITHOUT_IDS = "log-probabilities without token ids"
"""Note of a sample whose log-probabilities could not be placed; the raw row keeps them."""


TURNS_NOTE = "turns_note"
"""In the metadata of a conversation of texts: why it has no token ids."""


WITHOUT_TURN_IDS = "turns without token ids"


PROMPT_NOTE = "prompt_note"
"""In the metadata of a sample of text: why a chat template renders another prompt of its messages than was answered."""


AFTER_ASSISTANT = "a last message of the assistant, which some servers let the answer continue"


RENDERED = "a message that a chat template rendered already"


_MARKS = (
    *(
        "<|im_start|>",
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<bos>",
        "<start_of_turn>",
        "<s>[INST]",
        "<s> [INST]",
    ),
    *("[INST]", "<|system|>", "<|user|>", "<|start|>", "<｜begin▁of▁sentence｜>", "<｜User｜>"),
)
"""With which a conversation begins that a chat template has written; DeepSeek's has wide bars."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedRow:
    """One response of a row, as an importer reads it; nothing of it is checked yet.

    Attributes:
        row_id: the row's own id; empty if it has none.
        part: which of the row's responses this is: 0, 1, ...
        group: the row's own group; empty for all responses to one prompt.
        prompt_ids: empty when only the text was recorded.
        response_ids: the same.
        log_probs: a list with one value per response token; None when absent.
        support: for each drawn token a list of the ids that could be drawn; None when not recorded.
        log_probs_note: why the row's log-probabilities are not taken; `log_probs` is then None.
        tokens: bytes of each response token, if its ids are not recorded.
        turns: the response, where it has several turns or calls tools; `response` is then what they say. A single one
            has the ids of the response; of several each says how many are its.
        tools: schemas of the tools on offer, as a JSON list; empty for none.
        episode: of the conversation that this is a part of; empty for a whole one.
        opening: what the conversation was asked at first, by which its parts are grouped; empty where that is `prompt`.
        reward_parts: named parts of the reward.
        request: what was asked of the sampler, with its settings.
        prompt_notes: what else makes the prompt another than the messages by themselves; it does not matter where
            `prompt_ids` are there.
        sample: the sample itself, where the row holds all of it; what is above is then for checking alone.
    """

    prompt: tuple[Message, ...]
    response: str
    finish_reason: FinishReason = "unknown"
    row_id: str = ""
    part: int = 0
    group: str = ""
    reward: float | None = None
    reward_reason: str = ""
    prompt_ids: tuple[int, ...] = ()
    response_ids: tuple[int, ...] = ()
    log_probs: object = None
    support: object = None
    log_probs_note: str = ""
    tokens: tuple[bytes, ...] = ()
    request: Mapping[str, object] = field(default_factory=dict[str, object])
    prompt_notes: tuple[str, ...] = ()
    model: str = ""
    policy_version: int = 0
    created_at: float = 0.0
    user: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    turns: tuple[Turn, ...] = ()
    tools: str = ""
    episode: str = ""
    opening: tuple[Message, ...] = ()
    reward_parts: Mapping[str, float] = field(default_factory=dict[str, float])
    sample: Sample | None = None


def as_sample(found: ParsedRow, row: Row, rules: ImportRules, *, kind: str) -> Sample:
    """Return the sample, with whatever the row lacks left absent.

        sample_id = the row's id (id#1, id#2, ... for its further responses), else a hash of its content
        group_id  = hash of the prompt, behind the row's group if it has one

    So a file imported again gives the same ids, and equal groups of two files with different prompts stay apart.

    Raises:
        RowError: what no loss could use.
    """
    if found.sample is not None:
        _check(found, found.sample.response_ids, rules)
        return found.sample
    asked = flat_settings(found.request)
    _check_begins_turn(found, asked)
    response_ids, log_probs, note = _place_log_probs(found, rules)
    _check(found, response_ids, rules)
    turns = _place_turns(found, response_ids, rules)
    num_drawn = sum(turn.num_tokens for turn in turns if turn.is_drawn) if turns else len(response_ids)
    stated = read_settings(asked, rules, row, needs_all=log_probs is not None)
    if why := _why_no_values(log_probs, stated):
        log_probs, note = None, why
    log_mu: tuple[float, ...] | None = None
    provenance: Provenance = "absent"
    if log_probs is not None:
        log_mu = checked_log_mu(log_probs, num_drawn)
        prompt = _why_other_prompt(found, stated, is_scored=True)
        provenance, note = provenance_of(stated.settings, rules, stated.others, prompt=prompt)
    prompt_hash = _hash_of_prompt(found)
    return Sample(
        sample_id=_sample_id(found, row),
        group_id=f"{found.group}-{prompt_hash}" if found.group else prompt_hash,
        prompt=found.prompt,
        prompt_ids=found.prompt_ids,
        response=join_texts(turns) if turns else found.response,
        response_ids=response_ids,
        finish_reason=_finish_reason(found, response_ids),
        reward=found.reward,
        reward_parts=found.reward_parts,
        reward_reason=found.reward_reason,
        log_mu=log_mu,
        log_mu_provenance=provenance,
        support=checked_support(found.support, _drawn_ids(turns, response_ids), num_vocab=rules.num_vocab),
        sampling=stated.settings,
        model=found.model,
        policy_version=found.policy_version,
        source="log",
        created_at=found.created_at,
        metadata=_metadata(found, kind, note, stated, is_scored=log_mu is not None),
        tokenizer=rules.tokenizer if response_ids and not found.response_ids else "",
        raw=row.raw,
        turns=turns,
        tools=found.tools,
        episode=found.episode,
    )


def as_samples(found: ParsedRow, row: Row, rules: ImportRules, *, kind: str) -> list[Sample]:
    """Return what `as_sample` does; a conversation of texts with the token ids that a model's chat template gives it.

    That is one sample, or one a turn where the template rewrites what was said before. Where the model cannot render it
    the texts stay alone, and a note says why.

    Raises:
        RowError: what no loss could use, or more tokens than allowed.
    """
    sample = as_sample(found, row, rules, kind=kind)
    if rules.encode is None or not sample.turns or sample.response_ids:
        return [sample]
    try:
        parts = list(rules.encode(sample))
    except ValueError as error:
        return [replace(sample, metadata={**sample.metadata, TURNS_NOTE: f"{WITHOUT_TURN_IDS}: {error}"})]
    for part in parts:
        _check_num_tokens((*part.prompt_ids, *part.response_ids), rules)
    return parts


def _hash_of_prompt(found: ParsedRow) -> str:
    """Of what was asked, with calls and tools where there are any: without them prompts that differ would be one."""
    parts: list[str] = []
    for message in found.opening or found.prompt:
        parts += (message["role"], message["content"])
        if calls := message.get("tool_calls"):
            parts.append(json.dumps(calls, sort_keys=True, default=str))
        if name := message.get("name"):
            parts.append(name)
    return hash_of(*parts, *([found.tools] if found.tools else []))


def _place_turns(found: ParsedRow, response_ids: Sequence[int], rules: ImportRules) -> tuple[Turn, ...]:
    turns = found.turns
    if len(turns) == 1 and response_ids and not turns[0].num_tokens:
        turns = (with_drawn_text(turns[0], response_ids, rules),)
    if len(turns) == 1 and turns[0].finish_reason == "unknown":
        turns = (replace(turns[0], finish_reason=found.finish_reason),)
    if turns and sum(turn.num_tokens for turn in turns) != len(response_ids):
        raise RowError(
            "turns that are not the response",
            f"they have {sum(turn.num_tokens for turn in turns)} tokens, and the response {len(response_ids)}",
        )
    if turns and not any(turn.is_drawn for turn in turns):
        raise RowError("no response", "none of its turns is the policy's")
    return turns


def _drawn_ids(turns: Sequence[Turn], response_ids: tuple[int, ...]) -> tuple[int, ...]:
    """Return the ids of the turns that the policy drew; all where the response is one turn."""
    is_drawn = [turn.is_drawn for turn in turns for _ in range(turn.num_tokens)]
    return tuple(compress(response_ids, is_drawn)) if turns else response_ids


def hash_of(*texts: str) -> str:
    """32 hexadecimal digits of the texts; where one ends and the next begins matters."""
    digest = blake2b(digest_size=16)
    for text in texts:
        encoded = text.encode("utf-8")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def _check_begins_turn(found: ParsedRow, asked: Mapping[str, object]) -> None:
    """Raise for an answer that goes on with the last message, unless the token ids say where it begins."""
    if continues_message(asked) and not found.prompt_ids:
        raise RowError(
            "an answer that continues a message",
            "the end of its prompt is the beginning of its turn; log the prompt's token ids too (return_token_ids)",
        )


def _why_no_values(log_probs: object, stated: Stated) -> str:
    """Return why recorded log-probabilities are of nothing that could be used; empty where they may be."""
    if log_probs is None:
        return ""
    if stated.chosen:
        return f"{CHOSEN}: {', '.join(stated.others)}"
    return f"{NOT_REPORTED}: null or -9999 in place of a value" if has_gaps(log_probs) else ""


def _why_other_prompt(found: ParsedRow, stated: Stated, *, is_scored: bool) -> tuple[str, ...]:
    """Return what makes the prompt another than a chat template renders of the messages; nothing if its ids are known.

    Args:
        found: the row.
        stated: of its request.
        is_scored: it has log-probabilities, for which a doubt is enough.
    """
    if found.prompt_ids:
        return ()
    is_after_assistant = is_scored and bool(found.prompt) and found.prompt[-1]["role"] == POLICY_ROLE
    is_rendered = any(each["role"] == "user" and _is_rendered(each["content"]) for each in found.prompt)
    return (
        *stated.prompt,
        *found.prompt_notes,
        *((AFTER_ASSISTANT,) if is_after_assistant else ()),
        *((RENDERED,) if is_rendered else ()),
    )


def _is_rendered(text: str) -> bool:
    """Tell a text that a chat template has made already: by its beginning, or by what is left of ChatML."""
    is_bare = text.startswith(("system\n", "user\n")) and text.rstrip("\n").endswith("\nassistant")
    return is_bare or text.lstrip().startswith(_MARKS)


def _place_log_probs(found: ParsedRow, rules: ImportRules) -> tuple[tuple[int, ...], object, str]:
    """Token ids and their log-probabilities; without ids no log-probabilities, and a note that says so."""
    if found.log_probs_note:
        return found.response_ids, None, found.log_probs_note
    if found.response_ids or found.log_probs is None:
        return found.response_ids, found.log_probs, ""
    if not found.tokens or rules.resolve is None:
        return (), None, WITHOUT_IDS
    try:
        return rules.resolve(found.tokens), found.log_probs, ""
    except ValueError as error:
        return (), None, f"{WITHOUT_IDS}: {error}"


def _check(found: ParsedRow, response_ids: Sequence[int], rules: ImportRules) -> None:
    if not found.prompt and not found.prompt_ids:
        raise RowError("no prompt", "an empty prompt has no token that the first one could follow")
    if not (found.response or response_ids or any(turn.text or turn.calls for turn in found.turns)):
        raise RowError("no response", "it is empty")
    if found.reward is not None and abs(found.reward) > MOST_REWARD:
        raise RowError("a reward that sums cannot hold", f"{found.reward:g} is not within ±{MOST_REWARD:g}")
    if found.reward is not None and abs(found.reward) > rules.max_reward:
        raise RowError("a reward beyond the cap", f"{found.reward:g}, and at most {rules.max_reward:g} was allowed")
    if found.policy_version < 0:
        raise RowError("a policy version below 0", str(found.policy_version))
    if found.created_at > rules.now + FUTURE_SLACK or found.created_at < 0:
        raise RowError("a date in the future or before 1970", f"{found.created_at:.0f} seconds; are they milliseconds?")
    ids = (*found.prompt_ids, *response_ids)
    if rules.num_vocab is not None and ids and max(ids) >= rules.num_vocab:
        raise RowError("a token id beyond the vocabulary", f"{max(ids)}, and the model has {rules.num_vocab} tokens")
    _check_num_tokens(ids, rules)


def _check_num_tokens(ids: Sequence[int], rules: ImportRules) -> None:
    if rules.max_tokens is not None and len(ids) > rules.max_tokens:
        raise RowError("too many tokens", f"{len(ids)}, and at most {rules.max_tokens} were allowed")


def _sample_id(found: ParsedRow, row: Row) -> str:
    if not found.row_id:
        return hash_of(row.raw, str(found.part))
    return f"{found.row_id}#{found.part}" if found.part else found.row_id


def _finish_reason(found: ParsedRow, response_ids: Sequence[int]) -> FinishReason:
    """`stop` promises an end token, which logs of token strings leave out."""
    is_without_end = bool(response_ids) and b"".join(found.tokens) == found.response.encode("utf-8")
    return "unknown" if found.tokens and is_without_end and found.finish_reason == "stop" else found.finish_reason


def _metadata(found: ParsedRow, kind: str, note: str, stated: Stated, *, is_scored: bool) -> dict[str, str]:
    metadata = {**found.metadata, "imported_as": kind}
    other_prompt = () if is_scored else _why_other_prompt(found, stated, is_scored=False)
    optional = {
        "completion_id": found.row_id,
        "user": found.user,
        "log_mu_note": note,
        "sampling_assumed": ", ".join(stated.assumed) if is_scored else "",
        "sampling_note": stated.note,
        PROMPT_NOTE: f"{PROMPT_IS_ANOTHER}: {', '.join(other_prompt)}" if other_prompt else "",
    }
    metadata.update((name, text) for name, text in optional.items() if text)
    return metadata
