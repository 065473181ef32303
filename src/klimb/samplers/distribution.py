"""The distribution a token is drawn from, and the draw.

Before anything here, a repetition penalty and a minimum length change the logits (`klimb.samplers.drawing`). Order of
the filters, as in transformers' `generate`: temperature, top-k, top-p, min-p; each is computed on what the one
before it left, renormalised. (vLLM applies min-p before top-k and top-p: the two agree unless min-p meets top-p.)

A filter decides by probability alone, so tokens that tie with the last one kept are kept too. The token that crosses
`top_p` is kept. All log-probabilities are float32 and in nats, whatever the dtype of the logits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from klimb.experience.samples import SamplingSettings

TOP_P_CANDIDATES = 1024
"""Only this many most likely tokens are sorted at first; the whole vocabulary only if they do not reach `top_p`."""


CDF_BLOCK = 256
"""Tokens per block of the inverse CDF: near the square root of a usual vocabulary, so both levels are short."""


CPU_ROWS = 8
"""Rows whose probabilities are in memory at once: at 50 000 tokens they stay in a core's cache."""


@dataclass(frozen=True)
class TokenDetails:
    """What is found out of each token besides its log-probabilities.

    Attributes:
        support: which tokens could be drawn, where the settings cut some off (`cuts_off_tokens`). At 50 000 tokens and
            a flat distribution these are thousands of ids for each token of an answer.
        num_top: how many of the likeliest tokens, with their log-probabilities.
    """

    support: bool = False
    num_top: int = 0


@dataclass(frozen=True)
class Drawn:
    """One token per row.

    Attributes:
        token_ids: the drawn ones.
        log_mu: under the distribution drawn from.
        log_model: under the policy's own.
        support: for each row the ids, ascending and on the CPU, that could be drawn; None where it was not asked for or
            nothing is cut off.
        top_ids: the likeliest tokens under the policy's own distribution, in descending order; None: not asked for.
        top_log_probs: theirs.
    """

    token_ids: Int[Tensor, " batch"]
    log_mu: Float[Tensor, " batch"]
    log_model: Float[Tensor, " batch"]
    support: Sequence[Int[Tensor, " _"]] | None = None
    top_ids: Int[Tensor, "batch top"] | None = None
    top_log_probs: Float[Tensor, "batch top"] | None = None


def cuts_off_tokens(settings: SamplingSettings) -> bool:
    """Tell whether top-k, top-p or min-p leave a set of tokens that can be drawn, which is worth recording.

    A temperature of 0 leaves a point mass, from which nothing can be learnt of the others. A minimum length alone takes
    nothing but the end tokens away, in the answer's first tokens: that set is known without being recorded.
    """
    return settings.temperature > 0 and any(name != "min_new_tokens" for name in settings.cuts)


def processed_log_probs(
    logits: Float[Tensor, "batch vocab"], settings: SamplingSettings
) -> Float[Tensor, "batch vocab"]:
    """Log-probabilities of the distribution that tokens are drawn from; −inf where a token was filtered out.

    Temperature 0 gives the point mass on the most likely token (the first of them when several tie).
    """
    if settings.temperature == 0:
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.full_like(logits, -math.inf, dtype=torch.float32).scatter(-1, best, 0.0)
    log_probs = _tempered(logits, settings.temperature).log_softmax(dim=-1)
    if 0 < settings.top_k < log_probs.shape[-1]:
        log_probs = _keep_from(log_probs, log_probs.topk(settings.top_k).values[..., -1:])
    if settings.top_p < 1:
        log_probs = _keep_from(log_probs, _top_p_threshold(log_probs, settings.top_p))
    if settings.min_p > 0:
        log_probs = _keep_from(log_probs, log_probs.amax(dim=-1, keepdim=True) + math.log(settings.min_p))
    return log_probs


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    """Return logits over the temperature up to a constant a row, in float32."""
    logits = logits.float()
    # The largest logit becomes 0 first: a tiny temperature then sends the others to −inf, and none to +inf.
    return logits if temperature == 1 else (logits - logits.amax(dim=-1, keepdim=True)) / temperature


