import pytest
from hypothesis import given
from hypothesis import strategies as st

from klimb.experience.held_out import hold_out


def groups(number: int) -> dict[str, str]:
    return {f"g{place}": f"question {place}" for place in range(number)}


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 30)), min_size=12, max_size=40), st.integers(0, 3))
def test_no_prompt_is_on_both_sides_and_no_user_where_it_says_so(rows: list[tuple[int, int]], seed: int):
    prompts = {f"g{place}": f"question {prompt}" for place, (prompt, _) in enumerate(rows)}
    users = {f"g{place}": [f"u{user}"] for place, (_, user) in enumerate(rows) if user < 25}
    if len(set(prompts.values())) < 2:
        return
    found = hold_out(prompts, users, fraction=0.25, seed=seed)
    aside = set(found.group_ids)
    assert aside and aside < set(prompts)
    assert not {prompts[group] for group in aside} & {prompts[group] for group in prompts if group not in aside}
    if found.by_users:
        of_aside = {user for group in aside for user in users.get(group, [])}
        assert not of_aside & {user for group in set(prompts) - aside for user in users.get(group, [])}


def test_about_the_share_that_was_asked_for_is_held_out_and_stays_the_same():
    found = hold_out(groups(200), {}, fraction=0.2, seed=0)
    assert len(found.group_ids) == 40
    assert found == hold_out(groups(200), {}, fraction=0.2, seed=0)
    assert found.group_ids != hold_out(groups(200), {}, fraction=0.2, seed=1).group_ids
    assert found.unit == "prompt"


def test_later_rows_do_not_move_most_of_what_was_held_out():
    before = set(hold_out(groups(200), {}, fraction=0.2, seed=0).group_ids)
    after = set(hold_out(groups(220), {}, fraction=0.2, seed=0).group_ids)
    assert len(before & after) >= 30


def test_all_rows_of_a_user_go_to_one_side():
    users = {f"g{place}": [f"u{place // 4}"] for place in range(200)}
    found = hold_out(groups(200), users, fraction=0.2, seed=0)
    assert found.unit == "user"
    assert {place // 4 for place in map(lambda name: int(name[1:]), found.group_ids)}.isdisjoint(
        {int(name[1:]) // 4 for name in set(users) - set(found.group_ids)}
    )


def test_one_user_who_asked_most_does_not_hold_everything_out():
    users = {f"g{place}": ["busy" if place < 150 else f"u{place}"] for place in range(200)}
    found = hold_out(groups(200), users, fraction=0.2, seed=0)
    assert found.unit == "prompt"
    assert len(found.group_ids) == 40


def test_one_prompt_cannot_be_held_out():
    with pytest.raises(ValueError, match="none to hold out"):
        hold_out({"a": "same", "b": "same"}, {}, fraction=0.2, seed=0)
