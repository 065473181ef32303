"""What an objective logs: distances, weights, clips, and what stands in their place where there is no ratio."""

from klimb.findings.metrics.metric import Metric

CLIP_FRACTIONS = ("clip_low_fraction", "clip_high_fraction", "clip_ceiling_fraction")
"""One a branch: low, high, and the ceiling of a bad unit."""


OBJECTIVE = (
    Metric(
        name="kl_pi_ref",
        unit="nats/token",
        formula="mean of w·x − w + v: reverse KL(π‖ref), never negative, unbiased under μ",
        healthy="0 right after ref ← π, then rising slowly; verl's documentation warns above 0.1",
        outside=(
            "too high: raise β, lower the learning rate, refresh the reference more often. Stuck at 0: nothing is "
            "learned"
        ),
        panel="Divergence from the reference",
        label="reverse, KL(π‖ref)",
        aggregate="mean",
    ),
    Metric(
        name="kl_ref_pi",
        unit="nats/token",
        formula="mean of w − v − v·x: forward KL(ref‖π), never negative, unbiased under μ",
        healthy="near `kl_pi_ref` while both are small",
        outside="far above it: the policy has dropped what the reference still does, the way to collapse",
        panel="Divergence from the reference",
        label="forward, KL(ref‖π)",
        aggregate="mean",
    ),
    Metric(
        name="kl_mu_pi",
        unit="nats/token",
        formula="mean of w − 1 − log w: forward KL(μ‖π), never negative",
        healthy=(
            "first step of a batch: below 10⁻³ (NeMo-RL's documentation; two ways of computing SmolLM2-135M in "
            "bfloat16 differ by 1.2·10⁻³, in float32 by 0); later epochs: below 0.05 (own)"
        ),
        outside=(
            "high on the first step: sampler and trainer disagree, see `mismatch_*`. High later: fewer epochs, smaller "
            "steps"
        ),
        panel="Distance between behaviour and policy",
        label="KL(μ‖π)",
        aggregate="mean",
    ),
    Metric(
        name="ess_token",
        unit="fraction",
        formula="(Σw)²/(n·Σw²) over tokens, w = π/μ",
        healthy="above 0.5; below 0.3 is a warning (verl's documentation)",
        outside="data is too old for ratios: fewer epochs, younger data, or a loss without ratios",
        panel="Effective sample size",
        label="token",
        aggregate="mean",
    ),
    Metric(
        name="ess_normalised",
        unit="fraction",
        formula="the same with w = exp(mean of log w over a response's tokens)",
        healthy="above 0.9 (own)",
        outside=(
            "data is too old for ratios: fewer epochs, younger data, or a loss without ratios; it is what "
            "`sequence-mean` uses"
        ),
        panel="Effective sample size",
        label="normalised",
        aggregate="mean",
    ),
    Metric(
        name="ess_sequence",
        unit="fraction",
        formula="the same with w = exp(sum of log w): whole responses",
        healthy="about exp(−T·σ²) for T tokens of log-ratio deviation σ; 0.37 at σ = 0.05, T = 400",
        outside=(
            "low is ordinary for long responses: do not use `sequence` or `prefix` level then. Always name T beside it"
        ),
        panel="Effective sample size",
        label="whole response",
        aggregate="mean",
    ),
    Metric(
        name="w_mean",
        unit="1",
        formula="mean of w",
        healthy="1 ± noise, since E_μ[w] = 1; verl's documentation: 0.5 to 2",
        outside="a lasting departure means that `log_mu` is not of the distribution drawn from",
        aggregate="mean",
    ),
    Metric(
        name="w_p01",
        unit="1",
        formula="1 % quantile of w",
        healthy="above 0.3 (own)",
        outside="the policy dropped tokens that it had drawn; look at entropy",
        panel="Weights w = π/μ",
        label="1 % quantile",
        aggregate="mean",
    ),
    Metric(
        name="w_p50",
        unit="1",
        formula="median of w",
        healthy="0.95 to 1.05 (own)",
        outside="a systematic shift: temperature or template differ between sampler and trainer",
        panel="Weights w = π/μ",
        label="median",
        aggregate="mean",
    ),
    Metric(
        name="w_p99",
        unit="1",
        formula="99 % quantile of w",
        healthy="below 3, the dual clip's ceiling (own)",
        outside="fewer epochs, smaller steps",
        panel="Weights w = π/μ",
        label="99 % quantile",
        aggregate="mean",
    ),
    Metric(
        name="w_max",
        unit="1",
        formula="largest w",
        healthy="below 100 (own)",
        outside="single tokens dominate: use a clip. Repeated values of e²⁰ mean the bound: `num_bound_hits`",
        panel="Weights w = π/μ",
        label="largest",
        aggregate="max",
    ),
    Metric(
        name="clip_low_fraction",
        unit="fraction",
        formula=(
            "units whose gradient the clip changed at its lower bound: a bad unit at w ≤ 1 − low (`dual`), any unit "
            "below it (`truncate`, `mask`, `second-moment`), a bad unit at π − μ < −low (`total-variation`). A unit "
            "without a gradient, such as one of advantage 0 under `differentiable`, is not counted"
        ),
        healthy="0 on the first step; about 0.01 in later ones (1.2 % for a clip on stale data in arXiv 2510.01161)",
        outside="above 0.1: most of the batch teaches nothing more, use fewer epochs. Always 0: the clip never acts",
        panel="Clipped, by branch",
        label="low",
        aggregate="mean",
    ),
    Metric(
        name="clip_high_fraction",
        unit="fraction",
        formula="the same at the upper bound: a good unit at w ≥ 1 + high, or at π − μ > high",
        healthy="0 on the first step; about 0.01 in later ones (1.2 % for a clip on stale data in arXiv 2510.01161)",
        outside="above 0.1: most of the batch teaches nothing more, use fewer epochs. Always 0: the clip never acts",
        panel="Clipped, by branch",
        label="high",
        aggregate="mean",
    ),
    Metric(
        name="clip_ceiling_fraction",
        unit="fraction",
        formula="the same above the ceiling: bad units at w ≥ ceiling (`dual`), any at w > ceiling (`total-variation`)",
        healthy="below 0.001 (own)",
        outside="old or foreign data; the policy likes what failed",
        panel="Clipped, by branch",
        label="ceiling",
        aggregate="mean",
    ),
    Metric(
        name="num_bound_hits",
        unit="count",
        formula="units whose log w or log v lies beyond ±`weight_bound`",
        healthy="0",
        outside="wrong `log_mu` or `log_ref`, or a policy that has broken down. Look at the samples",
        panel="Trouble",
        label="weights bounded",
        aggregate="sum",
    ),
    Metric(
        name="entropy",
        unit="nats/token",
        formula="mean of −Σ π·log π over the vocabulary",
        healthy="falls slowly; arXiv 2505.17508 (figure 5) sees it stable where training is stable",
        outside="falls to 0 early: raise β or clip `high`, or use `fkl`. Rises without end: learning rate too high",
        panel="Entropy",
        label="entropy",
        aggregate="mean",
    ),
)


