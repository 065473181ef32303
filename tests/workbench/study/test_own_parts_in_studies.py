"""Parts of the user's own in a study: arms of their own, and an edit of their source between two calls is noticed."""

import importlib
import json
import os
import sys
import time
from pathlib import Path

import pytest
from tests.workbench.study.tiny_study import cell_named, run_tiny, tiny_plan

from klimb.errors import ConfigError
from klimb.own_parts import source_hash
from klimb.training import read_evaluations, read_metrics
from klimb.training.run_folder import RunFolder, read_run
from klimb.workbench.own_findings import find_in
from klimb.workbench.study.cells import state_of
from klimb.workbench.study.collecting import result_of
from klimb.workbench.study.compare import check_can_begin
from klimb.workbench.study.plan import Cell, StudyPlan
from klimb.workbench.study.worker import start_folder

PARTS = """
from klimb.divergences import Divergence
from klimb.losses import Clipped

def narrow(w, is_good, log_pi=None):
    never = is_good & False
    bounded = w.clamp(max=0.5)
    return Clipped(bounded, ~never, bounded / w, never, w > 0.5, never)

own = Divergence("own", f=lambda r: (r - 1) ** 2, df=lambda r: 2 * (r - 1))

def doubled(rewards, group_ids):
    return 2 * rewards
"""

REWARD = """
def digits(prompt, response, answer, metadata):
    return {value}
"""

ARMS = """
[methods.own-clip.objective]
recipe = "grpo"
clip = "python:my_study_parts.narrow"
[methods.own-clip.run]
loggers = ["python:my_study_watchers.Lines"]
findings = ["python:my_study_watchers.always"]

[methods.own-divergence.objective]
recipe = "rpg-rkl"
divergence = "python:my_study_parts.own"

[methods.own-advantages]
advantages = {kind = "python:my_study_parts.doubled"}
objective = {recipe = "grpo"}
"""

WATCHERS = """
from klimb.findings.finding import Finding

class Lines:
    def __init__(self, run):
        self.path = run.folder / "lines.txt"

    def write(self, step, metrics):
        self.path.open("a").write(f"{step}\\n")

    def close(self, *, is_finished):
        pass

def always(record, thresholds):
    return Finding(status="note", title="Always", evidence=f"{record.num_steps} steps.")
"""

OWN_OF = {
    "grpo": set(),
    "own-clip": {"python:my_study_parts.narrow"},
    "own-divergence": {"python:my_study_parts.own"},
    "own-advantages": {"python:my_study_parts.doubled"},
}


