"""A run and a store of klimb 0.1.0 are brought up to date; every sample, setting and number is kept.

`tests/recorded/formats` holds what klimb 0.1.0 left: `run-4`, stopped with two steps in its checkpoint and three in its
metrics, and `store-2` with what it gave to a reader in `store-2.json`.
"""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from klimb.experience import Sample, SegmentError, Store, open_store, read_samples
from klimb.experience.migrations import MIGRATIONS, migrate_folder, migrate_segment
from klimb.experience.segments import SAMPLE_SCHEMA, SCHEMA_VERSION, version_of
from klimb.training import load_checkpoint, read_metrics, without_wall_clock
from klimb.training.run_folder import read_run
from klimb.training.run_format import MIGRATIONS as RUN_MIGRATIONS
from klimb.training.run_format import RUN_FORMAT, migrate_numbers

RECORDED = Path(__file__).parent.parent / "recorded" / "formats"


@pytest.fixture
def old_run(workplace) -> Path:
    """The recorded run, with its model and its reward beside it, in the working directory."""
    for path in RECORDED.iterdir():
        place = workplace.path / path.name
        shutil.copytree(path, place) if path.is_dir() else shutil.copy(path, place)
    sys.modules.pop("my_reward", None)
    return workplace.path / "run-4"


@pytest.fixture
def old_store(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RECORDED / "store-2", tmp_path / "store"))


def as_recorded(sample: Sample) -> dict:
    """Return the fields that a sample of schema version 2 had, as JSON gives them back."""
    told = json.loads(json.dumps(asdict(sample)))
    if told["sampling"]:
        names = ("temperature", "top_p", "top_k", "min_p", "max_new_tokens")
        told["sampling"] = {name: told["sampling"][name] for name in names}
    return told


def recorded() -> dict:
    return json.loads((RECORDED / "store-2.json").read_text())


def assert_is_recorded(store: Store) -> None:
    names = recorded()["samples"][0].keys()
    found = [{name: as_recorded(sample)[name] for name in names} for sample in store.samples()]
    assert found == recorded()["samples"]
    later = {"over": "", "correction": ""}
    rows = store.query("select * from feedback").to_pylist()
    assert rows == [row | later for row in recorded()["feedback"]]


def test_a_run_of_klimb_0_1_goes_on_to_the_numbers_that_it_would_have_had(workplace, old_run):
    before = read_metrics(old_run / "metrics.jsonl")
    identity = json.loads((old_run / "identity.json").read_text())["identity"]
    resumed = workplace.klimb("train", "--resume", "run-4", "--set", "training.num_steps=4", "evaluation.at_ends=false")
    assert resumed.status == 0, resumed.err
    after = read_metrics(old_run / "metrics.jsonl")
    assert after[:2] == before[:2] and [row["step"] for row in after] == [1, 2, 3, 4]
    for name, value in without_wall_clock(before[2]).items():
        assert after[2][name] == pytest.approx(value, rel=1e-4, abs=1e-7), name
    written = json.loads((old_run / "identity.json").read_text())
    assert written["format"] == RUN_FORMAT and written["identity"].items() >= identity.items()
    assert load_checkpoint(old_run / "checkpoints" / "step-000004").written_format == RUN_FORMAT
    assert all(version_of(path)[1] == int(SCHEMA_VERSION) for path in (old_run / "rollouts").iterdir())


def test_a_run_of_klimb_0_1_is_reported_as_it_is(old_run):
    before = {path: path.read_bytes() for path in old_run.rglob("*") if path.is_file()}
    record = read_run(old_run)
    assert (record.num_steps, record.damage, len(record.evaluations)) == (3, (), 2)
    assert {path: path.read_bytes() for path in before} == before


