"""What a policy would earn, from responses that another one gave: off-policy estimates, and when not to trust them."""

from klimb.findings.off_policy_evaluation.data import USABLE_PROVENANCE, LoggedData, logged_data, reason_against
from klimb.findings.off_policy_evaluation.estimate import (
    Estimate,
    clip_sweep,
    data_warnings,
    effective_number,
    estimate_values,
    mean_weight,
    with_intervals,
)
from klimb.findings.off_policy_evaluation.estimators import (
    CLIPS,
    DEFAULT_CLIP,
    ESTIMATORS,
    Estimator,
    clipped_ips,
    direct,
    doubly_robust,
    ips,
    logged_mean,
    per_decision,
    self_normalised_doubly_robust,
    snips,
)

__all__ = [
    "CLIPS",
    "DEFAULT_CLIP",
    "ESTIMATORS",
    "USABLE_PROVENANCE",
    "Estimate",
    "Estimator",
    "LoggedData",
    "clip_sweep",
    "clipped_ips",
    "data_warnings",
    "direct",
    "doubly_robust",
    "effective_number",
    "estimate_values",
    "ips",
    "logged_data",
    "logged_mean",
    "mean_weight",
    "per_decision",
    "reason_against",
    "self_normalised_doubly_robust",
    "snips",
    "with_intervals",
]
