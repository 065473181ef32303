"""People made by a script, who like short and polite answers: does the policy follow them, and whom does it not follow?

    OMP_NUM_THREADS=1 python benchmarks/scripted_raters.py --into raters.jsonl --seeds 5

The embedded model answers everyday questions, one answer each; a script rates each answer 1 (short and polite) or 0;
the ratings go into a store as people's do, and `[feedback]` trains on them; then it answers again with the new policy.
Five rounds of 100 ratings make 500. Before and after: the share of liked answers to questions that were never rated,
and the perplexity of a text. Arms:

    forward, reverse    rpg-reinforce with forward KL, with reverse KL; β alike
    shuffled            the ratings of each round dealt to its answers anew (reverse KL)
    hostile             every tenth rater says the opposite (reverse KL)

Each cell is one line of the file; cells that are there already are left out, so it can be stopped and gone on with.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from klimb.experience import Message, Sample, SamplingSettings
from klimb.experience.feedback import Feedback
from klimb.experience.store import Store
from klimb.policies import Policy, load_policy
from klimb.samplers import LocalSampler
from klimb.tasks import Problem, Response, Score
from klimb.training import (
    LoopSettings,
    OfflineSource,
    OptimizerSettings,
    RolloutSettings,
    RolloutWorker,
    SourceSettings,
    TrainingSettings,
    recipe_named,
    reference_named,
)
from klimb.training.guard.measuring import perplexity, text_ids
from klimb.training.iteration import iterate
from klimb.training.settings import FeedbackSettings
from klimb.training.sources.feedback import FeedbackStore
from klimb.training.state import RunState, fresh_state

ARMS = {
    "forward": {"recipe": "rpg-reinforce-fkl"},
    "reverse": {"recipe": "rpg-reinforce-rkl"},
    "shuffled": {"recipe": "rpg-reinforce-rkl", "shuffled": True},
    "hostile": {"recipe": "rpg-reinforce-rkl", "hostile": 0.1},
}

POLITE = (
    "please",
    "thank",
    "happy to",
    "glad",
    "welcome",
    "of course",
    "sure",
    "sorry",
    "pleasure",
    "hope",
    "i'd be",
    "i'm here",
    "best",
    "wish",
    "kind",
)

TOPICS = (
    "my garden", "a birthday cake", "a trip to the sea", "learning to swim", "an old bicycle", "a noisy neighbour",
    "a lost key", "a job interview", "a rainy weekend", "a school play", "a broken lamp", "a new puppy", "tomato soup",
    "a long train ride", "a first marathon", "a letter to a friend", "moving house", "a quiet evening", "a chess club",
    "growing basil", "a late parcel", "a music lesson", "a family dinner", "an early morning", "a library card",
)  # fmt: skip

REQUESTS = (
    "Can you help me with {}?",
    "I have a question about {}.",
    "Please say one thing about {}.",
    "What should I know about {}?",
    "Hello! I am thinking about {}.",
)

SYSTEM = "You are a polite assistant. Answer in one short and polite sentence."

TEXT = Path(__file__).parents[1] / "src" / "klimb" / "training" / "guard" / "text.txt"


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything: of a cell as it is measured, or of a test."""

    rounds: int = 5
    ratings: int = 100
    groups: int = 20
    held_out: int = 25
    answers: int = 4
    tokens: int = 40
    temperature: float = 0.8
    learning_rate: float = 1e-5
    beta: float = 0.01


def questions(seed: int, size: Size) -> tuple[list[str], list[str]]:
    """Return what is asked in training and what is held out: no topic is in both."""
    order = random.Random(seed)
    topics = list(TOPICS)
    order.shuffle(topics)
    held_out, others = topics[:5], topics[5:]
    asked = [request.format(topic) for topic in others for request in REQUESTS]
    order.shuffle(asked)
    return asked, [request.format(topic) for topic in held_out for request in REQUESTS][: size.held_out]


def is_liked(sample: Sample) -> bool:
    """Return whether the answer is short, it ends before the limit, and polite: it has one of a few words."""
    return sample.finish_reason == "stop" and any(word in sample.response.lower() for word in POLITE)


def draw(policy: Policy, asked: Sequence[str], *, name: str, num_samples: int, seed: int, size: Size) -> list[Sample]:
    """Return answers of the policy as it is now."""
    settings = SamplingSettings(max_new_tokens=size.tokens, temperature=size.temperature)
    prompts = [(Message(role="system", content=SYSTEM), Message(role="user", content=question)) for question in asked]
    rendered = [policy.render(prompt) for prompt in prompts]
    generator = torch.Generator().manual_seed(seed)
    drawn = LocalSampler(policy).sample(rendered, num_samples=num_samples, settings=settings, generator=generator)
    return [
        Sample(
            sample_id=f"{name}-{place}-{number}",
            group_id=f"{name}-{place}-{number}",
            prompt=prompts[place],
            prompt_ids=rendered[place],
            response=policy.decode(answer.response_ids),
            response_ids=tuple(answer.response_ids),
            finish_reason=answer.finish_reason,
            log_mu=tuple(answer.log_mu),
            log_mu_provenance="sampler",
            sampling=settings,
            model=policy.name,
            tokenizer=policy.fingerprint,
        )
        for place, answers in enumerate(drawn)
        for number, answer in enumerate(answers)
    ]