CORRECTIONS = (
    Metric(
        name="behaviour_w_mean",
        unit="1",
        formula="mean of b = prox/μ over the units of `correction.level`",
        healthy="1 ± noise",
        outside="a lasting departure means that `log_mu` is not of the distribution drawn from",
        aggregate="mean",
    ),
    Metric(
        name="behaviour_w_max",
        unit="1",
        formula="largest b",
        healthy="below 100 (own)",
        outside="take `truncate` or `mask` in the place of `decoupled`",
        aggregate="max",
    ),
    Metric(
        name="behaviour_ess",
        unit="fraction",
        formula="(Σb)²/(n·Σb²)",
        healthy="above 0.5; below 0.3 is a warning (verl's documentation)",
        outside="data too old or foreign: a shorter lag, younger replay, or the `token` level",
        aggregate="mean",
    ),
    Metric(
        name="behaviour_cut_fraction",
        unit="fraction",
        formula="units whose b the rule cut or dropped",
        healthy="below 0.05 (own)",
        outside="the correction leaves out most of what it should correct",
        aggregate="mean",
    ),
    Metric(
        name="num_behaviour_bound_hits",
        unit="count",
        formula="units whose log b lies beyond ±20",
        healthy="0",
        outside="wrong `log_mu`: look at the samples",
        aggregate="sum",
    ),
    Metric(
        name="kl_prox_pi",
        unit="nats/token",
        formula="mean of π/prox − 1 − log(π/prox) over the data's tokens",
        healthy="0 on the first step of an update; later below 0.05 (own)",
        outside="fewer epochs, smaller steps",
        aggregate="mean",
    ),
    Metric(
        name="prox_w_mean",
        unit="1",
        formula="mean of π/prox over the objective's units",
        healthy="1 on the first step of an update",
        aggregate="mean",
    ),
    Metric(
        name="prox_w_p01",
        unit="1",
        formula="1 % quantile of the same",
        healthy="above 0.3 (own)",
        outside="as `w_p01`",
        aggregate="mean",
    ),
    Metric(
        name="prox_w_p50",
        unit="1",
        formula="median",
        healthy="0.95 to 1.05 (own)",
        outside="as `w_p50`",
        aggregate="mean",
    ),
    Metric(
        name="prox_w_p99",
        unit="1",
        formula="99 % quantile",
        healthy="below 3 (own)",
        outside="as `w_p99`",
        aggregate="mean",
    ),
    Metric(
        name="prox_w_max",
        unit="1",
        formula="largest",
        healthy="below 100 (own)",
        outside="as `w_max`",
        aggregate="max",
    ),
    Metric(
        name="off_policy_mask_fraction",
        unit="fraction",
        formula="responses of which `correction.off_policy_mask` left out tokens; 0 without it",
        healthy="below 0.1 (own)",
        outside="the policy has left its data: fewer epochs, younger data",
        aggregate="mean",
    ),
)


