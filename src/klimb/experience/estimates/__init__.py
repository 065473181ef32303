"""What a policy would earn, from responses that another one gave: off-policy estimates, and when not to trust them."""

from klimb.experience.estimates.data import USABLE_PROVENANCE, LoggedData, logged_data, reason_against
from klimb.experience.estimates.estimate import Estimate, clip_sweep, estimate_values, with_intervals
from klimb.experience.estimates.estimators import (
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
from klimb.experience.estimates.trust import data_warnings, effective_number, mean_weight

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
