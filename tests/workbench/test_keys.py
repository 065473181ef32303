"""A walk over all keys of a run file: a changed value shows, or is refused. A dry run announces what the run does."""

import importlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.workbench.conftest import Workplace
from tests.workbench.logged import drawn, store_of, talked_about
from tests.workbench.walk_table import KEYS, Case, Problems, Refused, RefusedRun, Run, last_of_each

from klimb.errors import ConfigError
from klimb.experience import read_samples
from klimb.policies import LoraSettings, Policy, load_policy
from klimb.policies.llama import packed
from klimb.samplers.decoder import LlamaDecoder
from klimb.tasks import Response, Scorer
from klimb.tasks.environments import Environments
from klimb.tasks.protocol import without_score
from klimb.training.json_lines import read_lines
from klimb.workbench.announcing import announce
from klimb.workbench.cli import run_command
from klimb.workbench.config import build_config, known_fields, read_tables
from klimb.workbench.config.fields import TABLE
from klimb.workbench.session import make_task

RUN = """
seed = 1
[model]
path = "tiny"
dtype = "float32"
device = "cpu"
[task]
kind = "python:walk_parts.letters"
[sampling]
num_prompts = 2
num_samples = 4
max_new_tokens = 6
[advantages]
group_filter = false
[optimizer]
learning_rate = 0.02
warmup_steps = 0
[training]
num_steps = 2
num_epochs = 2
num_minibatches = 2
[evaluation]
at_ends = false
[checkpoints]
at_end = false
[run]
loggers = []
report = false
save_model = false
"""

PARTS = '''
from dataclasses import replace

import torch

from klimb.findings.finding import Finding
from klimb.losses import Clipped
from klimb.samplers import LocalSampler
from klimb.tasks import Problem, ProblemSet, Score, chat
from klimb.training.guard.general import everyday


def _task(name, score, count=8):
    asked = [(f"p{number}", chat(f"say {number}")) for number in range(20)]
    problems = tuple(Problem(problem_id=name, messages=messages, answer="") for name, messages in asked)
    return ProblemSet(name=name, train=problems[:count], held_out=problems[16:], score=score, trusted=True)


def letters(seed, count=8):
    def score(problem, response):
        good = sum(character in "abcdefghij0123456789" for character in response.text)
        return Score(reward=good / max(1, len(response.text)) + seed)

    return _task("letters", score, count)


def even(seed):
    return _task("even", lambda problem, response: Score(reward=float("e" in response.text)))


def failing(seed):
    def score(problem, response):
        return Score(reward=None if response.text[:1].islower() else float("a" in response.text))

    return _task("failing", score)


def halving(w, is_good, log_pi=None):
    never = is_good & False
    return Clipped(w / 2, ~never, w * 0 + 0.5, never, never, never)


def endless(w, is_good, log_pi=None):
    never = is_good & False
    return Clipped(w * float("inf"), ~never, w * 0 + 1, never, never, never)


def breaks(groups, settings):
    class Breaking(torch.optim.SGD):
        steps = 0

        def step(self, closure=None):
            self.steps += 1
            if self.steps == 3:
                raise RuntimeError("in the middle of an update")
            return super().step(closure)

    return Breaking(groups, lr=settings.learning_rate)


def refreshes(standing):
    return standing.steps_since_refresh >= 6


def _telling(policy, max_batch, words, until_then=False):
    """A sampler whose answers are these words as soon as the policy has changed, or until then."""
    first = [parameter.detach().clone() for parameter in policy.model.parameters()]
    ids = tuple(policy.tokenizer(words, add_special_tokens=False).input_ids)

    class Telling:
        inner = LocalSampler(policy, max_batch=max_batch)

        def sample(self, prompts, *, num_samples, settings, generator):
            groups = self.inner.sample(prompts, num_samples=num_samples, settings=settings, generator=generator)
            if all(map(torch.equal, first, policy.model.parameters())) != until_then:
                return groups
            told = {"response_ids": ids, "log_mu": (-1.0,) * len(ids), "log_model": (-1.0,) * len(ids)}
            return [[replace(each, **told) for each in group] for group in groups]

    return Telling()


def refusing(policy, max_batch):
    return _telling(policy, max_batch, "I cannot do that.")


def repeating(policy, max_batch):
    return _telling(policy, max_batch, "1 " * 60)


def knowing(policy, max_batch):
    answers = [problem.answer.partition("|")[0] for problem in everyday().held_out[:15]]
    return _telling(policy, max_batch, " ".join(answers), until_then=True)


def silencing(policy, max_batch):
    return _telling(policy, max_batch, " ")


def greedier(policy, max_batch):
    class Greedier(LocalSampler):
        def stream(self, prompts, *, num_samples, settings, generator):
            few = replace(settings, top_k=3)
            return super().stream(prompts, num_samples=num_samples, settings=few, generator=generator)

    return Greedier(policy, max_batch=max_batch)


class Stopping:
    def on_step(self, run, metrics, samples):
        run.stop("enough")


class Tables:
    def __init__(self, run):
        self.folder = run.folder

    def write(self, step, metrics):
        pass

    def write_table(self, step, columns, rows):
        (self.folder / f"table-{step}-{len(rows)}").touch()

    def close(self, *, is_finished):
        pass


def house_rule(record, thresholds):
    return Finding(status="note", title="A rule of the house", evidence="It holds.")
'''

