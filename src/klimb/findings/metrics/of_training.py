"""What the loop logs of its steps: optimizer, reference, evaluations, guard, critic, time."""

from klimb.findings.metrics.metric import Metric

OPTIMIZER_STEP = (
    Metric(
        name="loss",
        unit="1",
        formula="the reduced loss; with `entropy_bonus` = c, c times the mean entropy is taken off it",
        healthy="no meaning with `reinforce`; with `differentiable`, −J up to a constant",
        outside="not finite: the step is skipped",
        panel="Loss",
        label="loss",
        aggregate="mean",
    ),
    Metric(
        name="grad_norm",
        unit="1",
        formula="2-norm of the gradient before it is scaled down",
        healthy="steady; arXiv 2505.17508 clips at 1.0",
        outside="spikes: look at `w_max` and that step's samples. 0: nothing to learn from",
        panel="Gradient norm before it is cut",
        label="norm",
        aggregate="mean",
    ),
    Metric(
        name="learning_rate",
        unit="1",
        formula="of the step, warm-up, `schedule` and `ess_scaling` included",
        healthy="as set",
        panel="Learning rate",
        label="learning rate",
        aggregate="mean",
    ),
    Metric(
        name="zero_advantage_fraction",
        unit="fraction",
        formula="responses with advantage exactly 0",
        healthy="0 with the group filter",
        outside="high: the groups are even, switch the filter on",
        panel="Batches that teach nothing",
        label="responses with advantage 0",
        aggregate="mean",
    ),
    Metric(
        name="clip_at_start_fraction",
        unit="fraction",
        formula="the three clip fractions added up, of the first optimizer step on the batch: nothing was learnt yet",
        healthy="0 where the policy itself drew the batch, or the clip is centred on it (`correction.kind`)",
        outside="the clip acts on where the samples come from, and moves the policy without any signal",
        panel="Clipped, by branch",
        label="at the start",
    ),
    Metric(
        name="num_optimizer_steps",
        unit="count",
        formula="optimizer steps taken at this step of the loop",
        healthy="epochs × minibatches",
        outside="0: nothing was drawn that teaches",
        aggregate="sum",
    ),
    Metric(
        name="num_skipped_steps",
        unit="count",
        formula="steps whose loss or gradient was not finite; their samples are in `skipped/`",
        healthy="0",
        outside="lower the learning rate; look for an extreme reward or `log_mu`",
        panel="Trouble",
        label="steps skipped",
        aggregate="sum",
    ),
    Metric(
        name="num_out_of_memory",
        unit="count",
        formula="passes through the model, and attempts to sample, that ran out of memory so far; each was halved",
        healthy="0",
        outside="slower, with the same gradient: set `training.micro_batch_tokens` or `sampling.max_batch`",
        panel="Trouble",
        label="out of memory",
    ),
    Metric(
        name="num_tokens_trained",
        unit="count",
        formula="response tokens that went through the model with gradient",
        aggregate="sum",
    ),
    Metric(
        name="optimizer_steps",
        unit="count",
        formula="optimizer steps since the start",
    ),
    Metric(
        name="step",
        unit="count",
        formula="steps of the loop since the start",
    ),
)


REFERENCE = (
    Metric(
        name="reference_age",
        unit="count",
        formula="optimizer steps since the reference was last equal to the policy",
        healthy="as the rule says",
        panel="Staleness",
        label="age of the reference",
    ),
    Metric(
        name="num_reference_refreshes",
        unit="count",
        formula="refreshes so far",
        outside="never, with a threshold: κ is above what β allows",
    ),
    Metric(
        name="kl_pi_ref_average",
        unit="nats/token",
        formula="moving average of `kl_pi_ref` since the last refresh, compared with `kl_threshold`",
        healthy="below the threshold",
        panel="Divergence from the reference",
        label="reverse, averaged",
    ),
)


