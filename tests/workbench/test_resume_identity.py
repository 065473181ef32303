"""A resume goes on with the run that was begun: what would make two experiments of it is refused, the rest is told."""

import json
import shutil
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from klimb.experience import Sample, write_samples
from klimb.policies.weights_hash import hash_weights
from klimb.training.identity import (
    MAY_DIFFER,
    flatten,
    is_free,
    read_history,
    run_identity,
    run_key,
    with_new_settings,
)
from klimb.training.settings import LoopSettings
from klimb.workbench.config import build_config
from klimb.workbench.config.reading import resolved_tables

# A run takes twice as long when the shapes are checked; other tests check those of the same run.
pytestmark = pytest.mark.usefixtures("without_shape_checks")

NARROW = ("evaluation.at_ends=false", "run.save_model=false", "scoring.max_error_fraction=1.0")


def begin(workplace, *settings: str) -> None:
    ended = workplace.klimb("train", "run.toml", "--folder", "run", "--set", *NARROW, "training.num_steps=1", *settings)
    assert ended.status == 0, ended.err


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run of `begun` is kept, once there is one."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def begun(workplace, kept: Path) -> Path:
    """A run of one step with the plain settings: trained once, copied for each test that goes on with it."""
    if not kept.exists():
        begin(workplace)
        shutil.move(workplace.path / "run", kept)
    return Path(shutil.copytree(kept, workplace.path / "run"))


def go_on(workplace, *settings: str):
    for name in ("my_reward", "other_reward"):
        sys.modules.pop(name, None)
    is_told = any(setting.startswith("training.num_steps=") for setting in settings)
    steps = () if is_told else ("training.num_steps=2",)
    return workplace.klimb("train", "--resume", "run", "--set", *steps, *settings)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


