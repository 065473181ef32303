import socket

import pytest
import uvicorn

from klimb.workbench import listening


def test_a_missing_package_is_named_with_the_command_that_installs_it(workplace, monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")

    monkeypatch.setattr(listening, "import_module", missing)
    outcome = workplace.klimb("board", ".")
    assert outcome.status == 2
    assert "pip install 'klimb[serve]'" in outcome.err


def test_a_port_that_is_taken_and_a_folder_that_is_none_are_said(workplace):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = workplace.klimb("board", ".", "--port", str(port))
    assert outcome.status == 2 and f"port {port}" in outcome.err and "or 0 for any" in outcome.err
    assert "is not a folder" in workplace.klimb("board", "nowhere").err
    assert workplace.klimb("board", ".", "--port", "70000").status == 2


@pytest.mark.parametrize(("host", "is_warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_an_address_that_others_reach_is_warned_of(workplace, monkeypatch, host: str, is_warned: bool):
    def interrupted(self: object, sockets: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", interrupted)
    outcome = workplace.klimb("board", ".", "--host", host, "--port", "0")
    assert outcome.status == 0, outcome.err
    assert f"http://{host}:" in outcome.out
    assert ("there is no password" in outcome.out) == is_warned
