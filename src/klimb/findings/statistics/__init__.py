"""Statistics as functions of numbers: every interval and every test of klimb is made here."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.findings.statistics.agreement import krippendorff_alpha
    from klimb.findings.statistics.chance import AlarmBudget, permutation_test, sign_test
    from klimb.findings.statistics.correlations import correlation, pearson, ranks, spearman
    from klimb.findings.statistics.dependence import Dependence, dependence_test
    from klimb.findings.statistics.forecasts import MeanReward, mean_reward, units_for_any_share
    from klimb.findings.statistics.interval import ALPHA, CONFIDENCE, Interval, Tested
    from klimb.findings.statistics.means import (
        LEAST_UNITS,
        difference_of_groups,
        mean_interval,
        paired_interval,
    )
    from klimb.findings.statistics.proportions import share_ends
    from klimb.findings.statistics.resampling import NUM_RESAMPLES, Ratios, bootstrap_t_intervals, ratio_sum
    from klimb.findings.statistics.runs import (
        Profile,
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
    "AlarmBudget",
    "Dependence",
    "Interval",
    "MeanReward",
    "Profile",
    "Ratios",
    "Tested",
    "bootstrap_t_intervals",
    "chi_square",
    "correlation",
    "dependence_test",
    "difference_of_groups",
    "effective_share",
    "expected_share",
    "iqm",
    "k1",
    "k3",
    "krippendorff_alpha",
    "mean_interval",
    "mean_reward",
    "paired_interval",
    "pareto_k",
    "pearson",
    "performance_profile",
    "permutation_test",
    "perplexity",
    "probability_of_improvement",
    "ranks",
    "ratio_sum",
    "share_ends",
    "sign_test",
    "spearman",
    "units_for_any_share",
]

open_lazily(__name__)
