"""Every key of a run file with a change of it, and how the change shows. A key without a line here fails the walk.

A line is `"PATH": Run("NEW VALUE", *SETTINGS)`: two runs with these settings, of which the second has the new value
too. `"PATH@KIND"` is the key in the table of that kind.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A change of a key, and what else both sides have."""

    value: str
    settings: tuple[str, ...] = ()


class Run(Case):
    """Two runs differ: in a metric, an answer, an evaluation, a file, in what is done how often, or in an error."""


class Problems(Case):
    """The problems of the task differ, or how they score the same answers."""


class Refused(Case):
    """The file with the new value is refused by name."""


class RefusedRun(Case):
    """The run with the new value is refused by name before it makes anything."""


def run(value: str, *settings: str) -> Run:
    return Run(value, last_of_each(settings))


def problems(value: str, *settings: str) -> Problems:
    return Problems(value, last_of_each(settings))


def last_of_each(settings: tuple[str, ...]) -> tuple[str, ...]:
    """Return the settings without those of which a later one says another value."""
    return tuple({each.partition("=")[0]: each for each in settings}.values())


SHARP = ("sampling.top_p=0.7",)
WIDE = ("sampling.temperature=3.0", "model.temperature=1.0")
FILTERED = ("task.kind=python:walk_parts.even", "advantages.group_filter=true")
REPLAY = ("sources.replay=0.5", "training.num_steps=4", "sampling.num_prompts=4")
LOG = ("sources.log=1.0", "log.path=log")
FEEDBACK = ("sources.feedback=1.0", "feedback.path=log")
CLONING = ("cloning.path=pairs.jsonl", "cloning.batch_size=2", "cloning.learning_rate=0.01")
RATED = "task.reward=python:walk_rewards"
SLEEPS = (f"{RATED}.sleeps", "scoring.timeout_seconds=5.0")
SEVERAL = (
    "rewards.style.reward=python:walk_rewards.digits",
    "rewards.own.reward=task",
    "task.kind=arithmetic",
    "sampling.num_samples=4",
    "advantages.kind=group-mean",
)
JUDGED = (
    "rewards.style.reward=judge",
    "rewards.style.judge.url=http://127.0.0.1:9/v1",
    "rewards.style.judge.model=m",
    "rewards.style.judge.rubric=short",
)
PPO = ("objective.recipe=ppo", "critic.learning_rate=0.02")
TO_GO = ("objective.recipe=reinforce++",)
KTO = ("objective.recipe=kto",)
PAIRS = ("objective.recipe=dpo",)
PEOPLE = ("sources.feedback=1.0", "feedback.path=people", "objective.recipe=dro", "sampling.num_prompts=8")
OF_PEOPLE = ("sources.feedback=1.0", "feedback.path=people", "feedback.corrections=off", "advantages=batch-z-score")
COMMENTED = (*OF_PEOPLE, "sampling.num_prompts=8", "feedback.comment_weight=0.5")
RESIDUAL = ("objective.recipe=kimi-pmd",)
MASKED = ("sampling.top_p=0.7", "correction.kind=mask")
DUAL = ("objective.clip=dual",)
EMA = ("objective.recipe=rpg-urkl", "reference=ema", "objective.beta=0.5")
ITERATIVE = ("reference.kind=iterative", "objective.beta=0.5", "training.num_steps=3")
GYM = ("task.kind=reasoning-gym", "task.dataset=chain_sum", "task.num_train=4", "task.num_held_out=3")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% if thinks %}think{% endif %}{% endfor %}"
NO_SEVEN = "{% if '7' in messages[-1].content %}{{ raise_exception('no seven') }}{% endif %}"
SOME_UNUSABLE = (
    f'model.chat_template="{NO_SEVEN}{TEMPLATE}"',
    "task.max_unusable_fraction=0.9",
    "training.num_steps=1",
)
FILE = ("task.kind=file", "task.path=sums.jsonl")
ARITHMETIC = ("task.kind=arithmetic",)
CALCULATOR = ("task.kind=calculator",)
GUESSING = ("task.kind=guessing",)
SQL = ("task.kind=sql", "task.num_problems=40")
TALKS = (
    "environment.factory=python:walk_environments.Asking",
    "environment.call_format=hermes",
    "environment.max_turns=3",
    "sampling.num_samples=2",
    "sampling.max_new_tokens=20",
    "sampling.stop=['a', 'e', 'i', 'o', 'n', 's', 't', '1', '2', '3', '4', '5']",
    "training.num_steps=1",
    "training.num_epochs=1",
    "scoring.max_error_fraction=1.0",
)
SLOWLY = (*TALKS, "environment.factory=python:walk_environments.Slow")
TOLD = f"{TEMPLATE}{{% for t in tools or [] %}}{{{{ t.function.name }}}}{{% endfor %}}"
DROPPED = "{% if not loop.last and m.role == 'assistant' %}{% else %}{{ m.role }}{{ m.content }}<|im_end|>{% endif %}"
REWRITES = f"{{% for m in messages %}}{DROPPED}{{% endfor %}}"
OF_ENVIRONMENT = ("task.kind=environment", "environment.factory=python:walk_environments.Asking")
OWN = ("task.kind=python:walk_parts.letters",)
KEEPS_BEST = ("checkpoints.best_metric=optimizer_steps", "checkpoints.every_steps=9")
STOPS = (
    "training.num_steps=5",
    "early_stopping.metric=optimizer_steps",
    "early_stopping.mode=min",
    "early_stopping.patience=1",
)
EVALUATED = ("evaluation.every_steps=1", "training.num_steps=1", "evaluation.num_samples=2")
ENDS = ("evaluation.at_ends=true", "training.num_steps=1", "evaluation.num_samples=2")
GUARD = (
    "guard.num_problems=2",
    "guard.max_new_tokens=4",
    "guard.text=short.txt",
    "guard.every_steps=1",
    "guard.max_perplexity_ratio=none",
    "guard.max_general_drop=none",
    "guard.max_empty_fraction=none",
    "guard.max_refusal_fraction=none",
    "guard.max_repetition_fraction=none",
)
BROKEN = (
    *(each for each in GUARD if "max_perplexity" not in each),
    "guard.max_perplexity_ratio=1.0",
    "optimizer.learning_rate=0.5",
    "training.num_steps=4",
    "checkpoints.every_steps=1",
    "checkpoints.keep=9",
    "checkpoints.keep_at_end=9",
)
ROLLBACK = (*BROKEN, "guard.action=rollback")
GOES_ON = (*ROLLBACK, "guard.rollback_learning_rate_factor=0.9")


