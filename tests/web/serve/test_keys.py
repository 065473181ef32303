"""Keys: shown once, kept as hashes, each for its scopes."""

import json
from pathlib import Path

import pytest

from klimb.errors import ConfigError
from klimb.web.serve.keys import Keys, add_key, read_keys, revoke_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_opens_its_scopes_and_the_file_does_not_hold_it(path):
    key, row = add_key(path, ["feedback"], note="the page")
    found = Keys(path).find(key)
    assert found is not None
    assert (found.scopes, found.note) == (("feedback",), "the page")
    assert key not in path.read_text()
    assert key.rpartition("-")[2] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert row in read_keys(path)


def test_a_wrong_key_opens_nothing(path):
    key, row = add_key(path, ["serve"])
    keys = Keys(path)
    swapped = key[:-1] + ("A" if key[-1] != "A" else "B")
    for wrong in ("", "klimb", swapped, key + "x", key[:-1], f"klimb-{row.key_id}-{'x' * 43}", row.sha256, "\udc80"):
        assert keys.find(wrong) is None, wrong


def test_a_revoked_key_stops_at_once_and_stays_in_the_list(path):
    first, row = add_key(path, ["serve"])
    second, _ = add_key(path, ["serve", "feedback", "serve"])
    keys = Keys(path)
    assert keys.find(first)
    revoke_key(path, row.key_id)
    assert keys.find(first) is None
    assert keys.find(second).scopes == ("serve", "feedback")
    assert [bool(key.revoked_at) for key in read_keys(path)] == [True, False]
    assert keys.are_required


def test_every_key_is_compared_whole_by_a_comparison_of_constant_time(path, monkeypatch):
    key, _ = add_key(path, ["serve"])
    keys, compared = Keys(path), []
    monkeypatch.setattr(
        "klimb.web.serve.keys.hmac.compare_digest", lambda one, other: compared.append((one, other)) or one == other
    )
    for asked in (key, key[:-1] + "_", "nonsense"):
        keys.find(asked)
    assert len(compared) == 3, "also where there is no such key"
    assert {len(one) for pair in compared for one in pair} == {64}


def test_a_file_that_others_may_read_or_that_is_none_of_keys_is_refused(path):
    add_key(path, ["admin"])
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Keys(path)
    path.write_text(json.dumps({"format": 2, "keys": []}))
    with pytest.raises(ConfigError, match="format 2"):
        read_keys(path)
    with pytest.raises(ConfigError, match="klimb keys new"):
        Keys(path.with_name("none.json"))
    with pytest.raises(ConfigError, match="some of serve, feedback, admin"):
        add_key(path.with_name("new.json"), [])
    with pytest.raises(ConfigError, match="no key 'x'"):
        other = path.with_name("other.json")
        add_key(other, ["serve"])
        revoke_key(other, "x")


def test_without_a_file_no_key_is_required():
    assert not Keys().are_required
    assert Keys().find("anything") is None
