"""Answers of a conversation that continue each other are one sample, token by token, and nothing else is."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from klimb.experience import Sample, SamplingSettings
from klimb.experience.episodes import join_turns
from klimb.experience.turn_rewards import turn_rewards

SETTINGS = SamplingSettings(temperature=1.0)


def talk(
    lengths: list[tuple[int, int]], rewards: list[float | None], *, episode: str = "e", cut: bool = False
) -> list[Sample]:
    """Return a sample for each answer: (tokens said before it, tokens of it); every token has an id of its own."""
    messages: list[dict[str, str]] = []
    ids: tuple[int, ...] = ()
    found: list[Sample] = []
    for turn, ((asked, answered), reward) in enumerate(zip(lengths, rewards, strict=True)):
        messages.append({"role": "user", "content": f"question {turn}"})
        prompt = ids + tuple(range(len(ids), len(ids) + asked))
        answer = tuple(range(len(prompt), len(prompt) + answered))
        found.append(
            Sample(
                sample_id=f"{episode}{turn}",
                group_id=f"g{episode}{turn}",
                prompt=tuple(messages),
                prompt_ids=prompt,
                response=f"answer {turn}",
                response_ids=answer,
                finish_reason="stop",
                reward=reward,
                log_mu=tuple(-token / 100 for token in answer),
                log_mu_provenance="sampler",
                sampling=SETTINGS,
                model="m",
                created_at=float(turn),
                episode=episode,
                support=tuple((token, token + 1) for token in answer) if cut else None,
            )
        )
        messages.append({"role": "assistant", "content": f"answer {turn}"})
        ids = prompt + answer
    return found


turns = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.none() | st.sampled_from([0.0, 0.5, 1.0])),
    min_size=1,
    max_size=5,
)


@settings(max_examples=50, deadline=None)
@given(turns, turns, st.booleans(), st.randoms(use_true_random=False))
def test_a_conversation_joined_has_every_token_reward_and_log_mu_of_its_answers_in_their_places(one, two, cut, random):
    first = talk([(a, b) for a, b, _ in one], [reward for *_, reward in one], cut=cut)
    other = talk([(a, b) for a, b, _ in two], [reward for *_, reward in two], episode="f", cut=cut)
    given_samples = [*first, *other]
    random.shuffle(given_samples)
    joined = join_turns(given_samples)
    assert len(joined) == 2
    for answers in (first, other):
        (whole,) = [each for each in joined if each.sample_id.startswith(answers[0].sample_id)]
        if len(answers) == 1:
            assert whole is answers[0]
            continue
        last = answers[-1]
        assert whole.prompt_ids + whole.response_ids == last.prompt_ids + last.response_ids
        assert whole.drawn_ids == tuple(token for each in answers for token in each.response_ids)
        assert whole.log_mu == tuple(-token / 100 for token in whole.drawn_ids)
        assert (whole.support is not None) == cut
        rewards = [each.reward for each in answers]
        assert [turn.reward for turn, _ in whole.drawn_turns] == rewards
        rated = [reward for reward in rewards if reward is not None]
        assert whole.reward == (sum(rated) if rated else None)
        assert turn_rewards([whole], [whole.reward or 0.0]) == [tuple(reward or 0.0 for reward in rewards)]
        assert [turn.role for turn in whole.turns] == (["assistant", "user"] * len(answers))[:-1]
        assert whole.episode == "" and whole.metadata["joined"].split() == [each.sample_id for each in answers]


@settings(max_examples=30, deadline=None)
@given(turns, st.data())
def test_what_does_not_continue_stays_as_it_is(one, data):
    samples = talk([(a, b) for a, b, _ in one], [reward for *_, reward in one])
    changes = [
        {"episode": ""},
        {"episode": "another"},
        {"model": "n"},
        {"policy_version": 7},
        {"sampling": SamplingSettings(temperature=0.5)},
        {"prompt": ({"role": "user", "content": "another"},)},
        {"prompt_ids": (999,)},
        {"log_mu": None, "log_mu_provenance": "absent"},
        {"tools": "[]"},
    ]
    place = data.draw(st.integers(0, len(samples) - 1))
    samples[place] = replace(samples[place], **data.draw(st.sampled_from(changes)))
    joined = join_turns(samples)
    assert samples[place] in joined
    assert sum(len(each.metadata.get("joined", each.sample_id).split()) for each in joined) == len(samples)


def test_of_two_answers_to_the_same_turn_the_first_is_continued_by_its_own_history_alone():
    first, second, third = talk([(2, 2), (1, 2), (1, 1)], [1.0, 0.0, None])
    again = replace(second, sample_id="again", response_ids=(77, 78), response="another", created_at=9.0)
    joined = join_turns([first, second, third, again])
    assert [each.sample_id for each in joined] == ["e0+2", "again"]
    assert joined[1] is again


def test_a_message_of_an_assistant_that_no_policy_drew_is_not_taken_for_an_answer():
    first, second = talk([(2, 2), (3, 2)], [1.0, 0.0])
    put_in = {"role": "assistant", "content": "put in"}
    second = replace(second, prompt=(*second.prompt[:2], put_in, second.prompt[2]))
    assert join_turns([first, second]) == [first, second]


def test_a_field_that_one_answer_lacks_is_in_no_joined_sample():
    first, second = talk([(2, 2), (3, 2)], [None, None])
    (joined,) = join_turns([replace(first, log_ref=first.log_mu), second])
    assert joined.log_ref is None and joined.reward is None
    (cut,) = join_turns([replace(each, log_ref=each.log_mu) for each in (first, second)])
    assert cut.log_ref == cut.log_mu
    assert len(join_turns([replace(first, support=tuple((i,) for i in first.response_ids)), second])) == 2
