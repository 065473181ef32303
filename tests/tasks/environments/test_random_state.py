import random
import sys

import numpy as np

from klimb.tasks.environments.random_state import RandomState


def test_numbers_go_on_where_they_stopped_and_the_processs_own_stay_where_they_were():
    expected, numpys = random.Random(7), np.random.RandomState(7)
    first, second = RandomState(7), RandomState(7)
    python_before, numpy_before = random.getstate(), np.random.get_state()
    drawn = []
    for state in (first, second, first, second):
        with state.in_use():
            drawn.append((random.random(), np.random.rand()))
    assert random.getstate() == python_before
    assert all(np.all(now == then) for now, then in zip(np.random.get_state(), numpy_before, strict=True))
    pairs = [(expected.random(), numpys.rand()) for _ in range(2)]
    assert drawn == [pairs[0], pairs[0], pairs[1], pairs[1]]


def test_numpy_is_seeded_once_it_is_there(monkeypatch):
    state, there = RandomState(2**40 + 3), sys.modules["numpy.random"]
    with monkeypatch.context() as without:
        without.delitem(sys.modules, "numpy.random")
        with state.in_use():
            without.setitem(sys.modules, "numpy.random", there)
    with state.in_use():
        assert np.random.rand() == np.random.RandomState(3).rand()


def test_an_exception_gives_the_numbers_back():
    before = random.getstate()
    try:
        with RandomState(1).in_use():
            raise KeyError
    except KeyError:
        pass
    assert random.getstate() == before