WITHOUT_RATIO = (
    Metric(
        name="log_pi_mean",
        unit="nats/token",
        formula="mean of log π over the data",
        healthy="cloning: rises",
        outside="falls while cloning: learning rate too high",
        panel="Log-probability of the data",
        label="log π",
        aggregate="mean",
    ),
    Metric(
        name="log_pi_ref_mean",
        unit="nats/token",
        formula="mean of log π − log ref; may be negative",
        healthy="moves slowly from 0",
        outside="below −1: the policy unlearns the data as a whole",
        panel="Log-probability of the data",
        label="log π − log ref",
        aggregate="mean",
    ),
    Metric(
        name="log_pi_anchor_mean",
        unit="nats/token",
        formula="squared residual: mean of log π − log anchor",
        healthy="moves slowly from 0",
        outside="below −1: the policy unlearns the data as a whole",
        panel="Log-probability of the data",
        label="log π − log anchor",
        aggregate="mean",
    ),
    Metric(
        name="residual_mean",
        unit="reward",
        formula="mean of β·L − A, L = Σ_t log(π/anchor)",
        healthy="0 with a fitted V",
        aggregate="mean",
    ),
    Metric(
        name="residual_rms",
        unit="reward",
        formula="root of the mean of its square",
        healthy="falls towards what the reward's noise leaves",
        outside="rises: learning rate too high, or β too small for the data",
        aggregate="mean",
    ),
    Metric(
        name="kto_reference_point",
        unit="nats/response",
        formula="z₀ = max(0, mean of x over the minibatch)",
        healthy="0 to a few nats",
        outside="large: every answer became likelier, good or bad",
        aggregate="mean",
    ),
    Metric(
        name="log_pi_ref_desirable_mean",
        unit="nats/response",
        formula="mean of x = Σ_t log(π/ref) over thumbs up",
        healthy="rises",
        outside="falls with the other: lower the learning rate",
        aggregate="mean",
    ),
    Metric(
        name="log_pi_ref_undesirable_mean",
        unit="nats/response",
        formula="the same over thumbs down",
        healthy="below the one above",
        aggregate="mean",
    ),
)
