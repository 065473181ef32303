import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest

from klimb.tasks import (
    Problem,
    ProblemSet,
    Response,
    Score,
    Scorer,
    ScorerSettings,
    ScoringError,
    arithmetic,
    with_reward,
)

REWARD = '''
import ctypes, os, re, sys, time

def reward(prompt, response, answer, metadata):
    """The response is the name of a disaster, or a number."""
    print("noise"); print("noise", file=sys.stderr); os.write(1, b"noise")
    if response == "loop":
        while True:
            pass
    if response == "sleep":
        time.sleep(60)
    if response == "big integer":
        return 10 ** 10 ** 8 % 7
    if response == "regex":
        return float(bool(re.match("(a+)+$", "a" * 40 + "b")))
    if response == "fork and loop":
        if (child := os.fork()):
            with open("pid", "w") as file:
                file.write(str(child))
        while True:
            pass
    if response == "exit":
        os._exit(1)
    if response == "segfault":
        ctypes.string_at(0)
    if response == "close":
        os.closerange(0, 100)
    if response == "exit once":
        if not os.path.exists("was here"):
            open("was here", "w").close()
            os._exit(1)
        return 0.25
    if response == "raise":
        raise RuntimeError("a reason\\nand more of it")
    if response == "quit":
        sys.exit("enough")
    if response == "memory":
        return len("a" * 10**11)
    if response == "read":
        return float(input())
    if response == "nan":
        return float("nan")
    if response == "pid":
        with open("pid", "w") as file:
            file.write(str(os.getpid()))
        while True:
            pass
    return float(response)
'''


def reply(text):
    return Response(text=text, num_tokens=1, finish_reason="stop")


@pytest.fixture
def task(tmp_path, monkeypatch):
    (tmp_path / "disaster_reward.py").write_text(REWARD)
    monkeypatch.chdir(tmp_path)
    return with_reward(arithmetic(), "python:disaster_reward.reward")


def score_texts(scorer, texts):
    problem = scorer.task.train[0]
    return scorer.score_many([problem] * len(texts), [reply(text) for text in texts])


@pytest.mark.parametrize("hang", ["loop", "sleep", "big integer", "regex", "fork and loop"])
def test_a_hang_costs_one_response_even_in_c_code(task, hang):
    with Scorer(task, ScorerSettings(timeout_seconds=1)) as scorer:
        before, hung, after = score_texts(scorer, ["0.5", hang, "0.75"])
    assert (before.reward, hung.reward, after.reward) == (0.5, None, 0.75)
    assert hung.reason == "timed out after 1 s"
    assert (scorer.num_scored, scorer.num_errors, scorer.num_timeouts) == (3, 1, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_children_of_a_hung_worker_end_with_it(task, tmp_path):
    with Scorer(task, ScorerSettings(timeout_seconds=1)) as scorer:
        score_texts(scorer, ["fork and loop"])
        wait_until(lambda: not is_running(int((tmp_path / "pid").read_text())))


@pytest.mark.parametrize(
    ("death", "how"), [("exit", "exit code 1"), ("segfault", "signal SIGSEGV"), ("close", "signal SIGKILL")]
)
def test_a_response_that_ends_its_process_twice_is_given_up(task, death, how):
    with Scorer(task) as scorer:
        before, dead, after = score_texts(scorer, ["0.5", death, "0.75"])
    assert (before.reward, dead.reward, after.reward) == (0.5, None, 0.75)
    assert dead.reason == f"scoring ended its process 2 times ({how})"
    assert (scorer.num_errors, scorer.num_timeouts) == (1, 0)


def test_a_response_whose_process_died_by_accident_is_tried_again(task):
    with Scorer(task) as scorer:
        (score,) = score_texts(scorer, ["exit once"])
    assert (score.reward, scorer.num_errors) == (0.25, 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise", "RuntimeError: a reason"),
        ("quit", "SystemExit: enough"),
        ("memory", "MemoryError"),
        ("read", "EOFError: EOF when reading a line"),
        (
            "nan",
            "python:disaster_reward.reward returned float nan, expected a finite number, a bool or a dict of parts",
        ),
    ],
)
def test_a_failing_reward_is_an_error_with_a_reason_and_not_a_zero(task, text, reason):
    with Scorer(task) as scorer:
        failed, after = score_texts(scorer, [text, "1"])
    assert (failed.reward, failed.reason, after.reward) == (None, reason, 1.0)


def test_the_first_traceback_is_kept(task):
    with Scorer(task) as scorer:
        score_texts(scorer, ["1", "raise", "quit"])
    assert 'raise RuntimeError("a reason' in scorer.first_traceback
    assert "RuntimeError: a reason\nand more of it" in scorer.first_traceback


def test_what_a_reward_prints_reaches_nobody(task, capfd):
    with Scorer(task) as scorer:
        score_texts(scorer, ["1", "2"])
    assert capfd.readouterr() == ("", "")


