"""Algorithms as data. Adding one means adding a row here, not a branch anywhere.

First those for data that is not drawn anew: logs of other policies, and people's feedback. Then the field's recipes
for fresh rollouts, with a learned value or without, each with its source's own trust region. Then the paper's own.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import inf

from klimb.declarations import require_known
from klimb.losses.clips import DualClip, NoClip, SecondMoment, Taper, TotalVariation, Truncate
from klimb.losses.names import Estimator
from klimb.losses.settings import KtoSettings, ObjectiveSettings, PairwiseSettings, SquaredResidualSettings
from klimb.training.recipe import Recipe
from klimb.training.settings.advantages import AdvantageSettings, CreditSettings
from klimb.training.settings.reference import BehaviourReference, FixedReference, IterativeReference, NoReference

_CLONING = Recipe(
    name="bc",
    family="for logs and feedback",
    summary="behaviour cloning: forward KL to the data with no reward, maximum likelihood",
    source="arXiv 2505.17508 (RPG), remark E.2",
    formula="−β·log π (ref = μ, A = 0; no ratio)",
    objective=ObjectiveSettings(
        divergence="fkl",
        beta=1.0,
        estimator="reinforce",
        level="token",
        clip=NoClip(),
        reduce="token-mean",
        ratio="none",
    ),
    advantages=AdvantageSettings(kind="zero", group_filter=False),
    reference=BehaviourReference(),
)


_FILTERED_CLONING = replace(
    _CLONING,
    name="bc-filtered",
    summary="reward-filtered cloning: maximum likelihood on the good samples alone, what offline RL must beat",
    source="arXiv 2203.14465 (STaR) and 2308.01825 (RFT)",
    formula="−β·log π on samples with R ≥ min_reward (ref = μ, A = 0; no ratio)",
    advantages=replace(_CLONING.advantages, min_reward=0.5),
    departs="one pass of filtering over the data that is there; STaR and RFT draw new samples in rounds",
)


_TOPR = Recipe(
    name="topr",
    family="for logs and feedback",
    summary="TOPR: the good at full weight, the bad at min(w, 1), over whole responses",
    source="arXiv 2503.14286 (TOPR)",
    formula="−sg(w̄)·A·log π, w̄ = 1 if A ≥ 0, else min(w, 1), w = π/μ of the response",
    objective=ObjectiveSettings(beta=0.0, level="sequence", clip=Taper(), reduce="sequence-mean-token-sum"),
    advantages=AdvantageSettings(kind="group-mean", group_filter=False),
    reference=NoReference(),
    departs="the source takes rewards of ±1 less a constant baseline that it tunes; here the baseline is the group's "
    "mean, and advantages.kind = 'no-baseline' on rewards of ±1 is the source",
)


_ASYMRE = Recipe(
    name="asymre",
    family="for logs and feedback",
    summary="AsymRE: REINFORCE without a ratio, on a baseline a little below the mean",
    source="arXiv 2506.20520 (AsymRE)",
    formula="−A·log π, A = R − (mean_g + δ), δ = −0.1; no ratio",
    objective=ObjectiveSettings(beta=0.0, level="token", clip=NoClip(), reduce="sequence-mean-token-sum", ratio="none"),
    advantages=AdvantageSettings(kind="group-mean", group_filter=False, offset=-0.1),
    reference=NoReference(),
)


_KIMI = Recipe(
    name="kimi-pmd",
    family="for logs and feedback",
    summary="Kimi k1.5's mirror descent (PMD-mean): regress β·log π/μ onto R − mean",
    source="arXiv 2501.12599, section 2.3.2; arXiv 2602.05933",
    formula="½·(β·Σ log(π/μ) − A)²/β, A = R − mean_g",
    objective=SquaredResidualSettings(beta=0.1, level="sequence", reduce="sequence-mean-token-sum", anchor="mu"),
    advantages=AdvantageSettings(kind="group-mean", group_filter=False),
    reference=NoReference(),
    departs="β is our choice, for many passes over one set of data: the code released with arXiv 2602.05933 has 0.01, "
    "and divides each response by its length (reduce = 'sequence-mean-token-mean'). Length penalties belong to "
    "the reward",
)


_OAPL = Recipe(
    name="oapl",
    family="for logs and feedback",
    summary="OAPL: regress β·log π/μ onto the optimal advantage R − V*, V* from the group",
    source="arXiv 2602.19362; arXiv 2505.20686",
    formula="½·(β·Σ log(π/μ) − A)²/β, A = R − β·log mean_g exp(R/β)",
    objective=SquaredResidualSettings(beta=0.1, level="sequence", reduce="sequence-mean-token-sum", anchor="mu"),
    advantages=AdvantageSettings(kind="group-soft-value", group_filter=False),
    reference=NoReference(),
    departs="one β for V* and for the square, so that the optimum is exact (A*-PO has two); its size is our choice",
)


_DRO = Recipe(
    name="dro",
    family="for logs and feedback",
    summary="DRO: regress β·log π/ref onto R − V, one response a prompt is enough",
    source="arXiv 2405.19107 (DRO)",
    formula="½·(β·Σ log(π/ref) − A)²/β, A = R − V, V = mean of R − β·Σ log(π/ref)",
    objective=SquaredResidualSettings(
        beta=0.1, level="sequence", reduce="sequence-mean-token-sum", anchor="ref", value="group-optimal"
    ),
    advantages=AdvantageSettings(kind="no-baseline", group_filter=False),
    reference=FixedReference(),
    departs="the source learns V(prompt) with a network; here V is the least-squares optimum on the minibatch, of the "
    "group, or of the whole minibatch for a prompt with one response",
)


_KTO = Recipe(
    name="kto",
    family="for logs and feedback",
    summary="KTO: thumbs up and down, one response each, against a fixed reference",
    source="arXiv 2402.01306 (KTO)",
    formula="λ_D·(1 − σ(β·(x − z₀))) if R > 0.5, else λ_U·(1 − σ(β·(z₀ − x))), x = Σ log(π/ref)",
    objective=KtoSettings(beta=0.1, reduce="sequence-mean-token-sum"),
    advantages=AdvantageSettings(kind="binary-feedback", group_filter=False),
    reference=FixedReference(),
    departs="z₀ is max(0, mean of x) over the minibatch as it is; the source pairs prompts with others' responses",
)


_DPO = Recipe(
    name="dpo",
    family="for logs and feedback",
    summary="DPO: of two answers to a prompt the better one, against a fixed reference",
    source="arXiv 2305.18290, equation 7 (DPO); 2309.16240 with another divergence",
    formula="−log σ(β·(x_i − x_j)), mean over the pairs of a group with R_i > R_j, x = Σ log(π/ref)",
    objective=PairwiseSettings(form="dpo", beta=0.1),
    advantages=AdvantageSettings(kind="no-baseline", group_filter=True),
    reference=FixedReference(),
    departs="a group of more than two answers gives all its pairs of unequal reward, each with the same weight",
)


_IPO = replace(
    _DPO,
    name="ipo",
    summary="IPO: the margin of a pair is to be 1/(2β), no more, whatever the certainty",
    source="arXiv 2310.12036, equation 17 (IPO)",
    formula="(x_i − x_j − 1/(2β))², mean over the pairs of a group with R_i > R_j, x = Σ log(π/ref)",
    objective=PairwiseSettings(form="ipo", beta=0.1),
    departs="pairs as in dpo. TRL divides x by the number of tokens: objective.level = 'sequence-mean'",
)


_REBEL = replace(
    _DPO,
    name="rebel",
    summary="REBEL: regress the difference of β·log π/ref onto the difference of rewards, no baseline and no ratio",
    source="arXiv 2404.16767, algorithm 1 (REBEL)",
    formula="½·(β·(x_i − x_j) − (R_i − R_j))²/β, mean over the pairs of a group with R_i > R_j, x = Σ log(π/ref)",
    objective=PairwiseSettings(form="rebel", beta=0.1),
    departs="the source's anchor is the policy that drew the pair (objective.anchor = 'mu'), and pairs of equal reward "
    "are pairs; here they are none, as in dpo. The division by β moves no minimum",
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
    _DPO,
    _IPO,
    _REBEL,
)


_PPO = Recipe(
    name="ppo",
    family="with a critic",
    summary="PPO: clipped ratio, learned value, GAE, KL to a fixed reference in each token's reward",
    source="arXiv 1707.06347, equation 7; arXiv 1506.02438, equation 16 (GAE); arXiv 2203.02155, equation 2 (KL)",
    formula="−min(w·A_t, clip(w, 1−ε, 1+ε)·A_t), A_t = Σ_k (γλ)^k·δ_{t+k}, "
    "δ_t = r_t − β_r·log(μ/ref) + γ·V_{t+1} − V_t, "
    "β_r = kl_in_reward",
    objective=ObjectiveSettings(
        divergence="urkl",
        beta=0.0,
        estimator="differentiable",
        level="token",
        clip=DualClip(low=0.2, high=0.2, ceiling=inf),
        reduce="token-mean",
    ),
    advantages=AdvantageSettings(kind="no-baseline", group_filter=False),
    credit=CreditSettings(kind="gae", kl_in_reward=0.02, gae_lambda=0.95, discount=1.0, whiten=True),
    reference=FixedReference(),
    departs="the value is a small head on the policy's hidden states that sends no gradient into them, not a "
    "network of its own; no entropy bonus and no pretraining loss beside it; the KL coefficient is fixed",
)


_REINFORCE_PP = Recipe(
    name="reinforce++",
    family="without a critic",
    summary="REINFORCE++: PPO clip, KL in each token's reward, advantages scaled over the whole batch",
    source="arXiv 2501.03262, equations 8 to 10",
    formula="−min(w·A_t, clip(w, 1−ε, 1+ε)·A_t), A_t = z-score over the batch's tokens of R − β_r·Σ_{s≥t} log(μ/ref), "
    "β_r = kl_in_reward",
    objective=ObjectiveSettings(
        divergence="urkl",
        beta=0.0,
        estimator="differentiable",
        level="token",
        clip=DualClip(low=0.2, high=0.2, ceiling=inf),
        reduce="token-mean",
    ),
    advantages=AdvantageSettings(kind="no-baseline", group_filter=False),
    credit=CreditSettings(kind="reward-to-go", kl_in_reward=0.01, whiten=True),
    reference=FixedReference(),
    departs="the size of β_r is our choice: published runs differ by task",
)


_REINFORCE_PP_BASELINE = Recipe(
    name="reinforce++-baseline",
    family="without a critic",
    summary="REINFORCE++ with baseline: the group's mean off, scaled over the batch, k2 in the loss",
    source="arXiv 2501.03262, the variant with baseline",
    formula="−min(w·A, clip(w, 1−ε, 1+ε)·A) + β·½·log²(π/ref), A = (R − mean_g) / std_batch",
    objective=ObjectiveSettings(
        divergence="k2-in-loss",
        beta=0.01,
        estimator="differentiable",
        level="token",
        clip=DualClip(low=0.2, high=0.2, ceiling=inf),
        reduce="token-mean",
    ),
    advantages=AdvantageSettings(kind="group-mean-batch-z-score", group_filter=False),
    reference=FixedReference(),
    departs="the penalty is kept as published: k2's gradient is reverse KL's on-policy alone; for KL's own off-policy "
    "take divergence = 'rkl'. The size of β is our choice",
)


_RLOO = Recipe(
    name="rloo",
    family="without a critic",
    summary="RLOO: REINFORCE on whole responses, baseline of the group's others, KL to a fixed reference",
    source="arXiv 2402.14740 (RLOO)",
    formula="−sg(w̄·A − β·w·(x + 1))·log π, w = π/μ and x = log(π/ref) of the response, A = R − mean of the others",
    objective=ObjectiveSettings(
        divergence="rkl",
        beta=0.05,
        estimator="reinforce",
        level="sequence",
        clip=DualClip(low=0.2, high=0.2, ceiling=inf),
        reduce="sequence-mean-token-sum",
    ),
    advantages=AdvantageSettings(kind="leave-one-out", group_filter=False),
    reference=FixedReference(),
    departs="the source puts −β·x into the reward, and so into the baseline too; here the divergence stands beside the "
    "advantage, with the same expected gradient. The ratio and its clip are those of TRL's trainer; on-policy, "
    "where the source stays, they do nothing. β is TRL's",
)


_GRPO = Recipe(
    name="grpo",
    family="without a critic",
    summary="GRPO: PPO clip on group z-scores, unweighted k3 penalty to a fixed reference",
    source="arXiv 2402.03300, equations 3 and 4",
    formula="−min(w·A, clip(w, 1−ε, 1+ε)·A) + β·(ref/π − 1 − log(ref/π))",
    objective=ObjectiveSettings(
        divergence="k3-in-loss",
        beta=0.04,
        estimator="differentiable",
        level="token",
        clip=DualClip(low=0.2, high=0.2, ceiling=inf),
        reduce="sequence-mean-token-mean",
    ),
    advantages=AdvantageSettings(kind="group-z-score", group_filter=False),
    reference=FixedReference(),
    departs="none: the penalty is kept as published, although its gradient is forward KL's (docs/exactness.md)",
)


_DAPO = Recipe(
    name="dapo",
    family="without a critic",
    summary="DAPO: clip-higher, token mean, dynamic sampling, no reference",
    source="arXiv 2503.14476, equation 8",
    formula="−min(w·A, clip(w, 1−ε_low, 1+ε_high)·A)",
    objective=ObjectiveSettings(
        divergence="urkl",
        beta=0.0,
        estimator="differentiable",
        level="token",
        clip=DualClip(low=0.2, high=0.28, ceiling=inf),
        reduce="token-mean",
    ),
    advantages=AdvantageSettings(kind="group-z-score", group_filter=True),
    reference=NoReference(),
    departs="overlong shaping belongs to the reward and is set with the task: [scoring.overlong]",
)


_DR_GRPO = replace(
    _DAPO,
    name="dr-grpo",
    summary="Dr. GRPO: no division by the deviation, one fixed length for all responses, no reference",
    source="arXiv 2503.20783 (Dr. GRPO)",
    formula="−min(w·A, clip(w, 1−ε, 1+ε)·A) / L, A = R − mean_g, L the most tokens that a response may have",
    objective=replace(_DAPO.objective, clip=DualClip(low=0.2, high=0.2, ceiling=inf), reduce="max-new-tokens"),
    advantages=replace(_DAPO.advantages, kind="group-mean", group_filter=False),
    departs="",
)


_GSPO = replace(
    _DAPO,
    name="gspo",
    summary="GSPO: the ratio of a response, length-normalised, clipped as a whole and very narrowly",
    source="arXiv 2507.18071, equations 5 and 7",
    formula="−min(s·A, clip(s, 1−ε_low, 1+ε_high)·A), s = (π/μ)^(1/length) of the response",
    objective=replace(
        _DAPO.objective,
        level="sequence-mean",
        clip=DualClip(low=3e-4, high=4e-4, ceiling=inf),
        reduce="sequence-mean-token-sum",
    ),
    advantages=replace(_DAPO.advantages, group_filter=False),
    departs="",
)


_CISPO = replace(
    _DAPO,
    name="cispo",
    summary="CISPO: the weight is capped and no token loses its gradient",
    source="arXiv 2506.13585, equations 4 and 5",
    formula="−sg(min(w, 1+ε_high))·A·log π",
    objective=replace(_DAPO.objective, estimator="reinforce", clip=Truncate(low=1.0, high=4.0)),
    advantages=replace(_DAPO.advantages, group_filter=False),
    departs="the source names no ε_high; the cap of 5 is that of arXiv 2510.13786 (ScaleRL)",
)


_DPPO_TV = replace(
    _DAPO,
    name="dppo-tv",
    summary="DPPO: tokens whose probability moved too far in the advantage's direction are left out",
    source="arXiv 2602.04879, the binary total-variation variant",
    formula="−sg(M·min(w, 20))·A·log π, M = 0 if A ≥ 0 and π − μ > δ_high, or A < 0 and π − μ < −δ_low, else 1",
    objective=replace(_DAPO.objective, estimator="reinforce", clip=TotalVariation(low=0.2, high=0.2, ceiling=20.0)),
    advantages=replace(_DAPO.advantages, kind="group-mean", group_filter=False),
    departs="δ is prime-rl's default and the cap on w is that of verl's dppo_tv; advantages are our choice",
)


_M2PO = replace(
    _DAPO,
    name="m2po",
    summary="M2PO: the most extreme tokens are left out until the mean of log²w is small",
    source="arXiv 2510.01161",
    formula="−M·w·A, M = 0 for the largest |log w| until the mean of log²w over the rest is at most τ",
    objective=replace(_DAPO.objective, clip=SecondMoment(threshold=0.04)),
    advantages=replace(_DAPO.advantages, group_filter=False),
    departs="the bound is found for each minibatch under the present policy, at the cost of one more forward pass; "
    "AReaL, whose τ this is, finds it once a batch",
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


_PAPER = "arXiv 2505.17508 (RPG)"


_DIVERGENCES = {
    "fkl": ("forward KL(ref‖π)", "E.1, F.1"),
    "rkl": ("reverse KL(π‖ref)", "E.3, F.4"),
    "ufkl": ("unnormalised forward KL", "3.2, F.3"),
    "urkl": ("unnormalised reverse KL", "3.6, F.5"),
}


_SLOPES = {"fkl": "−v", "rkl": "w·(x + 1)", "ufkl": "w − v", "urkl": "w·x"}


_PERSPECTIVES = {"fkl": "−v·x", "rkl": "w·x", "ufkl": "w − v − v·x", "urkl": "w·x − w + v"}


def _rpg(key: str, estimator: Estimator) -> Recipe:
    title, propositions = _DIVERGENCES[key]
    is_reinforce = estimator == "reinforce"
    differentiable_departs = (
        "Algorithm 1 differentiates through w and through the regularised advantage, so that the divergence enters "
        "the gradient a second time (docs/exactness.md); here w·A is clipped and the divergence is added unclipped."
    )
    return Recipe(
        name=f"rpg-reinforce-{key}" if is_reinforce else f"rpg-{key}",
        family="RPG",
        summary=f"RPG, {estimator}, {title}, {'RPG-style' if is_reinforce else 'PPO'} dual clip",
        source=f"{_PAPER}, propositions {propositions}, algorithm {2 if is_reinforce else 1}",
        formula=f"−sg(w̄·A − β·({_SLOPES[key]}))·log π"
        if is_reinforce
        else f"dual-clip(w·A) + β·({_PERSPECTIVES[key]}), dual-clip as in PPO",
        objective=ObjectiveSettings(
            divergence=key,
            beta=1e-4,
            estimator=estimator,
            level="token",
            clip=DualClip(low=0.2, high=0.28, ceiling=3.0),
            reduce="token-mean",
        ),
        advantages=AdvantageSettings(kind="group-mean", group_filter=True),
        reference=IterativeReference(),
        departs="" if is_reinforce else differentiable_departs,
    )


_ROWS: tuple[Recipe, ...] = (
    *(_rpg(key, "reinforce") for key in _DIVERGENCES),
    *(_rpg(key, "differentiable") for key in _DIVERGENCES),
    *ONLINE_RECIPES,
    *OFFLINE_RECIPES,
)


RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _ROWS}


def recipe_named(name: str) -> Recipe:
    """Return the recipe of this name.

    Raises:
        ValueError: no such recipe; the message lists those there are and the nearest.
    """
    require_known("recipe", name, list(RECIPES))
    return RECIPES[name]
