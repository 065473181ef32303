"""Which column of a table is what: guessed where one fits, asked where two do, and always said."""

from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import as_row, written

from klimb.experience.importing import ImportReport, ImportRules, import_rows
from klimb.experience.importing.guessing import Guess, guess_columns, guess_table, propose_scale
from klimb.experience.store import Store


def guess_in(**cells: Any) -> Guess | None:
    return guess_table([as_row(cells)])


def imported(tmp_path: Path, rows: list[dict[str, Any]], **rules: Any) -> tuple[ImportReport, Store]:
    store = Store(tmp_path / "store")
    return import_rows(store, written(tmp_path / "a.jsonl", rows), rules=ImportRules(**rules)), store


@pytest.mark.parametrize(
    ("prompt", "response", "reward"),
    [
        ("customer_message", "bot_reply", "csat"),
        ("Customer Message", "Bot Reply", "CSAT Score"),
        ("customerMessage", "botReply", "csatScore"),
        ("question", "answer", "rating"),
        ("query", "generated_text", "thumbs"),
        ("input", "output", "score"),
        ("instruction", "completion", "helpful"),
        ("user_message", "assistant", "stars"),
        ("Prompt", "Response", "Reward"),
        ("Frage", "Antwort", "Bewertung"),
        ("Kundennachricht", "Bot-Antwort", "Zufriedenheit"),
        ("Frage des Kunden", "Antwort des Bots", "Kundenzufriedenheit"),
        ("Nachricht vom Nutzer", "Antwort vom Bot", "Sterne"),
        ("question du client", "réponse du bot", "étoiles"),
        ("pregunta del cliente", "respuesta del asistente", "estrellas"),
        ("message from customer", "reply of bot", "rating"),
        ("requête", "réponse", "évaluation"),
        ("pregunta", "respuesta", "calificación"),
        ("вопрос", "ответ", "оценка"),
        ("request", "response", "CSAT (1-5)"),
    ],
)
def test_well_known_names_are_guessed_however_they_are_written(prompt: str, response: str, reward: str):
    guess = guess_in(**{prompt: "2 + 2?", response: "4", reward: 5, "other": "x"})
    expected = {"prompt": prompt, "response": response, "reward": reward}
    assert guess is not None
    assert guess.columns == {ours: theirs for ours, theirs in expected.items() if ours != theirs}


def test_the_other_columns_of_a_table_are_guessed_too():
    guess = guess_in(
        question="2 + 2?",
        answer="4",
        ticket="T-1",
        customer_email="ann@example.org",
        created="2026-05-01",
        model_name="m-1",
        prompt_id="p",
    )
    assert guess is not None and guess.columns == {
        "prompt": "question",
        "response": "answer",
        "id": "ticket",
        "group": "prompt_id",
        "user": "customer_email",
        "created_at": "created",
        "model": "model_name",
    }


@pytest.mark.parametrize(
    "cells",
    [
        {"question": "a", "notes": "b"},
        {"text": "a", "label": "b"},
        {"question": "a", "answer": 5},
        {"user": "ann", "assistant": "anna"},
        {"request": '{"messages": [{"role": "user", "content": "a"}]}', "response": '{"choices": []}'},
    ],
)
def test_without_a_column_for_prompt_or_response_nothing_is_guessed(cells: dict[str, Any]):
    assert guess_table([as_row(cells)]) is None