def tokens_at(
    mass: Float[Tensor, "batch vocab"], quantiles: Float[Tensor, " batch"], *, block: int = CDF_BLOCK
) -> Int[Tensor, " batch"]:
    """Inverse CDF: the token whose interval of cumulative mass holds the row's quantile.

    `mass` need not sum to one. With quantiles uniform in [0, 1) each token is drawn in proportion to its mass. A token
    without mass is never returned, for any quantile: rounding of the sums cannot reach it, because only positions with
    mass can be found.

    Two levels: block sums find the block, then a cumulative sum within it finds the token. The sums are float64, so
    tokens of probability below float32's resolution of 1 keep their share.
    """
    batch, vocab = mass.shape
    if vocab % block:
        mass = torch.nn.functional.pad(mass, (0, block - vocab % block))
    blocks = mass.view(batch, -1, block)
    chosen, within = _find(blocks.sum(dim=-1), quantiles)
    token, _ = _find(blocks[torch.arange(batch, device=mass.device), chosen], within)
    return chosen * block + token


def draw(
    logits: Float[Tensor, "batch vocab"],
    settings: SamplingSettings,
    *,
    quantiles: Float[Tensor, " batch"],
    policy_temperature: float = 1.0,
    drawn_from: Float[Tensor, "batch vocab"] | None = None,
    details: TokenDetails = TokenDetails(),
) -> Drawn:
    """One token per row at the given quantiles (uniform in [0, 1), float64), with its log-probabilities.

    `log_model` is that of softmax(logits / policy_temperature).

    Args:
        logits: the model's.
        settings: temperature and filters.
        quantiles: by row.
        policy_temperature: of the policy.
        drawn_from: the logits after a repetition penalty and the like; None draws from the model's.
        details: what else is found out.

    Raises:
        FloatingPointError: a row's logits hold nan or +inf, or nothing but −inf, and so define no distribution.
    """
    if settings.draws_at(policy_temperature):
        drawn = _draw_plain(logits, quantiles, temperature=policy_temperature)
    else:
        changed = logits if drawn_from is None else drawn_from
        log_mu = processed_log_probs(changed, settings)
        # A point mass needs no search: at temperature 0 every quantile gives the same token.
        token_ids = changed.argmax(dim=-1) if settings.temperature == 0 else tokens_at(log_mu.exp(), quantiles)
        log_model = _tempered(logits, policy_temperature).log_softmax(dim=-1)
        support = _ids_by_row(log_mu > -math.inf) if details.support and cuts_off_tokens(settings) else None
        drawn = Drawn(token_ids, _at(log_mu, token_ids), _at(log_model, token_ids), support)
    _check_is_distribution(logits, drawn)
    return _with_top(drawn, logits, details.num_top, policy_temperature) if details.num_top else drawn


def _with_top(drawn: Drawn, logits: Tensor, num_top: int, policy_temperature: float) -> Drawn:
    log_probs = _tempered(logits, policy_temperature).log_softmax(dim=-1)
    top = log_probs.topk(min(num_top, log_probs.shape[-1]), dim=-1)
    return replace(drawn, top_ids=top.indices, top_log_probs=top.values)


def _ids_by_row(mask: Tensor) -> tuple[Tensor, ...]:
    """Return each row's columns that are True, on the CPU."""
    ids = mask.nonzero()[:, 1].int().cpu()
    return ids.split(mask.sum(dim=-1).tolist())


def _draw_plain(logits: Tensor, quantiles: Tensor, *, temperature: float = 1.0, block: int = CDF_BLOCK) -> Drawn:
    """From softmax(logits / temperature) as `tokens_at` would, without all its probabilities in memory."""
    logits = logits.detach()
    vocab = logits.shape[1]
    peaks, sums = _block_masses(logits, block, temperature)
    chosen, within = _find(sums, quantiles)
    columns = chosen[:, None] * block + torch.arange(block, device=logits.device)
    # The last block may reach past the vocabulary.
    relative = logits.gather(1, columns.clamp(max=vocab - 1)).float() - peaks
    if temperature != 1:
        relative /= temperature
    token, _ = _find(relative.exp().masked_fill(columns >= vocab, 0), within)
    log_model = _at(relative, token) - sums.double().sum(dim=-1).log().float()
    return Drawn(chosen * block + token, log_model, log_model)


