"""Every mean, fraction and count of samples in metrics.jsonl, computed again from the stored rollouts alone.

The runs are random in lag, refills, failing rewards, verdicts, baselines and sources. What is recomputed here shares no
code with klimb: it reads Parquet with pyarrow and counts in exact fractions.
"""

import json
import math
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from klimb.experience import Sample
from klimb.losses import Objective
from klimb.policies import Policy, load_policy
from klimb.samplers import Completion
from klimb.tasks import Problem, Response, Score
from klimb.training import (
    AdvantageSettings,
    CheckpointSettings,
    LoopSettings,
    OfflineSource,
    OptimizerSettings,
    ReplaySettings,
    RolloutSettings,
    SourceSettings,
    TrainingSettings,
    train,
)

LETTERS = "abcdefghij"
PROBLEMS = tuple(
    Problem(problem_id=str(number), messages=({"role": "user", "content": f"Say {number}"},), answer="a")
    for number in range(9)
)
NUM_STEPS = 4
NUM_EPOCHS = 2
GROUPS_OF_LOG = 4
OF_BATCH = ("batch-mean", "batch-z-score", "batch-soft-value")
OF_GROUP = ("group-mean", "group-z-score", "leave-one-out", "group-mean-batch-z-score", "group-soft-value")
SHARES = [{}, {}, {"replay": 0.5}, {"log": 0.5}, {"replay": 0.25, "log": 0.25}, {"replay": 0.25, "feedback": 0.5}]


@dataclass(frozen=True)
class Case:
    """A random run: what klimb is told, and how often its rewards fail or say what is right."""

    seed: int
    settings: LoopSettings
    error: float
    verdict: float


def random_case(seed: int) -> Case:
    generator = random.Random(seed)
    pick = generator.choice
    shares = pick(SHARES)
    kind = pick([*OF_BATCH[:2], *OF_GROUP[:4], "no-baseline"])
    num_prompts = 4 if shares else pick([2, 3, 4])
    counts = {name: int(share * num_prompts) for name, share in shares.items()}
    num_samples = pick([2, 3, 4]) if kind in OF_GROUP else pick([2, 2, 3])
    settings = LoopSettings(
        seed=seed,
        training=TrainingSettings(
            num_steps=NUM_STEPS, num_epochs=NUM_EPOCHS, num_minibatches=pick([1, 2, num_prompts])
        ),
        sampling=RolloutSettings(
            num_prompts=num_prompts, num_samples=num_samples, max_new_tokens=5, lag=0 if shares else pick([0, 0, 1, 2])
        ),
        advantages=AdvantageSettings(
            kind=kind,
            group_filter=pick([True, False]),
            max_refills=pick([0, 1, 2]),
            min_reward=None if shares.keys() & {"log", "feedback"} else pick([None, None, 0.5]),
        ),
        sources=SourceSettings(**shares),
        # As many groups are kept as are replayed at a step, so that what is replayed follows from what was drawn.
        replay=ReplaySettings(max_age=1000, max_groups=max(1, counts.get("replay", 1))),
        optimizer=OptimizerSettings(learning_rate=1e-6, warmup_steps=0),
        checkpoints=CheckpointSettings(every_steps=100),
    )
    return Case(seed, settings, error=pick([0.0, 0.2, 0.7, 0.9]), verdict=pick([0.0, 0.8, 1.0]))


class RandomLetters:
    """Draws responses of one to five letters, some of them cut off."""

    def __init__(self, policy: Policy) -> None:
        self.end, self.ids = policy.end_ids[0], policy.tokenizer(LETTERS, add_special_tokens=False).input_ids
        self.random = random.Random(1)

    def sample(self, prompts, *, num_samples, settings, generator):
        return [[self._completion() for _ in range(num_samples)] for _ in prompts]

    def _completion(self) -> Completion:
        is_cut = self.random.random() < 0.3
        ids = tuple(self.random.choices(self.ids, k=self.random.randint(1, 4))) + (() if is_cut else (self.end,))
        log_mu = tuple(-4.5 for _ in ids)
        return Completion(
            response_ids=ids, log_mu=log_mu, log_model=log_mu, finish_reason="length" if is_cut else "stop"
        )


