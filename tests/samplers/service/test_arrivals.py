"""Requests that come and go at any time: whoever stays to the end gets what one request alone gets."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.samplers.service.listening import Alone, request
from tests.samplers.service.test_engine import assert_same

from klimb.policies import load_policy
from klimb.samplers import LocalSampler
from klimb.samplers.mixed_drawing import MixedDrawing
from klimb.samplers.service import DrawRequest, ServiceLimits
from klimb.samplers.service.jobs import Job
from klimb.samplers.service.request_lanes import RequestLanes


@pytest.fixture(scope="module")
def policy(tiny_model_path):
    policy = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
    return dataclasses.replace(policy, end_ids=tuple(range(2, 98, 8)))


@pytest.fixture(scope="module")
def alone(policy):
    known = {}
    ask = Alone(policy)

    def answer(asked: DrawRequest):
        key = (asked.prompt_ids, asked.settings, asked.seed)
        if key not in known:
            known[key] = ask(asked)
        return known[key]

    return answer


BEGINNING = tuple(range(20, 50))
# Many of them begin alike, for any number of tokens. Made into requests in the test: who checks types picks the element
# that is looked at by Python's random numbers, which a strategy must not touch.
requests = st.fixed_dictionaries(
    {
        "prompt": st.tuples(st.integers(0, 30), st.lists(st.sampled_from([3, 4]), min_size=1, max_size=3)).map(
            lambda parts: (*BEGINNING[: parts[0]], *parts[1])
        ),
        "seed": st.integers(0, 3),
        "max_new_tokens": st.sampled_from([1, 4, 9]),
        "top_p": st.sampled_from([1.0, 0.7]),
    }
)
# What happens before each pass: somebody comes, somebody leaves, the memory is full, or nothing.
events = st.lists(
    st.one_of(requests, st.integers(0, 5), st.just("out of memory"), st.just("nothing")), min_size=1, max_size=25
)
limits = st.builds(
    ServiceLimits,
    max_chunk_tokens=st.sampled_from([1, 7, 64]),
    max_idle_chunk_tokens=st.sampled_from([3, 512]),
    max_parked_bytes=st.sampled_from([0, 20_000, 2**30]),
    max_lane_bytes=st.sampled_from([0, 2**30]),
    short_text=st.sampled_from([1, 6, 256]),
)


class Arrivals:
    """Lanes that are driven by hand, one pass at a time."""

    def __init__(self, policy, alone, own: ServiceLimits) -> None:
        drawing = MixedDrawing(num_slots=4, policy_temperature=1.0, end_ids=policy.end_ids, decode=policy.decode)
        self.lanes = RequestLanes(LocalSampler(policy).own_decoder(64), drawing, max_batch=4, limits=own)
        self.alone = alone
        self.waiting: list[Job] = []
        self.running: list[Job] = []

    def happens(self, event: object) -> None:
        if isinstance(event, dict):
            self.waiting.append(Job(request(**event), lambda _: None, lambda _: None))
        elif isinstance(event, int) and event < len(self.running):
            self.lanes.remove([self.running.pop(event)])
        elif event == "out of memory":
            self.lanes.clear()
            self.waiting, self.running = [*self.running, *self.waiting], []

    def goes_on(self) -> None:
        chosen = self.lanes.choose(self.waiting)
        assert chosen == self.waiting[: len(chosen)] and len(chosen) + len(self.running) <= 4
        assert chosen or self.running or not self.waiting
        self.waiting = self.waiting[len(chosen) :]
        self.running += chosen
        self.lanes.enter(chosen)
        for step in self.lanes.advance():
            assert step.job in self.running and step.token is not None
            if step.end is not None:
                self.running.remove(step.job)
                assert not isinstance(step.end, Exception)
                assert_same(step.job.completion(step.end), self.alone(step.job.request))
        self.lanes.tidy()


@settings(max_examples=15, deadline=None)
@given(happening=events, own=limits)
def test_whoever_stays_gets_what_one_alone_gets(policy, alone, happening, own):
    arrivals = Arrivals(policy, alone, own)
    for event in happening:
        arrivals.happens(event)
        arrivals.goes_on()
    for _ in range(2000):
        if not (arrivals.waiting or arrivals.running):
            break
        arrivals.goes_on()
    assert not arrivals.waiting and not arrivals.running
