"""What an environment may do without harm: hang, die, leave things behind. It costs a call, or its own sample."""

import os
import signal
import subprocess
import sys
import time

import pytest

from klimb.tasks.environments import Environments, EnvironmentSettings
from tests.tasks.environments.scenes import (
    LineFormat,
    contents,
    environments,
    is_running,
    opened,
    problem,
    tell,
    wait_until,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and the kernel's help are Linux's")


@pytest.mark.parametrize("hang", ["sleep", "loop", "insist"])
def test_a_call_that_hangs_is_interrupted_and_the_conversation_goes_on(hang):
    with opened("Trap", "", call_seconds=1) as (episode,):
        assert contents(tell(episode, "CALL tick")) == ["1"]
        reply = tell(episode, f"CALL {hang}\nCALL tick")
        assert contents(reply) == ["{'error': 'took longer than 1 s'}", "2"]
        assert 1 <= reply.seconds[0] < 4 and not reply.is_over
        outcome = episode.finish()
    assert (outcome.error, outcome.num_slow_calls, outcome.num_failed_calls) == ("", 1, 1)


def test_an_environment_that_cannot_be_interrupted_is_lost(monkeypatch):
    monkeypatch.setattr("klimb.tasks.environments.processes.GRACE_SECONDS", 1.0)
    with opened("Trap", "", "", call_seconds=1) as (episode, other):
        reply = tell(episode, "CALL block")
        assert (reply.messages, reply.is_over) == ((), True)
        outcome = episode.finish()
        assert contents(tell(other, "CALL tick")) == ["1"]
    assert (outcome.reward, outcome.view) == (None, None)
    assert outcome.error == "took longer than 1 s and could not be interrupted (signal SIGKILL)"


@pytest.mark.parametrize(("death", "how"), [("exit", "exit code 3"), ("crash", "signal SIGSEGV")])
def test_an_environment_that_dies_costs_its_sample_alone(death, how):
    with environments("Trap") as running:
        episode, other = running.open([problem("")] * 2, [0, 1])
        reply = tell(episode, f"CALL {death}")
        assert (reply.messages, reply.is_over) == ((), True)
        assert tell(episode, "CALL tick").is_over
        outcome = episode.finish()
        assert (outcome.reward, outcome.error) == (None, f"ended its process ({how})")
        assert contents(tell(other, "CALL tick")) == ["1"]
        episode.close()
        (new,) = running.open([problem("")], [2])
        assert (new.error, contents(tell(new, "CALL tick"))) == ("", ["1"])


@pytest.mark.parametrize(
    ("call", "content"),
    [
        ("quit", "{'error': 'enough'}"),
        ("eat", "{'error': 'MemoryError'}"),
        ("talk", "{'error': 'ValueError: the result has 2,000,000 characters, more than 1,000,000'}"),
        ("surrogate", "a?b"),
        ("blocks", "one two"),
        ("mumble", "{'error': 'RuntimeError'}"),
        ("scream", str({"error": "a" * 10_000})),
    ],
)
def test_strange_results_are_answers(call, content):
    with opened("Trap", "") as (episode,):
        assert contents(tell(episode, f"CALL {call}")) == [content]
        assert contents(tell(episode, "CALL tick")) == ["1"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("raise", "RuntimeError: no game today"),
        ("exit", "ended its process (exit code 3)"),
        ("sleep", "took longer than 1 s"),
        ("number", "TypeError: reset returned int, expected a text or None"),
    ],
)
def test_a_conversation_that_cannot_be_opened_is_lost_and_the_others_are_not(answer, error):
    with opened("Trap", answer, "", call_seconds=1) as (lost, other):
        assert lost.error == error
        assert tell(lost, "CALL tick").is_over
        assert lost.finish().error == error
        assert contents(tell(other, "CALL tick")) == ["1"]


def test_a_process_is_used_again_after_a_clean_close_and_not_after_a_hang():
    with environments("Trap", call_seconds=0.5) as running:

        def play(call):
            (episode,) = running.open([problem("")], [0])
            tell(episode, f"CALL {call}")
            episode.finish()
            episode.close()
            wait_until(lambda: not episode.host.numbers)
            return int(episode.opening)

        first, second, third = play("tick"), play("sleep"), play("tick")
        assert first == second != third
        assert not is_running(first)


def test_more_environments_than_processes_share_them_and_die_together():
    with environments("Trap", max_processes=2) as running:
        episodes = running.open([problem("")] * 4, range(4))
        pids = [episode.opening for episode in episodes]
        assert len(set(pids)) == 2
        tell(episodes[0], "CALL tick")
        mate = next(number for number in (1, 2, 3) if pids[number] == pids[0])
        assert contents(tell(episodes[mate], "CALL tick")) == ["1"]
        tell(episodes[0], "CALL exit")
        errors = [outcome.error for outcome in running.finish(episodes)]
    lost = "ended its process (exit code 3), and with it the 1 others that shared it"
    assert errors == [lost if number in (0, mate) else "" for number in range(4)]


