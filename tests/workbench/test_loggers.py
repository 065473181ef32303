import importlib
import json
import logging
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from klimb.errors import ConfigError
from klimb.experience import Message, Sample, read_samples
from klimb.training.run_folder import RunFolder, flat_settings
from klimb.ui.escaping import visible
from klimb.workbench.config import RunConfig, build_config
from klimb.workbench.config.reading import resolved_tables
from klimb.workbench.loggers import LOGGERS, Tracker, check_loggers, open_trackers
from klimb.workbench.loggers.completions import completions_table
from klimb.workbench.loggers.tracker import LONGEST_REST, AllTrackers, FailSafeTracker, TakesTables

Rows = list[tuple[int, Mapping[str, float]]]
EXTERNAL = ("wandb", "mlflow", "trackio")


@dataclass
class Service:
    """What a fake logger's server holds: run id -> what was sent."""

    rows: dict[str, Rows] = field(default_factory=dict)
    tables: list[tuple[int, list[str], list[list[Any]]]] = field(default_factory=list)
    settings: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    endings: dict[str, list[object]] = field(default_factory=dict)
    failing: Exception | None = None

    def take(self, run_id: str, step: int, metrics: Mapping[str, float]) -> None:
        if self.failing is not None:
            raise self.failing
        if isinstance(table := metrics.get("completions"), Table):
            self.tables.append((step, table.columns, table.data))
            return
        self.rows.setdefault(run_id, []).append((step, dict(metrics)))


@dataclass
class Table:
    """What W&B and trackio call a table."""

    columns: list[str]
    data: list[list[Any]]


def fake_wandb(service: Service) -> dict[str, ModuleType]:
    def init(*, id: str, resume: str, config: Mapping[str, Any], **_: object) -> SimpleNamespace:
        assert resume == "allow"
        service.settings[id] = config
        sent = service.rows.get(id, [])
        return SimpleNamespace(
            step=sent[-1][0] + 1 if sent else 0,
            log=lambda metrics, step: service.take(id, step, metrics),
            finish=lambda exit_code: service.endings.setdefault(id, []).append(exit_code == 0),
        )

    return {"wandb": module("wandb", init=init, Settings=lambda **given: given, Table=Table)}


def fake_trackio(service: Service) -> dict[str, ModuleType]:
    def init(*, name: str, resume: str, config: Mapping[str, Any], **_: object) -> SimpleNamespace:
        assert resume == "allow"
        service.settings[name] = config
        return SimpleNamespace(
            log=lambda metrics, step: service.take(name, step, metrics | {"step": float(step)}),
            finish=lambda: service.endings.setdefault(name, []).append(True),
        )

    return {"trackio": module("trackio", init=init, Table=Table)}


def fake_mlflow(service: Service) -> dict[str, ModuleType]:
    def log_batch(run_id: str, metrics=(), params=()) -> None:
        assert len(metrics) <= 1_000 and len(params) <= 100
        if metrics:
            service.take(run_id, metrics[0].step, {metric.key: metric.value for metric in metrics})
        service.settings[run_id] = dict(service.settings.get(run_id, {})) | {param.key: param.value for param in params}

    def get_run(run_id: str) -> SimpleNamespace:
        rows = service.rows.get(run_id, [])
        return SimpleNamespace(data=SimpleNamespace(metrics={"step": rows[-1][0]} if rows else {}))

    def log_table(run_id: str, data: Mapping[str, list[Any]], artifact_file: str) -> None:
        step = int(artifact_file.removeprefix("completions/step-").removesuffix(".json"))
        service.tables.append((step, list(data), [list(row) for row in zip(*data.values(), strict=True)]))

    client = SimpleNamespace(
        log_table=log_table,
        get_experiment_by_name=lambda name: None,
        create_experiment=lambda name: f"of {name}",
        create_run=lambda experiment_id, run_name: SimpleNamespace(
            info=SimpleNamespace(run_id=f"{run_name} {experiment_id}")
        ),
        update_run=lambda run_id, status: None,
        get_run=get_run,
        log_batch=log_batch,
        set_terminated=lambda run_id, status: service.endings.setdefault(run_id, []).append(status == "FINISHED"),
    )
    entities = module(
        "mlflow.entities",
        Metric=lambda key, value, timestamp, step: SimpleNamespace(key=key, value=value, step=step),
        Param=lambda key, value: SimpleNamespace(key=key, value=value),
    )
    return {"mlflow": module("mlflow", MlflowClient=lambda: client), "mlflow.entities": entities}


