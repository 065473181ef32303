"""What is logged of the data: sampler against trainer, what was drawn, where a batch came from."""

from klimb.findings.metrics.metric import Metric

SAMPLER_AND_TRAINER = (
    Metric(
        name="mismatch_mean_abs",
        unit="nats/token",
        formula="mean of |Δ|",
        healthy=(
            "0 to 0.05 (own). Measured: 5·10⁻⁷ for klimb's own sampler and trainer on a CPU (bfloat16, prompts of "
            "several lengths); transformers' cached against full forward: 2.5·10⁻⁶ in float32, 0.03 in bfloat16, "
            "0.004 in float16 (SmolLM2-135M)"
        ),
        outside=(
            "above: template, temperature or truncation differ, or one side is shifted by a token. `training.log_mu = "
            '"recomputed"` removes rounding, not mistakes; `"auto"` does so only above `training.max_mismatch`'
        ),
        panel="Sampler against trainer",
        label="mean",
    ),
    Metric(
        name="mismatch_max_abs",
        unit="nats",
        formula="largest |Δ|",
        healthy="below 0.4 in bfloat16 (as measured there)",
        outside="look at that token: end token, first token, special tokens",
        panel="Sampler against trainer",
        label="largest",
    ),
    Metric(
        name="mismatch_k3",
        unit="nats/token",
        formula="mean of exp Δ − 1 − Δ: KL(sampler‖trainer)",
        healthy="below 10⁻³ (NeMo-RL's documentation); prime-rl's documentation accepts 0.015",
        outside="look at that token: end token, first token, special tokens",
        panel="Sampler against trainer",
        label="KL(sampler‖trainer)",
    ),
    Metric(
        name="log_mu_recomputed",
        unit="0 or 1",
        formula=(
            "1 where the batch trains with the trainer's log-probabilities as log μ, 0 where with the sampler's; "
            "logged unless `training.log_mu` is `sampler`"
        ),
        healthy="0",
        outside="1 under `auto`: the gap was larger than `training.max_mismatch`; look for its cause",
    ),
)


DRAWN = (
    Metric(
        name="reward_mean",
        unit="reward",
        formula="mean over responses with a reward",
        healthy="rises",
        outside=(
            "flat: see `groups_dropped_fraction`, `grad_norm`, the rollouts. It says nothing about held-out problems: "
            "`evaluation_mean`"
        ),
        panel="Reward on training batches",
        label="reward",
    ),
    Metric(
        name="reward_std",
        unit="reward",
        formula="standard deviation over the same",
        healthy="above 0",
        outside="0: nothing to compare, nothing to learn",
    ),
    Metric(
        name="reward_part_*",
        unit="reward",
        formula="mean of each named part over responses with a reward, 0 where one has no such part",
        healthy="as intended",
        outside="a part that alone rises is being gamed",
        panel="Parts of the reward",
        label="*",
    ),
    Metric(
        name="rewards/*/mean",
        unit="reward",
        formula=(
            "mean of what one of several rewards (`[rewards]`) gives, before its weight and scale, over the responses "
            "with a reward that it applies to"
        ),
        healthy="as intended",
        outside="one that rises alone is being gamed; one that falls is outweighed: see its `weight` and `scale`",
        panel="Rewards before their weights",
        label="*",
    ),
    Metric(
        name="rewards/*/std",
        unit="reward",
        formula="standard deviation over the same",
        healthy="above 0",
        outside="0: it tells no responses apart. Far above the others': it outweighs them, unless each has its `scale`",
    ),
    Metric(
        name="accuracy",
        unit="fraction",
        formula="responses that are said to be correct over all with a reward; only where the score says it of any",
        healthy="0.1 to 0.9 while learning (own); ART's FAQ asks for 0.3 at the start",
        outside="near 0: easier problems, or clone some answers first. Near 1: harder ones",
        panel="Accuracy on training batches",
        label="correct",
    ),
    Metric(
        name="num_samples",
        unit="count",
        formula="responses drawn",
        healthy="prompts × samples × rounds",
    ),
    Metric(
        name="num_errors",
        unit="count",
        formula="responses without a reward: the reward function raised, hung, or gave no number",
        healthy='0; above 5 % "a smell" (prime-rl\'s documentation)',
        outside="read their `reward_reason` in the rollouts",
        panel="Trouble",
        label="responses without a reward",
    ),
    Metric(
        name="num_uncompared",
        unit="count",
        formula="responses with a reward that are not trained on because nothing is there to compare them with",
        healthy="0",
        outside="most responses of a group, or of a batch, have no reward: see `num_errors`",
    ),
    Metric(
        name="num_groups",
        unit="count",
        formula="prompts drawn",
    ),
    Metric(
        name="num_groups_used",
        unit="count",
        formula="prompts trained on",
        healthy="the `num_prompts` asked for",
        outside="fewer: the refills were not enough",
    ),
    Metric(
        name="groups_dropped_fraction",
        unit="fraction",
        formula="1 − used/drawn",
        healthy="below 0.5 (own)",
        outside="problems are too easy or too hard. Each dropped group was paid for",
        panel="Batches that teach nothing",
        label="groups dropped: all rewards equal",
    ),
    Metric(
        name="num_rounds",
        unit="count",
        formula="rounds of drawing, refills included",
        healthy="1 to 2",
        outside="problems are too easy or too hard. Each dropped group was paid for",
    ),
    Metric(
        name="epoch",
        unit="count",
        formula="passes over the training problems",
        outside="high with few problems: memory instead of skill; watch `evaluation_mean`",
    ),
    Metric(
        name="num_tokens_sampled",
        unit="count",
        formula="tokens drawn; what was put into a conversation is not among them: `num_context_tokens`",
    ),
    Metric(
        name="num_tokens_generated",
        unit="count",
        formula="the same of all steps so far, those of dropped groups included: what a budget of tokens counts",
    ),
    Metric(
        name="length_mean",
        unit="tokens",
        formula="mean length of a response in drawn tokens",
        healthy="steady, or rising with reward",
        outside=(
            "rising without reward: the reduction favours length, or use overlong shaping. Falling to 1: look at the "
            "rollouts"
        ),
        panel="Length of a response",
        label="mean",
    ),
    Metric(
        name="length_max",
        unit="tokens",
        formula="longest response in drawn tokens",
        healthy="below `max_new_tokens`; of conversations, times their turns",
        panel="Length of a response",
        label="longest",
    ),
    Metric(
        name="truncated_fraction",
        unit="fraction",
        formula="share of responses that were cut off; of a conversation, in its last turn",
        healthy="falls to 0",
        outside=(
            "cut answers count as wrong wherever the reward says right or wrong, unless `scoring.truncated` is "
            "`as-written`: raise `max_new_tokens`"
        ),
        panel="Responses cut off",
        label="cut off at max_new_tokens",
    ),
)


