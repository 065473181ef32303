"""Choose rows of a log, whole groups at random, and score them under a model.

An audit also asks the model for fresh responses. What the model cannot score is counted with its reason.
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from klimb.errors import ConfigError
from klimb.experience import Sample, SamplingSettings
from klimb.experience.store import Store
from klimb.policies import Policy
from klimb.policies.tokenizing import UnusableSample, fit_sample, render_prompt
from klimb.samplers import LocalSampler
from klimb.training import score_samples

PORTION = 256
"""Groups read from the store at once."""


def recorded_temperature(samples: Sequence[Sample]) -> float | None:
    """Return the temperature that all samples with a log_mu were drawn at; None if there are several or it is unknown.

    Samples that were drawn greedily have no temperature that a policy could have.
    """
    compared = [sample for sample in samples if sample.log_mu is not None]
    found = {None if sample.sampling is None else sample.sampling.temperature for sample in compared}
    return next(iter(found)) or None if len(found) == 1 else None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What was read.

    Attributes:
        samples: of whole groups.
        num_stored: how many there are in the store that meet the condition.
    """

    samples: tuple[Sample, ...]
    num_stored: int


def read_rows(store: Store, *, where: str, max_rows: int, seed: int) -> Rows:
    """All samples that meet the condition; if they are more than `max_rows`, whole groups drawn at random.

    Groups are taken in random order until the next one would exceed `max_rows`; the first is taken at any size.

    Raises:
        ConfigError: nothing meets the condition.
        ValueError: the condition is no expression over the columns.
    """
    num_stored = store.count(where)
    if num_stored == 0:
        condition = f" where {where}" if where else ""
        raise ConfigError(f"{store.folder} holds no samples{condition}; there is nothing to audit")
    if num_stored <= max_rows:
        return Rows(samples=tuple(store.samples(where=where)), num_stored=num_stored)
    group_ids = store.group_ids(where=where)
    random.Random(seed).shuffle(group_ids)
    samples: list[Sample] = []
    for start in range(0, len(group_ids), PORTION):
        for group in store.groups(group_ids[start : start + PORTION], where=where):
            if samples and len(samples) + len(group) > max_rows:
                return Rows(samples=tuple(samples), num_stored=num_stored)
            samples += group
    return Rows(samples=tuple(samples), num_stored=num_stored)


def chosen_rows(samples: Sequence[Sample], candidates: Sequence[int], *, most: int, seed: int) -> list[int]:
    """Of the candidate row numbers, those of whole groups drawn at random, in ascending order.

    Groups are taken in random order until the next one would exceed `most`; the first is taken at any size.
    """
    groups: dict[str, list[int]] = {}
    for row in candidates:
        groups.setdefault(samples[row].group_id, []).append(row)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    chosen: list[int] = []
    for rows in order:
        if chosen and len(chosen) + len(rows) > most:
            break
        chosen += rows
    return sorted(chosen)


MAX_TOKENS = 8192
"""Prompt and response tokens, drawn or put in, padding included, that go through the model at once."""


DEFAULT_NEW_TOKENS = 256
"""Longest fresh answer where no logged response has tokens to go by."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Log-probabilities under the policy to train.

    Attributes:
        log_pi: one entry a sample; None where it was not scored.
        notes: what was left out and why, for people.
    """

    log_pi: tuple[tuple[float, ...] | None, ...]
    notes: tuple[str, ...]


def score_rows(policy: Policy, samples: Sequence[Sample], *, max_samples: int, seed: int) -> Scored:
    """Scores the samples that have a recorded log_mu, of whole groups at random, at most `max_samples`.

    A sample without log_mu is not scored: there is nothing to compare its log_pi with. One whose ids and text do not
    fit the policy's tokenizer, or that is longer than its context, is left out and counted in the notes.
    """
    candidates = [row for row, sample in enumerate(samples) if sample.log_mu is not None and sample.response_ids]
    chosen = chosen_rows(samples, candidates, most=max_samples, seed=seed)
    ready: dict[int, Sample] = {}
    refused: list[str] = []
    for row in chosen:
        try:
            ready[row] = _ready(policy, samples[row])
        except ValueError as error:
            refused.append(str(error))
    log_pi: list[tuple[float, ...] | None] = [None] * len(samples)
    if ready:
        scores = score_samples(policy, list(ready.values()), max_tokens=MAX_TOKENS)
        for row, score in zip(ready, scores, strict=True):
            log_pi[row] = score
    notes = _notes(len(samples), len(candidates), len(chosen), max_samples)
    if refused:
        notes.append(f"{len(refused):,} of {len(chosen):,} chosen samples could not be scored. The first: {refused[0]}")
    return Scored(log_pi=tuple(log_pi), notes=tuple(notes))


