"""How far the policy to train is from the one that made the data, and whether two scores of one model agree."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klimb.findings.audit.evidence import (
    TokenPairs,
    at_least,
    at_most,
    both_at_least,
    both_at_most,
    counted,
    percent,
    short,
    unknown,
)
from klimb.findings.audit.report import Block, Figure
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding
from klimb.findings.statistics import LOG_BOUND, chi_square, effective_share, k1, k3, pareto_k

SAME_MODEL = "k3 against the logging model"


TOKEN_ESS = "effective share of token weights"


MASKED = "tokens outside the band"


_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


_NUM_BINS = 40


_VERL = "verl's documentation"


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How far one model is from itself, computed in two precisions on some of the tokens.

    Attributes:
        name: of the two, such as `bfloat16 against float32`.
        gap: mean |Δ| in nats a token.
        k3: in nats a token.
        off: share of tokens off.
        num_tokens: that were compared.
    """

    name: str
    gap: float
    k3: float
    off: float
    num_tokens: int


def measure_rounding(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], thresholds: Thresholds, *, name: str
) -> Rounding | None:
    """Return how far two scores of the same tokens by the same weights are apart; None without any token."""
    log_w = np.array([b - a for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)])
    if not len(log_w):
        return None
    gap, divergence, off = _distances(log_w, thresholds)
    return Rounding(name=name, gap=gap, k3=divergence, off=off, num_tokens=len(log_w))


def _distances(log_w: NDArray[np.float64], thresholds: Thresholds) -> tuple[float, float, float]:
    off = float((np.abs(np.expm1(log_w.clip(-LOG_BOUND, LOG_BOUND))) > thresholds.token_error).mean())
    return float(np.abs(log_w).mean()), k3(log_w), off


def same_model_block(pairs: TokenPairs | None, thresholds: Thresholds, *, rounding: Rounding | None = None) -> Block:
    """Return recorded log-probabilities against those of the logging model, on samples of its own distribution.

    What its own rounding makes is taken off before a number is judged.
    """
    title = "Whether the logging model gives the recorded log-probabilities"
    if pairs is None or not pairs.rows:
        why = (
            "needs the logging model: score with it and say that it is that model"
            if pairs is None
            else "no sample was drawn from the model itself, nothing cut off, with finite log-probabilities"
        )
        return Block(name="same-model", title=title, findings=(unknown(SAME_MODEL, why),))
    notes = (_size(pairs), *([] if rounding is None else [_of_rounding(rounding)]))
    return Block(name="same-model", title=title, findings=_agreement(pairs, thresholds, rounding), notes=notes)


def _of_rounding(rounding: Rounding) -> str:
    return (
        f"the model's own rounding, {rounding.name}, makes {short(rounding.gap)} nats a token, k3 {rounding.k3:.2e} "
        f"and {percent(rounding.off)} of tokens off, over {counted(rounding.num_tokens, 'token')}; these numbers are "
        "those beyond it"
    )


