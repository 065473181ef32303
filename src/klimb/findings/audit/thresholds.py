"""Every number an audit compares with, in one place, each with its unit and where it comes from."""

from dataclasses import dataclass

from klimb.findings.thresholds import OWN, check_values, limit


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Settings of an audit. docs/audit.md lists them, and says which check reads which."""

    hoped_gain: float = limit(
        0.1,
        "in units of the reward: the improvement to be seen, which a wider 95 % interval cannot show",
        OWN + "; ±0.05 at a pass rate of one half needs about 385 independent prompts (1.96²·0.25/0.05²)",
    )
    min_effective_prompts: float = limit(
        16.0,
        "effective prompts; fewer decide `collect-more`",
        "few clusters, 5 to 30, make intervals too narrow (Cameron, Gelbach, Miller 2008); own choice of the number",
    )
    max_zero_variance: float = limit(
        0.5,
        "fraction of groups whose rewards are all equal, which have no advantage",
        "DAPO, arXiv 2503.14476, drops them; own choice of the number",
    )
    min_pass_share: float = limit(0.3, "mean of rewards of 0 and 1, below which most draws teach nothing", "ART's FAQ")
    max_pass_share: float = limit(
        0.9, "the same, above which a prompt is learnt", "ScaleRL, arXiv 2510.13786, drops such prompts"
    )
    min_reward_share: float = limit(
        0.05, "fraction of samples with a reward, below which the rest is worth asking about", OWN
    )
    max_unusable_log_mu: float = limit(
        0.05, "fraction of samples whose log_mu is missing, estimated, broken or shifted", OWN
    )
    shift_factor: float = limit(
        2.0,
        "times better that a shifted log_mu fits its neighbour's place",
        OWN + "; one place off raised the divergence from 0.028 to about 60 nats in eval-protocol's pull request 457",
    )
    shift_noise: float = limit(
        0.1,
        "mean |log_mu − log_pi| in nats, up to which nothing is called shifted",
        OWN + "; twice the deviation that TRL issue 6789 measured between two programs with the same weights",
    )
    same_model_abs_good: float = limit(
        0.01, "mean |log_mu − log_same| in nats that is rounding", "NeMo-RL: an error of 1 to 2 % is a bug"
    )
    same_model_abs_bad: float = limit(0.02, "the same, above which it is another model or other settings", "NeMo-RL")
    same_model_k3_good: float = limit(0.001, "k3 divergence in nats/token that is rounding", "NeMo-RL's documentation")
    same_model_k3_bad: float = limit(
        0.015, "k3 in nats/token above which log_mu is not used for ratios", "prime-rl's merge gate"
    )
    token_error: float = limit(0.05, "largest |w − 1| of a token that is not off", OWN)
    max_tokens_off: float = limit(
        0.08, "fraction of tokens off", "TRL issue 6789: 7 to 8 % leave [0.9, 1.1] with the same weights"
    )
    max_truncated_sampling: float = limit(
        0.05,
        "fraction of samples drawn with top-p, top-k, min-p or temperature 0; any of them biases ratios",
        "TRL issue 6789, verl issue 6240; own choice of the number",
    )
    token_ess_good: float = limit(0.5, "effective fraction of token weights", "verl's documentation")
    token_ess_bad: float = limit(0.3, "the same, below which ratios are not used", "verl's documentation")
    mask_low: float = limit(0.5, "lower end of the band of w", "IcePop, arXiv 2510.18855")
    mask_high: float = limit(2.0, "upper end of the band of w", "IcePop uses 2 to 5")
    max_masked: float = limit(0.2, "fraction of tokens outside the band", OWN)
    tis_cap: float = limit(2.0, "w above which weights are cut", "truncated importance sampling in SkyRL and slime")
    max_abs_k1: float = limit(0.1, "|mean log_mu − log_pi| in nats/token", "verl's documentation")
    max_chi_square: float = limit(1.0, "χ² of the token weights", "verl's documentation")
    pareto_k_good: float = limit(0.5, "k̂ below which averages of the weights converge as usual", "arXiv 1507.02646")
    pareto_k_bad: float = limit(0.7, "k̂ above which they are not reliable", "arXiv 1507.02646")
    min_coverage: float = limit(
        0.7,
        "fraction of the policy's own samples that look like logged ones",
        OWN + ", after the coverage diagnostic of arXiv 2512.11150",
    )
    min_similarity: float = limit(0.8, "similarity from which on two responses look alike", OWN)
    near_duplicate: float = limit(
        0.8,
        "Jaccard similarity of character 5-grams from which texts are near duplicates",
        "a common choice for training data, e.g. arXiv 2107.06499",
    )
    max_duplicates: float = limit(0.3, "fraction of repeated rows", OWN)
    max_top_user_share: float = limit(0.2, "fraction of rows from the most active 1 % of users", OWN)
    max_length_correlation: float = limit(0.3, "|correlation| of reward and length", OWN)
    max_cut_off: float = limit(0.1, "fraction of responses that ended at their limit of tokens", OWN)
    max_empty: float = limit(0.05, "fraction of empty responses", "prime-rl: errored or empty above 5 % is 'a smell'")
    min_round_trip: float = limit(0.99, "fraction of responses that decode to their text", OWN)
    min_end_token: float = limit(0.99, "fraction of finished responses that have their end token", OWN)
    round_trip_rows: int = limit(2000, "responses decoded for the round trip, spread evenly over the data", OWN)
    max_drift: float = limit(0.1, "mean reward of the second half in time minus that of the first", OWN)
    min_ratings_to_tell: float = limit(
        100.0,
        "rated answers, from which on ratings are held against shuffled ones",
        OWN + "; a correlation of 0.5 with one of 100 words is found in 100 answers with a chance of about 4 in 5",
    )
    max_shuffled_chance: float = limit(
        0.01, "p of shuffled ratings fitting the answers as well, from which on ratings say nothing", OWN
    )
    max_contradictions: float = limit(0.2, "fraction of answers rated more than once whose ratings differ", OWN)
    max_rating_gap: float = limit(
        0.2, "difference of mean ratings between languages or hours, in spans of the ratings", OWN
    )
    min_agreement: float = limit(
        0.667, "Krippendorff's α of raters, from which on their ratings count as reliable", "Krippendorff 2004"
    )
    max_constant_raters: float = limit(0.05, "fraction of ratings by people who gave one value alone", OWN)
    max_contradicting_raters: float = limit(0.05, "fraction of ratings by people who contradict the others", OWN)
    max_ratings_per_minute: float = limit(
        30.0,
        "ratings of one person in a minute, beyond which they are a burst",
        OWN + "; two seconds for an answer",
    )
    max_burst_share: float = limit(0.05, "fraction of ratings in bursts", OWN)
    min_cloned: float = limit(100.0, "good answers to clone; fewer teach a form at most", OWN)
    personal_rows: int = limit(5000, "samples searched for personal data, spread evenly over the data", OWN)

    def __post_init__(self) -> None:
        check_values(self)
        if min(self.round_trip_rows, self.personal_rows) < 1 or self.shift_factor < 1 or self.hoped_gain == 0:
            raise ValueError(
                "round_trip_rows, personal_rows and shift_factor must be >= 1 and hoped_gain > 0, got "
                f"{self.round_trip_rows}, {self.personal_rows}, {self.shift_factor} and {self.hoped_gain}"
            )