def test_speakers_name_columns_of_what_they_say():
    guess = guess_in(user="What is 2 + 2?", assistant="It is 4.")
    assert guess is not None and guess.columns == {"prompt": "user", "response": "assistant"}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            {"question": "a", "query": "b", "answer": "c"},
            r"question and query could each be the prompt.*--columns prompt=question",
        ),
        ({"question": "a", "answer": "b", "bot_reply": "c"}, "answer and bot_reply could each be the response"),
        (
            {"question": "a", "answer": "b", "Star Rating": 1, "csat": 5},
            "Star Rating and csat could each be the reward.*--columns reward='Star Rating'",
        ),
    ],
)
def test_two_columns_for_what_is_learned_are_an_error_that_names_both(cells: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        guess_table([as_row(cells)])


def test_what_the_user_states_is_no_candidate_and_decides(tmp_path: Path):
    row = {"question": "a", "query": "b", "answer": "c", "csat": 5, "rating": 1}
    report, store = imported(tmp_path, [row], columns={"prompt": "query", "reward": "rating"})
    (sample,) = store.samples()
    assert (sample.prompt[0]["content"], sample.response, sample.reward) == ("b", "c", 1.0)
    assert report.guess.columns == {"response": "answer"}
    assert report.tally.unread == {"question": 1, "csat": 1}


def test_two_columns_for_anything_else_are_said_and_none_is_taken(tmp_path: Path):
    row = {"question": "a", "answer": "b", "ticket_id": "t", "conversation_id": "c"}
    report, _ = imported(tmp_path, [row])
    assert report.guess.left == {"id": "ticket_id or conversation_id"}
    assert report.tally.unread == {"ticket_id": 1, "conversation_id": 1}


def test_an_id_that_comes_twice_is_no_rows_id_even_far_behind_the_first_rows(tmp_path: Path):
    rows = [{"question": "a", "answer": str(number), "ticket": f"t{number}"} for number in range(300)]
    report, store = imported(tmp_path, [*rows, {"question": "a", "answer": "last", "ticket": "t0"}])
    assert report.guess.left["id"].startswith("ticket comes more than once")
    assert len(list(store.samples())) == 301


def test_columns_of_our_own_names_are_no_guess_and_only_what_is_missing_is_guessed():
    row = as_row({"prompt": "a", "question": "b", "response": "c", "score": 1.0})
    assert guess_columns([row]).columns == {"reward": "score"}


def test_comments_are_no_rewards_and_seconds_are_no_dates(tmp_path: Path):
    row = {"question": "a", "answer": "b", "feedback": "It took far too long to get an answer.", "time": 3.25}
    report, store = imported(tmp_path, [row])
    assert report.guess.columns == {"prompt": "question", "response": "answer"}
    assert report.tally.unread == {"feedback": 1, "time": 1}
    assert [sample.reward for sample in store.samples()] == [None]


def test_a_column_of_unknown_words_is_asked_for_before_anything_is_added(tmp_path: Path):
    rows = [{"question": str(n), "answer": "b", "rating": word} for n, word in enumerate(("great", "so so", "great"))]
    message = (
        r"rating could be the reward and holds words \(great, so so\).*--map great=NUMBER 'so so'=NUMBER.*--ignore"
    )
    with pytest.raises(ValueError, match=message):
        imported(tmp_path, rows)
    _, store = imported(tmp_path, rows, value_map={"great": 1.0, "so so": 0.5})
    assert [sample.reward for sample in store.samples()] == [1.0, 0.5, 1.0]


def test_a_guessed_column_may_be_missing_in_a_row(tmp_path: Path):
    rows = [{"question": "a", "answer": "b", "stars": 1}, {"question": "c", "answer": "d"}]
    _, store = imported(tmp_path, rows)
    assert [sample.reward for sample in store.samples()] == [1.0, None]


def test_a_stated_column_that_not_every_row_needs_may_be_missing_in_a_row(tmp_path: Path):
    rows = [{"q": "a", "a": "b", "x": 1}, {"q": "c", "a": "d"}, {"a": "e", "x": 1}]
    report, store = imported(tmp_path, rows, columns={"prompt": "q", "response": "a", "reward": "x"})
    assert [sample.reward for sample in store.samples()] == [1.0, None]
    assert report.rejected == {"no column 'q'": 1}


def test_a_table_with_ids_and_ratings_is_no_file_of_ratings(tmp_path: Path):
    report, store = imported(tmp_path, [{"id": "1", "question": "a", "answer": "b", "rating": 1}])
    assert (report.kind, len(list(store.samples()))) == ("table", 1)
    ratings = Store(tmp_path / "ratings")
    rows = [{"id": "1", "rating": 1, "comment": "fine"}]
    assert import_rows(ratings, written(tmp_path / "b.jsonl", rows)).kind == "feedback"


def test_a_guessed_user_is_hashed(tmp_path: Path):
    _, store = imported(tmp_path, [{"question": "a", "answer": "b", "customer_email": "ann@example.org"}])
    (sample,) = store.samples()
    assert len(sample.metadata["user"]) == 16
    assert "ann@" not in repr(sample)


def test_a_rating_beside_prompt_and_completion_is_its_reward(tmp_path: Path):
    report, store = imported(tmp_path, [{"prompt": "a", "completion": "b", "score": 0.5}])
    assert (report.kind, report.guess.columns) == ("prompt-completion", {"reward": "score"})
    assert [sample.reward for sample in store.samples()] == [0.5]


TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
]


