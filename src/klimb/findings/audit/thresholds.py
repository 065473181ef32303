"""Every number an audit compares with, in one place, each with where it comes from."""

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Settings of an audit. Shares are in [0, 1], log-probabilities and divergences in nats.

    "Own choice" marks a number with no source: a place to look twice, not a law.

    Attributes:
        hoped_gain: the improvement of the mean reward that the user wants to see, in units of the reward; 0.1. A 95 %
            interval wider than this on either side cannot show it. Own choice; ±0.05 at a pass rate of one half needs
            about 385 independent prompts (1.96²·0.25/0.05²).
        min_effective_prompts: fewer decide "collect more"; 16. With few clusters the interval itself is too narrow
            (Cameron, Gelbach, Miller 2008: from 5 to 30). Own choice of the number.
        max_zero_variance: share of groups whose rewards are all equal; 0.5. Such groups have no advantage
            (DAPO, arXiv 2503.14476, drops them). Own choice of the number.
        min_pass_share: mean reward of binary rewards below which most draws teach nothing; 0.3 (ART's FAQ).
        max_pass_share: above it a prompt is learnt; 0.9 (ScaleRL, arXiv 2510.13786, drops such prompts).
        min_reward_share: share of samples with a reward below which the rest is worth asking about; 0.05. Own choice.
        max_unusable_log_mu: share of samples whose log_mu is missing, estimated, broken or shifted; 0.05. Own choice.
        shift_factor: log_mu is shifted if it fits its neighbour's place this many times better; 2. Own choice: one
            place off raised the divergence from 0.028 to about 60 nats in eval-protocol's pull request 457.
        shift_noise: mean |log_mu − log_pi| up to which nothing is called shifted; 0.1. Own choice, twice the standard
            deviation of 0.05 that TRL issue 6789 measured between two programs with the same weights.
        same_model_abs_good: mean |log_mu − log_same| that is rounding; 0.01 (NeMo-RL: error of 1 to 2 % is a bug).
        same_model_abs_bad: the same, above which it is another model or other settings; 0.02 (NeMo-RL).
        same_model_k3_good: k3 divergence that is rounding; 1e-3 (NeMo-RL's documentation).
        same_model_k3_bad: k3 above which log_mu is not used for ratios; 0.015 (prime-rl's merge gate).
        token_error: a token is off if its probability differs by more than this factor minus 1; 0.05.
        max_tokens_off: share of tokens off; 0.08 (TRL issue 6789: 7 to 8 % leave [0.9, 1.1] with the same weights).
        max_truncated_sampling: share of samples drawn with top-p, top-k, min-p or temperature 0; 0.05. Any of them
            biases ratios (TRL issue 6789, verl issue 6240). Own choice of the number.
        token_ess_good: effective share of token weights; 0.5 (verl's documentation).
        token_ess_bad: below it ratios are not used; 0.3 (verl's documentation).
        mask_low: lower end of the token band; 0.5 (IcePop, arXiv 2510.18855).
        mask_high: upper end of the token band; 2 (IcePop uses 2 to 5).
        max_masked: share of tokens outside the band; 0.2. Own choice.
        tis_cap: weights above it are cut; 2 (truncated importance sampling in SkyRL and slime).
        max_abs_k1: |mean log_mu − log_pi| per token; 0.1 (verl's documentation).
        max_chi_square: χ² of the token weights; 1 (verl's documentation).
        pareto_k_good: below it averages of the weights converge as usual; 0.5 (arXiv 1507.02646).
        pareto_k_bad: above it they are not reliable; 0.7 (arXiv 1507.02646).
        min_coverage: share of the policy's own samples that look like logged ones; 0.7. Own choice after the coverage
            diagnostic of arXiv 2512.11150.
        min_similarity: two responses look alike from this similarity on; 0.8. Own choice.
        near_duplicate: Jaccard similarity of character 5-grams from which texts are near duplicates; 0.8 (a common
            choice for training data, e.g. arXiv 2107.06499).
        max_duplicates: share of repeated rows; 0.3. Own choice.
        max_top_user_share: share of rows from the most active 1 % of users; 0.2. Own choice.
        max_length_correlation: |correlation| of reward and length; 0.3. Own choice.
        max_cut_off: share of responses that ended at their limit of tokens; 0.1. Own choice.
        max_empty: share of empty responses; 0.05 (prime-rl: errored or empty above 5 % is "a smell").
        min_round_trip: share of responses that decode to their text; 0.99. Own choice.
        min_end_token: share of finished responses that have their end token; 0.99. Own choice.
        round_trip_rows: responses decoded for the round trip, spread evenly over the data; 2000.
        max_drift: difference of the mean reward between the first and the second half in time; 0.1. Own choice.
    """

    hoped_gain: float = 0.1
    min_effective_prompts: float = 16.0
    max_zero_variance: float = 0.5
    min_pass_share: float = 0.3
    max_pass_share: float = 0.9
    min_reward_share: float = 0.05
    max_unusable_log_mu: float = 0.05
    shift_factor: float = 2.0
    shift_noise: float = 0.1
    same_model_abs_good: float = 0.01
    same_model_abs_bad: float = 0.02
    same_model_k3_good: float = 1e-3
    same_model_k3_bad: float = 0.015
    token_error: float = 0.05
    max_tokens_off: float = 0.08
    max_truncated_sampling: float = 0.05
    token_ess_good: float = 0.5
    token_ess_bad: float = 0.3
    mask_low: float = 0.5
    mask_high: float = 2.0
    max_masked: float = 0.2
    tis_cap: float = 2.0
    max_abs_k1: float = 0.1
    max_chi_square: float = 1.0
    pareto_k_good: float = 0.5
    pareto_k_bad: float = 0.7
    min_coverage: float = 0.7
    min_similarity: float = 0.8
    near_duplicate: float = 0.8
    max_duplicates: float = 0.3
    max_top_user_share: float = 0.2
    max_length_correlation: float = 0.3
    max_cut_off: float = 0.1
    max_empty: float = 0.05
    min_round_trip: float = 0.99
    min_end_token: float = 0.99
    round_trip_rows: int = 2000
    max_drift: float = 0.1

    def __post_init__(self) -> None:
        for entry in fields(self):
            value: float = getattr(self, entry.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"threshold {entry.name} must be finite and >= 0, got {value}")
        if self.round_trip_rows < 1 or self.shift_factor < 1 or self.hoped_gain == 0:
            raise ValueError(
                f"round_trip_rows and shift_factor must be >= 1 and hoped_gain > 0, got {self.round_trip_rows}, "
                f"{self.shift_factor} and {self.hoped_gain}"
            )