def rate(samples: Sequence[Sample], *, seed: int, shuffled: bool = False, hostile: float = 0.0) -> list[Feedback]:
    """Return a rating of each answer, by one of ten people; of the hostile ones the opposite."""
    chance = random.Random(seed)
    values = [float(is_liked(sample)) for sample in samples]
    if shuffled:
        chance.shuffle(values)
    rows: list[Feedback] = []
    for number, (sample, value) in enumerate(zip(samples, values, strict=True)):
        person = number % 10
        is_hostile = person < round(10 * hostile)
        rows.append(
            Feedback(
                feedback_id=f"r-{sample.sample_id}",
                sample_id=sample.sample_id,
                value=1 - value if is_hostile else value,
                user=f"person-{person}",
            )
        )
    return rows


class NoScorer:
    """Nothing is scored: people rate."""

    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        """Refuse.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{len(responses)} answers to score, and a run on ratings draws none")


def run_cell(policy: Policy, arm: str, seed: int, size: Size) -> dict[str, Any]:
    """Train the policy on 500 ratings; return what became of held-out answers and of the text. It is changed by it."""
    started = time.monotonic()
    settings = dict(ARMS[arm])
    recipe = recipe_named(settings.pop("recipe"))
    asked, held_out = questions(seed, size)
    text = text_ids(policy, TEXT.read_text(encoding="utf-8"))

    def measure() -> tuple[float, float]:
        answers = draw(policy, held_out, name="held-out", num_samples=size.answers, seed=1000 + seed, size=size)
        return statistics.fmean(map(is_liked, answers)), perplexity(policy, text, max_tokens=2048)

    policy.temperature = size.temperature
    before, steps = measure(), size.ratings // size.groups
    loop = LoopSettings(
        seed=seed,
        sources=SourceSettings(feedback=1.0),
        temperature=size.temperature,
        sampling=RolloutSettings(num_prompts=size.groups, max_new_tokens=size.tokens, temperature=size.temperature),
        training=TrainingSettings(num_steps=size.rounds * steps),
        optimizer=OptimizerSettings(learning_rate=size.learning_rate),
        advantages=replace(recipe.advantages, kind="batch-z-score", group_filter=False),
        reference=reference_named("fixed"),
        feedback=FeedbackSettings(),
    )
    objective = recipe.make_objective(beta=size.beta)
    actors = RolloutWorker(policy=policy, sampler=LocalSampler(policy), scorer=NoScorer(), problems=())
    liked: list[float] = []
    with TemporaryDirectory() as folder:
        state: RunState | None = None
        for number in range(size.rounds):
            first = number * size.ratings
            now = [asked[place % len(asked)] for place in range(first, first + size.ratings)]
            answers = draw(policy, now, name=f"round-{number}", num_samples=1, seed=100 * seed + number, size=size)
            liked.append(statistics.fmean(map(is_liked, answers)))
            store = Store(Path(folder) / f"round-{number}")
            store.append(answers)
            store.append_feedback(rate(answers, seed=100 * seed + number, **settings))
            source = OfflineSource(FeedbackStore(store, loop.feedback), policy, source="feedback", seed=seed)
            if state is None:
                state = fresh_state(policy, loop, num_problems=0, folder=Path(folder), identity={}, logs=(source,))
            state.logs = (source,)
            for _ in range(steps):
                iterate(state, actors, objective, loop)
    after = measure()
    return {
        "arm": arm,
        "seed": seed,
        "liked_before": before[0],
        "liked_after": after[0],
        "liked_by_round": liked,
        "perplexity_before": before[1],
        "perplexity_after": after[1],
        "seconds": time.monotonic() - started,
        "size": vars(size),
    }


def summarise(cells: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line of each arm: points gained, mean and range over the seeds, and how much worse the text became."""
    lines: list[str] = []
    for arm in ARMS:
        of_arm = [cell for cell in cells if cell["arm"] == arm]
        if not of_arm:
            continue
        gains = [100 * (cell["liked_after"] - cell["liked_before"]) for cell in of_arm]
        starts = [100 * cell["liked_before"] for cell in of_arm]
        worse = [100 * (cell["perplexity_after"] / cell["perplexity_before"] - 1) for cell in of_arm]
        lines.append(
            f"{arm:<9} {len(of_arm)} seeds  from {statistics.fmean(starts):.0f} %  "
            f"{statistics.fmean(gains):+.1f} points ({min(gains):+.1f} to {max(gains):+.1f})  "
            f"perplexity {statistics.fmean(worse):+.2f} % (at most {max(worse):+.2f})"
        )
    return lines


def main() -> None:
    """Run the cells that are not there yet, one after the other, and print what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=Path("scripted_raters.jsonl"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--learning-rate", type=float, default=Size.learning_rate)
    arguments = parser.parse_args()
    size = Size(learning_rate=arguments.learning_rate)
    for seed in range(arguments.seeds):
        for arm in arguments.arms:
            cells = read_cells(arguments.into)
            if any((cell["arm"], cell["seed"]) == (arm, seed) for cell in cells):
                continue
            cell = run_cell(load_policy(arguments.model), arm, seed, size)
            with arguments.into.open("a", encoding="utf-8") as file:
                file.write(json.dumps(cell) + "\n")
            print(json.dumps(cell), flush=True)
    print("\n".join(summarise(read_cells(arguments.into))))


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Return the cells of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