KEYS: dict[str, Case] = {
    "seed": run("2"),
    "model.path": run("'other'"),
    "model.dtype": run("bfloat16"),
    "model.device": RefusedRun("cuda:99"),
    "model.activation_checkpointing": run("always", "model.activation_checkpointing=never"),
    "model.temperature": run("0.7", "training.num_steps=1"),
    "model.trust_remote_code": RefusedRun("false", ("model.path=foreign",)),
    "model.lora.path": run("adapter", "model.lora.rank=2"),
    "model.lora.rslora": run("true", "model.lora.rank=2"),
    "model.lora.dora": run("true", "model.lora.rank=2"),
    "model.chat_template": run(f'"{TEMPLATE}"', "training.num_steps=1"),
    "model.template_arguments": run("{thinks = true}", f'model.chat_template="{TEMPLATE}"', "training.num_steps=1"),
    "model.lora.rank": run("3", "model.lora.rank=2"),
    "model.lora.alpha": run("8.0", "model.lora.rank=2"),
    "model.lora.dropout": Refused("0.1", ("model.lora.rank=2",)),
    "model.lora.targets": run("['q_proj']", "model.lora.rank=2"),
    "task.kind@arithmetic": problems("arithmetic"),
    "task.kind@reasoning-gym": problems("reasoning-gym", "task.dataset=chain_sum", "task.num_train=4"),
    "task.kind@file": problems("file", "task.path=sums.jsonl"),
    "task.kind@python:module.name": problems("python:walk_parts.even"),
    "task.operators@arithmetic": problems("'-'", *ARITHMETIC),
    "task.digits@arithmetic": problems("2", *ARITHMETIC),
    "task.num_terms@arithmetic": problems("3", *ARITHMETIC),
    "task.num_problems@arithmetic": problems("20", *ARITHMETIC),
    "task.held_out_fraction@arithmetic": problems("0.5", *ARITHMETIC),
    "task.seed@arithmetic": problems("7", *ARITHMETIC),
    "task.wording@arithmetic": problems("'{expression} ='", *ARITHMETIC),
    "task.reward@arithmetic": problems("python:walk_rewards.digits", *ARITHMETIC),
    "task.system_prompt@arithmetic": problems("'Be brief.'", *ARITHMETIC),
    "task.max_unusable_fraction@arithmetic": run("0.0", *ARITHMETIC, *SOME_UNUSABLE),
    "task.dataset@reasoning-gym": problems("products", *GYM),
    "task.parameters@reasoning-gym": problems("{max_terms = 2}", *GYM),
    "task.num_train@reasoning-gym": problems("5", *GYM),
    "task.num_held_out@reasoning-gym": problems("5", *GYM),
    "task.seed@reasoning-gym": problems("7", *GYM),
    "task.extract@reasoning-gym": problems("last-number", *GYM),
    "task.reward@reasoning-gym": problems("python:walk_rewards.digits", *GYM),
    "task.template@reasoning-gym": problems("'Q: {question}'", *GYM),
    "task.system_prompt@reasoning-gym": problems("'Be brief.'", *GYM),
    "task.max_unusable_fraction@reasoning-gym": run("0.0", *GYM, "task.num_train=20", *SOME_UNUSABLE),
    "task.path@file": problems("more.jsonl", *FILE),
    "task.question@file": problems("other", *FILE),
    "task.answer@file": problems("long", *FILE, "task.reward=exact"),
    "task.answer_after@file": problems("'='", *FILE, "task.answer=long"),
    "task.reward@file": problems("exact", *FILE),
    "task.template@file": problems("'Q: {question}'", *FILE),
    "task.system_prompt@file": problems("'Be brief.'", *FILE),
    "task.held_out_path@file": problems("more.jsonl", *FILE),
    "task.held_out_fraction@file": problems("0.5", *FILE),
    "task.seed@file": problems("7", *FILE),
    "task.few_shot@file": problems("2", *FILE),
    "task.few_shot_path@file": problems("more.jsonl", *FILE, "task.few_shot=2"),
    "task.max_unusable_fraction@file": run(
        "0.0", *FILE, *(each.replace("7", "3") for each in SOME_UNUSABLE), f"{RATED}.digits"
    ),
    "task.kind@calculator": problems("calculator"),
    "task.operators@calculator": problems("'-'", *CALCULATOR),
    "task.digits@calculator": problems("2", *CALCULATOR),
    "task.num_terms@calculator": problems("3", *CALCULATOR),
    "task.num_problems@calculator": problems("20", *CALCULATOR),
    "task.held_out_fraction@calculator": problems("0.5", *CALCULATOR),
    "task.seed@calculator": problems("7", *CALCULATOR),
    "task.wording@calculator": problems("'{expression} ='", *CALCULATOR),
    "task.reward@calculator": problems("python:walk_rewards.digits", *CALCULATOR),
    "task.system_prompt@calculator": problems("'Be brief.'", *CALCULATOR),
    "task.max_unusable_fraction@calculator": run("0.0", *CALCULATOR, *SOME_UNUSABLE),
    "task.kind@guessing": problems("guessing"),
    "task.size@guessing": problems("7", *GUESSING),
    "task.highest@guessing": problems("50", *GUESSING),
    "task.max_guesses@guessing": problems("3", *GUESSING),
    "task.turn_rewards@guessing": problems("true", *GUESSING),
    "task.num_problems@guessing": problems("60", *GUESSING),
    "task.held_out_fraction@guessing": problems("0.5", *GUESSING),
    "task.seed@guessing": problems("7", *GUESSING),
    "task.reward@guessing": problems("python:walk_rewards.digits", *GUESSING),
    "task.system_prompt@guessing": problems("'Be brief.'", *GUESSING),
    "task.max_unusable_fraction@guessing": run("0.0", *GUESSING, *SOME_UNUSABLE),
    "task.kind@sql": problems("sql", "task.num_problems=40"),
    "task.template@sql": problems("'Q: {question}'", *SQL),
    "task.num_problems@sql": problems("20", *SQL),
    "task.held_out_fraction@sql": problems("0.5", *SQL),
    "task.seed@sql": problems("7", *SQL),
    "task.reward@sql": problems("python:walk_rewards.digits", *SQL),
    "task.system_prompt@sql": problems("'Be brief.'", *SQL),
    "task.max_unusable_fraction@sql": run("0.0", *SQL, *SOME_UNUSABLE),
    "task.kind@environment": problems("environment", "environment.factory=python:walk_environments.Asking"),
    "task.question@environment": problems("'Begin.'", *OF_ENVIRONMENT),
    "task.num_problems@environment": problems("20", *OF_ENVIRONMENT),
    "task.held_out_fraction@environment": problems("0.5", *OF_ENVIRONMENT),
    "task.seed@environment": problems("7", *OF_ENVIRONMENT),
    "task.reward@environment": problems("python:walk_rewards.digits", *OF_ENVIRONMENT),
    "task.system_prompt@environment": problems("'Be brief.'", *OF_ENVIRONMENT),
    # All prompts are one: the model can be asked each of them, or none, which no fraction allows.
    "task.max_unusable_fraction@environment": Refused("1.5", OF_ENVIRONMENT),
    "task.parameters@python:module.name": problems("{count = 3}", *OWN),
    "task.seed@python:module.name": problems("7", *OWN),
    "task.max_unusable_fraction@python:module.name": run("0.0", *SOME_UNUSABLE),
    "task.reward@python:module.name": problems("python:walk_rewards.digits", *OWN),
    "rewards.*.reward": run("python:walk_rewards.judged", *SEVERAL),
    "rewards.*.weight": run("0.5", *SEVERAL),
    "rewards.*.scale": run("batch", *SEVERAL),
    "rewards.*.device": Refused("cpu", SEVERAL),
    # What each does to a verdict: tests/tasks/judge. Here it is only that each is read.
    "rewards.*.judge.url": Refused("ftp://judge", JUDGED),
    "rewards.*.judge.model": Refused("", JUDGED),
    "rewards.*.judge.rubric": Refused("", JUDGED),
    "rewards.*.judge.rubric_file": Refused("rubric.txt", JUDGED),
    "rewards.*.judge.key_env": Refused("sk-1", JUDGED),
    "rewards.*.judge.lowest": Refused("11.0", JUDGED),
    "rewards.*.judge.highest": Refused("-1.0", JUDGED),
    "rewards.*.judge.max_tokens": Refused("0", JUDGED),
    "rewards.*.judge.retries": Refused("101", JUDGED),
    "rewards.*.judge.wait_seconds": Refused("0.0", JUDGED),
    "rewards.*.judge.cache": Refused("x" * 4_001, JUDGED),
    "scoring.truncated": run("as-written", f"{RATED}.judged", "training.num_steps=1"),
    "scoring.timeout_seconds": run("0.05", f"{RATED}.sleeps", "sampling.num_prompts=1", "training.num_minibatches=1"),
    "scoring.num_workers": run("2", f"{RATED}.digits", "training.num_steps=1"),
    "scoring.max_concurrent": run("1", f"{RATED}.together", "training.num_steps=1"),
    "scoring.max_error_fraction": run("0.0", "task.kind=python:walk_parts.failing", "sampling.num_samples=8"),
    "scoring.memory_limit_gigabytes": run("1.0", f"{RATED}.large", "training.num_steps=1"),
    "scoring.overlong.buffer_tokens": run(
        "39", "scoring.overlong.buffer_tokens=2", "sampling.max_new_tokens=40", "sampling.num_samples=8"
    ),
    "scoring.overlong.factor": run("0.5", "scoring.overlong.buffer_tokens=2"),
    "scoring.format.pattern": run("'e'", "scoring.format.pattern='[a-f]'", f"{RATED}.digits", "training.num_steps=1"),
    "scoring.format.weight": run("0.3", "scoring.format.pattern='[a-f]'", f"{RATED}.digits", "training.num_steps=1"),
    "environment.factory": run("python:walk_environments.Strict", *TALKS),
    "environment.command": run(
        "'python walk_agent.py'", *TALKS, "environment.factory=''", "environment.call_seconds=60"
    ),
    "environment.tools": run("['python:walk_environments.look']", *TALKS, f'model.chat_template="{TOLD}"'),
    "environment.max_turns": run("1", *TALKS),
    "environment.max_tokens": run("1", *TALKS),
    "environment.call_seconds": run("0.05", *SLOWLY),
    "environment.sample_seconds": run("0.05", *SLOWLY),
    "environment.call_format": RefusedRun("auto", TALKS),
    "environment.rewritten_history": RefusedRun("refuse", (*TALKS, f'model.chat_template="{REWRITES}"')),
    "environment.max_processes": run("1", *TALKS),
    "environment.memory_limit_gigabytes": run(
        "1.0", *TALKS, "environment.factory=python:walk_environments.Large", "environment.max_processes=1"
    ),
    "sampling.temperature": run("0.7"),
    "sampling.top_p": run("0.8"),
    "sampling.top_k": run("5"),
    "sampling.min_p": run("0.2"),
    "sampling.max_new_tokens": run("4"),
    "sampling.min_new_tokens": run("6"),
    "sampling.repetition_penalty": run("1.3"),
    "sampling.stop": run("['a', 'e', 'i', 'o', '1', '2', '3', '4']"),
    "sampling.num_prompts": run("3"),
    "sampling.num_samples": run("3"),
    "sampling.lag": run("1"),
    "sampling.record_support": run("true", *SHARP),
    "sampling.sampler": run("python:walk_parts.greedier"),
    "sampling.max_batch": run("2"),
    "sources.rollout": Refused("0.5"),
    "sources.replay": run("0.5", "training.num_steps=3"),
    "sources.log": run("0.5", "log.path=log"),
    "sources.feedback": run("0.5", "feedback.path=log"),
    "replay.max_age": run("1", *REPLAY),
    "replay.rule": run("hard", *REPLAY),
    "replay.max_groups": run("1", *REPLAY),
    "log.path": run("other_log", *LOG),
    "log.where": run("'reward > 0.2'", *LOG),
    "log.held_out_fraction": run("0.5", *LOG),
    "feedback.path": run("other_log", *FEEDBACK),
    "feedback.where": run("'reward > 0.2'", *FEEDBACK),
    "feedback.held_out_fraction": run("0.5", *FEEDBACK),
    "feedback.preferences": run("off", *PEOPLE),
    "feedback.corrections": run("demonstrations", *PEOPLE),
    "feedback.conversations": run("whole", *PEOPLE),
    "feedback.max_rater_fraction": run("0.4", *PEOPLE),
    "feedback.comment_weight": run("0.5", *OF_PEOPLE, "sampling.num_prompts=8"),
    "feedback.comment_template": run("'{comment} {question}'", *COMMENTED),
    "feedback.comment_teacher": run("reference", *COMMENTED, "reference=fixed", "training.num_steps=3"),
    "cloning.num_epochs": run("2", *CLONING),
    "cloning.batch_size": run("3", *CLONING),
    "cloning.learning_rate": run("0.02", *CLONING),
    "cloning.warmup_steps": run("2", *CLONING),
    "cloning.path": run("more.jsonl", *CLONING, "cloning.prompt=question", "cloning.response=answer"),
    "cloning.prompt": run("question", *CLONING, "cloning.template='Q {question}'"),
    "cloning.response": run("answer", *CLONING),
    "cloning.template": run("'Q {question}'", *CLONING),
    "cloning.system_prompt": run("'Be brief.'", *CLONING),
    "objective.recipe@policy-gradient": run("grpo"),
    "objective.recipe@squared-residual": run("kimi-pmd"),
    "objective.recipe@kto": run("kto"),
    "objective.recipe@pairwise": run("dpo"),
    "objective.loss@policy-gradient": run("policy-gradient", "objective.recipe=kto"),
    "objective.loss@squared-residual": run("squared-residual", "objective.beta=0.1"),
    "objective.loss@kto": run(
        "kto", "reference=fixed", "objective.recipe=rloo", "advantages=binary-feedback", "objective.beta=0.1"
    ),
    "objective.loss@pairwise": run("pairwise", "objective.recipe=dro", "objective.anchor=ref"),
    "objective.divergence@policy-gradient": run("rkl", "objective.beta=0.5"),
    "objective.beta@policy-gradient": run("0.5"),
    "objective.estimator@policy-gradient": run("differentiable", "objective.beta=0.5"),
    "objective.level@policy-gradient": run("sequence"),
    "objective.reduce@policy-gradient": run("sequence-mean-token-sum"),
    "objective.ratio@policy-gradient": run("none", "objective.clip=none"),
    "objective.entropy_bonus@policy-gradient": run("0.5"),
    "objective.beta@squared-residual": run("0.5", *RESIDUAL),
    "objective.level@squared-residual": run("sequence-mean", *RESIDUAL),
    "objective.reduce@squared-residual": run("token-mean", *RESIDUAL),
    "objective.anchor@squared-residual": run("ref", *RESIDUAL, "reference=fixed"),
    "objective.value@squared-residual": run("batch-optimal", *RESIDUAL),
    "objective.beta@kto": run("0.5", *KTO),
    "objective.reduce@kto": run("token-mean", *KTO),
    "objective.desirable_weight@kto": run("3.0", *KTO, "task.seed=1"),
    "objective.undesirable_weight@kto": run("3.0", *KTO),
    "objective.form@pairwise": run("ipo", *PAIRS),
    "objective.beta@pairwise": run("0.5", *PAIRS),
    "objective.anchor@pairwise": run("mu", *PAIRS),
    "objective.divergence@pairwise": run("fkl", *PAIRS),
    "objective.label_smoothing@pairwise": run("0.2", *PAIRS),
    "objective.level@pairwise": run("sequence-mean", *PAIRS),
    "objective.clip.kind@none": run("none"),
    "objective.clip.kind@dual": run("dual", "objective.recipe=cispo"),
    "objective.clip.kind@truncate": run("truncate"),
    "objective.clip.kind@mask": run("mask"),
    "objective.clip.kind@taper": run("taper"),
    "objective.clip.kind@total-variation": run("total-variation"),
    "objective.clip.kind@second-moment": run("second-moment"),
    "objective.clip.kind@python:module.name": run("python:walk_parts.halving"),
    "objective.clip.low@dual": run("0.01", *DUAL),
    "objective.clip.high@dual": run("0.01", *DUAL),
    "objective.clip.ceiling@dual": run("1.01", *DUAL),
    "objective.clip.low@truncate": run("0.9", "objective.clip=truncate"),
    "objective.clip.high@truncate": run("2.0", "objective.clip=truncate"),
    "objective.clip.low@mask": run("0.9", "objective.clip=mask"),
    "objective.clip.high@mask": run("1.1", "objective.clip=mask"),
    "objective.clip.low@total-variation": run("0.0", "objective.clip=total-variation"),
    "objective.clip.high@total-variation": run("0.0", "objective.clip=total-variation"),
    "objective.clip.ceiling@total-variation": run("1.1", "objective.clip=total-variation"),
    "objective.clip.threshold@second-moment": run("0.001", "objective.clip=second-moment"),
    "advantages.kind": run("leave-one-out"),
    "advantages.offset": run("-0.2"),
    "advantages.min_reward": run("0.2", "advantages.kind=batch-mean"),
    "advantages.group_filter": run("true", "task.kind=python:walk_parts.even"),
    "advantages.max_refills": run("0", *FILTERED),
    "advantages.shuffle_rewards": run("true"),
    "credit.kind": run("gae", *TO_GO),
    "credit.kl_in_reward": run("0.5", *TO_GO),
    "credit.gae_lambda": run("0.1", *PPO),
    "credit.discount": run("0.5", *TO_GO),
    "credit.whiten": run("false", *TO_GO),
    "correction.kind@auto": run("auto", *SHARP, "correction.kind=none"),
    "correction.off_policy_mask@auto": run("0.001", *SHARP, "correction=auto"),
    "correction.kind@none": run("none", *SHARP, "correction.kind=decoupled"),
    "correction.kind@decoupled": run("decoupled", *SHARP, "correction.kind=none"),
    "correction.kind@truncate": run("truncate", *SHARP, "correction.kind=none"),
    "correction.kind@normalised": run("normalised", *SHARP),
    "correction.kind@mask": run("mask", *SHARP, "correction.kind=none"),
    "correction.off_policy_mask@none": run("0.001", *SHARP, "correction=none"),
    "correction.off_policy_mask@decoupled": run("0.001", *SHARP, "correction=decoupled"),
    "correction.off_policy_mask@truncate": run("0.001", *SHARP, "correction=truncate"),
    "correction.off_policy_mask@normalised": run("0.001", *SHARP, "correction=normalised"),
    "correction.off_policy_mask@mask": run("0.001", *MASKED),
    "correction.level@decoupled": run("sequence", *SHARP, "correction=decoupled"),
    "correction.level@truncate": run("sequence", *SHARP, "correction=truncate"),
    "correction.level@normalised": run("sequence", *SHARP, "correction=normalised"),
    "correction.level@mask": run("sequence", *MASKED),
    "correction.high@truncate": run("1.01", *WIDE, "correction=truncate"),
    "correction.high@normalised": run("1.01", *WIDE, "correction=normalised"),
    "correction.high@mask": run("1.01", *WIDE, "correction=mask"),
    "correction.low@mask": run("0.95", *MASKED),
    "critic.hidden_size": run("8", *PPO),
    "critic.learning_rate": run("0.1", "objective.recipe=ppo"),
    "critic.num_epochs": run("2", *PPO),
    "critic.num_minibatches": run("2", *PPO),
    "critic.clip": run("0.001", *PPO),
    "critic.max_grad_norm": run("0.001", *PPO),
    "reference.kind@iterative": run("iterative", "objective.recipe=grpo"),
    "reference.kind@fixed": run("fixed", "objective.beta=0.5"),
    "reference.kind@ema": run("ema", "objective.beta=0.5"),
    "reference.kind@behaviour": run("behaviour", "objective.beta=0.5", "objective.recipe=grpo"),
    "reference.kind@none": run("none", "objective.beta=0.0"),
    "reference.kind@python:module.name": run("python:walk_parts.refreshes", "objective.beta=0.5"),
    "reference.every_steps@iterative": run("5", *ITERATIVE),
    "reference.kl_threshold@iterative": run(
        "0.001", *ITERATIVE, "reference.every_steps=never", "reference.kl_threshold=900.0"
    ),
    "reference.kl_decay@iterative": run("0.1", *ITERATIVE, "reference.kl_threshold=0.5"),
    "reference.decay@ema": run("0.5", *EMA),
    "optimizer.kind": run("schedule-free"),
    "optimizer.learning_rate": run("0.01"),
    "optimizer.warmup_steps": run("5"),
    "optimizer.schedule": run("cosine"),
    "optimizer.schedule_steps": run("6", "optimizer.schedule=linear"),
    "optimizer.min_learning_rate_fraction": run("0.5", "optimizer.schedule=linear"),
    "optimizer.weight_decay": run("5.0"),
    "optimizer.decay_vectors": run("false", "optimizer.weight_decay=5.0"),
    "optimizer.beta1": run("0.5"),
    "optimizer.beta2": run("0.5"),
    "optimizer.epsilon": run("0.1"),
    "optimizer.max_grad_norm": run("0.001", "optimizer.epsilon=0.01"),
    "optimizer.ess_scaling": run("token", *SHARP),
    "training.num_steps": run("3"),
    "training.num_epochs": run("3"),
    "training.num_minibatches": run("1"),
    "training.micro_batch_tokens": run("20"),
    "training.max_skipped_steps": run("0", "objective.clip=python:walk_parts.endless", "training.num_steps=1"),
    "training.max_seconds": run("0.001"),
    "training.max_generated_tokens": run("1"),
    "training.max_training_seconds": run("1e-6"),
    "training.log_mu": run("recomputed"),
    "training.num_mismatch_rows": run("0", *SHARP),
    "training.max_mismatch": run("1e-12", "training.log_mu=auto"),
    "training.num_threads": run("2", "training.num_threads=1"),
    "checkpoints.every_steps": run("1"),
    "checkpoints.keep": run("1", "checkpoints.every_steps=1", "checkpoints.keep_at_end=9"),
    "checkpoints.keep_at_end": run("2", "checkpoints.every_steps=1", "checkpoints.at_end=true"),
    "checkpoints.at_end": run("true"),
    "checkpoints.rescue": run("false", "optimizer.kind=python:walk_parts.breaks"),
    "checkpoints.best_metric": run("reward_mean"),
    "checkpoints.best_mode": run("min", *KEEPS_BEST),
    "checkpoints.model": run(
        "best", *KEEPS_BEST, "checkpoints.best_mode=min", "run.save_model=true", *ENDS, "training.num_steps=4"
    ),
    "early_stopping.metric": run("learning_rate", *STOPS, "early_stopping.mode=max"),
    "early_stopping.mode": run("max", *STOPS),
    "early_stopping.patience": run("2", *STOPS),
    "early_stopping.min_change": run(
        "1000.0", *STOPS, "early_stopping.metric=optimizer_steps", "early_stopping.mode=max"
    ),
    "evaluation.every_steps": run("1", "evaluation.num_samples=2"),
    "evaluation.every_tokens": run("1", "evaluation.num_samples=2"),
    "evaluation.every_seconds": run("1e-6", "evaluation.num_samples=2"),
    "evaluation.num_samples": run("3", *EVALUATED),
    "evaluation.seed": run("5", *EVALUATED),
    "evaluation.at_ends": run("true", "evaluation.num_samples=2"),
    "evaluation.num_problems": run("2", *EVALUATED),
    "evaluation.greedy": run("false", *ENDS),
    "guard.every_steps": run("2", *GUARD),
    "guard.text": run("none", *GUARD),
    "guard.general": run("[]", *GUARD),
    "guard.num_problems": run("20", *GUARD, "guard.num_problems=15", "sampling.sampler=python:walk_parts.knowing"),
    "guard.max_new_tokens": run("3", *GUARD),
    "guard.format": run("'a'", *GUARD),
    "guard.checks": run("['always:.']", *GUARD, "evaluation.at_ends=true", "evaluation.num_samples=2"),
    "guard.max_violation_fraction": run(
        "1.0",
        *GUARD,
        "guard.checks=['always:[^ ]']",
        "evaluation.at_ends=true",
        "evaluation.num_samples=2",
        "sampling.sampler=python:walk_parts.silencing",
    ),
    "guard.max_perplexity_ratio": run("1.0", *GUARD, "optimizer.learning_rate=0.5"),
    "guard.max_general_drop": run("0.0", *GUARD, "guard.num_problems=15", "sampling.sampler=python:walk_parts.knowing"),
    "guard.max_empty_fraction": run("0.0", *GUARD, "sampling.sampler=python:walk_parts.silencing"),
    "guard.max_refusal_fraction": run("0.0", *GUARD, "sampling.sampler=python:walk_parts.refusing"),
    "guard.max_repetition_fraction": run("0.0", *GUARD, "sampling.sampler=python:walk_parts.repeating"),
    "guard.min_format_fraction": run(
        "1.0",
        *GUARD,
        "guard.format='[A-Za-z]'",
        "sampling.num_samples=8",
        "sampling.sampler=python:walk_parts.repeating",
    ),
    "guard.false_alarm_rate": run("0.5", *GUARD),
    "guard.action": run("stop", *BROKEN),
    "guard.rollback_learning_rate_factor": run("0.5", *ROLLBACK),
    "guard.max_rollbacks": run("1", *GOES_ON),
    "run.name": run("'another'"),
    "run.folder": run("elsewhere"),
    "run.save_rollouts": run("false"),
    "run.save_model": run("true"),
    "run.report": run("true"),
    "run.loggers": run("['tensorboard']"),
    "run.callbacks": run("['python:walk_parts.Stopping']"),
    "run.log_completions": run("2", "run.loggers=['python:walk_parts.Tables']"),
    "run.findings": run("['python:walk_parts.house_rule']", "run.report=true"),
}
