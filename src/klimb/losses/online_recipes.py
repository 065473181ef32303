"""The field's recipes for fresh rollouts, with a learned value or without, each with its source's own trust region."""

import dataclasses
from math import inf

from klimb.losses.clips import DualClip, SecondMoment, TotalVariation, Truncate
from klimb.losses.recipe import Recipe

_PPO = Recipe(
    name="ppo",
    family="with a critic",
    summary="PPO: clipped ratio, learned value, GAE, KL to a fixed reference in each token's reward",
    source="arXiv 1707.06347, equation 7; arXiv 1506.02438, equation 16 (GAE); arXiv 2203.02155, equation 2 (KL)",
    formula=(
        "−min(w·A_t, clip(w, 1−ε, 1+ε)·A_t), A_t = Σ_k (γλ)^k·δ_{t+k}, δ_t = r_t − β_r·log(μ/ref) + γ·V_{t+1} − V_t, "
        "β_r = kl_in_reward"
    ),
    divergence="urkl",
    beta=0.0,
    estimator="differentiable",
    level="token",
    clip=DualClip(low=0.2, high=0.2, ceiling=inf),
    advantages="no-baseline",
    reduce="token-mean",
    reference="fixed",
    group_filter=False,
    credit="gae",
    kl_in_reward=0.02,
    gae_lambda=0.95,
    discount=1.0,
    whiten=True,
    departs=(
        "the value is a small head on the policy's hidden states that sends no gradient into them, not a network of "
        "its own; no entropy bonus and no pretraining loss beside it; the KL coefficient is fixed"
    ),
)

_REINFORCE_PP = Recipe(
    name="reinforce++",
    family="without a critic",
    summary="REINFORCE++: PPO clip, KL in each token's reward, advantages scaled over the whole batch",
    source="arXiv 2501.03262, equations 8 to 10",
    formula=(
        "−min(w·A_t, clip(w, 1−ε, 1+ε)·A_t), A_t = z-score over the batch's tokens of R − β_r·Σ_{s≥t} log(μ/ref), "
        "β_r = kl_in_reward"
    ),
    divergence="urkl",
    beta=0.0,
    estimator="differentiable",
    level="token",
    clip=DualClip(low=0.2, high=0.2, ceiling=inf),
    advantages="no-baseline",
    reduce="token-mean",
    reference="fixed",
    group_filter=False,
    credit="reward-to-go",
    kl_in_reward=0.01,
    whiten=True,
    departs="the size of β_r is our choice: published runs differ by task",
)

_REINFORCE_PP_BASELINE = Recipe(
    name="reinforce++-baseline",
    family="without a critic",
    summary="REINFORCE++ with baseline: the group's mean off, scaled over the batch, k2 in the loss",
    source="arXiv 2501.03262, the variant with baseline",
    formula="−min(w·A, clip(w, 1−ε, 1+ε)·A) + β·½·log²(π/ref), A = (R − mean_g) / std_batch",
    divergence="k2-in-loss",
    beta=0.01,
    estimator="differentiable",
    level="token",
    clip=DualClip(low=0.2, high=0.2, ceiling=inf),
    advantages="group-mean-batch-z-score",
    reduce="token-mean",
    reference="fixed",
    group_filter=False,
    departs=(
        "the penalty is kept as published: k2's gradient is reverse KL's on-policy alone; for KL's own off-policy "
        "take divergence = 'rkl'. The size of β is our choice"
    ),
)

_RLOO = Recipe(
    name="rloo",
    family="without a critic",
    summary="RLOO: REINFORCE on whole responses, baseline of the group's others, KL to a fixed reference",
    source="arXiv 2402.14740 (RLOO)",
    formula="−sg(w̄·A − β·w·(x + 1))·log π, w = π/μ and x = log(π/ref) of the response, A = R − mean of the others",
    divergence="rkl",
    beta=0.05,
    estimator="reinforce",
    level="sequence",
    clip=DualClip(low=0.2, high=0.2, ceiling=inf),
    advantages="leave-one-out",
    reduce="sequence-mean-token-sum",
    reference="fixed",
    group_filter=False,
    departs=(
        "the source puts −β·x into the reward, and so into the baseline too; here the divergence stands beside the "
        "advantage, with the same expected gradient. The ratio and its clip are those of TRL's trainer; on-policy, "
        "where the source stays, they do nothing. β is TRL's"
    ),
)