def test_a_setting_that_there_was_not_may_not_be_changed_while_the_run_is_brought_up_to_date(workplace, old_run):
    identity = json.loads((old_run / "identity.json").read_text())
    del identity["identity"]["critic.num_warmup_steps" if "critic.num_warmup_steps" in identity["identity"] else "seed"]
    (old_run / "identity.json").write_text(json.dumps(identity))
    refused = workplace.klimb("train", "--resume", "run-4", "--set", "seed=5")
    assert refused.status == 2 and "seed: " in refused.err


def test_an_older_checkpoint_goes_through_each_migration_in_order():
    steps = {
        **RUN_MIGRATIONS,
        5: lambda numbers: {**numbers, "order": [*numbers.get("order", []), 5]},
        6: lambda numbers: {**numbers, "order": [*numbers["order"], 6]},
    }
    assert migrate_numbers({"step": 3}, 4, migrations=steps, latest=7) == {"step": 3, "order": [5, 6]}
    assert migrate_numbers({"step": 3}, RUN_FORMAT) == {"step": 3}


def test_a_store_of_klimb_0_1_is_read_and_added_to(old_store: Path):
    store = open_store(old_store)
    assert_is_recorded(store)
    again = store.append(list(store.samples()))
    assert (again.num_added, again.conflicts) == (0, ("5d0c8bca3474843dca7626fcb49febe8",)), "its reward is a person's"
    assert_is_recorded(open_store(old_store))
    assert {version_of(path) for path in old_store.glob("samples-*")} == {("samples", int(SCHEMA_VERSION))}
    assert not list(old_store.glob(".*"))


NEXT = int(SCHEMA_VERSION) + 1
NEXT_SCHEMA = pa.schema(
    [*SAMPLE_SCHEMA, pa.field("language", pa.string(), nullable=False)],
    metadata={**SAMPLE_SCHEMA.metadata, b"klimb.schema_version": str(NEXT).encode()},
)


def with_language(rows: pa.Table) -> pa.Table:
    return rows.append_column(NEXT_SCHEMA.field("language"), pa.array(["en"] * len(rows), pa.string()))


NEXT_MIGRATIONS = {**MIGRATIONS, int(SCHEMA_VERSION): with_language}


def test_a_schema_to_come_keeps_every_sample_of_a_store_of_today(old_store: Path):
    before = {path.name: pq.read_table(path) for path in old_store.glob("samples-*")}
    assert migrate_folder(old_store, schema=NEXT_SCHEMA, migrations=NEXT_MIGRATIONS) == 2
    assert migrate_folder(old_store, schema=NEXT_SCHEMA, migrations=NEXT_MIGRATIONS) == 0
    for name, table in before.items():
        after = pq.read_table(old_store / name)
        assert after.column("language").to_pylist() == ["en"] * len(table)
        for column in table.column_names:
            if column not in ("sampling", "prompt"):
                assert after.column(column).equals(table.column(column)), column
        told = [[(each["role"], each["content"]) for each in row] for row in after.column("prompt").to_pylist()]
        assert told == [[tuple(each.values()) for each in row] for row in table.column("prompt").to_pylist()]
    with pytest.raises(SegmentError, match=f"schema version {NEXT}, expected version {SCHEMA_VERSION}.*upgrade"):
        open_store(old_store).count()


@pytest.mark.parametrize("fault", ["raises", "loses a sample", "leaves a column out", "no way"])
def test_a_migration_that_fails_leaves_the_segment_as_it_was(old_store: Path, fault: str):
    broken = {
        "raises": lambda rows: rows.column("nothing"),
        "loses a sample": lambda rows: with_language(rows.slice(1)),
        "leaves a column out": lambda rows: rows,
    }
    steps = {**MIGRATIONS, **({int(SCHEMA_VERSION): broken[fault]} if fault in broken else {})}
    (path,) = old_store.glob("samples-000002-*")
    before = path.read_bytes()
    with pytest.raises((SegmentError, KeyError)):
        migrate_segment(path, schema=NEXT_SCHEMA, migrations=steps)
    assert path.read_bytes() == before and not list(old_store.glob(".*"))
    assert len(read_samples(path)) == 4