REWARDS = """
import asyncio
import time


def digits(prompt, response, answer, metadata):
    return sum(character.isdigit() for character in response) / max(1, len(response))


def judged(prompt, response, answer, metadata):
    return {"correct": float(len(response) % 2)}


def sleeps(prompt, response, answer, metadata):
    time.sleep(0.2)
    return float(len(response))


waiting = 0


async def together(prompt, response, answer, metadata):
    global waiting
    waiting += 1
    there = waiting
    await asyncio.sleep(0.05)
    waiting -= 1
    return float(there)


def large(prompt, response, answer, metadata):
    taken = bytearray(1_500_000_000)
    return float(len(taken) > 0) * digits(prompt, response, answer, metadata)
"""

AGENT = """
import json, os, sys, urllib.request

asked = json.dumps({"messages": json.load(sys.stdin)["prompt"]}).encode()
headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
with urllib.request.urlopen(
    urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", asked, headers)
) as answer:
    print(json.dumps({"reward": len(json.load(answer)["choices"][0]["message"]["content"])}))
"""


ENVIRONMENTS = '''
import time


class Asking:
    """Asks on after each answer; letters are worth something."""

    def reset(self, **row):
        self.said = ""

    def respond(self, text):
        self.said += text
        return "and?"

    def get_reward(self):
        return sum(letter in "abcdefgh" for letter in self.said) / max(1, len(self.said))


class Strict(Asking):
    def respond(self, text):
        super().respond(text)
        return None


class Slow(Asking):
    def respond(self, text):
        time.sleep(0.3)
        return super().respond(text)


class Large(Asking):
    def reset(self, **row):
        self.taken = bytearray(1_500_000_000)
        super().reset()


def look(where: str) -> str:
    """Look somewhere.

    Args:
        where: The place.
    """
    return "nothing"
'''

SUMS = [
    {"question": f"{a}+{b}", "answer": str(a + b), "other": f"{b} and {a}, {a}", "long": f"{a}+{b}={a + b}"}
    for a in range(4)
    for b in range(1, 5)
]


def key_of(facts: Any) -> str:
    return f"{facts.path}@{facts.kinds[-1]}" if facts.kinds else facts.path


def keys() -> list[str]:
    """Every key of a run file but the tables themselves; a key of tables of several kinds is one for each."""
    facts = known_fields()
    within = {each.path.rpartition(".")[0] for each in facts if not each.path.endswith(".*")}
    tables = {path for each in within for path in (each, each.removesuffix(".*"))}
    return list(
        dict.fromkeys(key_of(each) for each in facts if each.path not in tables and not each.path.endswith(".*"))
    )


def cases(*kinds: type[Case]) -> list[str]:
    return [key for key, case in KEYS.items() if isinstance(case, kinds)]


