"""What is this data good for? Samples and numbers in, findings and one verdict out. Knows no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from klimb.experience.feedback import Feedback
from klimb.experience.samples import Sample
from klimb.findings.audit.alignment import Decode, HasToken, check_alignment
from klimb.findings.audit.collecting import plan_collecting
from klimb.findings.audit.contamination import contamination_block
from klimb.findings.audit.contents import count_contents
from klimb.findings.audit.coverage import coverage_block
from klimb.findings.audit.evidence import TokenPairs, pair_up
from klimb.findings.audit.examples import Evidence, choose_examples
from klimb.findings.audit.feedback import feedback_block
from klimb.findings.audit.follow import follow_block
from klimb.findings.audit.lengths import length_block
from klimb.findings.audit.overlap import Rounding, measure_rounding, overlap_block, same_model_block
from klimb.findings.audit.personal import personal_block
from klimb.findings.audit.provenance import provenance_block
from klimb.findings.audit.raters import ByUser, latest_ratings, measure_agreement
from klimb.findings.audit.redundancy import redundancy_block
from klimb.findings.audit.report import (
    Answer,
    AuditReport,
    Block,
    Collecting,
    Contents,
    Example,
    Figure,
    Use,
    Verdict,
    VerdictKind,
)
from klimb.findings.audit.signal import signal_block
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.audit.uses import list_uses, says_nothing
from klimb.findings.audit.verdict import decide, verdict_of
from klimb.findings.finding import Finding, Status
from klimb.findings.statistics import Interval

__all__ = [
    "Answer",
    "AuditReport",
    "Block",
    "Collecting",
    "Contents",
    "Example",
    "Figure",
    "Finding",
    "Rounding",
    "Status",
    "Thresholds",
    "Use",
    "Verdict",
    "VerdictKind",
    "audit",
    "measure_rounding",
]


Scores = Sequence[Sequence[float] | None]


def audit(
    samples: Sequence[Sample],
    *,
    data: str = "",
    log_pi: Scores | None = None,
    log_same: Scores | None = None,
    fresh: Sequence[Sample] | None = None,
    ratings: Sequence[Feedback] | None = None,
    files: Mapping[str, int] | None = None,
    left_out: Mapping[str, int] | None = None,
    evaluation_prompts: Sequence[str] = (),
    thresholds: Thresholds | None = None,
    decode: Decode | None = None,
    has_token: HasToken | None = None,
    is_logging_model: bool = False,
    temperature: float = 1.0,
    rounding: Rounding | None = None,
) -> AuditReport:
    """Every check that the given pieces allow, and the verdict; a check that lacks a piece is `unknown` and says which.

    Args:
        samples: at least one.
        data: its name.
        log_pi: per sample, the log-probability in nats of each response token under the policy to train, or None where
            it was not scored.
        log_same: the same under the logging model.
        fresh: answers of the policy to train, for coverage.
        ratings: people's, one by one, for whether they agree; those of other samples are left out.
        files: samples and ratings by the file that brought them.
        left_out: rows that were never imported, by reason.
        evaluation_prompts: texts that must not be in the data.
        thresholds: what the findings are held against; None takes the defaults.
        decode: token ids -> text without special tokens, for the round trip and the examples.
        has_token: tells whether the tokenizer has a token for an id; others that a model draws decode to nothing.
        is_logging_model: the policy to train has the weights that made the data, so that `log_pi` is `log_same`.
        temperature: of the policy to train, at which log_pi and log_same were computed.
        rounding: how far the logging model is from itself in another precision; only what is beyond it is judged.

    Raises:
        ValueError: there are no samples, or scores are not one a sample and one a token.
    """
    if not samples:
        raise ValueError("audit: no samples; check the path and the filter")
    limits = thresholds or Thresholds()
    same_scores = log_same if log_same is not None else (log_pi if is_logging_model else None)
    evidence = _gather_evidence(samples, log_pi, same_scores, decode, has_token, limits, temperature=temperature)
    blocks = _check_all(evidence, fresh, evaluation_prompts, _Ratings.of(samples, ratings), limits, rounding=rounding)
    contents = count_contents(samples, files=files, left_out=left_out)
    findings = {finding.name: finding for block in blocks for finding in block.findings}
    collecting = plan_collecting(samples, limits, is_vain=says_nothing(findings))
    return AuditReport(
        data=data,
        num_samples=len(samples),
        num_groups=len({sample.group_id for sample in samples}),
        uses=list_uses(findings, contents, collecting, limits),
        contents=contents,
        collecting=collecting,
        blocks=blocks,
        verdict=_verdict(findings, evidence, decode, limits),
    )


def _gather_evidence(
    samples: Sequence[Sample],
    log_pi: Scores | None,
    log_same: Scores | None,
    decode: Decode | None,
    has_token: HasToken | None,
    limits: Thresholds,
    *,
    temperature: float,
) -> Evidence:
    """Return samples and scores token by token, and whether they are of one another."""
    pairs = _paired(samples, log_pi, "log_pi")
    same = _paired(samples, log_same, "log_same", only_at=temperature)
    return Evidence(
        samples=samples,
        scores=log_same if log_pi is None else log_pi,
        pairs=pairs,
        same=same,
        alignment=check_alignment(samples, _first_with_rows(same, pairs), decode, limits, has_token=has_token),
    )


@dataclass(frozen=True, kw_only=True)
class _Ratings:
    """People's ratings of the samples by user, where they are known one by one, and how far they agree."""

    by_user: ByUser | None = None
    agreement: Interval | None = None
    known: Sequence[Feedback] = ()

    @staticmethod
    def of(samples: Sequence[Sample], ratings: Sequence[Feedback] | None) -> "_Ratings":
        ids = {sample.sample_id for sample in samples}
        known = [rating for rating in ratings or () if rating.sample_id in ids]
        if not known:
            return _Ratings()
        by_user = latest_ratings(known)
        return _Ratings(by_user=by_user, agreement=measure_agreement(by_user), known=known)


