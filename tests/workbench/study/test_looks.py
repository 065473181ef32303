from dataclasses import replace

import pytest
from tests.findings.study.made import random_study

from klimb.errors import ConfigError
from klimb.workbench.study.looks import LOOKS_FILE, earlier_looks, record_look

FULL = random_study({"grpo": 0.4, "ppo": 0.5}, num_seeds=5)


def at(num_seeds, scores=FULL):
    """The study when so many seeds had finished."""
    runs = [run if run.seed < num_seeds else replace(run, status="missing") for run in scores.runs]
    return replace(scores, runs=tuple(runs))


def look(folder, scores):
    found = earlier_looks(folder, scores)
    record_look(folder, scores)
    return found


def test_each_analysis_with_more_finished_runs_is_a_further_look(tmp_path):
    assert [look(tmp_path, at(seeds)) for seeds in (2, 3, 5)] == [(), (2,), (2, 3)]


def test_the_same_runs_again_are_no_further_look(tmp_path):
    assert [look(tmp_path, at(seeds)) for seeds in (2, 2, 3, 3, 2)] == [(), (), (2,), (2,), ()]


def test_runs_begun_anew_were_not_looked_at(tmp_path):
    look(tmp_path, at(3))
    other = random_study({"grpo": 0.4, "ppo": 0.5}, num_seeds=5, first_seed=1)
    assert earlier_looks(tmp_path, other) == ()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"looks": 3}', '{"looks": [{"seeds": 2}]}', '{"looks": [7]}'])
def test_a_broken_list_of_looks_is_an_error_that_says_what_to_do(tmp_path, content):
    (tmp_path / LOOKS_FILE).write_text(content)
    for act in (earlier_looks, record_look):
        with pytest.raises(ConfigError, match=r"looks\.json does not hold the looks .* restore the file, or delete it"):
            act(tmp_path, FULL)
    assert (tmp_path / LOOKS_FILE).read_text() == content
