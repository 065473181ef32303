"""`klimb serve`: what it says, what it refuses, and that nothing it answered is lost."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn

from benchmarks.serving import load, missing, start
from klimb.experience import Store
from klimb.training.deployment import Deployment, ServedPolicy, read_deployment, write_deployment
from klimb.workbench import listening
from klimb.workbench.serving import read_target


def interrupted(self: object, sockets: object) -> None:
    raise KeyboardInterrupt


def test_it_says_where_it_is_what_it_records_and_who_is_answered(workplace, monkeypatch, tiny_model_path: Path) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", interrupted)
    outcome = workplace.klimb("serve", str(tiny_model_path), "--store", "answers", "--port", "0")
    assert outcome.status == 0, outcome.err
    assert "http://127.0.0.1:" in outcome.out and "/v1" in outcome.out
    assert "recorded in answers" in outcome.out and "no text is logged" in outcome.out
    assert "this machine alone" in outcome.out


def test_what_cannot_be_served_is_refused_before_a_model_is_loaded(workplace, monkeypatch) -> None:
    def load_policy(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("klimb.workbench.serving.load_policy", load_policy)
    assert "one of them" in workplace.klimb("serve", "--store", "s").err
    assert "one of them" in workplace.klimb("serve", "m", "--upstream", "http://x/v1", "--store", "s").err
    open_to_all = workplace.klimb("serve", "smollm2-135m", "--store", "s", "--host", "0.0.0.0", "--port", "0")
    assert open_to_all.status == 2 and "klimb keys new" in open_to_all.err
    assert "--temperature" in workplace.klimb("serve", "m", "--store", "s", "--temperature", "0").err
    assert workplace.klimb("serve", "no-such-model", "--store", "s", "--port", "0").status == 2


def test_a_missing_package_is_named_with_the_command_that_installs_it(workplace, monkeypatch) -> None:
    def missing_package(name: str) -> None:
        raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")

    monkeypatch.setattr(listening, "import_module", missing_package)
    outcome = workplace.klimb("serve", "smollm2-135m", "--store", "s")
    assert outcome.status == 2 and "pip install 'klimb[serve]'" in outcome.err


def test_a_folder_with_a_deployment_is_one_and_is_watched(tmp_path: Path, tiny_model_path: Path) -> None:
    write_deployment(tmp_path, Deployment(current=ServedPolicy(name="policy-0002", model="policy-0002")))
    deployment, folder = read_target(str(tmp_path))
    assert deployment.current.name == "policy-0002" and folder == tmp_path
    alone, nowhere = read_target(str(tiny_model_path))
    assert alone.current.name == tiny_model_path.name and nowhere is None


def test_a_deployment_is_begun_with_the_policy_and_later_served_with_or_without_it(
    workplace, monkeypatch, tiny_model_path: Path
) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", interrupted)
    serve = ("serve", "--store", "answers", "--port", "0", "--deployment", "served")
    nothing = workplace.klimb(*serve)
    assert nothing.status == 2 and "klimb serve MODEL --deployment served" in nothing.err
    assert not Path("served/deployment.json").exists()
    begun = workplace.klimb(*serve, str(tiny_model_path))
    assert begun.status == 0, begun.err
    assert "served/deployment.json" in begun.out
    first = read_deployment(Path("served")).current
    assert (first.name, first.model) == ("policy-0001", str(tiny_model_path))
    write_deployment(Path("served"), read_deployment(Path("served")).promote(replace(first, name="policy-0002")))
    for arguments in (serve, (*serve, str(tiny_model_path))):
        again = workplace.klimb(*arguments)
        assert again.status == 0 and "policy-0002" in again.out, again.err
    other = workplace.klimb(*serve, "smollm2-135m")
    assert other.status == 2 and "leave the policy out" in other.err
    assert "one of them" in workplace.klimb(*serve, "--upstream", "http://x/v1").err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_every_answer_that_came_whole_is_in_the_store_however_the_server_ended(
    tmp_path: Path, tiny_model_path: Path, number: signal.Signals
) -> None:
    process, address = start(str(tiny_model_path), tmp_path / "store")

    async def ask_and_end():
        loading = asyncio.create_task(load(address, clients=8, seconds=60, max_tokens=8))
        while not list((tmp_path / "store").glob("samples-*.parquet")):
            await asyncio.sleep(0.1)
        await asyncio.sleep(4)
        os.kill(process.pid, number)
        return await loading

    tally, _ = asyncio.run(ask_and_end())
    process.wait(timeout=60)
    assert len(tally.ids) > 8 and missing(tmp_path / "store", tally.ids) == []
    samples = list(Store(tmp_path / "store").samples())
    assert len({sample.sample_id for sample in samples}) == len(samples)
    assert all(len(sample.log_mu or ()) == len(sample.response_ids) > 0 for sample in samples)
