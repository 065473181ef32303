"""Callbacks: called at each event with what they are told, able to stop a run, and without a trace in its numbers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.training.tiny_run import BASE, PROBLEMS, run

from klimb.errors import ConfigError
from klimb.policies import load_policy
from klimb.training import (
    CheckpointSettings,
    EvaluationSettings,
    TrainingSettings,
    newest_checkpoint,
    read_metrics,
    without_wall_clock,
)
from klimb.training.callbacks import check_callback

SHORT = replace(
    BASE,
    training=TrainingSettings(num_steps=3),
    checkpoints=CheckpointSettings(every_steps=2),
    evaluation=EvaluationSettings(every_steps=2, num_samples=2),
)


class Recorder:
    """Write down every event, with the step and what came with it."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_start(self, run: Any) -> None:
        self.events.append(("start", run.step, run.num_steps))

    def on_step(self, run: Any, metrics: Mapping[str, float], samples: Any) -> None:
        assert metrics["step"] == run.step
        assert {sample.sample_id for sample in samples} == run.advantages.keys()
        self.events.append(("step", run.step, len(samples)))

    def on_evaluation(self, run: Any, record: Any) -> None:
        self.events.append(("evaluation", run.step, record.step))

    def on_checkpoint(self, run: Any, path: Path) -> None:
        assert path.is_dir()
        self.events.append(("checkpoint", run.step, path == newest_checkpoint(run.folder / "checkpoints")))

    def on_end(self, run: Any, metrics: Mapping[str, float]) -> None:
        self.events.append(("end", run.step, metrics["step"]))


@pytest.fixture
def fresh(tiny_model_path):
    return lambda: load_policy(str(tiny_model_path), dtype="float32", device="cpu")


def test_each_event_comes_once_in_order(fresh, tmp_path):
    recorder = Recorder()
    run(fresh(), tmp_path, SHORT, held_out=PROBLEMS[:2], problems=PROBLEMS[2:], callbacks=[recorder])
    assert recorder.events == [
        ("start", 0, 3),
        ("step", 1, 16),
        ("evaluation", 2, 2),
        ("step", 2, 16),
        ("checkpoint", 2, True),
        ("step", 3, 16),
        ("checkpoint", 3, True),
        ("end", 3, 3.0),
    ]


def test_a_callback_leaves_no_trace_in_the_numbers(fresh, tmp_path):
    class Drawing:
        def on_step(self, run: Any, metrics: Mapping[str, float], samples: Any) -> None:
            torch.rand(7)  # of the global generator, which no part of a run draws from

    rows = []
    for name, callbacks in (("without", []), ("with", [Recorder(), Drawing()])):
        run(fresh(), tmp_path / name, SHORT, held_out=PROBLEMS[:2], problems=PROBLEMS[2:], callbacks=callbacks)
        rows.append([without_wall_clock(row) for row in read_metrics(tmp_path / name / "metrics.jsonl")])
    assert rows[0] == rows[1]


@pytest.mark.parametrize("event", ["on_step", "on_evaluation"])
def test_a_callback_ends_a_run_saved_and_with_its_reason(fresh, tmp_path, event: str):
    stopper = SimpleNamespace(**{event: lambda run, *told: run.stop("seen enough")})
    settings = replace(SHORT, evaluation=EvaluationSettings(every_steps=1, num_samples=2))
    result = run(fresh(), tmp_path, settings, held_out=PROBLEMS[:2], problems=PROBLEMS[2:], callbacks=[stopper])
    assert result.num_steps == 1
    assert result.ending == "seen enough"
    assert result.checkpoint is not None and result.checkpoint.name.endswith("1")


def test_a_callback_may_stop_a_run_before_its_first_step(fresh, tmp_path):
    stopper = SimpleNamespace(on_start=lambda run: run.stop("not today"))
    result = run(fresh(), tmp_path, BASE, callbacks=[stopper])
    assert (result.num_steps, result.ending) == (0, "not today")


def test_the_first_reason_stands(fresh, tmp_path):
    stoppers = [SimpleNamespace(on_step=lambda run, *told, reason=reason: run.stop(reason)) for reason in ("a", "b")]
    assert run(fresh(), tmp_path, BASE, callbacks=stoppers).ending == "a"


class Misspelt:
    def on_steps(self, run: Any, metrics: Any, samples: Any) -> None: ...


class Narrow:
    def on_step(self, metrics: Any) -> None: ...


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (Misspelt(), "Misspelt has a method on_steps, .* did you mean 'on_step'"),
        (Narrow(), r"on_step of Narrow is called with \(run, metrics, samples\), and its signature is \(metrics"),
        (object(), "object is no callback: expected an object with one of the methods on_start, on_step"),
    ],
)
def test_what_is_no_callback_is_refused_with_the_nearest_name(callback: object, message: str):
    with pytest.raises(ConfigError, match=message):
        check_callback(callback)