ROUNDING_TOKENS = 2000
"""Tokens, prompts among them, that are scored a second time to see what rounding makes."""


def score_again(
    policy: Policy, samples: Sequence[Sample], scored: Scored
) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]], str]:
    """Return the scores of a few short samples, those in the other precision, and the names of both.

    A model that computes in bfloat16 is asked in float32, and the other way round.
    """
    rows = [row for row, score in enumerate(scored.log_pi) if score]
    rows.sort(key=lambda row: len(samples[row].prompt_ids) + len(samples[row].response_ids))
    chosen: list[int] = []
    num_tokens = 0
    for row in rows:
        num_tokens += len(samples[row].prompt_ids) + len(samples[row].response_ids)
        if chosen and num_tokens > ROUNDING_TOKENS:
            break
        chosen.append(row)
    first = [scored.log_pi[row] or () for row in chosen]
    own = policy.compute_dtype
    other = torch.float32 if own == torch.bfloat16 else torch.bfloat16
    policy.compute_dtype = other
    try:
        again = score_samples(policy, [_ready(policy, samples[row]) for row in chosen], max_tokens=MAX_TOKENS)
    finally:
        policy.compute_dtype = own
    return first, again, " against ".join(str(dtype).removeprefix("torch.") for dtype in (own, other))


def _ready(policy: Policy, sample: Sample) -> Sample:
    """Return the sample as the scorer takes it.

    Raises:
        ValueError: its ids are not of this policy, or too many for its context.
    """
    # Scoring reads the ids alone: a broken log_mu is what an audit is to find, not to stumble over.
    return replace(fit_sample(policy, sample), log_mu=None, log_mu_provenance="absent", log_ref=None)


def _notes(num_samples: int, num_candidates: int, num_chosen: int, max_samples: int) -> list[str]:
    if num_candidates == 0:
        return ["No sample has tokens with log μ, so there was nothing to score."]
    notes: list[str] = []
    if num_candidates < num_samples:
        without = num_samples - num_candidates
        notes.append(f"{without:,} of {num_samples:,} samples have no tokens with log μ and were not scored.")
    if num_chosen < num_candidates:
        notes.append(
            f"Scored are {num_chosen:,} of {num_candidates:,} samples with log μ: whole groups at random "
            f"(--max-samples {max_samples})."
        )
    return notes


def note_unfit(policy: Policy, samples: Sequence[Sample], *, max_samples: int, seed: int) -> list[str]:
    """Return a note on samples that this model cannot be trained on, of those that `score_rows` leaves aside.

    They have no log_mu; at most `max_samples` are looked at, of whole groups at random.
    """
    aside = [row for row, sample in enumerate(samples) if sample.log_mu is None or not sample.response_ids]
    chosen = chosen_rows(samples, aside, most=max_samples, seed=seed)
    refused: list[str] = []
    for row in chosen:
        try:
            fit_sample(policy, samples[row])
        except ValueError as error:
            refused.append(str(error))
    if not refused:
        return []
    return [
        f"{len(refused):,} of {len(chosen):,} samples without log μ cannot be trained on with {policy.name}; a run "
        f"refuses and counts them. The first: {refused[0]}"
    ]


def foreign_ids(policy: Policy, samples: Sequence[Sample]) -> int:
    """Return number of samples that say their token ids belong to another tokenizer than the policy's."""
    mine = policy.fingerprint
    return sum(1 for sample in samples if sample.response_ids and sample.tokenizer not in ("", mine))


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """Answers of the policy itself to logged prompts, and what had to be left out."""

    samples: tuple[Sample, ...]
    notes: tuple[str, ...]