def module(name: str, **content: object) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    vars(made).update(content)
    return made


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> dict[str, Service]:
    """The three external loggers as fakes that can be imported."""
    made = {name: Service() for name in EXTERNAL}
    for name, fake in (("wandb", fake_wandb), ("mlflow", fake_mlflow), ("trackio", fake_trackio)):
        for imported, content in fake(made[name]).items():
            monkeypatch.setitem(sys.modules, imported, content)
    return made


def config_with(*loggers: str, **training: int):
    return build_config({"run": {"loggers": list(loggers)}, "training": training}, source="")


def opened(config: RunConfig, folder: RunFolder) -> AbstractContextManager[Tracker]:
    return open_trackers(config.run.loggers, folder, settings=flat_settings(resolved_tables(config)))


def the_rows(service: Service) -> Rows:
    (rows,) = service.rows.values()
    return rows


@pytest.mark.parametrize("name", EXTERNAL)
def test_a_logger_gets_the_settings_and_every_finite_number_of_every_step(services, tmp_path, name: str):
    folder = RunFolder(tmp_path)
    with opened(config_with(name), folder) as tracker:
        tracker.write(1, {"step": 1.0, "reward_mean": 0.5, "grad_norm": math.nan})
        tracker.write(2, {"step": 2.0, "reward_mean": 0.75, "grad_norm": math.inf, "entropy": 1.0})
    assert the_rows(services[name]) == [
        (1, {"step": 1.0, "reward_mean": 0.5}),
        (2, {"step": 2.0, "reward_mean": 0.75, "entropy": 1.0}),
    ]
    (settings,) = services[name].settings.values()
    assert str(settings["objective.recipe"]) == "rpg-reinforce-urkl"
    assert list(services[name].endings.values()) == [[True]]


@pytest.mark.parametrize("name", EXTERNAL)
def test_a_resumed_run_goes_on_as_the_same_run_of_the_logger(services, tmp_path, name: str):
    for first, last in ((1, 3), (3, 4)):  # killed after step 3 with a checkpoint at step 2: step 3 comes again
        with opened(config_with(name, num_steps=last), RunFolder(tmp_path)) as tracker:
            for step in range(first, last + 1):
                tracker.write(step, {"step": float(step), "reward_mean": step / 10})
    expected = [1, 2, 3, 3, 4] if name == "trackio" else [1, 2, 3, 4]
    assert [step for step, _ in the_rows(services[name])] == expected


def test_a_run_that_an_error_ends_is_not_called_finished(services, tmp_path):
    with pytest.raises(KeyboardInterrupt), opened(config_with("wandb", "mlflow"), RunFolder(tmp_path)):
        raise KeyboardInterrupt
    assert [list(services[name].endings.values()) for name in ("wandb", "mlflow")] == [[[False]], [[False]]]


def test_a_name_that_mlflow_does_not_take_is_written_with_underscores(services, tmp_path):
    with opened(config_with("mlflow"), RunFolder(tmp_path)) as tracker:
        tracker.write(1, {"reward_part_ä!": 1.0, "guard/general/sum of digits": 0.5})
    assert the_rows(services["mlflow"]) == [(1, {"reward_part___": 1.0, "guard/general/sum of digits": 0.5})]


def test_tensorboard_has_the_numbers_and_a_resumed_run_hides_what_was_behind_its_checkpoint(tmp_path, monkeypatch):
    # Files of the same second are read in the order of their counter as text, where 10 comes before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    for first, last, factor in ((1, 3, 10.0), (3, 4, 1.0)):
        with opened(config_with("tensorboard"), RunFolder(tmp_path)) as tracker:
            for step in range(first, last + 1):
                tracker.write(step, {"reward_mean": step * factor})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(point.step, point.value) for point in events.Scalars("reward_mean")] == [(1, 10), (2, 20), (3, 3), (4, 4)]


MEAN = "advantages.kind=group-mean"
COLUMNS = ("step", "prompt", "completion", "reward", "advantage", "reward/correct")