class RandomScorer:
    """Gives quarters, fails now and then, and says now and then what is right; in parts that not every answer has."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        return [self._score(problem, response) for problem, response in zip(problems, responses, strict=True)]

    def _score(self, problem: Problem, response: Response) -> Score:
        chance = random.Random(zlib.crc32(f"{self.case.seed} {problem.problem_id} {response.text}".encode()))
        if chance.random() < self.case.error:
            return Score(reward=None, reason="failed")
        style, right = chance.choice([0.0, 0.25, 0.5]), chance.choice([0.0, 0.5])
        parts = {"right": right, "style": style} if style else {"right": right}
        correct = right > 0 if chance.random() < self.case.verdict else None
        return Score(reward=right + style, correct=correct, parts=parts)


class Shelf:
    """A log in memory: every group has two samples of two tokens, worth 0 and 1."""

    def __init__(self, policy: Policy) -> None:
        ids = (*policy.tokenizer("a", add_special_tokens=False).input_ids, policy.end_ids[0])
        plain = Sample(
            sample_id="", group_id="", prompt=PROBLEMS[0].messages, prompt_ids=policy.render(PROBLEMS[0].messages),
            response="a", response_ids=ids, finish_reason="stop", log_mu=(-4.0, -4.0), log_mu_provenance="sampler",
            sampling=None, model="other", tokenizer=policy.fingerprint, policy_version=0, created_at=0.0,
        )  # fmt: skip
        self.samples = {
            f"l{group}": [
                replace(plain, sample_id=f"l{group}-{reward}", group_id=f"l{group}", reward=float(reward))
                for reward in (0, 1)
            ]
            for group in range(GROUPS_OF_LOG)
        }

    def count(self, where: str = "") -> int:
        return 0 if "provenance" in where else 2 * GROUPS_OF_LOG

    def group_ids(self, *, where: str = "") -> list[str]:
        return sorted(self.samples)

    def groups(self, group_ids: Sequence[str], *, where: str = "") -> list[list[Sample]]:
        return [self.samples[name] for name in group_ids]


def run_case(case: Case, policy: Policy, folder: Path) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Return the lines of metrics.jsonl, and the rows that each step stored."""
    logs = [
        OfflineSource(Shelf(policy), policy, source=source)  # pyright: ignore[reportArgumentType]
        for source in ("log", "feedback")
        if case.settings.sources.share(source)
    ]
    train(
        policy,
        RandomLetters(policy),
        RandomScorer(case),
        Objective(beta=0.01),
        problems=PROBLEMS,
        settings=case.settings,
        folder=folder,
        logs=logs,
    )
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return lines, [stored_rows(folder / "rollouts" / f"step-{int(line['step']):06d}.parquet") for line in lines]


def stored_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = pq.read_table(path).to_pylist()
    return [{**row, "reward_parts": dict(row["reward_parts"]), "metadata": dict(row["metadata"])} for row in rows]


def mean(values) -> Fraction:
    values = [Fraction(value) for value in values]
    return sum(values, Fraction()) / len(values)


def scored(rows):
    return [row for row in rows if row["reward"] is not None]


def groups_of(rows) -> list[list[dict[str, Any]]]:
    names = dict.fromkeys(row["group_id"] for row in rows)
    return [[row for row in rows if row["group_id"] == name] for name in names]