HELD_OUT = (
    Metric(
        name="evaluation_mean",
        unit="fraction",
        formula=(
            "Mean@k: mean over problems of the mean over k responses (of the reward, where not every scored response "
            "has a verdict of right or wrong)"
        ),
        healthy="rises with `accuracy`",
        outside="lags far behind: the training problems are learned by heart",
    ),
    Metric(
        name="evaluation_low",
        unit="fraction",
        formula="lower end of its 95 % interval over problems (docs/statistics.md); left out below 5 problems",
        outside="a wide interval needs more *problems*, not more samples of each",
    ),
    Metric(
        name="evaluation_high",
        unit="fraction",
        formula="upper end",
    ),
    Metric(
        name="evaluation_pass_at_*",
        unit="fraction",
        formula=(
            "at least one of k is right: 1 − C(n − c, k)/C(n, k) (arXiv 2107.03374), for every k over the same "
            "problems: a k that one of them lacks the scored responses for is left out"
        ),
        healthy="does not fall while the mean rises",
        outside="falls: the policy narrows; raise β, use `fkl`",
    ),
    Metric(
        name="evaluation_num_errors",
        unit="count",
        formula="responses without a score",
        healthy="0",
        outside="as `num_errors`",
    ),
    Metric(
        name="evaluation_num_problems_unscored",
        unit="count",
        formula="problems of which no response could be scored, and which are in none of these means",
        healthy="0",
        outside="as `num_errors`; the means are over the other problems",
    ),
)


GUARD = (
    Metric(
        name="guard/perplexity",
        unit="1",
        formula="exp(−mean of log π(token)) over a held-out text",
        healthy="within 1.2 times the one before (own)",
        outside="the model loses its language: raise β, lower the learning rate, shorten the run",
        panel="Perplexity of held-out text",
        label="perplexity",
    ),
    Metric(
        name="guard/general_mean",
        unit="fraction",
        formula="mean over sets of the mean score of their problems",
        healthy="within 0.1 of the one before (own)",
        outside="the model forgets: as above",
        panel="General tasks",
        label="mean",
    ),
    Metric(
        name="guard/general/*",
        unit="fraction",
        formula="one set: share right, or mean score where it does not say what is right",
        panel="General tasks",
        label="*",
    ),
    Metric(
        name="guard/check_violations/*",
        unit="fraction",
        formula="answers to held-out prompts that violate one of `guard.checks`, counted from 1",
        healthy="0 (own)",
        outside="read the answers; do not serve this policy",
        panel="Checks of your own",
        label="*",
    ),
    Metric(
        name="guard/refusal_fraction",
        unit="fraction",
        formula="answers to general problems that open by declining (English)",
        healthy="below 0.2 (own)",
        outside="read the answers; a reward that punishes wrong answers more than none teaches this",
        panel="Form of answers to general problems",
        label="refusals",
    ),
    Metric(
        name="guard/empty_fraction",
        unit="fraction",
        formula="answers to general problems that are nothing but white space",
        healthy="below 0.2 (own)",
        outside="the policy has learned to stop at once: raise β, look at the reward",
        panel="Form of answers to general problems",
        label="empty",
    ),
    Metric(
        name="guard/repetition_fraction",
        unit="fraction",
        formula=(
            "answers to general problems whose last 1000 characters are more than 2.4 times as long as zlib makes them "
            "(arXiv 2212.04356, section 4.5)"
        ),
        healthy="below 0.3 (own)",
        outside="loops: raise β, lower the learning rate",
        panel="Form of answers to general problems",
        label="repetitions",
    ),
    Metric(
        name="guard/format_valid_fraction",
        unit="fraction",
        formula="rollouts in which the regular expression is found",
        healthy="rises, stays",
        outside="falls: the reward does not need the form",
        panel="Form of the rollouts",
        label="valid format",
    ),
    Metric(
        name="guard/rollout_refusal_fraction",
        unit="fraction",
        formula="rollouts that open by declining (English)",
        healthy="below 0.2 (own)",
        outside="read the answers; a reward that punishes wrong answers more than none teaches this",
        panel="Form of the rollouts",
        label="refusals",
    ),
    Metric(
        name="guard/rollout_empty_fraction",
        unit="fraction",
        formula="rollouts that are nothing but white space",
        healthy="below 0.2 (own)",
        outside="the policy has learned to stop at once: raise β, look at the reward",
        panel="Form of the rollouts",
        label="empty",
    ),
    Metric(
        name="guard/rollout_repetition_fraction",
        unit="fraction",
        formula="rollouts that repeat themselves, measured as for answers",
        healthy="below 0.3 (own)",
        outside="loops: raise β, lower the learning rate",
        panel="Form of the rollouts",
        label="repetitions",
    ),
    Metric(
        name="guard/num_broken_limits",
        unit="count",
        formula="limits that are broken",
        healthy="0",
        outside="`guard.json` names each with its reason",
    ),
    Metric(
        name="guard/rolled_back_to",
        unit="count",
        formula="step of the checkpoint whose weights are in use from here on",
        healthy="absent",
        outside="the row's other numbers are of the policy that was given up",
    ),
)


