import pytest
import torch

from klimb.experience import Sample, collate


def sample(name: str, prompt: tuple[int, ...], response: tuple[int, ...], **changes) -> Sample:
    fields = {
        "log_mu": tuple(-0.5 - index for index in range(len(response))),
        "log_mu_provenance": "sampler",
        "finish_reason": "stop",
    }
    return Sample(
        sample_id=name,
        group_id=str(prompt),
        prompt=({"role": "user", "content": "?"},),
        prompt_ids=prompt,
        response="",
        response_ids=response,
        **(fields | changes),
    )


@pytest.fixture
def batch():
    return collate(
        [sample("a", (1, 2), (7, 0)), sample("b", (3,), (0,)), sample("c", (1, 2), (9, 9, 0))],
        torch.tensor([1.0, 2.0, 3.0]),
    )


def test_the_mask_comes_from_lengths_though_a_token_equals_the_padding(batch):
    # Token id 0 fills the padding and also ends every response here.
    assert batch.response_ids.tolist() == [[7, 0, 0], [0, 0, 0], [9, 9, 0]]
    assert batch.mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert batch.num_tokens == 6


def test_each_prompt_is_kept_once_and_each_row_points_at_its_own(batch):
    assert batch.prompts == ((1, 2), (3,))
    assert [batch.prompts[number] for number in batch.prompt_index] == [s.prompt_ids for s in batch.samples]


def test_log_mu_stands_at_its_token_and_log_ref_is_none_when_nobody_has_it(batch):
    assert batch.log_mu.tolist() == [[-0.5, -1.5, 0], [-0.5, 0, 0], [-0.5, -1.5, -2.5]]
    assert batch.log_ref is None


def test_selecting_rows_equals_collating_those_samples(batch):
    selected = batch.select([2, 0])
    direct = collate([batch.samples[2], batch.samples[0]], torch.tensor([3.0, 1.0]))
    assert selected.prompts == direct.prompts == ((1, 2),)
    for name in ("prompt_index", "response_ids", "mask", "log_mu", "advantages"):
        assert torch.equal(getattr(selected, name), getattr(direct, name)), name


def test_selecting_cuts_the_padding_and_the_unused_prompts(batch):
    selected = batch.select([1])
    assert selected.mask.shape == (1, 1)
    assert selected.prompts == ((3,),)
    assert selected.prompt_index.tolist() == [0]


def test_log_ref_is_carried_through_collate_select_and_to():
    rows = [sample("a", (1,), (7, 8), log_ref=(-1.0, -2.0)), sample("b", (1,), (7,), log_ref=(-3.0,))]
    batch = collate(rows, torch.zeros(2)).to("cpu").select([1, 0])
    assert batch.log_ref is not None
    assert batch.log_ref.tolist() == [[-3.0, 0.0], [-1.0, -2.0]]


def test_a_batch_scored_in_part_is_refused():
    rows = [sample("a", (1,), (7,), log_ref=(-1.0,)), sample("b", (1,), (7,))]
    with pytest.raises(ValueError, match="sample b has no log_ref and others have"):
        collate(rows, torch.zeros(2))


def test_an_absent_log_mu_is_refused_unless_allowed_and_then_is_nan():
    row = sample("a", (1,), (7, 8), log_mu=None, log_mu_provenance="absent")
    with pytest.raises(ValueError, match="sample a: log_mu is absent"):
        collate([row], torch.zeros(1))
    assert collate([row], torch.zeros(1), allow_absent_log_mu=True).log_mu.isnan().all()


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 0.01])
def test_an_impossible_log_mu_is_refused_with_its_position(value: float):
    with pytest.raises(ValueError, match=r"sample a: log_mu\[1\]"):
        collate([sample("a", (1,), (7, 8), log_mu=(-1.0, value))], torch.zeros(1))


def test_empty_things_are_refused_by_name():
    with pytest.raises(ValueError, match="sample a: the response holds no token"):
        collate([sample("a", (1,), ())], torch.zeros(1))
    with pytest.raises(ValueError, match="sample a: the prompt holds no token"):
        collate([sample("a", (), (1,))], torch.zeros(1))
    with pytest.raises(ValueError, match="no samples"):
        collate([], torch.zeros(0))
    with pytest.raises(ValueError, match="1 samples for 2 advantages"):
        collate([sample("a", (1,), (1,))], torch.zeros(2))


def test_selecting_nothing_is_refused(batch):
    with pytest.raises(ValueError, match="no rows"):
        batch.select([])