def test_conversations_go_on_at_the_same_time():
    with opened("Waiting", *[""] * 4) as episodes:
        begin = time.monotonic()
        futures = [episode.respond('CALL wait {"name": "x", "seconds": 0.5}') for episode in episodes]
        assert [contents(future.result()) for future in futures] == [["x"]] * 4
        assert time.monotonic() - begin < 1.5


def test_the_time_of_a_sample_ends_its_conversation_and_is_counted():
    with opened("Trap", "", call_seconds=10, sample_seconds=1) as (episode,):
        reply = tell(episode, "CALL sleep\nCALL tick")
        over = "{'error': 'the conversation took longer than its 1 s'}"
        assert contents(reply) == [over, over]
        assert reply.is_over and reply.seconds[0] < 2
        outcome = episode.finish()
    assert outcome.is_out_of_time and outcome.error == ""
    assert (outcome.num_calls, outcome.num_slow_calls) == (2, 1)


def test_what_the_environment_opened_is_closed_with_each_conversation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(os.getcwd())
    (tmp_path / "closed").touch()
    with environments("Talker") as running:
        closed_at_start = (tmp_path / "closed").read_text()
        (episode,) = running.open([problem()], [0])
        episode.close()
        episode.close()
        wait_until(lambda: (tmp_path / "closed").read_text() == closed_at_start + "closed\n")


@linux
@pytest.mark.parametrize("start", ["spawn", "lead", "detach"])
def test_no_process_is_left_not_even_one_that_a_tool_started(start):
    with opened("Trap", "", "") as (episode, other):
        child = int(contents(tell(episode, f"CALL {start}"))[0])
        pids = [int(episode.opening), int(other.opening), child]
        assert all(map(is_running, pids))
        episode.close()
    assert not any(map(is_running, pids))


@linux
def test_what_a_tool_started_ends_with_its_environment_and_not_with_another():
    with opened("Trap", "", "") as (episode, other):
        mine, others = (int(contents(tell(each, "CALL spawn"))[0]) for each in (episode, other))
        tell(episode, "CALL exit")
        assert not is_running(mine)
        assert is_running(others)


@linux
def test_no_process_is_left_after_an_exception_in_the_middle_of_a_call():
    pids = []
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), environments("Trap", call_seconds=60) as running:
        episodes = running.open([problem("")] * 2, [0, 1])
        pids = [int(episode.opening) for episode in episodes]
        future = episodes[0].respond("CALL sleep")
        raise KeyboardInterrupt
    assert not any(map(is_running, pids))
    assert time.monotonic() - begin < 20
    assert future.result(timeout=10).is_over


@linux
def test_what_forks_is_started_again_when_something_ended_it():
    with environments("Guess") as running:
        os.kill(running._server._pid, signal.SIGKILL)
        (episode,) = running.open([problem()], [0])
        first = episode.error
        (again,) = running.open([problem("7")], [0])
        assert "" in (first, again.error)
        assert contents(tell(again, 'CALL guess {"number": 7}')) == ["right"]


@linux
@pytest.mark.parametrize("is_importable", [True, False])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_environment_outlives_a_run_that_is_ended(is_importable, number):
    factory = "Trap" if is_importable else "lambda: Trap()"
    program = (
        "import signal, sys\n"
        # Whoever starts the tests may ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tests.tasks.environments.games import Trap\n"
        "from tests.tasks.environments.scenes import *\n"
        f"with Environments(EnvironmentSettings(), call_format=LineFormat(), factory={factory}) as running:\n"
        "    (episode,) = running.open([problem('')], [0])\n"
        "    print(episode.opening, contents(tell(episode, 'CALL spawn'))[0], flush=True)\n"
        "    episode.respond('CALL loop').result()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    pids = [int(word) for word in run.stdout.readline().split()]
    assert len(pids) == 2 and all(map(is_running, pids))
    run.send_signal(number)
    assert run.wait(timeout=60) == -number
    run.stdout.close()
    wait_until(lambda: not any(map(is_running, pids)))


def test_no_torch_where_environments_live(tmp_path, monkeypatch):
    (tmp_path / "looking.py").write_text(
        "import sys\n"
        "class Looking:\n"
        "    def reset(self):\n"
        "        return str(sorted({'torch', 'transformers', 'pyarrow', 'pydantic', 'asyncio'} & set(sys.modules)))\n"
    )
    monkeypatch.chdir(tmp_path)
    settings = EnvironmentSettings(factory="python:looking.Looking")
    with Environments(settings, call_format=LineFormat()) as running:
        assert running.open([problem()], [0])[0].opening == "['asyncio']"


def test_what_an_environment_prints_reaches_nobody(capfd):
    with opened("Guess", "7") as (episode,):
        tell(episode, 'CALL guess {"number": 7}')
    assert capfd.readouterr() == ("", "")