def _agreement(pairs: TokenPairs, thresholds: Thresholds, rounding: Rounding | None) -> tuple[Finding, ...]:
    gap, divergence, off = _distances(pairs.log_w, thresholds)
    if rounding is not None:
        gap = max(gap - rounding.gap, 0.0)
        divergence = max(divergence - rounding.k3, 0.0)
        off = max(off - rounding.off, 0.0)
    return (
        Finding(
            name="mean |Δ| against the logging model",
            evidence=f"{short(gap)} nats a token",
            status=at_most(gap, good=thresholds.same_model_abs_good, bad=thresholds.same_model_abs_bad),
            title="rounding" if gap <= thresholds.same_model_abs_good else "more than rounding usually makes",
            threshold=both_at_most(f"{thresholds.same_model_abs_good:g}", f"{thresholds.same_model_abs_bad:g}"),
            source="NeMo-RL: a token error above 1 to 2 % is a bug",
            number=gap,
        ),
        Finding(
            name=SAME_MODEL,
            evidence=f"{divergence:.2e} nats a token",
            status=at_most(divergence, good=thresholds.same_model_k3_good, bad=thresholds.same_model_k3_bad),
            title=(
                "the model is the one that made the data"
                if divergence <= thresholds.same_model_k3_bad
                else "the recorded numbers are not those of this model at that temperature"
            ),
            threshold=both_at_most(f"{thresholds.same_model_k3_good:g}", f"{thresholds.same_model_k3_bad:g}"),
            source="NeMo-RL (1e-3), prime-rl (0.015)",
            number=divergence,
        ),
        Finding(
            name="tokens off",
            evidence=f"{percent(off)} by more than {percent(thresholds.token_error)}",
            status=at_most(off, good=thresholds.max_tokens_off),
            title="" if off <= thresholds.max_tokens_off else "two programs with the same weights give less",
            threshold=f"at most {percent(thresholds.max_tokens_off)}",
            source="TRL issue 6789",
            number=off,
        ),
    )


def overlap_block(pairs: TokenPairs | None, thresholds: Thresholds) -> Block:
    """Weights w = π/μ of tokens and responses: their spread, divergences, effective sample sizes, and who is cut."""
    title = "Overlap with the policy to train"
    if pairs is None or not pairs.rows:
        why = (
            "needs the policy's log-probabilities of the same tokens: give a model"
            if pairs is None
            else "no sample has usable log-probabilities from both sides"
        )
        return Block(name="overlap", title=title, findings=(unknown(TOKEN_ESS, why), unknown(MASKED, why)))
    findings = (*_divergences(pairs, thresholds), *_effective_shares(pairs, thresholds), *_cuts(pairs, thresholds))
    return Block(name="overlap", title=title, findings=findings, figures=(_histogram(pairs),), notes=(_size(pairs),))


def _divergences(pairs: TokenPairs, thresholds: Thresholds) -> tuple[Finding, ...]:
    log_w = pairs.log_w
    quantiles = np.exp(np.quantile(log_w, _QUANTILES))
    first, third, squares = k1(log_w), k3(log_w), chi_square(log_w)
    spread = ", ".join(f"{100 * q:g} %: {short(float(w))}" for q, w in zip(_QUANTILES, quantiles, strict=True))
    return (
        Finding(
            name="quantiles of token weights",
            evidence=spread,
            status="good",
            title="w = π/μ; 1 where both policies agree",
            number=float(quantiles[3]),
        ),
        Finding(
            name="k1",
            evidence=f"{short(first)} nats a token",
            status=at_most(abs(first), good=thresholds.max_abs_k1),
            title="mean of log μ − log π, an estimate of KL(μ‖π)",
            threshold=f"|k1| at most {thresholds.max_abs_k1:g}",
            source=_VERL,
            number=first,
        ),
        Finding(
            name="k3",
            evidence=f"{short(third)} nats a token",
            status=at_most(third, good=thresholds.max_abs_k1),
            title="mean of w − 1 − log w, an estimate of KL(μ‖π) that is never negative",
            threshold=f"at most {thresholds.max_abs_k1:g}",
            source=_VERL,
            number=third,
        ),
        Finding(
            name="χ² of token weights",
            evidence=short(squares),
            status=at_most(squares, good=thresholds.max_chi_square),
            title="mean of w² minus 1: how much the weights add to the variance",
            threshold=f"at most {thresholds.max_chi_square:g}",
            source=_VERL,
            number=squares,
        ),
    )


