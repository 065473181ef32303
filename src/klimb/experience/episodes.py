"""The turns of a conversation that were stored one by one, as one sample of several turns.

An answer that was served has a prompt of its own: all that was said before. Where that prompt begins with the tokens of
the last one and its answer, nothing of them was written anew, and the two are one sequence of tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from klimb.experience.samples import POLICY_ROLE, Message, Sample, Turn

SAME = ("model", "policy_version", "sampling", "tokenizer", "tools", "log_mu_provenance")
"""What the answers of one sample have in common."""

JOINED = "joined"
"""Of the metadata of a joined sample: the ids of the answers it is made of."""


def join_turns(samples: Sequence[Sample]) -> list[Sample]:
    """Return one sample for the answers of a conversation that continue each other, and all others as they are.

    Answer b continues a where both are of one `episode`, b's `prompt_ids` begin with a's `prompt_ids` and
    `response_ids`, b's messages with a's messages and a's answer, something was said in between, and one policy drew
    both, as one turn each and with the same settings. Of several that continue the same answer, the first by time does;
    the others begin anew. A turn's reward is that of its answer, the sample's is their sum; answers without one are in
    neither.

    The joined samples stand where their first answer stood. Their log_mu, log_ref and support are those of the answers,
    token by token; a field that some answers lack (log_ref) is left out.
    """
    chains = _find_chains(samples)
    place = {sample.sample_id: number for number, sample in enumerate(samples)}
    ordered = sorted(chains, key=lambda chain: place[chain[0].sample_id])
    return [chain[0] if len(chain) == 1 else _join(chain) for chain in ordered]


def _find_chains(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Return the answers that continue each other, each list in its order."""
    chains: list[list[Sample]] = []
    open_chains: dict[str, list[list[Sample]]] = {}
    numbered = sorted(enumerate(samples), key=lambda each: (len(each[1].prompt_ids), each[1].created_at, each[0]))
    for _, sample in numbered:
        if not sample.episode or not sample.response_ids or sample.turns:
            chains.append([sample])
            continue
        of_episode = open_chains.setdefault(sample.episode, [])
        before = [chain for chain in of_episode if _continues(sample, chain[-1])]
        if before:
            chain = max(before, key=lambda chain: len(chain[-1].prompt_ids))
            of_episode.remove(chain)
        else:
            chain = list[Sample]()
            chains.append(chain)
        chain.append(sample)
        of_episode.append(chain)
    return chains


def _continues(sample: Sample, before: Sample) -> bool:
    seen = before.prompt_ids + before.response_ids
    return (
        sample.prompt_ids[: len(seen)] == seen
        and all(getattr(sample, name) == getattr(before, name) for name in SAME)
        and (sample.support is None) == (before.support is None)
        and bool(_said_between(sample, before))
    )


def _said_between(sample: Sample, before: Sample) -> tuple[Message, ...]:
    """Return the messages after the answer before; none for another history, or another's turn."""
    asked = len(before.prompt)
    history, answer = sample.prompt[:asked], sample.prompt[asked : asked + 1]
    if not asked or history != before.prompt or not answer or answer[0].get("role") != POLICY_ROLE:
        return ()
    between = sample.prompt[asked + 1 :]
    return () if any(message.get("role") == POLICY_ROLE for message in between) else between


def _join(chain: Sequence[Sample]) -> Sample:
    first, last = chain[0], chain[-1]
    turns = [_turn_of(first)]
    ids = first.response_ids
    for before, sample in pairwise(chain):
        between = sample.prompt_ids[len(before.prompt_ids) + len(before.response_ids) :]
        turns += _context(_said_between(sample, before), num_tokens=len(between))
        turns.append(_turn_of(sample))
        ids += between + sample.response_ids
    rewards = [sample.reward for sample in chain if sample.reward is not None]
    return replace(
        last,
        sample_id=f"{first.sample_id}+{len(chain) - 1}",
        group_id=first.group_id,
        prompt=first.prompt,
        prompt_ids=first.prompt_ids,
        response="\n\n".join(sample.response for sample in chain),
        response_ids=ids,
        turns=tuple(turns),
        reward=sum(rewards) if rewards else None,
        reward_parts={},
        reward_reason=f"the sum over {len(rewards)} of {len(chain)} answers, those with a reward",
        log_mu=_concatenate([sample.log_mu for sample in chain]),
        log_ref=_concatenate([sample.log_ref for sample in chain]),
        support=_concatenate([sample.support for sample in chain]),
        metadata={**first.metadata, JOINED: " ".join(sample.sample_id for sample in chain)},
        raw="",
        episode="",
    )


def _turn_of(sample: Sample) -> Turn:
    """Return the answer as a turn, with its reward."""
    return replace(sample.conversation[0], reward=sample.reward)


def _context(messages: Sequence[Message], *, num_tokens: int) -> list[Turn]:
    """Return a turn for each message that was put in; the first has all tokens."""
    return [
        Turn(
            role=message["role"],
            text=message["content"],
            num_tokens=0 if number else num_tokens,
            name=message.get("name", ""),
        )
        for number, message in enumerate(messages)
    ]


def _concatenate(parts: Sequence[tuple[object, ...] | None]) -> tuple[object, ...] | None:
    given = [part for part in parts if part is not None]
    return tuple(value for part in given for value in part) if len(given) == len(parts) else None