def _check_all(
    evidence: Evidence,
    fresh: Sequence[Sample] | None,
    evaluation_prompts: Sequence[str],
    ratings: _Ratings,
    limits: Thresholds,
    *,
    rounding: Rounding | None,
) -> tuple[Block, ...]:
    """Return every check, in the order of the report."""
    samples = evidence.samples
    return (
        provenance_block(samples, limits),
        evidence.alignment.block,
        same_model_block(evidence.same, limits, rounding=rounding),
        overlap_block(evidence.pairs, limits),
        coverage_block(samples, fresh, evaluation_prompts, limits),
        *_blocks_of_texts(samples, evaluation_prompts, ratings, limits),
    )


def _blocks_of_texts(
    samples: Sequence[Sample], evaluation_prompts: Sequence[str], ratings: _Ratings, limits: Thresholds
) -> tuple[Block, ...]:
    """Return what needs texts and rewards alone."""
    return (
        signal_block(samples, limits),
        redundancy_block(samples, limits),
        contamination_block(samples, evaluation_prompts),
        length_block(samples, limits),
        feedback_block(samples, limits, by_user=ratings.by_user, agreement=ratings.agreement, ratings=ratings.known),
        follow_block(samples, limits, agreement=ratings.agreement),
        personal_block(samples, limits),
    )


def _verdict(findings: Mapping[str, Finding], evidence: Evidence, decode: Decode | None, limits: Thresholds) -> Verdict:
    decision = decide(findings, limits)
    is_good = decision.kind == "rl-with-correction"
    examples = choose_examples(evidence, decision.finding.name, decode, is_good=is_good)
    return verdict_of(decision, findings, limits, examples)


def _paired(
    samples: Sequence[Sample], scores: Scores | None, name: str, *, only_at: float | None = None
) -> TokenPairs | None:
    if scores is None:
        return None
    if len(scores) != len(samples):
        raise ValueError(f"audit: {len(scores)} entries of {name} for {len(samples)} samples; give one each, or None")
    return pair_up(samples, scores, only_at=only_at)


def _first_with_rows(*choices: TokenPairs | None) -> TokenPairs | None:
    """Return the logging model tells places apart best; the policy to train does if it is near."""
    return next((pairs for pairs in choices if pairs is not None and pairs.rows), None)
