"""What reward functions see of an environment: a copy, or those attributes that can be copied."""

import pickle
import threading

import pytest

from klimb.tasks.environments import view
from klimb.tasks.environments.view import EnvironmentView, read_view, view_of
from tests.tasks.environments.games import Guess


def seen(environment):
    """Return it as it arrives where rewards are computed."""
    return pickle.loads(pickle.dumps(read_view(view_of(environment).as_json()))).unseal()


class Holding:
    __slots__ = ("__dict__", "slotted")

    def __init__(self):
        self.lock = threading.Lock()
        self.count = 3
        self.slotted = "here"

    def method(self):
        return "no"


class Unreadable:
    def __setstate__(self, state):
        raise RuntimeError("not here")

    def __init__(self):
        self.count = 3


def test_a_copy_is_the_environment_itself_where_it_can_be_sent():
    game = Guess()
    game.reset(answer="7", color="red")
    copy = seen(game)
    assert isinstance(copy, Guess) and vars(copy) == vars(game) and copy is not game
    assert copy.guess(7) == "right" and game.reward == 0.0


def test_of_what_cannot_be_sent_whole_the_attributes_are_seen_and_the_others_named():
    environment = seen(Holding())
    assert (environment.count, environment.slotted) == (3, "here")
    with pytest.raises(AttributeError, match=r"'lock' of the environment Holding .*cannot pickle '_thread"):
        _ = environment.lock
    with pytest.raises(AttributeError, match=r"'method' is none: there are count, slotted"):
        _ = environment.method
    assert getattr(environment, "absent", 7) == 7
    assert repr(environment) == "<what could be sent of Holding: count, slotted>"
    assert pickle.loads(pickle.dumps(environment)).count == 3


def test_what_cannot_be_read_again_says_why():
    environment = seen(Unreadable())
    with pytest.raises(AttributeError, match=r"cannot be sent whole \(RuntimeError: not here\)"):
        _ = environment.count


def test_what_only_its_own_process_can_find_is_sent_in_parts_too(monkeypatch):
    monkeypatch.setattr(view, "MAIN", b"test_view")
    written = view_of(Plain())
    assert written.whole is not None and set(written.parts) == {"count"}
    assert written.unseal().count == 3
    elsewhere = EnvironmentView(kind="Plain", whole=b"c__main__\nAbsent\n.", parts=written.parts)
    assert elsewhere.unseal().count == 3


class Plain:
    def __init__(self):
        self.count = 3


def test_a_copy_has_a_largest_size(monkeypatch):
    monkeypatch.setattr(view, "LARGEST_COPY", 1000)
    game = Plain()
    game.board = "x" * 2000
    environment = seen(game)
    assert environment.count == 3
    with pytest.raises(AttributeError, match=r"'board' .*more than 1,000"):
        _ = environment.board
