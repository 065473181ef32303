"""Which policy answers: the deployment's, with a candidate's share, and a switch that no request notices."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.web.serve.fakes import FakeService

from klimb.training.deployment import FILE, Deployment, ServedPolicy, read_deployment, write_deployment
from klimb.web.serve.openai_errors import RequestRefused
from klimb.web.serve.policies import LoadedPolicy, Policies, share_of


def served(number: int) -> ServedPolicy:
    return ServedPolicy(name=f"policy-{number:04}", model=f"model-{number}", policy_version=number)


class Loader:
    """Loads fakes, and remembers them; names in `broken` cannot be loaded."""

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.services: dict[str, FakeService] = {}

    def __call__(self, policy: ServedPolicy) -> LoadedPolicy:
        if policy.name in self.broken:
            raise MemoryError(f"no room for {policy.name}")
        self.services[policy.name] = FakeService(lambda request: (2,), end_id=2)
        return LoadedPolicy(served=policy, policy=None, engine=self.services[policy.name])  # pyright: ignore


@pytest.fixture
def start(tmp_path: Path):
    made: list[Policies] = []

    def begin(deployment: Deployment, loader: Loader) -> Policies:
        write_deployment(tmp_path, deployment)
        made.append(Policies(loader, read_deployment(tmp_path), folder=tmp_path, watch_seconds=3600))
        return made[-1]

    yield begin
    for each in made:
        each.close()


def until(condition) -> bool:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_a_request_in_flight_ends_on_the_policy_it_began_with(start, tmp_path) -> None:
    loader = Loader()
    policies = start(Deployment(current=served(1)), loader)
    with policies.lease("a") as before:
        write_deployment(tmp_path, Deployment(current=served(1)).promote(served(2)))
        policies.look()
        with policies.lease("a") as after:
            assert (before.served.name, after.served.name) == ("policy-0001", "policy-0002")
        assert not loader.services["policy-0001"].is_closed
    assert until(lambda: loader.services["policy-0001"].is_closed)
    assert not loader.services["policy-0002"].is_closed


def test_the_file_is_watched(tmp_path) -> None:
    write_deployment(tmp_path, Deployment(current=served(1)))
    policies = Policies(Loader(), read_deployment(tmp_path), folder=tmp_path, watch_seconds=0.02)
    write_deployment(tmp_path, Deployment(current=served(1)).promote(served(2)))
    assert until(lambda: policies.deployment.current.name == "policy-0002")
    write_deployment(tmp_path, policies.deployment.roll_back())
    assert until(lambda: policies.deployment.current.name == "policy-0001")
    policies.close()


def test_a_candidate_gets_its_share_and_a_conversation_stays_with_one_policy(start) -> None:
    policies = start(Deployment(current=served(1)).try_out(served(2), 0.25), Loader())
    names: list[str] = []
    for number in range(2000):
        with policies.lease(f"conv-{number}") as loaded, policies.lease(f"conv-{number}") as again:
            assert loaded is again
            names.append(loaded.served.name)
    # 2000 draws of 1/4: the standard deviation is 0.0097.
    assert names.count("policy-0002") / 2000 == pytest.approx(0.25, abs=0.04)


def test_shares_of_two_candidates_are_of_other_conversations() -> None:
    both = [share_of(f"c{n}", "a") < 0.5 and share_of(f"c{n}", "b") < 0.5 for n in range(1000)]
    assert sum(both) / 1000 == pytest.approx(0.25, abs=0.06)


def test_a_policy_can_be_asked_for_by_name(start) -> None:
    policies = start(Deployment(current=served(1)).try_out(served(2), 0.01), Loader())
    with policies.lease("x", "policy-0002") as loaded:
        assert loaded.served.name == "policy-0002"
    with pytest.raises(RequestRefused, match="policy-0003"), policies.lease("x", "policy-0003"):
        pass


def test_a_policy_that_does_not_load_leaves_the_old_one_answering(start, tmp_path) -> None:
    loader = Loader("policy-0002")
    policies = start(Deployment(current=served(1)), loader)
    write_deployment(tmp_path, Deployment(current=served(1)).promote(served(2)))
    policies.look()
    with policies.lease("a") as loaded:
        assert loaded.served.name == "policy-0001"
    assert "policy-0002 cannot be loaded" in policies.error and "no room" not in policies.error
    write_deployment(tmp_path, Deployment(current=served(3)))
    policies.look()
    assert policies.error == "" and policies.deployment.current.name == "policy-0003"


def test_a_name_that_has_another_model_now_is_loaded_anew(start, tmp_path) -> None:
    policies = start(Deployment(current=served(1)), Loader())
    write_deployment(tmp_path, Deployment(current=replace(served(1), model="model-of-somebody")))
    policies.look()
    assert [each.served.model for each in policies.loaded] == ["model-of-somebody"]


def test_a_candidate_that_does_not_load_gets_no_share(start, tmp_path) -> None:
    policies = start(Deployment(current=served(1)).try_out(served(2), 0.9), Loader("policy-0002"))
    assert "the candidate policy-0002" in policies.error
    for number in range(20):
        with policies.lease(f"c{number}") as loaded:
            assert loaded.served.name == "policy-0001"


def test_a_damaged_file_changes_nothing_and_is_told(start, tmp_path) -> None:
    policies = start(Deployment(current=served(1)), Loader())
    (tmp_path / FILE).write_text("{")
    policies.look()
    assert "deployment.json cannot be used" in policies.error and str(tmp_path) not in policies.error
    with policies.lease("a") as loaded:
        assert loaded.served.name == "policy-0001"


def test_switching_under_load_never_gives_a_closed_engine(start, tmp_path) -> None:
    loader = Loader()
    policies = start(Deployment(current=served(1)), loader)
    stop, wrong = threading.Event(), []

    def client(number: int) -> None:
        while not stop.is_set():
            with policies.lease(f"c{number}") as loaded:
                time.sleep(0.001)
                if loaded.engine.is_closed:  # pyright: ignore
                    wrong.append(loaded.served.name)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2, 8):
        write_deployment(tmp_path, Deployment(current=served(number)))
        policies.look()
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