@pytest.mark.parametrize("name", EXTERNAL)
def test_a_logger_gets_the_table_of_a_step_once(services, tmp_path, name: str):
    row = (1, "say", "x", 0.5, None, 1.0)
    with opened(config_with(name), RunFolder(tmp_path)) as tracker:
        assert isinstance(tracker, TakesTables)
        tracker.write(1, {"step": 1.0})
        tracker.write_table(1, COLUMNS, (row,))
    assert services[name].tables == [(1, list(COLUMNS), [list(row)])]
    with opened(config_with(name), RunFolder(tmp_path)) as tracker:  # killed before step 2: step 1 comes again
        assert isinstance(tracker, TakesTables)
        tracker.write_table(1, COLUMNS, (row,))
        tracker.write(2, {"step": 2.0})
        tracker.write_table(2, COLUMNS, ())
    expected = [1, 1, 2] if name == "trackio" else [1, 2]
    assert [step for step, *_ in services[name].tables] == expected


def test_no_text_of_a_table_acts_in_tensorboard(tmp_path):
    with opened(config_with("tensorboard"), RunFolder(tmp_path)) as tracker:
        assert isinstance(tracker, TakesTables)
        tracker.write_table(3, ("prompt", "reward"), (("![x](http://e) <b>|*y*\nz", -0.5), (None, 1.0)))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (event,) = events.Tensors("completions/text_summary")
    assert event.step == 3
    assert event.tensor_proto.string_val[0].decode().splitlines() == [
        "| prompt | reward |",
        "| --- | --- |",
        r"| \!\[x\]\(http://e\) &lt;b&gt;&#124;\*y\* ⏎ z | -0.5 |",
        "|  | 1 |",
    ]


def test_a_table_that_fails_costs_no_number_and_is_counted(caplog):
    class NoTables(Unsteady):
        def write_table(self, step, columns, rows):
            raise ImportError("no pandas")

    tracker = NoTables(failing=range(0))
    guarded = FailSafeTracker(tracker, name="mlflow")
    for step in (1, 2):
        guarded.write(step, {})
        guarded.write_table(step, COLUMNS, ())
    guarded.close(is_finished=True)
    assert tracker.rows == [1, 2]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("a table for mlflow failed: ImportError: no pandas")
    assert told[1].startswith("2 tables of completions are missing in mlflow")


def test_a_run_hands_the_first_answers_of_each_step_to_its_loggers(workplace, services):
    outcome = workplace.klimb("train", "run.toml", "--set", "run.loggers=['wandb']", "run.log_completions=3", MEAN)
    assert outcome.status == 0, outcome.err
    assert [(step, len(rows)) for step, _, rows in services["wandb"].tables] == [(1, 3), (2, 3), (3, 3)]
    for step, columns, rows in services["wandb"].tables:
        drawn = read_samples(workplace.path / f"runs/run/rollouts/step-{step:06d}.parquet")
        group = [sample.reward for sample in drawn if sample.group_id == drawn[0].group_id]
        assert columns[:5] == list(COLUMNS[:5])
        for row, sample in zip(rows, drawn[:3], strict=True):
            assert row[:4] == [step, visible(sample.prompt[-1]["content"]), visible(sample.response), sample.reward]
            assert row[4] == pytest.approx(sample.reward - statistics.fmean(group), abs=1e-6)


def test_what_cannot_be_seen_in_an_answer_is_shown_in_the_table():
    prompt: tuple[Message, ...] = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "a\x1b[31m"})
    sample = Sample(
        sample_id="s",
        group_id="g",
        prompt=prompt,
        prompt_ids=(),
        response=f"b{chr(0x202E)}c",
        response_ids=(),
        finish_reason="stop",
        reward=1.0,
        reward_parts={"correct": 1.0},
    )
    columns, rows = completions_table(7, [sample], {"s": -0.25})
    assert columns == COLUMNS
    assert rows == ((7, "system: be brief\nuser: a[U+001B][31m", "b[U+202E]c", 1.0, -0.25, 1.0),)


class Unsteady:
    """A tracker that fails at the attempts it is told to."""

    def __init__(self, *, failing: range) -> None:
        self.failing = failing
        self.attempts: list[int] = []
        self.rows: list[int] = []

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.attempts.append(step)
        if len(self.attempts) - 1 in self.failing:
            raise ConnectionError("no route to host")
        self.rows.append(step)

    def close(self, *, is_finished: bool) -> None:
        if self.failing.stop > 100:
            raise ConnectionError("still no route")


def test_what_a_failing_tracker_missed_is_written_later_in_order_and_said_once(caplog):
    tracker = Unsteady(failing=range(1, 4))
    guarded = FailSafeTracker(tracker, name="wandb")
    written_after = []
    for step in range(1, 20):
        guarded.write(step, {})
        written_after.append(list(tracker.rows))
    # Step 2 fails, and again 2, 4 and then 8 steps later, when it succeeds with all that waited.
    assert tracker.attempts[:5] == [1, 2, 2, 2, 2]
    assert written_after[14] == [1] and written_after[15] == list(range(1, 17))
    assert tracker.rows == list(range(1, 20))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "wandb failed: ConnectionError: no route to host" in caplog.text


