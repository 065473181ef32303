import json
from pathlib import Path

import pytest

from klimb.training.deployment import FILE, Deployment, ServedPolicy, read_deployment, write_deployment

FIRST = ServedPolicy(name="policy-0001", model="smollm2-135m")
SECOND = ServedPolicy(name="policy-0002", model="policy-0002", policy_version=40, since=1.5, reason="é better")


def test_a_deployment_is_read_as_it_was_written(tmp_path: Path):
    tried = Deployment(current=FIRST).try_out(SECOND, 0.25)
    write_deployment(tmp_path / "d", tried)
    assert read_deployment(tmp_path / "d") == tried
    write_deployment(tmp_path / "d", tried.promote(SECOND))
    assert read_deployment(tmp_path / "d") == Deployment(current=SECOND, earlier=(FIRST,))


def test_going_back_ends_with_the_first_policy():
    back = Deployment(current=FIRST).promote(SECOND).roll_back()
    assert back == Deployment(current=FIRST)
    with pytest.raises(ValueError, match="policy-0001 is the first policy"):
        back.roll_back()


@pytest.mark.parametrize(("candidate", "fraction"), [(SECOND, 0.0), (None, 0.1), (SECOND, 1.0), (SECOND, -0.1)])
def test_a_share_without_a_candidate_and_a_candidate_without_a_share_are_refused(candidate, fraction):
    with pytest.raises(ValueError, match="candidate"):
        Deployment(current=FIRST, candidate=candidate, candidate_fraction=fraction)


def rewritten(**current: object) -> str:
    rest = {"candidate": None, "candidate_fraction": 0.0, "earlier": []}
    return json.dumps({"format": 1, "current": {"name": "a", "model": "m", **current}, **rest})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "null",
        "5",
        "[" * 100_000,
        '{"format": 2}',
        '{"format": 1, "current": {"surname": 1}}',
        rewritten(name=""),
        rewritten(name=None),
        rewritten(model=[1]),
        rewritten(policy_version="x"),
        rewritten(since=None),
    ],
)
def test_another_file_is_named(tmp_path: Path, text: str):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=r"deployment\.json: not a deployment"):
        read_deployment(tmp_path)
