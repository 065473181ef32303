"""Cases that take seconds, and whose claim another fast case makes: `make test` leaves them to `make test-all`.

A pattern is that of a test's id, as in `fnmatch`. `conftest.py` marks what it fits as slow; `test_long_cases.py`
refuses one that fits nothing.
"""

from collections.abc import Mapping

STOPS = "one run of each kind of source is stopped in the fast suite, and the campaign of tests/faults stops many more"
LEARNS = "one recipe learns in the fast suite, beside its control with shuffled rewards"
FILES = "the files of other examples run in the fast suite, in the same way"

LONG: Mapping[str, str] = {
    "tests/workbench/test_examples.py::test_the_run_files_run[[]sql.toml]": FILES,
    "tests/workbench/test_examples.py::test_the_run_files_run[[]guessing.toml]": FILES,
    "tests/workbench/test_examples.py::test_the_run_files_run[[]number.toml]": FILES,
    "tests/workbench/test_examples.py::test_the_run_files_run[[]sums.toml]": FILES,
    "tests/workbench/test_examples.py::test_the_run_files_run[[]agent.toml]": "test_environments.py runs a program",
    "tests/workbench/test_examples.py::test_the_own_divergence_*": FILES,
    "tests/workbench/test_examples.py::test_the_run_from_python_*": "test_python_run.py runs from Python",
    "tests/training/test_conversation_runs.py::test_killed_*": STOPS,
    "tests/training/test_conversation_runs.py::test_stopped_*[[]turns-minibatches*": STOPS,
    "tests/training/test_conversation_runs.py::test_stopped_*[[]gae*": STOPS,
    "tests/training/test_conversation_runs.py::test_stopped_*[[]replayed*": STOPS,
    "tests/training/test_out_of_memory.py::test_a_run_goes_on_*": "single steps halve in the fast suite",
    "tests/training/test_resume.py::test_stopped_*[[]fixed-shuffled-tempered]": STOPS,
    "tests/training/test_resume.py::test_stopped_*[[]delayed-recomputed]": STOPS,
    "tests/training/test_resume.py::test_stopped_*[[]threshold-recomputed]": STOPS,
    "tests/training/test_resume.py::test_stopped_*[[]every-10-filtered]": STOPS,
    "tests/training/test_critic.py::test_a_run_with_a_critic_*": STOPS,
    "tests/training/test_learning.py::test_the_reward_rises_clearly[[]rpg-rkl]": LEARNS,
    "tests/training/test_learning.py::test_the_reward_rises_clearly[[]rpg-reinforce-urkl]": LEARNS,
    "tests/training/test_learning.py::test_the_reward_rises_clearly[[]dapo]": LEARNS,
    "tests/training/test_learning.py::test_schedule_free_learns_too*": LEARNS,
    "tests/training/test_cloning.py::test_cloning_learns_the_pairs[[]schedule-free]": LEARNS,
    "tests/workbench/commands/test_compare.py::test_a_study_goes_*": "test_running_studies.py runs studies",
    "tests/workbench/test_asking.py::*in_the_report[[]cloning.template*": "the case of a system message runs",
    "tests/workbench/test_guarded_runs.py::test_a_run_that_forgets_*": "test_guard.py rolls runs back",
    "tests/workbench/test_own_findings.py::test_a_run_ends_*": "rules of one's own are tested without a run",
    "tests/samplers/test_drawing.py::*same_responses[[]SamplingSettings(temperature=1.0*": "other settings are drawn",
    "tests/samplers/test_drawing.py::*same_responses[[]SamplingSettings(temperature=0,*": "other settings are drawn",
    "tests/ui/pages/test_page.py::test_a_run_of_a_thousand_steps_*": "shorter runs make pages in the fast suite",
    "tests/tasks/environments/test_isolation.py::test_no_environment_outlives_a_run_*True]": "the other case runs",
    "tests/tasks/environments/test_isolation.py::*conversation_goes_on[[]insist]": "calls that loop or sleep run",
    "tests/tasks/environments/test_environments.py::*anything_is_drawn[[]Stubborn*": "other refusals run",
    "tests/workbench/test_environments.py::test_a_resume_holds_*": "tests/training resumes conversations",
    "tests/training/test_conversation_runs.py::test_an_error_in_the_middle_*": "test_rescue.py rescues steps",
    "tests/training/test_rescue.py::test_every_kind_of_run_*[[]every-10-filtered*": STOPS,
    "tests/training/test_rescue.py::test_every_kind_of_run_*[[]threshold-recomputed*": STOPS,
    "tests/training/test_rescue.py::test_an_error_anywhere_*[[]replay]": STOPS,
    "tests/training/test_rescue.py::test_an_error_anywhere_*[[]evaluation]": STOPS,
    "tests/training/test_rescue.py::test_a_critic_half_trained_is_put_back[[]1]": STOPS,
    "tests/training/test_budget.py::test_evaluations_behind_the_checkpoint_*": STOPS,
    "tests/workbench/test_failing_runs.py::test_an_error_after_training_*[[]plot-true]": STOPS,
    "tests/faults/test_sample.py::test_each_kind_of_fault_*": "each promise has tests of its own beside what keeps it",
    "tests/training/test_out_of_memory.py::test_the_gradient_*portions0-False-*": "other errors and passes run",
    "tests/training/test_out_of_memory.py::test_the_gradient_*True-RuntimeError*": "other errors run",
    "tests/training/test_out_of_memory.py::test_sampling_that_*[[]transformers]": "klimb's own decoder runs",
    "tests/samplers/test_converse.py::test_when_answers_*auto-0.3]": "other times run",
    "tests/samplers/test_converse.py::test_when_answers_*auto-1e-09]": "other times run",
    "tests/samplers/test_converse.py::test_out_of_memory_goes_on_*[[]step]": "memory that ends while reading runs",
    "tests/workbench/study/test_own_parts_in_studies.py::test_arms_*": "runs of own parts, and studies, run",
    "tests/workbench/commands/test_compare.py::test_a_dry_run_of_a_begun_study_*": "a dry run of a new one runs",
    "tests/workbench/test_examples.py::test_the_run_files_run[[]calculator.toml]": FILES,
    "tests/training/guard/test_guard.py::*resumed_bit_for_bit[[]schedule-free-ema]": STOPS,
    "tests/training/test_full_disk.py::test_a_disk_*[[]schedule-free-ema]": "other sources run",
    "tests/workbench/learn/test_rounds.py::test_a_round_is_due_*": "rounds begin in the other cases",
    "tests/workbench/learn/test_rounds.py::test_after_a_crash_*[[]check_base_metrics]": "another stage crashes",
    "tests/workbench/test_left_out.py::test_a_long_question_*": "test_unusable.py leaves problems out",
}
