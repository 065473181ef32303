"""Recipes for data that is not drawn anew: logs of other policies, and people's feedback."""

import dataclasses

from klimb.losses.clips import NoClip, Taper
from klimb.losses.recipe import Recipe

_CLONING = Recipe(
    name="bc",
    family="for logs and feedback",
    summary="behaviour cloning: forward KL to the data with no reward, maximum likelihood",
    source="arXiv 2505.17508 (RPG), remark E.2",
    formula="−β·log π (ref = μ, A = 0; no ratio)",
    divergence="fkl",
    beta=1.0,
    estimator="reinforce",
    level="token",
    clip=NoClip(),
    advantages="zero",
    reduce="token-mean",
    reference="behaviour",
    group_filter=False,
    ratio="none",
)

_FILTERED_CLONING = dataclasses.replace(
    _CLONING,
    name="bc-filtered",
    summary="reward-filtered cloning: maximum likelihood on the good samples alone, what offline RL must beat",
    source="arXiv 2203.14465 (STaR) and 2308.01825 (RFT)",
    formula="−β·log π on samples with R ≥ min_reward (ref = μ, A = 0; no ratio)",
    min_reward=0.5,
    departs="one pass of filtering over the data that is there; STaR and RFT draw new samples in rounds",
)

_TOPR = Recipe(
    name="topr",
    family="for logs and feedback",
    summary="TOPR: the good at full weight, the bad at min(w, 1), over whole responses",
    source="arXiv 2503.14286 (TOPR)",
    formula="−sg(w̄)·A·log π, w̄ = 1 if A ≥ 0, else min(w, 1), w = π/μ of the response",
    beta=0.0,
    level="sequence",
    clip=Taper(),
    advantages="group-mean",
    reduce="sequence-mean-token-sum",
    reference="none",
    group_filter=False,
    departs=(
        "the source takes rewards of ±1 less a constant baseline that it tunes; here the baseline is the group's "
        "mean, and advantages.kind = 'no-baseline' on rewards of ±1 is the source"
    ),
)

_ASYMRE = Recipe(
    name="asymre",
    family="for logs and feedback",
    summary="AsymRE: REINFORCE without a ratio, on a baseline a little below the mean",
    source="arXiv 2506.20520 (AsymRE)",
    formula="−A·log π, A = R − (mean_g + δ), δ = −0.1; no ratio",
    beta=0.0,
    level="token",
    clip=NoClip(),
    advantages="group-mean",
    reduce="sequence-mean-token-sum",
    reference="none",
    group_filter=False,
    ratio="none",
    advantage_offset=-0.1,
)

_KIMI = Recipe(
    name="kimi-pmd",
    family="for logs and feedback",
    summary="Kimi k1.5's mirror descent (PMD-mean): regress β·log π/μ onto R − mean",
    source="arXiv 2501.12599, section 2.3.2; arXiv 2602.05933",
    formula="½·(β·Σ log(π/μ) − A)²/β, A = R − mean_g",
    loss="squared-residual",
    beta=0.1,
    level="sequence",
    advantages="group-mean",
    reduce="sequence-mean-token-sum",
    reference="none",
    group_filter=False,
    anchor="mu",
    departs=(
        "β is our choice, for many passes over one set of data: the code released with arXiv 2602.05933 has 0.01, "
        "and divides each response by its length (reduce = 'sequence-mean-token-mean'). Length penalties belong to "
        "the reward"
    ),
)

_OAPL = Recipe(
    name="oapl",
    family="for logs and feedback",
    summary="OAPL: regress β·log π/μ onto the optimal advantage R − V*, V* from the group",
    source="arXiv 2602.19362; arXiv 2505.20686",
    formula="½·(β·Σ log(π/μ) − A)²/β, A = R − β·log mean_g exp(R/β)",
    loss="squared-residual",
    beta=0.1,
    level="sequence",
    advantages="group-soft-value",
    reduce="sequence-mean-token-sum",
    reference="none",
    group_filter=False,
    anchor="mu",
    departs="one β for V* and for the square, so that the optimum is exact (A*-PO has two); its size is our choice",
)

_DRO = Recipe(
    name="dro",
    family="for logs and feedback",
    summary="DRO: regress β·log π/ref onto R − V, one response a prompt is enough",
    source="arXiv 2405.19107 (DRO)",
    formula="½·(β·Σ log(π/ref) − A)²/β, A = R − V, V = mean of R − β·Σ log(π/ref)",
    loss="squared-residual",
    beta=0.1,
    level="sequence",
    advantages="no-baseline",
    reduce="sequence-mean-token-sum",
    reference="fixed",
    group_filter=False,
    anchor="ref",
    value="group-optimal",
    departs=(
        "the source learns V(prompt) with a network; here V is the least-squares optimum on the minibatch, of the "
        "group, or of the whole minibatch for a prompt with one response"
    ),
)

_KTO = Recipe(
    name="kto",
    family="for logs and feedback",
    summary="KTO: thumbs up and down, one response each, against a fixed reference",
    source="arXiv 2402.01306 (KTO)",
    formula="λ_D·(1 − σ(β·(x − z₀))) if R > 0.5, else λ_U·(1 − σ(β·(z₀ − x))), x = Σ log(π/ref)",
    loss="kto",
    beta=0.1,
    level="sequence",
    advantages="thumbs",
    reduce="sequence-mean-token-sum",
    reference="fixed",
    group_filter=False,
    departs="z₀ is max(0, mean of x) over the minibatch as it is; the source pairs prompts with others' responses",
)

OFFLINE_RECIPES: tuple[Recipe, ...] = (
    _CLONING,
    _FILTERED_CLONING,
    _TOPR,
    _ASYMRE,
    _KIMI,
    _OAPL,
    _DRO,
    _KTO,
)