class Place:
    """A working directory with parts of the user's own, and a study of them."""

    def __init__(self, path: Path, model: Path) -> None:
        self.path, self._model = path, model
        self._written_at = int(time.time())

    def write(self, name: str, text: str) -> None:
        # Python takes a compiled file for its source's if size and second agree: no two are of the same second here.
        self._written_at += 2
        (self.path / name).write_text(text, encoding="utf-8")
        os.utime(self.path / name, (self._written_at, self._written_at))
        importlib.invalidate_caches()

    def plan(self, more: str = ARMS) -> StudyPlan:
        own_reward = ('kind = "arithmetic"', 'kind = "arithmetic"\nreward = "python:my_study_reward.digits"')
        plan = tiny_plan(self.path / "study", self._model, amount=20, more=more, change=own_reward)
        return StudyPlan(study=plan.study, folder=plan.folder, cells=plan.cells[: len(plan.cells) // 2], text=plan.text)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model_path: Path):
    """A study that has been run to its end."""
    path = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(sys, "path", [*sys.path])
        made = Place(path, tiny_model_path)
        made.write("my_study_parts.py", PARTS)
        made.write("my_study_watchers.py", WATCHERS)
        made.write("my_study_reward.py", REWARD.format(value="sum(map(ord, response)) % 7 / 7"))
        check_can_begin(made.plan().cells)
        run_tiny(made.plan())
        yield made
    for name in ("my_study_parts", "my_study_reward", "my_study_watchers"):
        sys.modules.pop(name, None)


def states(plan: StudyPlan) -> dict[str, str]:
    return {cell.method: state_of(plan, cell) for cell in plan.cells}


def of_method(plan: StudyPlan, method: str) -> Cell:
    return cell_named(plan, f"sums/{method}/seed-0")


def test_arms_of_ones_own_parts_run(place: Place):
    plan = place.plan()
    assert states(plan) == dict.fromkeys(("grpo", "rloo", "own-clip", "own-divergence", "own-advantages"), "finished")


def test_the_source_of_an_arms_own_parts_is_kept_with_each_of_its_runs(place: Place):
    plan = place.plan()
    reward = "python:my_study_reward.digits"
    for method, names in OWN_OF.items():
        kept = json.loads(RunFolder(plan.folder_of(of_method(plan, method))).provenance.read_text())["own_parts"]
        assert kept == {name: source_hash(name) for name in {*names, reward}}


@pytest.mark.parametrize("method", ["own-clip", "own-advantages"])
def test_an_arm_that_differs_from_another_by_its_own_part_alone_has_other_gradients(place: Place, method: str):
    plan = place.plan()
    # The loss of whole groups is about 0 whatever the weights, as their advantages add up to 0.
    norms = [
        [row["grad_norm"] for row in read_metrics(RunFolder(plan.folder_of(of_method(plan, name))).metrics)]
        for name in (method, "grpo")
    ]
    assert norms[0] != norms[1]


def test_an_arm_has_loggers_and_findings_of_ones_own_and_their_edit_changes_no_run(place: Place):
    plan = place.plan()
    cell = of_method(plan, "own-clip")
    folder = plan.folder_of(cell)
    num_steps = len(read_metrics(RunFolder(folder).metrics))
    assert (folder / "lines.txt").read_text().split() == [str(step + 1) for step in range(num_steps)]
    (own,) = (finding for finding in find_in(read_run(folder)) if finding.name == "python:my_study_watchers.always")
    assert own.evidence == f"{num_steps} steps."
    place.write("my_study_watchers.py", WATCHERS + "# edited\n")
    assert state_of(plan, cell) == "finished"


def test_an_edit_of_a_part_runs_its_arms_anew_and_no_others(place: Place):
    plan = place.plan()
    assert "0 of 5 runs to do" in run_tiny(plan)
    place.write("my_study_parts.py", PARTS.replace("max=0.5", "max=0.6"))
    own = {method for method, names in OWN_OF.items() if names}
    assert {method for method, state in states(plan).items() if state == "changed"} == own
    assert all(result_of(plan, of_method(plan, method)).status == "missing" for method in own)
    assert "3 of 5 runs to do" in run_tiny(plan)
    assert set(states(plan).values()) == {"finished"}
    assert (plan.folder / "set-aside" / "sums" / "own-clip" / "seed-0" / "summary.json").is_file()
    assert not (plan.folder / "set-aside" / "sums" / "grpo").exists()


def test_an_interrupted_run_does_not_go_on_with_another_source(place: Place):
    plan = place.plan()
    cell = of_method(plan, "own-clip")
    RunFolder(plan.folder_of(cell)).summary.unlink()
    assert state_of(plan, cell) == "interrupted"
    place.write("my_study_parts.py", PARTS.replace("max=0.5", "max=0.7"))
    assert state_of(plan, cell) == "changed"


def test_an_edited_reward_changes_every_run_and_the_shared_evaluation_before(place: Place):
    plan = place.plan("")
    before = read_evaluations(RunFolder(plan.folder_of(plan.cells[0])).evaluations)[0]
    start = start_folder(plan.folder, plan.cells[0].config)
    place.write("my_study_reward.py", REWARD.format(value="0.25"))
    assert states(plan) == {"grpo": "changed", "rloo": "changed"}
    assert start_folder(plan.folder, plan.cells[0].config) != start
    run_tiny(plan)
    after = read_evaluations(RunFolder(plan.folder_of(plan.cells[0])).evaluations)[0]
    assert (after.when, after.mean) == ("before", 0.25)
    assert before.mean != 0.25


def test_an_arm_with_a_sampler_of_ones_own_has_an_evaluation_before_of_its_own(place: Place):
    arm = '[methods.own-sampler]\nobjective = {recipe = "grpo"}\nsampling = {sampler = "python:my_study_parts.any"}\n'
    plan = place.plan(arm)
    own, theirs = (start_folder(plan.folder, of_method(plan, name).config) for name in ("own-sampler", "grpo"))
    assert own != theirs
    place.write("my_study_parts.py", PARTS + "# edited\n")
    assert start_folder(plan.folder, of_method(plan, "own-sampler").config) != own
    assert start_folder(plan.folder, of_method(plan, "grpo").config) == theirs


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            'objective = {recipe = "grpo", clip = "python:my_study_parts.typo"}',
            "the module my_study_parts has no 'typo'",
        ),
        (
            'run = {loggers = ["python:my_study_parts.typo"]}',
            "run.loggers = 'python:my_study_parts.typo': the module my_study_parts",
        ),
        ('run = {findings = ["python:no_such.one"]}', "run.findings = 'python:no_such.one': there is no module"),
    ],
)
def test_a_part_that_is_not_there_stops_a_study_before_it_begins(place: Place, table: str, message: str):
    plan = place.plan(f"[methods.wrong]\n{table}\n")
    with pytest.raises(ConfigError, match=message) as told:
        check_can_begin(plan.cells)
    assert str(told.value).startswith("sums/wrong: ")