@pytest.mark.parametrize("names", [["messages"], ["prompt"], ["response"], ["prompt", "response"], []])
@pytest.mark.parametrize("kind", ["", "table"])
def test_a_column_of_conversations_is_split_into_prompt_and_response(tmp_path: Path, names: list[str], kind: str):
    store = Store(tmp_path / "store")
    path = written(tmp_path / "a.jsonl", [{"conversation": TALK, "stars": 4}])
    import_rows(store, path, kind=kind, rules=ImportRules(columns=dict.fromkeys(names, "conversation")))
    (sample,) = store.samples()
    assert (sample.prompt, sample.response, sample.reward) == (tuple(TALK[:-1]), "4", 4.0)


def test_with_turns_a_column_of_conversations_has_all_answers(tmp_path: Path):
    _, store = imported(tmp_path, [{"conversation": TALK}], turns=True)
    (sample,) = store.samples()
    assert sample.prompt == tuple(TALK[:1])
    assert [turn.text for turn in sample.turns] == ["Hello.", "2 + 2?", "4"]


def test_a_conversation_before_the_answer_is_its_prompt(tmp_path: Path):
    report, store = imported(tmp_path, [{"conversation": TALK[:-1], "answer": "4"}])
    (sample,) = store.samples()
    assert report.guess.columns == {"prompt": "conversation", "response": "answer"}
    assert (sample.prompt, sample.response) == (tuple(TALK[:-1]), "4")


@pytest.mark.parametrize(
    ("values", "scale", "reason"),
    [
        ([1, 2, 3, 4, 5, 5], (1, 5), "whole numbers 1 to 5, all 5 seen"),
        (["5", "4", "1", "", "n/a", None], (1, 5), "whole numbers 1 to 5, 3 of 5 seen"),
        ([2, 5, 4], (1, 5), "whole numbers 2 to 5, 3 of 5 seen"),
        ([0, 10, 7], (0, 10), "whole numbers 0 to 10, 3 of 11 seen"),
        ([-1, 1], (-1, 1), "whole numbers -1 to 1, 2 of 3 seen"),
        (["★★★★☆", "★☆☆☆☆", "★★★★★"], (1, 5), "whole numbers 1 to 5, 3 of 5 seen"),
        ([0, 1], (0, 1), "whole numbers 0 to 1, all 2 seen"),
    ],
)
def test_a_scale_is_proposed_for_whole_numbers_with_its_reason(
    values: list[object], scale: tuple[float, float], reason: str
):
    found = propose_scale(values)
    assert found is not None and ((found.low, found.high), found.reason) == (scale, reason)


@pytest.mark.parametrize("values", [[], [0.5, 1], ["great"], [3, 6], [1, 11], [True, False], [float("nan")]])
def test_no_scale_is_proposed_where_none_is_plain(values: list[object]):
    assert propose_scale(values) is None


@pytest.mark.parametrize("name", ["Reply from customer", "Frage des Bots", "answer of user"])
def test_what_the_other_side_says_is_neither(name: str):
    assert guess_in(**{name: "x", "response": "y"}) is None


def test_the_day_of_a_rating_is_taken_where_no_other_day_is_there():
    rated = {"question": "2 + 2?", "answer": "4", "rated_at": "2026-05-02"}
    both = guess_in(**rated, created="2026-05-01")
    alone = guess_in(**rated)
    assert both is not None and both.columns["created_at"] == "created"
    assert alone is not None and alone.columns["created_at"] == "rated_at"