COMMENTS = (
    Metric(
        name="num_comments",
        unit="count",
        formula="answers of the batch whose comment is in their tokens' advantages",
        healthy="above 0 where `feedback.comment_weight` is",
    ),
    Metric(
        name="num_comments_unused",
        unit="count",
        formula="answers whose comment the policy cannot be shown: no user's message, or too long with it",
        healthy="0",
        outside="shorten `feedback.comment_template`",
    ),
    Metric(
        name="comment_advantage_mean",
        unit="nats/token",
        formula="mean of log π(token, the comment in the prompt) − log π(token)",
        healthy="below 0 for complaints: the model would not say it again; near 0 for praise",
        outside="0: the comment changes nothing, the model does not read it",
    ),
    Metric(
        name="comment_advantage_rms",
        unit="nats/token",
        formula="root of the mean of its square",
        healthy="below the advantages of the ratings, about 1",
        outside="far above: few tokens decide; lower `feedback.comment_weight`",
    ),
)
"""With `feedback.comment_weight` above 0."""


SOURCES = (
    Metric(
        name="*/num_samples",
        unit="count",
        formula="samples trained on",
        healthy="as the shares say",
        outside="fewer: too few groups could be used",
    ),
    Metric(
        name="*/num_groups",
        unit="count",
        formula="their groups",
    ),
    Metric(
        name="*/num_groups_missing",
        unit="count",
        formula="groups of its share that the source did not give; fresh rollouts stand in for replayed ones",
        healthy="0; the share of replay while nothing is kept yet",
        outside="the log cannot be trained on, or `replay.max_age` is too small: the run's warning says why",
    ),
    Metric(
        name="*/length_mean",
        unit="tokens",
        formula="mean length of a response in drawn tokens",
        healthy="near that of the rollouts",
        outside="a log of another style",
    ),
    Metric(
        name="*/reward_mean",
        unit="reward",
        formula="mean over those with a reward",
        outside="replay far below rollout: old rollouts teach what not to do",
    ),
    Metric(
        name="*/age_mean",
        unit="count",
        formula="optimizer steps since the sample was drawn; rollout and replay only",
        healthy="below `replay.max_age`",
        outside="look at `*/ess_token` beside it",
        panel="Staleness",
        label="age of * samples",
    ),
    Metric(
        name="*/age_max",
        unit="count",
        formula="the oldest",
    ),
    Metric(
        name="*/epoch",
        unit="count",
        formula="passes over a log",
        healthy="1 to 3 (own)",
        outside="many passes: watch `evaluation_mean`",
    ),
    *COMMENTS,
    Metric(
        name="*/num_refused",
        unit="count",
        formula="samples refused so far: of another tokenizer, too long for the model, refused by its chat template",
        healthy="0",
        outside="the log is of another model: import it as text; the first one is named as it is refused",
    ),
    Metric(
        name="*/num_kept",
        unit="count",
        formula="groups in the replay buffer",
    ),
    Metric(
        name="*/num_dropped",
        unit="count",
        formula="groups that grew too old or were too many, so far",
    ),
)
