"""Statistics as functions of numbers: every interval and every test of klimb is made here."""

from klimb.findings.statistics.chance import paired_chance, unpaired_chance
from klimb.findings.statistics.correlations import pearson, ranks, spearman
from klimb.findings.statistics.interval import ALPHA, CONFIDENCE, Interval
from klimb.findings.statistics.means import (
    LEAST_UNITS,
    Difference,
    cluster_half_width,
    difference_of_groups,
    mean_interval,
    paired_interval,
)
from klimb.findings.statistics.proportions import mid_p_ends
from klimb.findings.statistics.resampling import NUM_RESAMPLES, Ratios, bootstrap_t_intervals, ratio_sum
from klimb.findings.statistics.runs import (
    Profile,
    interquartile_mean,
    iqm,
    performance_profile,
    probability_of_improvement,
)
from klimb.findings.statistics.weights import (
    LOG_BOUND,
    chi_square,
    effective_share,
    expected_share,
    k1,
    k3,
    pareto_k,
    perplexity,
)

__all__ = [
    "ALPHA",
    "CONFIDENCE",
    "LEAST_UNITS",
    "LOG_BOUND",
    "NUM_RESAMPLES",
    "Difference",
    "Interval",
    "Profile",
    "Ratios",
    "bootstrap_t_intervals",
    "chi_square",
    "cluster_half_width",
    "difference_of_groups",
    "effective_share",
    "expected_share",
    "interquartile_mean",
    "iqm",
    "k1",
    "k3",
    "mean_interval",
    "mid_p_ends",
    "paired_chance",
    "paired_interval",
    "pareto_k",
    "pearson",
    "performance_profile",
    "perplexity",
    "probability_of_improvement",
    "ranks",
    "ratio_sum",
    "spearman",
    "unpaired_chance",
]