def test_a_tracker_that_never_comes_back_is_tried_seldom_and_its_missing_steps_are_counted(caplog):
    tracker = Unsteady(failing=range(1_000_000))
    guarded = FailSafeTracker(tracker, name="mlflow")
    for step in range(1, 1_001):
        guarded.write(step, {})
    # Rests of 2, 4, …, 64, then always 64: 6 attempts in the first 127 steps, then one in 64.
    assert len(tracker.attempts) == 6 + (1_000 - 63) // LONGEST_REST
    guarded.close(is_finished=True)
    assert "1000 steps are missing in mlflow" in caplog.text


def test_one_failing_tracker_takes_nothing_from_the_others():
    broken, healthy = Unsteady(failing=range(1_000_000)), Unsteady(failing=range(0))
    both = AllTrackers([FailSafeTracker(broken, name="a"), FailSafeTracker(healthy, name="b")])
    both.write(1, {})
    both.close(is_finished=True)
    assert healthy.rows == [1]


def test_a_missing_package_is_named_with_the_command_before_anything_is_made(workplace, monkeypatch):
    monkeypatch.setattr("klimb.workbench.loggers.opening.find_spec", lambda name: None)
    outcome = workplace.klimb("train", "run.toml", "--set", "run.loggers=['wandb']")
    assert outcome.status == 2
    assert "pip install 'klimb[wandb]'" in outcome.err
    assert not (workplace.path / "runs").exists()


@pytest.mark.parametrize("name", [name for name, logger in LOGGERS.items() if logger.package])
def test_every_logger_that_needs_a_package_names_what_to_install(name: str, monkeypatch):
    monkeypatch.setattr("klimb.workbench.loggers.opening.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"pip install .*{name}"):
        check_loggers([name])


def test_a_logger_that_cannot_start_ends_the_run_before_training_and_the_run_can_go_on(
    workplace, services, monkeypatch
):
    def refuse(**_: object) -> None:
        raise PermissionError("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    outcome = workplace.klimb("train", "run.toml", "--set", "run.loggers=['trackio', 'wandb']")
    assert outcome.status == 2
    assert "no API key" in outcome.err and "WANDB_MODE=offline" in outcome.err and "--resume runs/run" in outcome.err
    assert not (workplace.path / "runs" / "run" / "metrics.jsonl").exists()
    assert list(services["trackio"].endings.values()) == [[True]], "what had started is closed"
    assert workplace.klimb("train", "--resume", "runs/run", "--set", "run.loggers=[]").status == 0


def test_a_run_outlives_its_loggers(workplace, services, caplog):
    services["wandb"].failing = ConnectionError("the server is gone")
    outcome = workplace.klimb("train", "run.toml", "--set", "run.loggers=['wandb', 'mlflow']")
    assert outcome.status == 0, outcome.err
    assert [record.getMessage()[:12] for record in caplog.records if "wandb" in record.getMessage()] == [
        "wandb failed",
        "3 steps are ",
    ]
    assert [step for step, _ in the_rows(services["mlflow"])] == [1, 2, 3]
    ids = json.loads((workplace.path / "runs" / "run" / "loggers.json").read_text())
    assert set(ids) == {"wandb", "mlflow"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["wnadb"], "expected a list of 'mlflow', 'tensorboard', 'trackio', 'wandb' or 'python:module.name'"),
        ("wandb", "expected a list of 'mlflow'"),
        (["python:alone"], "expected a list of 'mlflow'"),
        (["wandb", "wandb"], "wandb is there more than once"),
    ],
)
def test_loggers_that_are_not_known_are_refused(value: object, message: str):
    with pytest.raises(ConfigError, match=message):
        build_config({"run": {"loggers": value}}, source="")


OWN = """
import importlib
import json

class FileTracker:
    def __init__(self, run):
        self.path = run.folder / "own.jsonl"
        self.lr = run.settings["optimizer.learning_rate"]

    def write(self, step, metrics):
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "lr": self.lr, "loss": metrics["loss"]}) + "\\n")

    def close(self, *, is_finished):
        self.path.with_suffix(".end").write_text(str(is_finished))

class Broken(FileTracker):
    def write(self, step, metrics):
        raise ConnectionError("no line")

def named(run):
    tracker = FileTracker(run)
    tracker.path = run.folder / f"own-{run.known_id or 'new'}.jsonl"
    return tracker, "number-7"

def nothing(run):
    return None

def refuses(run):
    raise PermissionError("no key")

number = 3
"""