def of_drawn(rows) -> dict[str, Any]:
    """What a line must say of all that its step drew; None where a name must not be there."""
    lengths, with_reward, groups = [len(row["response_ids"]) for row in rows], scored(rows), groups_of(rows)
    num_used = sum(any(row["metadata"]["used"] == "yes" for row in group) for group in groups)
    verdicts = [row["metadata"].get("correct") for row in with_reward]
    alone = [row for row in with_reward if "ha" in row["metadata"]["used"] and "a reward" in row["metadata"]["used"]]
    wanted: dict[str, Any] = {
        "num_samples": len(rows),
        "num_errors": len(rows) - len(with_reward),
        "num_uncompared": len(alone),
        "num_groups": len(groups),
        "num_groups_used": num_used,
        "groups_dropped_fraction": 1 - Fraction(num_used, len(groups)),
        "num_tokens_sampled": sum(lengths),
        "length_mean": mean(lengths),
        "length_max": max(lengths),
        "truncated_fraction": mean(row["finish_reason"] == "length" for row in rows),
        "reward_mean": None,
        "reward_std": None,
        "accuracy": None,
    }
    if with_reward:
        rewards = [Fraction(row["reward"]) for row in with_reward]
        wanted["reward_mean"] = mean(rewards)
        wanted["reward_std"] = math.sqrt(mean((each - mean(rewards)) ** 2 for each in rewards))
        if {"yes", "no"} & set(verdicts):
            wanted["accuracy"] = mean(verdict == "yes" for verdict in verdicts)
    for name in ("right", "style"):
        has_it = any(name in row["reward_parts"] for row in with_reward)
        wanted[f"reward_part_{name}"] = (
            mean(row["reward_parts"].get(name, 0.0) for row in with_reward) if has_it else None
        )
    return wanted


def compared_rows(rows, advantages: AdvantageSettings):
    """The rows of one batch that a baseline is formed over, by the rule as docs/settings.md has it."""
    found = []
    for group in groups_of(rows):
        with_reward = scored(group)
        verdicts = {row["metadata"].get("correct") for row in with_reward}
        is_even = len({row["reward"] for row in with_reward}) <= 1 or verdicts in ({"yes"}, {"no"})
        too_few = advantages.kind in OF_GROUP and len(with_reward) < 2
        found += [] if too_few or (advantages.group_filter and is_even) else with_reward
    return [] if advantages.kind in OF_BATCH and len(found) == 1 else found


def trained_rows(rows, advantages: AdvantageSettings):
    return [row for row in rows if advantages.min_reward is None or row["reward"] >= advantages.min_reward]


def num_idle(rows, advantages: AdvantageSettings) -> int:
    """How many of the rows that are trained on have the advantage 0; quarters make the means exact."""

    def is_idle(row) -> bool:
        if advantages.kind == "no-baseline":
            return row["reward"] == 0
        peers = [each for each in rows if advantages.kind in OF_BATCH or each["group_id"] == row["group_id"]]
        return mean(each["reward"] for each in peers) == Fraction(row["reward"])

    return sum(is_idle(row) for row in trained_rows(rows, advantages))


def logged_rows(num_groups: int):
    return [
        {"group_id": f"l{group}", "reward": float(reward), "response_ids": [0, 0], "policy_version": 0}
        for group in range(num_groups)
        for reward in (0, 1)
    ]


def of_share(rows, asked: int, advantages: AdvantageSettings, version: int | None) -> dict[str, Any]:
    used = trained_rows(rows, advantages)
    num_groups = len(groups_of(used))
    wanted: dict[str, Any] = {
        "num_samples": len(used),
        "num_groups": num_groups,
        "num_groups_missing": max(0, asked - num_groups),
        "reward_mean": mean(row["reward"] for row in used) if used else None,
        "length_mean": mean(len(row["response_ids"]) for row in used) if used else None,
    }
    if version is not None:
        ages = [version - row["policy_version"] for row in used]
        wanted |= {"age_mean": mean(ages) if used else None, "age_max": max(ages) if used else None}
    return wanted


