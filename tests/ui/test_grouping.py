from pathlib import Path

from tests.ui.pages.folders import write_run

from klimb.findings.run.record import RunRecord
from klimb.training.run_folder import read_run
from klimb.ui.grouping import differing, flat, group_runs
from klimb.ui.run_charts import group_path


def records(tmp_path: Path, *settings: tuple[str, int]) -> list[RunRecord]:
    return [
        read_run(write_run(tmp_path / f"{number}-{recipe}", seed=seed, recipe=recipe, num_steps=2))
        for number, (recipe, seed) in enumerate(settings)
    ]


def test_runs_that_differ_by_their_seed_only_are_one_group(tmp_path: Path):
    groups = group_runs(records(tmp_path, ("grpo", 0), ("dapo", 0), ("grpo", 1), ("dapo", 1)))
    assert [(group.label, [run.seed for run in group.runs]) for group in groups] == [("grpo", [0, 1]), ("dapo", [0, 1])]


def test_the_same_settings_and_seed_twice_are_two_groups_with_names_of_their_own(tmp_path: Path):
    groups = group_runs(records(tmp_path, ("grpo", 0), ("grpo", 0)))
    assert [(group.label, len(group.runs)) for group in groups] == [("0-grpo", 1), ("1-grpo", 1)]


def test_a_group_is_named_after_the_setting_in_which_it_differs(tmp_path: Path):
    first, second = records(tmp_path, ("grpo", 0), ("grpo", 0))
    second.config["objective"]["beta"] = 0.5  # type: ignore[index]
    assert [group.label for group in group_runs([first, second])] == ["objective.beta=0.0001", "objective.beta=0.5"]
    assert differing([first, second]) == ["objective.beta", "run.name"]


def test_a_label_from_a_configuration_cannot_drive_a_terminal(tmp_path: Path):
    first, second = records(tmp_path, ("grpo\x1b[31m\u202e", 0), ("dapo", 0))
    assert [group.label for group in group_runs([first, second])] == ["grpo[31m", "dapo"]


def test_empty_tables_are_a_value():
    assert flat({"a": {"b": {}, "c": [1]}}) == {"a.b": {}, "a.c": [1]}


def test_a_band_is_the_mean_lowest_and_highest_where_all_runs_are():
    path = group_path([([1, 2, 3], [0.0, 1.0, 5.0]), ([1, 2], [2.0, 3.0]), ([], [])])
    assert (path.x, path.y, path.low, path.high) == ([1, 2], [1.0, 2.0], [0.0, 1.0], [2.0, 3.0])


def test_one_run_has_no_band():
    path = group_path([([1, 2], [0.5, 0.7])])
    assert (path.y, path.low, path.high) == ([0.5, 0.7], [], [])
