"""TRL's side: its GRPOTrainer, tuned, with as many tokens as klimb draws and trains on.

What a friend of TRL would set is set: no gradient checkpointing, fused AdamW, no reports or progress bars, attention
and micro-batch as told (`--tune` finds the fastest), sampling without any logits processor. No end token is known, so
all responses have the same length: by the generation configuration and `eos_token_ids`, not by a processor.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, cast

import torch
import trl
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.vs_trl.settings import TrlSettings
from benchmarks.vs_trl.turns import Turn
from benchmarks.workload import NEVER, Phases, Workload, make_task
from klimb.policies import keep_freed_memory
from klimb.policies.loading import resolve_source
from klimb.policies.tokenizer import render_chat
from klimb.tasks import ProblemSet, Response
from klimb.training import recipe_named

NO_TOKEN = -1
"""An id that is never drawn: where the trainer looks for the end of a response, it finds none."""


class Clock:
    """Adds up the seconds spent in methods of a trainer."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, owner: object, name: str) -> None:
        """Replace the method by one that is timed."""
        method: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = method(*args, **kwargs)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            return result

        setattr(owner, name, timed)


class TurnByTurn(TrainerCallback):
    """Hands over after the last optimizer step of each generated batch, and waits for the next turn."""

    def __init__(self, turn: Turn, workload: Workload) -> None:
        self.turn, self.workload, self.clock = turn, workload, Clock()
        self._lengths: list[int] = []
        self._rewards: list[float] = []

    def attach(self, trainer: GRPOTrainer) -> None:
        """Start to measure this trainer."""
        self.clock.watch(trainer, "_generate")
        self.clock.watch(trainer, "_generate_and_score_completions")
        trainer.add_callback(self)

    def see(self, lengths: list[int], rewards: list[float]) -> None:
        """Take note of what was drawn in this step."""
        self._lengths += lengths
        self._rewards += rewards

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After an optimizer step."""
        if state.global_step % self.workload.num_epochs:
            return
        seconds, spent = self.turn.elapsed(), self.clock.seconds
        sample = spent["_generate"]
        score = spent["_generate_and_score_completions"] - sample
        self.turn.report(
            Phases(sample=sample, score=score, update=seconds - sample - score),
            num_tokens_sampled=sum(self._lengths),
            num_tokens_trained=sum(self._lengths) * self.workload.num_epochs,
            reward_mean=sum(self._rewards) / len(self._rewards),
        )
        self.clock.seconds, self._lengths, self._rewards = {}, [], []
        self.turn.wait()


def make_config(workload: Workload, settings: TrlSettings, folder: str) -> GRPOConfig:
    """Return the trainer's settings for this workload."""
    if workload.num_responses % settings.micro_batch:
        raise ValueError(
            f"{workload.num_responses} responses are no multiple of the micro-batch {settings.micro_batch}"
        )
    return GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=workload.dtype == "bfloat16",
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": settings.weights, "attn_implementation": settings.attention},
        per_device_train_batch_size=settings.micro_batch,
        gradient_accumulation_steps=workload.num_responses // settings.micro_batch,
        num_generations=workload.group_size,
        max_completion_length=workload.response_tokens,
        num_iterations=workload.num_epochs,
        beta=recipe_named(workload.recipe).objective.beta if workload.reference == "fixed" else 0.0,
        loss_type="grpo",
        cache_implementation=None if settings.cache == "dynamic" else settings.cache,
        learning_rate=workload.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        max_steps=NEVER,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=workload.seed,
    )


class KnowNoEndToken(TrainerCallback):
    """Makes every response as long as it may be, whatever tokens it draws.

    transformers fills a None of the trainer's generation configuration in from the model's own, and sets that to the
    tokenizer's end token when training begins; so both are cleared after that.
    """

    def __init__(self, trainer: GRPOTrainer) -> None:
        trainer.eos_token_ids = [NO_TOKEN]
        self._configs = [trainer.generation_config, cast(Any, trainer.model).generation_config]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the first step."""
        for config in self._configs:
            config.eos_token_id = None


def make_reward(task: ProblemSet, callback: TurnByTurn) -> Callable[..., list[float | None]]:
    """Return the task's reward as TRL calls it."""
    problems = {problem.problem_id: problem for problem in task.train}

    def reward(
        completions: list[Any], completion_ids: list[list[int]], problem_id: list[str], **_: Any
    ) -> list[float | None]:
        lengths = [len(ids) for ids in completion_ids]
        rewards: list[float] = []
        for completion, name, length in zip(completions, problem_id, lengths, strict=True):
            response = Response(text=completion[0]["content"], num_tokens=length, finish_reason="unknown")
            rewards.append(task.score(problems[name], response).reward or 0.0)
        callback.see(lengths, rewards)
        return [*rewards]

    return reward


def main() -> None:
    """Trains until the parent says no more; the workload and TRL's settings are the arguments, as JSON."""
    turn, workload = Turn(), Workload.from_json(sys.argv[1])
    settings = TrlSettings(**json.loads(sys.argv[2]))
    if workload.threads:
        torch.set_num_threads(workload.threads)
    if settings.keep_memory:
        keep_freed_memory()
    folder = str(resolve_source(workload.model))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    task = make_task(workload, lambda messages: render_chat(tokenizer, messages))
    callback = TurnByTurn(turn, workload)
    rows = [{"prompt": list(problem.messages), "problem_id": problem.problem_id} for problem in task.train]
    with tempfile.TemporaryDirectory() as output:
        trainer = GRPOTrainer(
            model=folder,
            reward_funcs=make_reward(task, callback),
            args=make_config(workload, settings, output),
            train_dataset=Dataset.from_list(rows),
        )
        if not workload.learning:
            trainer.add_callback(KnowNoEndToken(trainer))
        callback.attach(trainer)
        prompts, _, _ = trainer._tokenize_prompts([row["prompt"] for row in rows])
        turn.announce(version=trl.__version__, setting=str(settings), num_prompt_tokens=sum(map(len, prompts)))
        turn.wait()
        trainer.train()


if __name__ == "__main__":
    main()
