from collections import Counter
from pathlib import Path

import pytest
import torch

from klimb.experience import Sample, write_samples
from klimb.training import CheckpointError, ReplaySettings
from klimb.training.sources.replay import DelayQueue, ReplayBuffer, ReplayGroup, group_samples


def group(number: int, *, version: int = 0, reward: float = 0.0, step: int = 1) -> ReplayGroup:
    samples = tuple(
        Sample(
            sample_id=f"{number}-{index}",
            group_id=str(number),
            prompt=(),
            prompt_ids=(1,),
            response="a",
            response_ids=(2,),
            finish_reason="stop",
            reward=reward + index,
            log_mu=(-0.5,),
            log_mu_provenance="sampler",
            log_ref=(-0.7,),
            policy_version=version,
        )
        for index in range(2)
    )
    return ReplayGroup(step=step, samples=samples)


def drawn(buffer: ReplayBuffer, count: int, *, version: int = 0, seed: int = 0) -> list[str]:
    groups = buffer.draw(count, policy_version=version, generator=torch.Generator().manual_seed(seed))
    return [each.samples[0].group_id for each in groups]


def test_a_group_is_used_up_to_its_greatest_age_and_dropped_after():
    buffer = ReplayBuffer(ReplaySettings(max_age=4))
    buffer.add([group(0, version=0), group(1, version=3)])
    assert sorted(drawn(buffer, 9, version=4)) == ["0", "1"]
    assert drawn(buffer, 9, version=5) == ["1"]
    assert (len(buffer), buffer.num_dropped) == (1, 1)


def test_recent_takes_the_youngest_and_hard_the_lowest_reward_first():
    groups = [group(0, version=1, reward=0.5), group(1, version=3, reward=0.9), group(2, version=2, reward=0.1)]
    for rule, expected in (("recent", ["1", "2", "0"]), ("hard", ["2", "0", "1"])):
        buffer = ReplayBuffer(ReplaySettings(rule=rule))
        buffer.add(groups)
        assert drawn(buffer, 3, version=3) == expected
        assert drawn(buffer, 2, version=3) == expected[:2]


def test_uniform_draws_every_group_as_often_and_none_twice():
    buffer = ReplayBuffer(ReplaySettings())
    buffer.add([group(number) for number in range(4)])
    counts: Counter[str] = Counter()
    for seed in range(400):
        names = drawn(buffer, 2, seed=seed)
        assert len(set(names)) == 2
        counts.update(names)
    # Each of 4 groups is drawn with probability 1/2: 200 ± 3·10.
    assert all(170 <= count <= 230 for count in counts.values()) and len(counts) == 4


def test_the_oldest_groups_give_way():
    buffer = ReplayBuffer(ReplaySettings(max_groups=2))
    buffer.add([group(0), group(1)])
    buffer.add([group(2)])
    assert sorted(drawn(buffer, 9)) == ["1", "2"]
    assert buffer.num_dropped == 1


def test_what_is_replayed_says_so_and_leaves_the_reference_of_its_time_behind():
    buffer = ReplayBuffer(ReplaySettings())
    buffer.add([group(0)])
    replayed = buffer.draw(1, policy_version=1, generator=torch.Generator())[0].samples
    assert {sample.source for sample in replayed} == {"replay"}
    assert {sample.log_ref for sample in replayed} == {None}
    assert [sample.log_mu for sample in replayed] == [(-0.5,), (-0.5,)]


def test_buffer_and_queue_come_back_from_names_and_the_runs_rollouts(tmp_path: Path):
    groups = [group(0, step=1), group(1, step=1, reward=2.0), group(2, step=2, version=7)]
    for step in (1, 2):
        flat = [sample for each in groups if each.step == step for sample in each.samples]
        write_samples(tmp_path / f"step-{step:06d}.parquet", flat)
    buffer, queue = ReplayBuffer(ReplaySettings()), DelayQueue()
    buffer.add(groups)
    queue.put(groups[:2])
    queue.put(groups[2:])

    other = ReplayBuffer(ReplaySettings())
    other.load_state(buffer.state(), rollouts=tmp_path)
    assert other.state() == buffer.state()
    assert [drawn(other, 3, seed=seed) for seed in range(5)] == [drawn(buffer, 3, seed=seed) for seed in range(5)]
    later = DelayQueue()
    later.load_state(queue.state(), rollouts=tmp_path)
    assert (later.get(), later.get(), len(later)) == (queue.get(), queue.get(), 0)
    assert {sample.log_ref for each in groups for sample in each.samples} == {(-0.7,)}


def test_a_queue_gives_batches_in_order_and_without_the_reference_of_their_time():
    queue = DelayQueue()
    queue.put([group(0)])
    queue.put([group(1), group(2)])
    got = [queue.get(), queue.get()]
    assert [[each.samples[0].group_id for each in batch] for batch in got] == [["0"], ["1", "2"]]
    assert {sample.log_ref for batch in got for each in batch for sample in each.samples} == {None}


@pytest.mark.parametrize("is_gone", [True, False])
def test_rollouts_that_are_missing_or_others_are_an_error_that_names_the_file(tmp_path: Path, is_gone: bool):
    buffer = ReplayBuffer(ReplaySettings())
    buffer.add([group(0)])
    if not is_gone:
        write_samples(tmp_path / "step-000001.parquet", group(5).samples)
    with pytest.raises(CheckpointError, match=r"step-000001\.parquet"):
        ReplayBuffer(ReplaySettings()).load_state(buffer.state(), rollouts=tmp_path)


def test_samples_are_grouped_in_the_order_of_their_first_appearance():
    one, two = group(0).samples, group(1).samples
    groups = group_samples([two[0], one[0], two[1], one[1]], step=4)
    assert [[each.sample_id for each in found.samples] for found in groups] == [["1-0", "1-1"], ["0-0", "0-1"]]
    assert {found.step for found in groups} == {4}