CRITIC = (
    Metric(
        name="critic_explained_variance",
        unit="1",
        formula="1 − var(G − V)/var(G), V from before the batch was learned from, G the returns",
        healthy="rises from 0 towards what a prefix tells of the reward",
        outside=(
            "below 0: worse than a constant, lower `critic.learning_rate`. Stays near 0: advantages are hardly more "
            "than whitened rewards"
        ),
        panel="The critic",
        label="explained variance",
    ),
    Metric(
        name="critic_loss",
        unit="reward²",
        formula="mean of ½·max((V − G)², (V̄ − G)²) over the critic's own steps",
        healthy="falls",
        outside="rises: as above",
    ),
    Metric(
        name="critic_clip_fraction",
        unit="fraction",
        formula="tokens at which the clipped value has the larger loss",
        healthy="below 0.5 (own)",
        outside="near 1: `critic.clip` is small for these rewards",
    ),
    Metric(
        name="critic_value_mean",
        unit="reward",
        formula="mean of V",
        healthy="follows `critic_return_mean`",
        outside="far from it: more `critic.num_epochs`",
        panel="Values and returns",
        label="value V",
    ),
    Metric(
        name="critic_return_mean",
        unit="reward",
        formula="mean of G",
        panel="Values and returns",
        label="return G",
    ),
)


TIME = (
    Metric(
        name="step_seconds",
        unit="s",
        formula="one step of the loop",
    ),
    Metric(
        name="elapsed_seconds",
        unit="s",
        formula="all steps so far, evaluations left out, over resumes",
    ),
    Metric(
        name="sample_seconds",
        unit="s",
        formula="drawing",
        outside="most of the step: larger `max_batch`, shorter answers",
        panel="Seconds a step",
        label="drawing",
    ),
    Metric(
        name="score_seconds",
        unit="s",
        formula="rewards, but for those computed while others were still being drawn",
        healthy="below 0.1 of the step (own)",
        outside="more `num_workers`",
        panel="Seconds a step",
        label="rewards",
    ),
    Metric(
        name="reference_seconds",
        unit="s",
        formula="log-probabilities under the reference",
        healthy="near 0 when ref = μ",
        panel="Seconds a step",
        label="reference",
    ),
    Metric(
        name="update_seconds",
        unit="s",
        formula="forward, backward, optimizer",
        outside="on a GPU larger `micro_batch_tokens`, if memory allows",
        panel="Seconds a step",
        label="update",
    ),
    Metric(
        name="evaluation_seconds",
        unit="s",
        formula="held-out problems",
        outside="evaluate less often",
    ),
    Metric(
        name="guard_seconds",
        unit="s",
        formula="measuring base metrics, a rollback included",
        outside="larger `guard.every_steps`, fewer problems",
    ),
    Metric(
        name="tokens_per_second",
        unit="tokens/s",
        formula="`num_tokens_sampled`/`step_seconds`",
        healthy="compare only with runs on the same, equally busy machine",
        panel="Speed",
        label="tokens/s",
    ),
)
