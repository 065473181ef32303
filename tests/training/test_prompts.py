import pytest

from klimb.training.prompts import PromptStream


def test_every_problem_comes_once_an_epoch_in_an_order_of_its_own():
    stream = PromptStream(7, seed=3)
    epochs = [stream.take(7) for _ in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_portions_do_not_change_the_order():
    whole = PromptStream(5, seed=1).take(23)
    stream = PromptStream(5, seed=1)
    assert [number for size in (1, 7, 5, 10) for number in stream.take(size)] == whole


def test_seeds_give_different_orders():
    assert PromptStream(50, seed=0).take(50) != PromptStream(50, seed=1).take(50)


@pytest.mark.parametrize("taken", [0, 3, 5, 12])
def test_a_restored_stream_goes_on_where_it_stood(taken: int):
    stream = PromptStream(5, seed=2)
    stream.take(taken)
    restored = PromptStream(5, seed=2)
    restored.load_state(stream.state())
    assert restored.take(11) == stream.take(11)


def test_a_position_in_other_data_is_refused():
    with pytest.raises(ValueError, match="in 5 problems and the task now has 6"):
        PromptStream(6, seed=0).load_state(PromptStream(5, seed=0).state())


def test_no_problem_at_all_is_refused():
    with pytest.raises(ValueError, match="no training problem"):
        PromptStream(0, seed=0)
