"""What the log-ratios say before any clip touched them. Every key is explained in docs/metrics.md."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from klimb.divergences import bound
from klimb.losses.clips import Clipped
from klimb.losses.inputs import Inputs, Units, to_units, unit_mask, working_dtype
from klimb.losses.names import Level

_QUANTILES = {"w_p01": 0.01, "w_p50": 0.5, "w_p99": 0.99}


def effective_sample_share(log_weights: Float[Tensor, " units"]) -> Float[Tensor, ""]:
    """Kish's effective sample size over the number of samples: (Σw)² / (n·Σw²), in (0, 1].

    Computed in log space, so that sequence weights need not fit into a float.
    """
    log_n = torch.tensor(float(max(1, log_weights.numel())), dtype=log_weights.dtype, device=log_weights.device).log()
    share = 2 * torch.logsumexp(log_weights, 0) - torch.logsumexp(2 * log_weights, 0) - log_n
    return share.clamp(max=0).exp()  # rounding would give 1.000001 for equal weights


@torch.no_grad()
def ratio_metrics(
    log_w: Float[Tensor, "batch time"],
    log_v: Float[Tensor, "batch time"] | None,
    mask: Bool[Tensor, "batch time"],
    *,
    weight_bound: float,
) -> dict[str, Tensor]:
    """Per-token divergences in nats and the effective sample size at three levels.

    With x = log w − log v: kl_mu_pi = mean of w − 1 − log w, kl_pi_ref = mean of w·x − w + v, and
    kl_ref_pi = mean of w − v − v·x. None is negative, and all are unbiased for samples of μ.
    """
    w = bound(log_w, weight_bound).exp()
    metrics = {"kl_mu_pi": (w - 1 - log_w)[mask].mean()}
    if log_v is not None:
        v = bound(log_v, weight_bound).exp()
        metrics["kl_pi_ref"] = (w * (log_w - log_v) - w + v)[mask].mean()
        metrics["kl_ref_pi"] = (w - v - v * (log_w - log_v))[mask].mean()
    levels: tuple[tuple[str, Level], ...] = (
        ("ess_token", "token"),
        ("ess_normalised", "sequence-mean"),
        ("ess_sequence", "sequence"),
    )
    for name, level in levels:
        log_weights = to_units(log_w, mask, level=level)[unit_mask(mask, level=level)]
        metrics[name] = effective_sample_share(log_weights)
    return metrics


@torch.no_grad()
def weight_metrics(units: Units, *, weight_bound: float) -> dict[str, Tensor]:
    """Mean, largest and quantiles of the units' weights, raw."""
    return unit_weight_metrics(units.log_w[units.mask], weight_bound=weight_bound)


@torch.no_grad()
def unit_weight_metrics(log_w: Float[Tensor, " units"], *, weight_bound: float) -> dict[str, Tensor]:
    """Return the same of log-weights without their masked entries."""
    w = bound(log_w, weight_bound).exp()
    levels = torch.tensor(list(_QUANTILES.values()), dtype=w.dtype, device=w.device)
    quantiles = torch.quantile(w, levels)
    return {"w_mean": w.mean(), "w_max": w.max(), **dict(zip(_QUANTILES, quantiles, strict=True))}


@torch.no_grad()
def clip_metrics(units: Units, clipped: Clipped, *, teaches: Bool[Tensor, "batch units"]) -> dict[str, Tensor]:
    """Return the share of the units whose gradient each branch of the clip changed.

    Args:
        units: all that count.
        clipped: as a surrogate returns it: with the branches marked where they changed the gradient.
        teaches: units whose term counts in the loss.
    """
    branches = {"low": clipped.low, "high": clipped.high, "ceiling": clipped.ceiling}
    return {
        f"clip_{name}_fraction": (marked & teaches)[units.mask].to(units.log_w.dtype).mean()
        for name, marked in branches.items()
    }


@torch.no_grad()
def bound_metrics(units: Units, *, weight_bound: float) -> dict[str, Tensor]:
    """How many units had a log-ratio that was bounded."""
    outside = (units.log_w.abs() > weight_bound) | (units.log_v.abs() > weight_bound)
    return {"num_bound_hits": outside[units.mask].sum().to(units.log_w.dtype)}


@torch.no_grad()
def data_metrics(inputs: Inputs) -> dict[str, Tensor]:
    """Return what can be said without μ: means over the data's own tokens. They estimate no divergence of π."""
    log_pi, log_ref, mask = inputs.log_pi, inputs.log_ref, inputs.mask
    dtype = working_dtype(log_pi, log_ref)
    metrics = {"log_pi_mean": log_pi[mask].to(dtype).mean()}
    if log_ref is not None:
        metrics["log_pi_ref_mean"] = (log_pi.to(dtype) - log_ref.to(dtype))[mask].mean()
    return metrics


@torch.no_grad()
def entropy_metrics(inputs: Inputs) -> dict[str, Tensor]:
    """Return the mean entropy of the policy in nats a token, where it was given."""
    return {} if inputs.entropy is None else {"entropy": inputs.entropy[inputs.mask].mean()}


def rename_for_prox(metrics: Mapping[str, float]) -> dict[str, float]:
    """Rename what an objective said with prox in the place of μ; what cannot be renamed is left out.

    `w_…` becomes `prox_w_…`; kl_mu_pi becomes `kl_prox_pi`; kl_pi_ref and sample sizes hold for samples of prox alone.
    """
    kept = {name: value for name, value in metrics.items() if not name.startswith("ess_") and name != "kl_pi_ref"}
    names = {"kl_mu_pi": "kl_prox_pi"} | {name: f"prox_{name}" for name in kept if name.startswith("w_")}
    return {names.get(name, name): value for name, value in kept.items()}


@torch.no_grad()
def correction_metrics(
    log_b: Float[Tensor, "batch units"],
    is_cut: Bool[Tensor, "batch units"],
    dropped: Bool[Tensor, "batch time"],
    counted: Bool[Tensor, "batch units"],
    mask: Bool[Tensor, "batch time"],
    *,
    weight_bound: float | None,
) -> dict[str, Tensor]:
    """Of the weights b = prox/μ before their rule, and how many responses the off-policy mask left out.

    Without a bound there are no weights, and the mask is all there is to say.
    """
    rows = mask.any(dim=1)
    metrics = {"off_policy_mask_fraction": dropped.any(dim=1)[rows].to(log_b.dtype).mean()}
    if weight_bound is None:
        return metrics
    raw = log_b[counted]
    b = bound(raw, weight_bound).exp()
    return metrics | {
        "behaviour_w_mean": b.mean(),
        "behaviour_w_max": b.max(),
        "behaviour_ess": effective_sample_share(raw),
        "behaviour_cut_fraction": is_cut[counted].to(log_b.dtype).mean(),
        "num_behaviour_bound_hits": (raw.abs() > weight_bound).sum().to(log_b.dtype),
    }