def draw_fresh(policy: Policy, samples: Sequence[Sample], *, num_answers: int, seed: int) -> Fresh:
    """At most `num_answers` answers, the same number to each of some logged prompts drawn at random.

    An answer may be as long as the longest logged response, so far as the model's context has room. Of a conversation
    it is the first turn: nobody answers the model here.
    """
    prompts, unrendered = _prompts(policy, samples, most=num_answers, seed=seed)
    room = math.inf if policy.max_positions is None else policy.max_positions
    lengths = [
        max(len(ids) for _, ids in each.drawn_turns)
        for each in samples
        if len(each.prompt_ids) + len(each.response_ids) <= room
    ]
    longest = max(lengths, default=0) or DEFAULT_NEW_TOKENS
    asked = [sample for sample in prompts if len(sample.prompt_ids) + longest <= room]
    notes: list[str] = []
    if unrendered or len(asked) < len(prompts):
        first = f" The first: {unrendered[0]}" if unrendered else ""
        notes.append(
            f"Fresh answers: {len(unrendered)} prompts cannot be rendered by this model and "
            f"{len(prompts) - len(asked)} leave no room for {longest} tokens; they were not asked.{first}"
        )
    if not asked:
        return Fresh(samples=(), notes=tuple(notes))
    settings = SamplingSettings(temperature=policy.temperature, max_new_tokens=longest)
    drawn = LocalSampler(policy).sample(
        [sample.prompt_ids for sample in asked],
        num_samples=max(1, num_answers // len(asked)),
        settings=settings,
        generator=torch.Generator().manual_seed(seed),
    )
    fresh = [
        replace(
            sample,
            sample_id=f"fresh-{number}-{index}",
            response=policy.decode(completion.response_ids),
            response_ids=completion.response_ids,
            finish_reason=completion.finish_reason,
            log_mu=completion.log_mu,
            log_mu_provenance="sampler",
            sampling=settings,
            model=policy.name,
            tokenizer=policy.fingerprint,
        )
        for number, (sample, completions) in enumerate(zip(asked, drawn, strict=True))
        for index, completion in enumerate(completions)
    ]
    return Fresh(samples=tuple(fresh), notes=tuple(notes))


def _prompts(policy: Policy, samples: Sequence[Sample], *, most: int, seed: int) -> tuple[list[Sample], list[str]]:
    """Up to `most` distinct prompts as bare samples with the policy's own ids, and why others cannot be rendered."""
    distinct = {json.dumps((sample.prompt, sample.tools)): sample for sample in samples}
    order = list(distinct.values())
    random.Random(seed).shuffle(order)
    ready: list[Sample] = []
    unrendered: list[str] = []
    for sample in order:
        if len(ready) == most:
            break
        try:
            ready.append(_bare(sample, render_prompt(policy, sample)))
        except ValueError as error:
            unrendered.append(f"sample {sample.sample_id}: {error}")
    return ready, unrendered


def _bare(sample: Sample, prompt_ids: tuple[int, ...]) -> Sample:
    """Return the prompt of a logged sample alone."""
    return Sample(
        sample_id=sample.sample_id,
        group_id=sample.group_id,
        prompt=sample.prompt,
        prompt_ids=prompt_ids,
        tools=sample.tools,
        response="",
        response_ids=(),
        finish_reason="unknown",
    )


@dataclass
class Refusals:
    """How many samples were refused for which reason, and one example each."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, example: str) -> None:
        """Count one."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.examples.setdefault(reason, example)

    def in_words(self) -> list[str]:
        """One sentence a reason, most frequent first."""
        ordered = sorted(self.counts.items(), key=lambda item: -item[1])
        return [f"{count}: {reason}. The first: {self.examples[reason]}" for reason, count in ordered]


def scored_rows(
    policy: Policy, samples: Sequence[Sample], refusals: Refusals
) -> list[tuple[Sample, tuple[float, ...]]]:
    """Score the samples in order: token ids, and the log-probability of each drawn token under the policy.

    Those whose ids and text do not fit the policy's tokenizer, or that are longer than its context, are left out and
    counted in `refusals`.
    """
    ready = [sample for sample in (_with_ids(policy, sample, refusals) for sample in samples) if sample is not None]
    if not ready:
        return []
    # Scoring reads ids alone; what else a log brings must neither stop it nor change it.
    bare = [replace(sample, log_mu=None, log_mu_provenance="absent", log_ref=None) for sample in ready]
    return list(zip(ready, score_samples(policy, bare, max_tokens=MAX_TOKENS), strict=True))


def _with_ids(policy: Policy, sample: Sample, refusals: Refusals) -> Sample | None:
    try:
        return fit_sample(policy, sample)
    except UnusableSample as error:
        refusals.add(error.reason, str(error))
    except ValueError as error:
        refusals.add("the prompt cannot be rendered", f"sample {sample.sample_id}: {error}")
    return None