def test_every_key_of_a_run_file_is_in_the_walk():
    missing = [key for key in keys() if key not in KEYS]
    assert not missing, f"add a line to tests/workbench/walk_table.py for {', '.join(missing)}"
    assert not [key for key in KEYS if key not in keys()], "the walk has keys that there are not"
    assert {each.allowed for each in known_fields() if each.path == "model"} == {TABLE}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model_path: Path) -> Path:
    """A folder with everything that the lines of the table name."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "run.toml").write_text(RUN)
    (folder / "walk_parts.py").write_text(PARTS)
    (folder / "walk_rewards.py").write_text(REWARDS)
    (folder / "walk_environments.py").write_text(ENVIRONMENTS)
    (folder / "walk_agent.py").write_text(AGENT)
    as_lines = [json.dumps(row) + "\n" for row in SUMS]
    (folder / "sums.jsonl").write_text("".join(as_lines[:8]))
    (folder / "more.jsonl").write_text("".join(as_lines[8:]))
    pairs = [
        {"prompt": f"say {number}", "question": f"name {number}", "response": "abc", "answer": "xyz"}
        for number in range(5)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (folder / "short.txt").write_text("The sun rises in the east, and sets in the west. " * 4)
    shutil.copytree(tiny_model_path, folder / "tiny")
    policy = load_policy(str(folder / "tiny"), dtype="float32", device="cpu")
    store_of(folder / "log", drawn(policy))
    store_of(folder / "other_log", drawn(policy, num_prompts=3))
    talked_about(folder / "people", policy)
    for parameter in policy.model.parameters():
        parameter.data.add_(0.01)
    policy.save(folder / "other")
    adapted = load_policy(str(folder / "tiny"), dtype="float32", device="cpu", lora=LoraSettings(rank=2))
    for name, parameter in adapted.trainable().items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save(folder / "adapter", adapter_only=True)
    shutil.copytree(folder / "tiny", folder / "foreign")
    own = json.loads((folder / "foreign" / "config.json").read_text())
    own |= {
        "model_type": "foreign",
        "auto_map": {"AutoConfig": "absent.Config", "AutoModelForCausalLM": "absent.Model"},
    }
    (folder / "foreign" / "config.json").write_text(json.dumps(own))
    return folder


@pytest.fixture
def walk(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Workplace]:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "path", [str(place), *sys.path])
    importlib.invalidate_caches()
    yield Workplace(place, capsys, place / "tiny")
    for name in ("walk_parts", "walk_rewards", "walk_environments"):
        sys.modules.pop(name, None)


def shown_by(tables: dict[str, Any], overrides: tuple[str, ...]) -> Any:
    """Return the problems of the task, and what one answer to each earns where the task says that itself."""
    task = make_task(build_config(tables, overrides, source="run.toml"))
    sides = [[(each.messages, each.answer, each.metadata) for each in side] for side in (task.train, task.held_out)]
    if task.score is without_score:
        return sides, task.environment
    answers = [Response(text=f"so {text}", num_tokens=3, finish_reason="stop") for text in ("3", "12", "a e 4.")]
    prepare = getattr(task.score, "prepare", None)
    if prepare is not None:
        prepare()
    return sides, [task.score(problem, answer).reward for problem in task.train[:3] for answer in answers]


@pytest.mark.parametrize("key", cases(Problems))
def test_a_key_of_a_task_changes_the_problems_or_what_answers_earn(key: str, walk: Workplace):
    case, tables = KEYS[key], read_tables(walk.path / "run.toml")
    del tables["task"]
    given, changed = case.settings, last_of_each((*case.settings, changed_setting(key)))
    if key.startswith("task.kind@"):
        given = ("task.kind=python:walk_parts.letters",)
    assert shown_by(tables, given) != shown_by(tables, changed)


@pytest.mark.parametrize("key", cases(Refused))
def test_a_key_with_one_value_alone_refuses_another_by_name(key: str, walk: Workplace):
    case = KEYS[key]
    with pytest.raises(ConfigError, match=key.partition("@")[0].rpartition(".")[2]):
        build_config(read_tables(walk.path / "run.toml"), (*case.settings, changed_setting(key)), source="run.toml")


def changed_setting(key: str) -> str:
    return f"{key.partition('@')[0].replace('*', 'style')}={KEYS[key].value}"


TELLS_THE_TIME = ("seconds", "per_second", "memory", "bytes")


@cache
def trace_of(overrides: tuple[str, ...]) -> Any:
    """Return all that a run leaves but the time: how it ended, numbers, answers, files, and how often it did what."""
    counts: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patched:
        count(patched, counts)
        shutil.rmtree("runs", ignore_errors=True)
        shutil.rmtree("elsewhere", ignore_errors=True)
        before = set(Path().rglob("*"))
        status = run_command(["train", "run.toml", *(part for each in overrides for part in ("--set", each))])
    made = sorted(path for path in Path().rglob("*") if path not in before and "__pycache__" not in path.parts)
    folder = next((path.parent for path in made if path.name == "provenance.json"), None)
    numbers = [] if folder is None else numbers_in(folder)
    files = [str(path.parent / path.name.partition(".out.")[0]) for path in made]
    shutil.rmtree("runs", ignore_errors=True)
    shutil.rmtree("elsewhere", ignore_errors=True)
    return {"status": status, "files": files, "numbers": numbers, "counts": dict(counts)}


def count(patched: pytest.MonkeyPatch, counts: Counter[str]) -> None:
    """Count what changes memory and speed and no number: passes, layers computed again, workers, threads."""
    for owner, name in (
        (Policy, "log_probs"),
        (LlamaDecoder, "step"),
        (Scorer, "_new_worker"),
        (packed, "checkpoint"),
        (Environments, "_new_process"),
    ):
        patched.setattr(owner, name, counted(getattr(owner, name), counts))
    patched.setattr(torch, "set_num_threads", lambda number: counts.update({f"{number} threads": 1}))


def counted(function: Any, counts: Counter[str]) -> Any:
    def call(*arguments: Any, **keywords: Any) -> Any:
        counts[function.__name__] += 1
        return function(*arguments, **keywords)

    return call


def numbers_in(folder: Path) -> list[Any]:
    found: list[Any] = []
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        found.append([untimed(row) for row in read_lines(folder / name)] if (folder / name).exists() else None)
    guard = folder / "guard.json"
    found.append(untimed(json.loads(guard.read_text())) if guard.exists() else None)
    for path in sorted((folder / "rollouts").glob("*.parquet")):
        found.append([(sample.prompt, sample.response, sample.reward, sample.log_mu) for sample in read_samples(path)])
    report = folder / "report.html"
    found.append("A rule of the house" in report.read_text() if report.exists() else None)
    return found


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: untimed(inner) for name, inner in value.items() if not any(word in name for word in TELLS_THE_TIME)
        }
    return [untimed(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_the_same_run_twice_leaves_the_same(walk: Workplace):
    first = trace_of(())
    assert first["status"] == 0
    trace_of.cache_clear()
    assert trace_of(()) == first


@pytest.mark.slow
@pytest.mark.parametrize("key", cases(Run))
def test_a_changed_key_shows_in_what_a_run_leaves(key: str, walk: Workplace):
    settings = KEYS[key].settings
    before, after = trace_of(settings), trace_of(last_of_each((*settings, changed_setting(key))))
    told = walk.capture.readouterr()
    assert before != after, told.err
    if key not in FAILS_BEFORE:
        assert before["status"] == 0, told.err
    if key not in FAILS_AFTER:
        assert after["status"] == 0, told.err


FAILS_BEFORE = {"sources.log", "sources.feedback", "checkpoints.rescue", "environment.command"}
"""Keys whose first run is refused, since without them there is nothing to do with a log, or to talk to, or breaks."""


FAILS_AFTER = {
    "checkpoints.rescue",
    "scoring.max_error_fraction",
    "training.max_skipped_steps",
    *(key for key in KEYS if key.startswith("task.max_unusable_fraction")),
}
"""Keys whose second run ends with an error, which is what they are for."""


@pytest.mark.parametrize("key", cases(RefusedRun))
def test_a_key_that_names_what_is_not_there_is_refused_before_anything_is_made(key: str, walk: Workplace):
    outcome = walk.klimb("train", "run.toml", "--set", *KEYS[key].settings, changed_setting(key))
    assert outcome.status == 2
    assert KEYS[key].value in outcome.err
    assert not (walk.path / "runs").exists()


ANNOUNCED = (
    (),
    ("training.num_epochs=3", "training.num_minibatches=1", "training.num_steps=3"),
    ("sampling.lag=1", "training.num_steps=3"),
    ("sources.replay=0.5", "training.num_steps=3"),
    ("sources.log=0.5", "log.path=log"),
    ("sources.log=1.0", "log.path=log", "evaluation.at_ends=true", "evaluation.num_samples=2"),
    ("evaluation.at_ends=true", "evaluation.every_steps=2", "training.num_steps=4", "evaluation.num_samples=2"),
    ("objective.recipe=ppo", "sampling.num_prompts=3", "evaluation.every_steps=1", "evaluation.num_samples=2"),
    ("cloning.path=pairs.jsonl",),
    ("task.kind=python:walk_parts.even", "advantages.group_filter=true", "advantages.max_refills=1"),
    ("training.max_generated_tokens=1", "training.num_steps=3"),
)


@pytest.mark.slow
@pytest.mark.parametrize("settings", ANNOUNCED)
def test_a_dry_run_announces_what_the_run_then_does(settings: tuple[str, ...], walk: Workplace):
    config = build_config(read_tables(walk.path / "run.toml"), settings, source="run.toml")
    told = announce(config, has_held_out=True)
    dry = walk.klimb("train", "run.toml", "--dry-run", "--set", *settings)
    assert dry.status == 0, dry.err
    assert told.in_words() in dry.out
    done = trace_of(settings)
    rows, evaluations = done["numbers"][0], done["numbers"][1] or []
    did = {
        "num_steps": len(rows),
        "num_answers": sum(row.get("num_samples", 0) for row in rows),
        "num_optimizer_steps": sum(row["num_optimizer_steps"] for row in rows),
        "num_evaluations": len(evaluations),
    }
    for name, number in did.items():
        announced = getattr(told, name)
        if told.is_most:
            assert number <= announced, name
        elif (told.has_refills or told.has_stand_ins) and name == "num_answers":
            assert number >= announced
        elif not (told.has_refills and name == "num_optimizer_steps"):  # groups that stay even teach nothing
            assert number == announced, name