def of_run(case: Case, lines, stored) -> list[dict[str, Any]]:
    """What each line must say, from the stored rows alone and the number of optimizer steps before."""
    advantages, sampling, sources = case.settings.advantages, case.settings.sampling, case.settings.sources
    counts = {name: round(sources.share(name) * sampling.num_prompts) for name in ("replay", "log", "feedback")}
    num_fresh_share = sampling.num_prompts - sum(counts.values())
    queue, kept, num_dropped, num_generated, version = [], [], 0, 0, 0
    wanted_lines = []
    for line, rows in zip(lines, stored, strict=True):
        wanted = of_drawn(rows) if rows else {}
        num_generated += sum(len(row["response_ids"]) for row in rows)
        wanted["num_tokens_generated"] = num_generated
        if sampling.lag and (advantages.group_filter and advantages.max_refills):
            wanted_lines.append(wanted)  # where one collection ends and the next begins is not in the rollouts
            continue
        batches = [rows]
        if sampling.lag:
            groups, size = groups_of(rows), sampling.num_prompts
            batches = [list(chain(*groups[at : at + size])) for at in range(0, len(groups), size)]
        queue += [compared_rows(batch, advantages) for batch in batches]
        shares = {"rollout": queue.pop(0)}
        asked = {"rollout": num_fresh_share + max(0, counts["replay"] - len(kept))}
        if counts["replay"]:
            wanted |= {"replay/num_kept": len(kept), "replay/num_dropped": num_dropped}
            replayed = list(chain(*kept))
            shares["replay"] = [] if advantages.kind in OF_BATCH and len(replayed) == 1 else replayed
            asked["replay"] = counts["replay"]
        for name in ("log", "feedback"):
            if counts[name]:
                shares[name] = logged_rows(counts[name])
                asked[name] = counts[name]
        if counts["replay"] or counts["log"] or counts["feedback"] or sampling.lag:
            for name, share in shares.items():
                dated = version if name in ("rollout", "replay") else None
                wanted |= {
                    f"{name}/{key}": value for key, value in of_share(share, asked[name], advantages, dated).items()
                }
        used = [row for share in shares.values() for row in trained_rows(share, advantages)]
        wanted["num_tokens_trained"] = NUM_EPOCHS * sum(len(row["response_ids"]) for row in used)
        idle = sum(num_idle(share, advantages) for share in shares.values())
        wanted["zero_advantage_fraction"] = Fraction(idle, len(used)) if used else None
        if counts["replay"]:
            kept += [group for group in groups_of(shares["rollout"]) if trained_rows(group, advantages)]
            num_dropped += max(0, len(kept) - counts["replay"])
            kept = kept[-counts["replay"] :]
        version = int(line["optimizer_steps"])
        wanted_lines.append(wanted)
    return wanted_lines


def disagreements(line, wanted) -> list[str]:
    """Names with what is said and what should be said."""
    found = []
    for name, value in wanted.items():
        said = line.get(name)
        if (said is None) != (value is None) or (said is not None and not math.isclose(said, value, abs_tol=1e-12)):
            found.append(f"{name}: {said}, not {value if value is None else float(value)}")
    return found


def check(seeds: Sequence[int], model_path: Path, folder: Path) -> tuple[int, dict[int, list[str]]]:
    """How many numbers were compared, and where they differ, by seed."""
    num_compared, wrong = 0, {}
    for seed in seeds:
        case, policy = random_case(seed), load_policy(str(model_path), dtype="float32", device="cpu")
        lines, stored = run_case(case, policy, folder / str(seed))
        for line, wanted in zip(lines, of_run(case, lines, stored), strict=True):
            num_compared += len(wanted)
            if different := disagreements(line, wanted):
                wrong.setdefault(seed, []).extend(f"step {line['step']:.0f}, {each}" for each in different)
    return num_compared, wrong


def test_metrics_are_what_the_stored_rollouts_say(tiny_model_path: Path, tmp_path: Path):
    num_compared, wrong = check(range(6), tiny_model_path, tmp_path)
    assert wrong == {}
    assert num_compared > 300


@pytest.mark.slow
def test_metrics_of_many_random_runs_are_what_the_stored_rollouts_say(tiny_model_path: Path, tmp_path: Path):
    num_compared, wrong = check(range(100, 200), tiny_model_path, tmp_path)
    assert wrong == {}
    assert num_compared > 5_000