@pytest.fixture
def own(workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with loggers of the user's own in it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    importlib.invalidate_caches()
    workplace.write("my_loggers.py", OWN)
    yield workplace.path
    sys.modules.pop("my_loggers", None)


def test_a_logger_of_ones_own_gets_every_step_the_settings_and_the_end(workplace, own):
    outcome = workplace.klimb(
        "train", "run.toml", "--set", "run.loggers=['python:my_loggers.FileTracker']", "optimizer.learning_rate=0.25"
    )
    assert outcome.status == 0, outcome.err
    rows = [json.loads(line) for line in (own / "runs/run/own.jsonl").read_text().splitlines()]
    assert [(row["step"], row["lr"]) for row in rows] == [(1, 0.25), (2, 0.25), (3, 0.25)]
    assert (own / "runs/run/own.end").read_text() == "True"


def test_a_logger_of_ones_own_stands_in_a_run_file_and_goes_on_under_its_id(workplace, own):
    run = (own / "run.toml").read_text()
    workplace.write("run.toml", run.replace("loggers = []", 'loggers = ["python:my_loggers.named"]'))
    assert workplace.klimb("train", "run.toml", "--set", "training.num_steps=2").status == 0
    resumed = workplace.klimb("train", "--resume", "runs/run", "--set", "training.num_steps=3")
    assert resumed.status == 0, resumed.err
    steps = {
        name: (own / "runs/run" / name).read_text().count("step") for name in ("own-new.jsonl", "own-number-7.jsonl")
    }
    assert steps == {"own-new.jsonl": 2, "own-number-7.jsonl": 1}


def test_a_run_outlives_a_logger_of_ones_own_and_is_the_same_run_without_it(workplace, own, caplog):
    broken = "run.loggers=['python:my_loggers.Broken']"
    outcome = workplace.klimb("train", "run.toml", "--set", broken, "training.num_steps=2")
    assert outcome.status == 0, outcome.err
    assert "python:my_loggers.Broken failed: ConnectionError: no line" in caplog.text
    assert "2 steps are missing in python:my_loggers.Broken" in caplog.text
    (own / "my_loggers.py").write_text("# edited: loggers do not change the numbers of a run\n")
    resumed = workplace.klimb("train", "--resume", "runs/run", "--set", "run.loggers=[]", "training.num_steps=3")
    assert resumed.status == 0, resumed.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:no_such_file.logger", "run.loggers = 'python:no_such_file.logger': there is no module 'no_such_file'"),
        ("python:my_loggers.typo", "the module my_loggers has no 'typo'"),
        ("python:my_loggers.number", "expected a class or a function of a klimb.workbench.loggers.LoggedRun"),
    ],
)
def test_a_logger_of_ones_own_that_cannot_be_is_told_before_anything_is_made(workplace, own, name: str, message: str):
    outcome = workplace.klimb("train", "run.toml", "--set", f"run.loggers=[{name!r}]")
    assert (outcome.status, message in outcome.err) == (2, True), outcome.err
    assert not (own / "runs").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "TypeError: expected a tracker with write(step, metrics) and close(is_finished=...)"),
        ("refuses", "PermissionError: no key"),
    ],
)
def test_a_logger_of_ones_own_that_cannot_start_ends_the_run_before_training(workplace, own, name: str, message: str):
    outcome = workplace.klimb("train", "run.toml", "--set", f"run.loggers=['python:my_loggers.{name}']")
    assert outcome.status == 2 and message in outcome.err and "--resume runs/run" in outcome.err
    assert workplace.klimb("train", "--resume", "runs/run", "--set", "run.loggers=[]").status == 0


def test_the_page_of_loggers_has_a_row_for_each():
    page = (Path(__file__).parents[2] / "docs/board.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip(" `") for line in page.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(LOGGERS)


def test_a_name_is_found_without_its_library():
    assert LOGGERS.keys() >= {"mlflow", "tensorboard", "trackio", "wandb"}
    code = "from klimb.workbench.loggers.registry import LOGGERS; import sys; print('torch' in sys.modules, *LOGGERS)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", *LOGGERS]
