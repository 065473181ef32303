"""`[feedback]` in a run file: what people said is found, told and trained on."""

import io
import re
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from klimb.experience import Sample
from klimb.experience.feedback import Feedback
from klimb.experience.store import Store
from klimb.training.settings import FeedbackSettings
from klimb.workbench.config import build_config
from klimb.workbench.dry_run import run_dry, try_one_step
from klimb.workbench.session import make_session

PAGE = Path(__file__).parents[2] / "docs" / "feedback-training.md"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "served")
    answers = [
        Sample(
            sample_id=name,
            group_id=name,
            prompt=({"role": "user", "content": f"Say {name[0]}"},),
            prompt_ids=(),
            response=f"{name} it is",
            response_ids=(),
            finish_reason="stop",
        )
        for name in ("a1", "a2", "b1", "b2", "c2")
    ]
    made.append(answers)
    made.append_feedback(
        [
            Feedback(feedback_id="1", sample_id="a1", value=None, over="a2"),
            Feedback(feedback_id="2", sample_id="b1", value=None, over="b2"),
            Feedback(feedback_id="3", sample_id="a1", value=None, over="b1"),
            Feedback(feedback_id="4", sample_id="c2", value=None, correction="c1 it is"),
        ]
    )
    return made


def config_of(store: Store, model: Path, **tables):
    return build_config(
        {
            "model": {"path": str(model), "dtype": "float32", "device": "cpu"},
            "sources": {"feedback": 1.0},
            "feedback": {"path": str(store.folder)},
            "sampling": {"num_prompts": 3},
            "objective": {"recipe": "dpo"},
            "optimizer": {"learning_rate": 3e-3, "warmup_steps": 0},
            "evaluation": {"at_ends": False},
            "training": {"num_epochs": 4},
        }
        | tables,
        source="run.toml",
    )


def test_a_dry_run_says_what_is_used_of_people_s_feedback_and_what_is_not(store, tiny_model_path):
    shown = io.StringIO()
    run_dry(config_of(store, tiny_model_path), console=Console(file=shown, width=200))
    text = re.sub(r"\s+", " ", shown.getvalue())
    assert "2 preferences, 1 corrections as pairs · not used: 1 × the two answers are to different prompts" in text
    assert "100% feedback (3 groups)" in text


def test_pairs_of_people_move_the_policy_towards_what_they_preferred(store, tiny_model_path):
    session = make_session(config_of(store, tiny_model_path))
    metrics = try_one_step(session)
    assert metrics["feedback/num_groups"] == 3 and metrics["feedback/num_samples"] == 6
    assert metrics["num_pairs"] == 12  # three in each of four epochs
    assert metrics["pair_accuracy"] > 0.5 and metrics["pair_margin"] > 0


def test_the_run_file_of_the_page_is_one_and_its_settings_reach_the_loop():
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    config = build_config(tomllib.loads(text), source=PAGE.name)
    assert config.loop_settings().feedback == FeedbackSettings(max_rater_fraction=0.2)
    told = build_config(
        {
            "sources": {"feedback": 1.0},
            "feedback": {"path": "served", "comment_weight": 0.5},
            "objective": {"recipe": "rpg-urkl"},
            "advantages": {"kind": "batch-z-score"},
        },
        source="x",
    )
    assert told.loop_settings().feedback.comment_weight == 0.5