_GRPO = Recipe(
    name="grpo",
    family="without a critic",
    summary="GRPO: PPO clip on group z-scores, unweighted k3 penalty to a fixed reference",
    source="arXiv 2402.03300, equations 3 and 4",
    formula="−min(w·A, clip(w, 1−ε, 1+ε)·A) + β·(ref/π − 1 − log(ref/π))",
    divergence="k3-in-loss",
    beta=0.04,
    estimator="differentiable",
    level="token",
    clip=DualClip(low=0.2, high=0.2, ceiling=inf),
    advantages="group-z-score",
    reduce="sequence-mean-token-mean",
    reference="fixed",
    group_filter=False,
    departs="none: the penalty is kept as published, although its gradient is forward KL's (docs/exactness.md)",
)

_DAPO = Recipe(
    name="dapo",
    family="without a critic",
    summary="DAPO: clip-higher, token mean, dynamic sampling, no reference",
    source="arXiv 2503.14476, equation 8",
    formula="−min(w·A, clip(w, 1−ε_low, 1+ε_high)·A)",
    divergence="urkl",
    beta=0.0,
    estimator="differentiable",
    level="token",
    clip=DualClip(low=0.2, high=0.28, ceiling=inf),
    advantages="group-z-score",
    reduce="token-mean",
    reference="none",
    group_filter=True,
    departs="overlong shaping belongs to the reward and is set with the task: [scoring.overlong]",
)

_DR_GRPO = dataclasses.replace(
    _DAPO,
    name="dr-grpo",
    summary="Dr. GRPO: no division by the deviation, one fixed length for all responses, no reference",
    source="arXiv 2503.20783 (Dr. GRPO)",
    formula="−min(w·A, clip(w, 1−ε, 1+ε)·A) / L, A = R − mean_g, L the most tokens that a response may have",
    clip=DualClip(low=0.2, high=0.2, ceiling=inf),
    advantages="group-mean",
    reduce="max-new-tokens",
    group_filter=False,
    departs="",
)

_GSPO = dataclasses.replace(
    _DAPO,
    name="gspo",
    summary="GSPO: the ratio of a response, length-normalised, clipped as a whole and very narrowly",
    source="arXiv 2507.18071, equations 5 and 7",
    formula="−min(s·A, clip(s, 1−ε_low, 1+ε_high)·A), s = (π/μ)^(1/length) of the response",
    level="sequence-mean",
    clip=DualClip(low=3e-4, high=4e-4, ceiling=inf),
    reduce="sequence-mean-token-sum",
    group_filter=False,
    departs="",
)

_CISPO = dataclasses.replace(
    _DAPO,
    name="cispo",
    summary="CISPO: the weight is capped and no token loses its gradient",
    source="arXiv 2506.13585, equations 4 and 5",
    formula="−sg(min(w, 1+ε_high))·A·log π",
    estimator="reinforce",
    clip=Truncate(low=1.0, high=4.0),
    group_filter=False,
    departs="the source names no ε_high; the cap of 5 is that of arXiv 2510.13786 (ScaleRL)",
)

_DPPO_TV = dataclasses.replace(
    _DAPO,
    name="dppo-tv",
    summary="DPPO: tokens whose probability moved too far in the advantage's direction are left out",
    source="arXiv 2602.04879, the binary total-variation variant",
    formula="−sg(M·min(w, 20))·A·log π, M = 0 if A ≥ 0 and π − μ > δ_high, or A < 0 and π − μ < −δ_low, else 1",
    estimator="reinforce",
    clip=TotalVariation(low=0.2, high=0.2, ceiling=20.0),
    advantages="group-mean",
    group_filter=False,
    departs="δ is prime-rl's default and the cap on w is that of verl's dppo_tv; advantages are our choice",
)

_M2PO = dataclasses.replace(
    _DAPO,
    name="m2po",
    summary="M2PO: the most extreme tokens are left out until the mean of log²w is small",
    source="arXiv 2510.01161",
    formula="−M·w·A, M = 0 for the largest |log w| until the mean of log²w over the rest is at most τ",
    clip=SecondMoment(threshold=0.04),
    group_filter=False,
    departs=(
        "the bound is found for each minibatch under the present policy, at the cost of one more forward pass; "
        "AReaL, whose τ this is, finds it once a batch"
    ),
)

ONLINE_RECIPES: tuple[Recipe, ...] = (
    _PPO,
    _REINFORCE_PP,
    _REINFORCE_PP_BASELINE,
    _RLOO,
    _GRPO,
    _DR_GRPO,
    _DAPO,
    _GSPO,
    _CISPO,
    _DPPO_TV,
    _M2PO,
)
