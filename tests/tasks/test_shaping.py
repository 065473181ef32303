import pytest

from klimb.tasks import (
    FormatReward,
    FormatSettings,
    OverlongSettings,
    OverlongShaping,
    Response,
    Score,
    arithmetic,
    shape,
    with_shaping,
)


def overlong(*, max_tokens, **settings):
    return OverlongShaping(settings=OverlongSettings(**settings), max_tokens=max_tokens)


def bonus(*, part="format", **settings):
    return FormatReward(settings=FormatSettings(**settings), part=part)


def reply(text="7", num_tokens=1):
    return Response(text=text, num_tokens=num_tokens, finish_reason="stop")


@pytest.mark.parametrize(
    ("num_tokens", "penalty"),
    [(0, 0.0), (80, 0.0), (81, -1 / 20), (90, -0.5), (99, -19 / 20), (100, -1.0), (101, -1.0), (1000, -1.0)],
)
def test_overlong_is_equation_13_of_dapo(num_tokens, penalty):
    shaping = overlong(max_tokens=100, buffer_tokens=20)
    assert shaping.amount(reply(num_tokens=num_tokens)) == pytest.approx(penalty, abs=1e-15)


def test_the_factor_is_the_full_penalty():
    shaping = overlong(max_tokens=100, buffer_tokens=20, factor=0.25)
    assert shaping.amount(reply(num_tokens=90)) == -0.125
    assert shaping.amount(reply(num_tokens=200)) == -0.25


def test_the_format_reward_is_its_weight_where_the_pattern_is_found():
    shaping = bonus(pattern=r"<answer>.*</answer>\s*$", weight=0.5)
    assert shaping.amount(reply("so\n<answer>7\n</answer>\n")) == 0.5
    assert shaping.amount(reply("7")) == 0.0


def test_a_shaped_score_says_what_came_from_where_and_its_parts_sum_to_the_reward():
    score = Score(reward=1.0, correct=True, parts={"correct": 1.0}, reason="right")
    score = shape(score, reply(num_tokens=90), overlong(max_tokens=100, buffer_tokens=20))
    score = shape(score, reply("7"), bonus(pattern="7", weight=0.25))
    assert score.parts == {"correct": 1.0, "overlong": -0.5, "format": 0.25}
    assert score.reward == sum(score.parts.values()) == 0.75
    assert score.correct is True


def test_an_error_stays_an_error():
    error = Score(reward=None, reason="timed out after 5 s")
    assert shape(error, reply(num_tokens=100), overlong(max_tokens=100, buffer_tokens=20)) is error


def test_a_task_with_shaping_scores_with_it():
    task = with_shaping(arithmetic(), [overlong(max_tokens=10, buffer_tokens=5)])
    problem = task.train[0]
    assert task.score(problem, reply(problem.answer, num_tokens=10)).reward == 0.0
    assert task.trusted


def test_a_task_with_a_regular_expression_is_not_trusted():
    assert not with_shaping(arithmetic(), [bonus(pattern="(a+)+$", weight=1)]).trusted


@pytest.mark.parametrize("part", ["correct", "reward", "format"])
def test_two_parts_of_one_name_are_refused(part):
    shapings = [bonus(pattern="a", weight=1), bonus(pattern="b", weight=1, part=part)]
    with pytest.raises(ValueError, match="part name of its own"):
        with_shaping(arithmetic(), shapings)
    score = Score(reward=1.0, parts={part: 1.0})
    with pytest.raises(ValueError, match=f"already has a part named '{part}'"):
        shape(score, reply(), bonus(pattern="b", weight=1, part=part))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: overlong(max_tokens=10, buffer_tokens=0),
            "buffer_tokens must be >= 1, got 0",
        ),
        (lambda: overlong(max_tokens=10, buffer_tokens=11), r"buffer_tokens must be in \[1, max_tokens=10\], got 11"),
        (lambda: overlong(max_tokens=10, buffer_tokens=5, factor=0), "factor must be finite and > 0, got 0"),
        (lambda: bonus(pattern="(", weight=1), "'\\(' is not a regular expression"),
        (lambda: bonus(pattern="a", weight=float("nan")), "weight must be finite, got nan"),
    ],
)
def test_a_bad_parameter_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_is_finite_or_none(value):
    with pytest.raises(ValueError, match="reward must be finite"):
        Score(reward=value)
    with pytest.raises(ValueError, match="part 'x' of the reward must be finite"):
        Score(reward=0.0, parts={"x": value})