def _effective_shares(pairs: TokenPairs, thresholds: Thresholds) -> tuple[Finding, ...]:
    sequence = pairs.sums(pairs.log_w)
    length = float(pairs.lengths.mean())
    token_share = effective_share(pairs.log_w)
    at_length = f"at {length:.1f} tokens a response"
    decides = at_least(token_share, good=thresholds.token_ess_good, bad=thresholds.token_ess_bad)
    return (
        Finding(
            name=TOKEN_ESS,
            evidence=f"{percent(token_share)} ({at_length})",
            status=decides,
            title="(Σw)²/(n·Σw²): the share of equally weighted tokens that would be worth as much",
            threshold=both_at_least(f"{thresholds.token_ess_good:g}", f"{thresholds.token_ess_bad:g}"),
            source=_VERL,
            number=token_share,
        ),
        _plain_share("effective share of length-normalised weights", sequence / pairs.lengths, at_length),
        _plain_share("effective share of sequence weights", sequence, at_length),
        _tail("Pareto k̂ of token weights", pareto_k(pairs.log_w), thresholds),
        _tail("Pareto k̂ of sequence weights", pareto_k(sequence), thresholds),
    )


def _plain_share(name: str, log_weights: np.ndarray[tuple[int], np.dtype[np.float64]], at_length: str) -> Finding:
    share = effective_share(log_weights)
    return Finding(
        name=name,
        evidence=f"{percent(share)} ({at_length})",
        status=at_least(share, good=0.5),
        title="falls with the length even for noise: about exp(−T·σ²) for T tokens with noise σ",
        threshold="good from 0.5, read beside its length; nothing is decided by it",
        number=share,
    )


def _tail(name: str, shape: float | None, thresholds: Thresholds) -> Finding:
    if shape is None:
        return Finding(
            name=name, evidence="no tail", status="unknown", title="too few different weights to fit a tail to"
        )
    return Finding(
        name=name,
        evidence=short(shape),
        status=at_most(shape, good=thresholds.pareto_k_good, bad=thresholds.pareto_k_bad),
        title="shape of the largest weights; above 0.5 their variance is infinite",
        threshold=both_at_most(f"{thresholds.pareto_k_good:g}", f"{thresholds.pareto_k_bad:g}"),
        source="arXiv 1507.02646",
        number=shape,
    )


def _cuts(pairs: TokenPairs, thresholds: Thresholds) -> tuple[Finding, Finding]:
    log_w = pairs.log_w
    masked = float(((log_w < np.log(thresholds.mask_low)) | (log_w > np.log(thresholds.mask_high))).mean())
    capped = float((log_w > np.log(thresholds.tis_cap)).mean())
    return (
        Finding(
            name=MASKED,
            evidence=f"{percent(masked)} outside [{thresholds.mask_low:g}, {thresholds.mask_high:g}]",
            status=at_most(masked, good=thresholds.max_masked / 2, bad=thresholds.max_masked),
            title="a mask on the ratio would take them out",
            threshold=both_at_most(percent(thresholds.max_masked / 2), percent(thresholds.max_masked)),
            source="band: IcePop, arXiv 2510.18855; share: own choice",
            number=masked,
        ),
        Finding(
            name="tokens above the cap",
            evidence=f"{percent(capped)} above {thresholds.tis_cap:g}",
            status=at_most(capped, good=thresholds.max_masked / 2),
            title="truncated importance sampling would cut their weight",
            threshold=f"at most {percent(thresholds.max_masked / 2)}",
            source="cap: SkyRL, slime; share: own choice",
            number=capped,
        ),
    )


def _histogram(pairs: TokenPairs) -> Figure:
    bounded = pairs.log_w.clip(-5, 5)
    counts, edges = np.histogram(bounded, bins=_NUM_BINS)
    return Figure(
        title="Log-ratios of tokens",
        kind="histogram",
        x=tuple(edges.tolist()),
        y=tuple(counts.astype(float).tolist()),
        x_label="log π − log μ in nats, bounded to ±5",
        y_label="tokens",
        note="a narrow peak at 0 is overlap",
    )


def _size(pairs: TokenPairs) -> str:
    left_out = f"; {pairs.num_left_out:,} left out for NaN or infinite values" if pairs.num_left_out else ""
    return f"over {counted(len(pairs.log_mu), 'token')} of {counted(len(pairs.rows), 'sample')}{left_out}"