def _block_masses(logits: Tensor, block: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Each row's largest logit `[batch, 1]`, and the sums of exp((logit − largest) / temperature) over blocks."""
    batch, vocab = logits.shape
    num_blocks = math.ceil(vocab / block)
    rows = min(batch, CPU_ROWS) if logits.device.type == "cpu" else batch
    buffer = torch.zeros(rows, num_blocks * block, device=logits.device)
    peaks = torch.empty(batch, 1, device=logits.device)
    sums = torch.empty(batch, num_blocks, device=logits.device)
    for part in (slice(start, min(start + rows, batch)) for start in range(0, batch, rows)):
        filled = buffer[: part.stop - part.start]
        mass = filled[:, :vocab].copy_(logits[part])
        torch.amax(mass, dim=-1, keepdim=True, out=peaks[part])
        mass.sub_(peaks[part])
        if temperature != 1:
            mass.div_(temperature)
        mass.exp_()
        torch.sum(filled.view(-1, num_blocks, block), dim=-1, out=sums[part])
    return peaks, sums


def _at(values: Tensor, token_ids: Tensor) -> Tensor:
    return values.gather(-1, token_ids[:, None])[:, 0]


def _keep_from(log_probs: Tensor, threshold: Tensor) -> Tensor:
    """Renormalised log-probs of the tokens at or above the row's threshold; −inf elsewhere."""
    return log_probs.masked_fill(log_probs < threshold, -math.inf).log_softmax(dim=-1)


def _top_p_threshold(log_probs: Tensor, top_p: float) -> Tensor:
    """Log-prob of the token with which the descending cumulative probability first reaches `top_p`."""
    descending = log_probs.topk(min(TOP_P_CANDIDATES, log_probs.shape[-1])).values
    reached = descending.double().exp().sum(dim=-1)
    if (reached < top_p).any():
        descending = log_probs.sort(dim=-1, descending=True).values
    num_below = (descending.double().exp().cumsum(dim=-1) < top_p).sum(dim=-1, keepdim=True)
    # Probabilities that sum to just under 1 by rounding may never reach a top_p close to 1: then all are kept.
    return descending.gather(-1, num_below.clamp(max=descending.shape[-1] - 1))


def _find(mass: Tensor, quantiles: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the entry with mass that holds the quantile, and where within that entry it lies, in [0, 1)."""
    mass = mass.double()
    cumulative = mass.cumsum(dim=-1)
    # Entries without mass cannot be found, even where a parallel scan rounds two equal sums differently.
    cumulative = cumulative.masked_fill(mass == 0, -math.inf)
    total = cumulative.amax(dim=-1)
    # u·total may round up to total, which lies past the last entry.
    target = torch.minimum(quantiles * total, total.nextafter(torch.zeros_like(total)))
    index = (cumulative > target[:, None]).byte().argmax(dim=-1)
    found = index[:, None]
    share = mass.gather(-1, found)[:, 0]
    before = cumulative.gather(-1, found)[:, 0] - share
    return index, ((target - before) / share).clamp(0, 1)


def _check_is_distribution(logits: Tensor, drawn: Drawn) -> None:
    bad = ~torch.isfinite(drawn.log_model) | drawn.log_mu.isnan()
    if not bad.any():
        return
    row = int(bad.nonzero()[0])
    raise FloatingPointError(
        f"{int(bad.sum())} of {len(logits)} rows of logits define no distribution; row {row} holds "
        f"{int(logits[row].isnan().sum())} nan, {int(logits[row].isposinf().sum())} +inf and "
        f"{int(logits[row].isneginf().sum())} -inf of {logits.shape[1]} values; the weights that produced them are "
        "broken or the compute dtype overflows"
    )
