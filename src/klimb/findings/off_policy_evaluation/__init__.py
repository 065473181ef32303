"""What a policy would earn, from responses that another one gave: off-policy estimates, and when not to trust them."""

from klimb.findings.off_policy_evaluation.data import USABLE_PROVENANCE, LoggedData, logged_data, reason_against
from klimb.findings.off_policy_evaluation.estimate import (
    Estimate,
    clip_sweep,
    estimate_values,
    logged_mean,
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
    model_direct,
    model_doubly_robust,
    per_decision,
    self_normalised_doubly_robust,
    snips,
)
from klimb.findings.off_policy_evaluation.trust import (
    data_warnings,
    effective_number,
    mean_weight,
    reason_against_intervals,
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
    "model_direct",
    "model_doubly_robust",
    "per_decision",
    "reason_against",
    "reason_against_intervals",
    "self_normalised_doubly_robust",
    "snips",
    "with_intervals",
]
