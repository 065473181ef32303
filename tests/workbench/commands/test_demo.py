import json

from klimb.workbench.commands.demo import demo_config
from klimb.workbench.session import make_task

TINY = [
    "training.num_steps=1",
    "evaluation.num_problems=3",
    "evaluation.num_samples=2",
    "sampling.num_prompts=2",
    "advantages.group_filter=false",
]


def test_the_demo_prints_before_and_after_and_what_to_try_next(workplace):
    outcome = workplace.klimb("demo", "--divergence", "fkl", "--set", f"model.path={workplace.model}", *TINY)
    assert outcome.status == 0, outcome.err
    for text in ("before", "after", "95 % interval", "greedy", "runs/demo/model", "runs/demo/curves.png", "try next"):
        assert text in outcome.out
    assert outcome.out.count("What is") == 3, "three problems, each answered before and after"
    summary = json.loads((workplace.path / "runs" / "demo" / "summary.json").read_text())
    assert summary["divergence"] == "fkl"
    assert set(summary) >= {"held_out", "seconds", "model_path", "task"}


def test_a_second_demo_moves_the_first_aside(workplace):
    settings = [f"model.path={workplace.model}", *TINY, "evaluation.at_ends=false", "run.report=false"]
    for _ in range(2):
        outcome = workplace.klimb("demo", "--set", *settings)
        assert outcome.status == 0, outcome.err
    assert "the earlier run in runs/demo is now in runs/demo-1" in outcome.out
    assert all((workplace.path / "runs" / name / "model").is_dir() for name in ("demo", "demo-1"))


def test_a_demo_that_cannot_begin_leaves_the_earlier_run_where_it_is(workplace):
    (workplace.path / "runs" / "demo").mkdir(parents=True)
    (workplace.path / "runs" / "demo" / "mine").write_text("kept")
    outcome = workplace.klimb("demo", "--set", "model.path=no/such/model")
    assert outcome.status == 2
    assert (workplace.path / "runs" / "demo" / "mine").read_text() == "kept"


def test_the_demo_measures_at_least_two_hundred_answers_of_problems_it_never_trains_on():
    config = demo_config([])
    assert config.objective.recipe == "rpg-reinforce-urkl"
    assert config.objective.clip.kind == "dual"
    assert config.reference.kind == "iterative"
    assert len(make_task(config).held_out) * config.evaluation.num_samples >= 200