REFUSED = {
    "another reward": ((), ("task.reward=python:other_reward.other",), "task.reward: 'python:my_reward.digits' in the"),
    "another weight of a shaping": (
        ("scoring.format.pattern='[0-9]'",),
        ("scoring.format.weight=2.0",),
        "scoring.format.weight: 0.1 in the checkpoint, 2.0 now",
    ),
    "a shaping that there was not": ((), ("scoring.overlong.buffer_tokens=2",), "scoring.overlong.buffer_tokens: 'abs"),
    "a shaping taken away": (
        ("scoring.overlong.buffer_tokens=2", "scoring.overlong.factor=0.5"),
        ("scoring.overlong.factor=0.25",),
        "scoring.overlong.factor: 0.5 in the checkpoint, 0.25 now",
    ),
    "another deadline of the reward": ((), ("scoring.timeout_seconds=4",), "scoring.timeout_seconds: 5.0"),
    "another scale of the adapter": (
        ("model.lora.rank=2",),
        ("model.lora.alpha=8",),
        "model.lora.alpha: 32.0 in the checkpoint, 8.0 now",
    ),
    "other answers in evaluations": ((), ("evaluation.num_samples=8",), "evaluation.num_samples: 4 in the checkpoint"),
    "another temperature": ((), ("sampling.temperature=0.5",), "sampling.temperature: 1.0 in the checkpoint, 0.5 now"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_another_experiment_is_refused_before_anything_runs(workplace, request: pytest.FixtureRequest, case):
    begun_with, changed, told = REFUSED[case]
    workplace.write("other_reward.py", "def other(prompt, response, answer, metadata):\n    return 1.0\n")
    if begun_with:
        begin(workplace, *begun_with)
    else:
        request.getfixturevalue("begun")
    before = snapshot(workplace.path / "run")
    resumed = go_on(workplace, *changed)
    assert resumed.status == 2 and told in resumed.err and "only these may change: training.num_steps" in resumed.err
    assert snapshot(workplace.path / "run") == before


def test_a_run_of_an_older_klimb_is_given_new_settings_and_no_environment():
    new = {"environment.factory": "python:game.Guess", "environment.max_turns": 10}
    assert with_new_settings({"seed": 1}, {"seed": 1, "task.new": 3, **new}) == {"seed": 1, "task.new": 3}
    begun = {"seed": 1, "environment.factory": "python:game.Guess"}
    assert with_new_settings(begun, {**begun, **new}) == {**begun, **new}


def test_an_edit_of_the_rewards_source_is_refused(workplace, begun: Path):
    reward = (workplace.path / "my_reward.py").read_text()
    workplace.write("my_reward.py", reward.replace("isdigit", "isalpha"))
    assert "own_parts.python:my_reward.digits" in go_on(workplace).err
    workplace.write("my_reward.py", reward)
    assert go_on(workplace).status == 0


def change_weights(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[-1] += 1e-3
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def own_model(workplace):
    """The tiny model in a folder that may be changed."""
    shutil.copytree(workplace.model, workplace.path / "model")
    return workplace.path / "model"


def test_one_other_number_in_the_weights_under_an_adapter_is_refused(workplace, own_model):
    begin(workplace, "model.path=model", "model.lora.rank=2")
    change_weights(own_model)
    resumed = go_on(workplace)
    assert resumed.status == 2 and "policy.frozen_weights: " in resumed.err


def test_other_weights_that_the_checkpoint_holds_anyway_are_told_and_kept_on_record(workplace, own_model, caplog):
    begin(workplace, "model.path=model")
    change_weights(own_model)
    assert go_on(workplace).status == 0
    assert "goes on from those in its checkpoint" in caplog.text
    assert [(line["step"], line["key"]) for line in read_history(workplace.path / "run")] == [
        (1, "policy.trained_weights"),
        (1, "training.num_steps"),
    ]


def test_another_chat_template_is_refused(workplace, own_model):
    begin(workplace, "model.path=model")
    template = own_model / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant\n", "assistant:\n"))
    resumed = go_on(workplace)
    assert resumed.status == 2 and "policy.tokenizer: " in resumed.err


def write_log(path: Path, *, reward: float) -> None:
    path.parent.mkdir(exist_ok=True)
    write_samples(
        path,
        [
            Sample(
                sample_id=f"y{number}",
                group_id=f"g{number // 2}",
                prompt=({"role": "user", "content": f"Say {number // 2}"},),
                prompt_ids=(),
                response="ab"[number % 2],
                response_ids=(),
                finish_reason="stop",
                source="log",
                reward=reward if number == 5 else float(number % 2),
            )
            for number in range(8)
        ],
    )


def test_one_other_reward_in_a_log_of_the_same_ids_is_refused_and_another_place_is_not(workplace):
    log = workplace.path / "store" / "log.parquet"
    write_log(log, reward=1.0)
    begin(workplace, "objective.recipe=asymre", "sources.log=1.0", "log.path=store/log.parquet")
    write_log(log, reward=1.5)
    resumed = go_on(workplace)
    assert resumed.status == 2 and "logs.log: '4 groups, SHA-256 " in resumed.err
    write_log(workplace.path / "moved" / "log.parquet", reward=1.0)
    assert go_on(workplace, "log.path=moved/log.parquet").status == 0


def test_what_may_change_is_kept_with_its_step_and_a_run_done_again_from_there_forgets_it(workplace):
    begin(workplace, "optimizer.learning_rate=0.25")
    rates = (0.125, 0.0625)
    for num_steps, rate in zip((2, 3), rates, strict=True):
        changed = (f"training.num_steps={num_steps}", f"optimizer.learning_rate={rate}")
        assert workplace.klimb("train", "--resume", "run", "--set", *changed).status == 0
    told = [line for line in read_history(workplace.path / "run") if line["key"] == "optimizer.learning_rate"]
    assert [(line["step"], line["old"], line["new"]) for line in told] == [(1, 0.25, 0.125), (2, 0.125, 0.0625)]
    saved = json.loads((workplace.path / "run" / "config.json").read_text())
    assert saved["optimizer"]["learning_rate"] == 0.0625


def test_a_run_that_never_saved_is_refused_with_other_settings_too(workplace, begun: Path):
    shutil.rmtree(begun / "checkpoints")
    resumed = go_on(workplace, "sampling.temperature=0.5")
    assert resumed.status == 2 and "sampling.temperature: 1.0 in the checkpoint, 0.5 now" in resumed.err


def test_a_run_of_before_says_that_it_cannot_go_on(workplace, begun: Path):
    path = begun / "identity.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"format": 0}))
    resumed = go_on(workplace)
    assert resumed.status == 2 and "says format 0, and this klimb" in resumed.err
    path.write_text(json.dumps(content | {"format": 6, "klimb": "9.0.0"}))
    newer = go_on(workplace)
    assert newer.status == 2 and "was made by klimb 9.0.0, in format 6; this klimb" in newer.err
    assert "reads up to 5: upgrade klimb" in newer.err
    reported = workplace.klimb("report", "run")
    assert reported.status == 2 and "was made by klimb 9.0.0" in reported.err


def test_totals_are_of_the_run_and_its_time_limit_too(workplace):
    reward = "import time\n    time.sleep(0.05)\n    return float(len(response))\n"
    workplace.write("my_reward.py", f"def digits(prompt, response, answer, metadata):\n    {reward}")
    begin(workplace)
    summary = workplace.path / "run" / "summary.json"
    first = json.loads(summary.read_text())["seconds"]["total"]
    assert go_on(workplace).status == 0
    assert json.loads(summary.read_text())["seconds"]["total"] > first
    used_up = go_on(workplace, "training.num_steps=9", f"training.max_seconds={first + 10}")
    assert used_up.status == 0 and json.loads(summary.read_text())["num_steps"] == 2
    assert "training.max_seconds is used up" in used_up.out


EVERYTHING = {
    "model": {"lora": {"rank": 2}, "chat_template": "{{ messages }}"},
    "scoring": {"overlong": {"buffer_tokens": 2}, "format": {"pattern": "a"}},
    "sources": {"log": 0.25, "feedback": 0.25},
    "log": {"path": "a"},
    "feedback": {"path": "b"},
    "cloning": {"path": "c"},
    "guard": {},
    "objective": {"recipe": "asymre"},
    "rewards": {
        "own": {"reward": "task"},
        "judged": {"reward": "judge", "judge": {"url": "http://127.0.0.1:9/v1", "model": "m", "rubric": "short"}},
    },
    "early_stopping": {"metric": "reward_mean"},
    "environment": {"factory": "python:games.Guess"},
}


def test_every_key_of_a_configuration_is_in_the_identity_and_its_key_or_listed_as_free(tiny_policy):
    keys = flatten(resolved_tables(build_config(EVERYTHING, source="run.toml")))
    identity = run_identity(LoopSettings(), object(), tiny_policy, (), described=keys)
    assert len(keys) > 100 and keys.keys() <= identity.keys()
    for key in keys:
        changed = identity | {key: "something else"}
        assert (run_key(changed) == run_key(identity)) == is_free(key), key
    for pattern in MAY_DIFFER:
        of_files = {"task.path", "task.held_out_path", "task.few_shot_path"}
        there = [key for key in {*keys, *of_files, *identity} if fnmatchcase(key, pattern)]
        assert there, f"{pattern} is listed as free, and no key is called so"


def test_a_hash_of_weights_sees_one_bit_a_place_a_name_and_a_format():
    torch.manual_seed(0)
    weight = torch.randn(1001, 1051)
    plain = hash_weights({"a": weight})
    changed = weight.clone()
    changed.view(torch.int32)[-1, -1] ^= 1
    swapped = weight.clone()
    swapped[[0, 1]] = swapped[[1, 0]]
    others = [{"a": changed}, {"a": swapped}, {"b": weight}, {"a": weight.T}, {"a": weight.bfloat16()}]
    assert plain == hash_weights({"a": weight.clone()})
    assert len({plain, *map(hash_weights, others)}) == 6
