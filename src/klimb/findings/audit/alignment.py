"""Tokens, texts and log-probabilities: do they belong together?

Do the recorded log-probabilities belong to their tokens, or to the tokens beside them?
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import (
    USABLE,
    TokenPairs,
    at_least,
    at_most,
    both_at_least,
    both_at_most,
    counted,
    percent,
    prompt_text,
    short,
    unknown,
)
from klimb.findings.audit.report import Block, Figure
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding

MIN_TOKENS = 4
"""A shorter response can fit the wrong place by chance."""


SAME = 0.05
"""Nats up to which two programs give the same probability (TRL issue 6789 measured a deviation of 0.05)."""


@dataclass(frozen=True, kw_only=True)
class ShiftTest:
    """Mean |log_mu[t + s] − log_pi[t]| in nats for s = −1, 0, +1, over all tokens that have such a neighbour.

    Attributes:
        place: s ≠ 0 if log_mu of all samples fits better there, else 0.
        shifted_rows: samples that fit a neighbour's place exactly and not their own; all, where `place` is not 0.
        num_rows: samples that were tested.
    """

    errors: tuple[float, float, float]
    place: int
    shifted_rows: tuple[int, ...]
    num_rows: int


def shift_test(pairs: TokenPairs, thresholds: Thresholds) -> ShiftTest | None:
    """Compare every place with its neighbours; None if no sample has two tokens of one turn.

    All data is called shifted if its mean error at s = 0 is above `shift_noise` and `shift_factor` times that at a
    neighbour. A single sample of at least 4 tokens is, if besides its error at the neighbour is at most `shift_noise`:
    one sample of another policy fits a neighbour a little better by chance, but not exactly.
    """
    if not pairs.num_neighbours.any():
        return None
    per_row = np.stack([_errors(pairs, place) for place in (-1, 0, 1)])
    weights = np.stack([pairs.num_neighbours if place else pairs.lengths for place in (-1, 0, 1)])
    before, at, after = ((per_row * weights).sum(axis=1) / weights.sum(axis=1)).tolist()
    best = min(before, after)
    moved = at > thresholds.shift_noise and at >= thresholds.shift_factor * best
    rows = np.array(pairs.rows)
    if not moved:
        best_of_row = np.minimum(per_row[0], per_row[2])
        fits = (best_of_row <= thresholds.shift_noise) & (per_row[1] >= thresholds.shift_factor * best_of_row)
        rows = rows[fits & (per_row[1] > thresholds.shift_noise) & (pairs.lengths >= MIN_TOKENS)]
    return ShiftTest(
        errors=(before, at, after),
        place=0 if not moved else (-1 if before < after else 1),
        shifted_rows=tuple(rows.tolist()),
        num_rows=len(pairs.rows),
    )


def _errors(pairs: TokenPairs, place: int) -> NDArray[np.float64]:
    """Mean |log_mu[t + place] − log_pi[t]| of each row; 0 for rows without such a pair."""
    if place == 0:
        return pairs.sums(np.abs(pairs.log_w)) / pairs.lengths
    gaps = np.zeros(len(pairs.log_mu))
    earlier, later = (pairs.log_pi, pairs.log_mu) if place == 1 else (pairs.log_mu, pairs.log_pi)
    gaps[:-1] = np.abs(earlier[:-1] - later[1:])
    gaps[:-1][pairs.opens[1:]] = 0.0  # the last token of a turn has its neighbour in another one
    return pairs.sums(gaps) / np.maximum(pairs.num_neighbours, 1)


def first_token_conflicts(samples: Sequence[Sample]) -> tuple[int, int]:
    """How many samples disagree about the first token's log_mu with others that must agree, and how many could.

    Needs no model: after the same prompt, under the same model, version and settings, the same first token has the
    same log-probability. Log-probabilities moved by one place break this, as the second tokens differ. A sample
    disagrees if it is more than 0.05 nats from its cell's median.
    """
    cells: dict[object, list[tuple[int, float]]] = defaultdict(list)
    for sample in samples:
        first = sample.drawn_turns[0][1]
        # A response that begins with what was put in has a prompt that the key does not tell.
        if sample.log_mu and len(first) > 1 and sample.is_drawn[0] and sample.log_mu_provenance in USABLE:
            key = (
                prompt_text(sample),
                sample.prompt_ids,
                sample.model,
                sample.policy_version,
                sample.sampling,
                first[0],
            )
            cells[key].append((first[1], sample.log_mu[0]))
    conflicts = compared = 0
    for members in cells.values():
        if len({second for second, _ in members}) < 2:
            continue
        values = np.array([value for _, value in members])
        compared += len(values)
        conflicts += int((np.abs(values - np.median(values)) > SAME).sum())
    return conflicts, compared


Decode = Callable[[Sequence[int]], str]


HasToken = Callable[[int], bool]


BROKEN = "broken log-probabilities"


SHIFT = "log-probabilities moved by one place"


UNUSABLE = "samples without usable log-probabilities"


ABOVE_ZERO = 1e-4
"""Rounding may lift a log-probability this far above 0."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """The block, and what it found of each sample.

    Attributes:
        broken: row -> what makes its log_mu no list of log-probabilities.
        shift: None where it could not be tested.
    """

    block: Block
    broken: Mapping[int, str]
    shift: ShiftTest | None


def check_alignment(
    samples: Sequence[Sample],
    pairs: TokenPairs | None,
    decode: Decode | None,
    thresholds: Thresholds,
    *,
    has_token: HasToken | None = None,
) -> Alignment:
    """Numbers that are no log-probabilities, texts that are not their tokens, and the shift test."""
    broken = {row: fault for row, sample in enumerate(samples) if (fault := fault_of(sample))}
    test = shift_test(pairs, thresholds) if pairs is not None else None
    findings = (
        _lengths(samples),
        _round_trip(samples, decode, has_token, thresholds),
        _end_token(samples, decode, has_token, thresholds),
        _broken(samples, broken, thresholds),
        _shift(test, thresholds) if test else unknown(SHIFT, "needs the policy's log-probabilities of the same tokens"),
        _first_tokens(samples),
        _unusable(samples, len(broken), test, thresholds),
    )
    block = Block(
        name="alignment",
        title="Whether log-probabilities belong to their tokens",
        findings=findings,
        figures=() if test is None else (_picture(test),),
    )
    return Alignment(block=block, broken=broken, shift=test)


def fault_of(sample: Sample) -> str:
    """Return why this log_mu is no list of log-probabilities: `NaN`, `−inf`, `above 0`, `all 0`; empty if it is.

    All 0 is right for temperature 0, where the drawn token has probability 1.
    """
    if sample.log_mu is None or sample.log_mu_provenance not in USABLE or not sample.log_mu:
        return ""
    if any(map(math.isnan, sample.log_mu)):
        return "NaN"
    if min(sample.log_mu) == -math.inf:
        return "−inf"
    if max(sample.log_mu) > ABOVE_ZERO:
        return "above 0"
    is_greedy = sample.sampling is not None and sample.sampling.temperature == 0
    return "all 0" if len(sample.log_mu) > 1 and not any(sample.log_mu) and not is_greedy else ""


def _lengths(samples: Sequence[Sample]) -> Finding:
    with_log_mu = [sample for sample in samples if sample.log_mu is not None]
    if not with_log_mu:
        return unknown("one log-probability a token", "no sample has log-probabilities")
    wrong = sum(len(sample.log_mu or ()) != sample.num_drawn or not sample.log_mu for sample in with_log_mu)
    return Finding(
        name="one log-probability a token",
        evidence=f"{len(with_log_mu) - wrong:,} of {counted(len(with_log_mu), 'sample')}",
        status="bad" if wrong else "good",
        title="" if not wrong else "samples have no tokens or another number of log-probabilities",
        threshold="all",
        number=1 - wrong / len(with_log_mu),
    )


def _round_trip(
    samples: Sequence[Sample], decode: Decode | None, has_token: HasToken | None, thresholds: Thresholds
) -> Finding:
    """Tell whether text and ids belong together; ids without a token have no text, and are counted beside it."""
    name = "token ids decode to the text"
    with_ids = [sample for sample in samples if sample.response_ids]
    if decode is None or not with_ids:
        return unknown(name, "no sample has token ids" if not with_ids else "needs the tokenizer of a model")
    step = math.ceil(len(with_ids) / thresholds.round_trip_rows)
    chosen = with_ids[::step]
    share = sum(_decodes_to_text(sample, decode) for sample in chosen) / len(chosen)
    return Finding(
        name=name,
        evidence=f"{percent(share)} of {counted(len(chosen), 'response')}{_without_token(chosen, has_token)}",
        status=at_least(share, good=1.0, bad=thresholds.min_round_trip),
        title="" if share == 1 else "the ids are of another tokenizer, or the text was changed after it was drawn",
        threshold=both_at_least("100 %", percent(thresholds.min_round_trip)),
        source="own choice",
        number=share,
    )


def _decodes_to_text(sample: Sample, decode: Decode) -> bool:
    """Tell whether the ids decode to the response; of several turns each, whose text may have control tokens too."""
    if not sample.turns:
        return decode(sample.response_ids) == sample.response
    texts = [turn.text for turn, _ in sample.drawn_turns]
    return sample.response == "\n\n".join(texts) and all(
        _is_within(decode(ids), turn.text) for turn, ids in sample.drawn_turns
    )


def _is_within(part: str, text: str) -> bool:
    """Return whether the characters of `part` are in `text` in their order."""
    left = iter(text)
    return all(character in left for character in part)


def _without_token(samples: Sequence[Sample], has_token: HasToken | None) -> str:
    """Return how many responses say more in ids than their text does; nothing where none is known to."""
    if has_token is None:
        return ""
    number = sum(not all(map(has_token, sample.response_ids)) for sample in samples)
    return f"; {number:,} of them hold ids that are no token of the tokenizer and decode to nothing" if number else ""


def _end_token(
    samples: Sequence[Sample], decode: Decode | None, has_token: HasToken | None, thresholds: Thresholds
) -> Finding:
    """With a tokenizer: the last token is special (decodes to nothing). Without: it is one of the two usual ones."""
    name = "finished responses have their end token"
    ended = [ids for sample in samples for turn, ids in sample.drawn_turns if turn.finish_reason == "stop" and ids]
    if not ended:
        return unknown(name, "no sample with token ids is known to have finished")
    counts = Counter(ids[-1] for ids in ended)
    usual = [token for token, _ in counts.most_common(2)]
    tokens = [token for token in counts if has_token is None or has_token(token)]
    ends = [token for token in tokens if decode((token,)) == ""] if decode is not None else usual
    share = sum(counts[token] for token in ends) / len(ended)
    noun = "turn" if any(sample.turns for sample in samples) else "response"
    limit = percent(thresholds.min_end_token)
    return Finding(
        name=name,
        evidence=f"{percent(share)} of {counted(len(ended), noun)}",
        status=at_least(share, good=1.0 if decode else thresholds.min_end_token, bad=thresholds.min_end_token),
        title="" if share == 1 else "without it the policy is never taught where to stop",
        threshold=both_at_least("100 %" if decode else limit, limit),
        source="own choice",
        number=share,
    )


def _broken(samples: Sequence[Sample], broken: Mapping[int, str], thresholds: Thresholds) -> Finding:
    num_given = sum(sample.log_mu is not None and sample.log_mu_provenance in USABLE for sample in samples)
    if not num_given:
        return unknown(BROKEN, "no sample has log-probabilities that a ratio may use")
    share = len(broken) / len(samples)
    kinds = ", ".join(f"{kind}: {number:,}" for kind, number in Counter(broken.values()).most_common())
    return Finding(
        name=BROKEN,
        evidence=f"{len(broken):,} of {counted(num_given, 'sample')}",
        status=at_most(share, good=0.0, bad=thresholds.max_unusable_log_mu),
        title=f"samples by what is wrong: {kinds}" if broken else "all are finite, none above 0, none all 0",
        threshold=both_at_most("0 %", percent(thresholds.max_unusable_log_mu)),
        source="eval-protocol pull request 457: stored zeros looked plausible",
        number=share,
    )


def _shift(test: ShiftTest, thresholds: Thresholds) -> Finding:
    before, at, after = test.errors
    share = len(test.shifted_rows) / test.num_rows
    errors = f"mean |Δ| {short(before)} at −1, {short(at)} at 0, {short(after)} at +1"
    moved = f"they fit the token {'before' if test.place == 1 else 'after'} theirs best"
    own = "they fit their own tokens best" if at <= min(before, after) else "no other place fits clearly better"
    return Finding(
        name=SHIFT,
        evidence=f"{percent(share)} of samples; {errors} nats",
        status=at_most(share, good=0.0, bad=thresholds.max_unusable_log_mu),
        title=moved if test.place else (own if share == 0 else "some samples fit the place beside theirs exactly"),
        threshold=(
            f"{both_at_most('0 %', percent(thresholds.max_unusable_log_mu))} of samples; "
            f"moved if {thresholds.shift_factor:g} times closer at −1 or +1, and more than "
            f"{thresholds.shift_noise:g} nats off at 0"
        ),
        source="eval-protocol pull request 457: one place off on 120 of 120 rows",
        number=share,
    )


def _first_tokens(samples: Sequence[Sample]) -> Finding:
    name = "equal first tokens have equal log-probabilities"
    conflicts, compared = first_token_conflicts(samples)
    if not compared:
        return unknown(name, "no two samples of one prompt, model and settings share their first token alone")
    share = 1 - conflicts / compared
    return Finding(
        name=name,
        evidence=f"{percent(share)} of {counted(compared, 'sample')}",
        status=at_least(share, good=0.9),
        title=(
            "they agree, as they must when log-probabilities belong to their tokens"
            if share >= 0.9
            else "a hint that log-probabilities are moved, or that models or settings were mixed; score with a model"
        ),
        threshold="at least 90 %",
        source="the same prompt and first token have one probability; own choice of the number",
        number=share,
    )


def _unusable(samples: Sequence[Sample], num_broken: int, test: ShiftTest | None, thresholds: Thresholds) -> Finding:
    """Absent, estimated or broken, and of the rest the share that is moved, as far as that was tested."""
    absent = sum(sample.log_mu_provenance not in USABLE for sample in samples) / len(samples)
    broken = num_broken / len(samples)
    moved = 0.0 if test is None else len(test.shifted_rows) / test.num_rows
    share = 1 - (1 - absent - broken) * (1 - moved)
    return Finding(
        name=UNUSABLE,
        evidence=percent(share),
        status=at_most(share, good=0.0, bad=thresholds.max_unusable_log_mu),
        title=(
            f"absent or estimated {percent(absent)}, broken {percent(broken)}, "
            + ("moved: not tested" if test is None else f"moved {percent(moved)} of those compared")
        ),
        threshold=both_at_most("0 %", percent(thresholds.max_unusable_log_mu)),
        source="own choice",
        number=share,
    )


def _picture(test: ShiftTest) -> Figure:
    return Figure(
        title="Distance of recorded log-probabilities from the policy's, by place",
        kind="bars",
        x=(0.0, 1.0, 2.0),
        y=test.errors,
        x_label="compared with the token at",
        y_label="mean |Δ| in nats",
        labels=("−1", "0", "+1"),
        note="the lowest bar should be the one at 0",
    )