def test_scores_keep_the_order_of_the_responses_with_several_workers(task):
    texts = [str(n / 10) for n in range(30)]
    texts[4] = "loop"
    with Scorer(task, ScorerSettings(num_workers=3, timeout_seconds=1)) as scorer:
        scores = score_texts(scorer, texts)
    assert [score.reward for score in scores] == [None if n == 4 else n / 10 for n in range(30)]


def test_a_large_response_passes(task):
    with Scorer(task) as scorer:
        (score,) = score_texts(scorer, [" " * 5_000_000 + "0.5"])
    assert score.reward == 0.5


def test_a_worker_killed_while_idle_is_replaced(task):
    with Scorer(task) as scorer:
        score_texts(scorer, ["1"])
        os.kill(scorer._workers[0]._process.pid, signal.SIGKILL)
        assert score_texts(scorer, ["0.5"])[0].reward == 0.5
    assert scorer.num_errors == 0


def test_too_many_errors_stop_the_run_with_the_first_traceback(task):
    with Scorer(task) as scorer, pytest.raises(ScoringError) as error:
        score_texts(scorer, ["raise"] * 20)
    assert "16 of 16 responses" in str(error.value)
    assert "the last reason: RuntimeError: a reason" in str(error.value)
    assert 'raise RuntimeError("a reason' in str(error.value)


def test_errors_up_to_the_allowed_fraction_do_not_stop_the_run(task):
    with Scorer(task, ScorerSettings(max_error_fraction=1)) as scorer:
        scores = score_texts(scorer, ["raise"] * 20)
        assert {score.reward for score in scores} == {None}
    with Scorer(task, ScorerSettings(max_error_fraction=0.5)) as scorer:
        assert len(score_texts(scorer, ["1", "raise"] * 10)) == 20


def test_workers_end_with_the_scorer(task):
    with Scorer(task, ScorerSettings(num_workers=2)) as scorer:
        processes = [worker._process for worker in scorer._workers]
    assert all(process.returncode is not None for process in processes)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_a_hanging_worker_does_not_outlive_a_killed_training_process(task, tmp_path):
    program = (
        "from klimb.tasks import *\n"
        "task = with_reward(arithmetic(), 'python:disaster_reward.reward')\n"
        "with Scorer(task, ScorerSettings(timeout_seconds=60)) as scorer:\n"
        "    scorer.score_many(task.train[:1], [Response(text='pid', num_tokens=1, finish_reason='stop')])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    pid_file = tmp_path / "pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text())
    worker_pid = int(pid_file.read_text())
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_running(worker_pid))


def wait_until(is_true):
    deadline = time.monotonic() + 120
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_script_without_a_main_guard_is_not_run_again_by_its_workers(task, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from klimb.tasks import *\n"
        "print('once')\n"
        "task = with_reward(arithmetic(), 'python:disaster_reward.reward')\n"
        "with Scorer(task) as scorer:\n"
        "    response = Response(text='0.5', num_tokens=1, finish_reason='stop')\n"
        "    print(scorer.score_many(task.train[:1], [response])[0].reward)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("once\n0.5\n", "")


def test_a_trusted_task_needs_no_process():
    task = arithmetic()
    with Scorer(task) as scorer:
        scores = scorer.score_many(task.train[:2], [reply(task.train[0].answer), reply("-1")])
        assert scorer._workers == []
    assert [score.reward for score in scores] == [1.0, 0.0]
    assert (scorer.num_scored, scorer.num_errors) == (2, 0)


def returns_a_number(problem, response):
    return 1.0


def test_a_score_function_that_returns_no_score_is_an_error():
    problem = Problem(problem_id="p", messages=({"role": "user", "content": "q"},), answer="")
    task = ProblemSet(name="own", train=(problem,), held_out=(), score=returns_a_number)
    with Scorer(task) as scorer:
        (score,) = score_texts(scorer, ["x"])
    assert score == Score(reward=None, reason="TypeError: the task's score function returned float 1.0")


def test_a_score_function_that_cannot_be_sent_is_refused_on_entering():
    task = dataclasses.replace(
        arithmetic(), name="own", trusted=False, score=lambda problem, response: Score(reward=1.0)
    )
    with pytest.raises(ScoringError, match="task 'own' cannot be sent to another process"), Scorer(task):
        pass


def test_a_scorer_that_was_not_entered_says_so(task):
    with pytest.raises(ValueError, match="use it as `with Scorer"):
        score_texts(Scorer(task), ["1"])


def test_a_response_without_its_problem_is_refused(task):
    with Scorer(task) as scorer, pytest.raises(ValueError, match="1 problems for 2 responses"):
        scorer.score_many(task.train[:1], [reply("1"), reply("2")])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("timeout_seconds", 0),
        ("timeout_seconds", float("nan")),
        ("num_workers", 0),
        ("max_error_fraction", 1.5),
        ("memory_limit_gigabytes", 0),
    ],
)
def test_a_bad_setting_is_named(setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be .*got {value}"):
        ScorerSettings(**{setting: value})
