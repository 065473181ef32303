"""The first hour with one's own data: what a help desk exports comes in by one command, or is told why not."""

import csv
import io
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cyclopts import App

from klimb.experience.store import Store
from klimb.workbench.commands.import_rows import import_rows

app = App()
app.command(import_rows, name="import")

QUESTIONS = (
    *("Where is my order?", "Как отменить заказ?", 'My screen flickers, "badly" 😡\nsince Monday'),
    *("Refund; please", "¿Dónde está mi paquete?", "  =1+1 is in my bill"),
)
ANSWERS = (
    "It is on its way, 2–3 days.",
    "Заказ отменён.",
    "Please restart:\n1. hold it\n2. wait 🙂",
    "Done; 3,50 € back.",
)
RATINGS = ("1", "2", "3", "4", "5", "5", "", "n/a")
FORMATS: Mapping[str, Callable[[datetime], str]] = {
    "iso": lambda when: when.isoformat(sep=" "),
    "zoned": lambda when: when.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "american": lambda when: f"{when.month}/{when.day}/{when:%y} {when.hour % 12 or 12}:{when:%M %p}",
    "german": lambda when: when.strftime("%d.%m.%Y %H:%M"),
    "mail": lambda when: when.strftime("%a, %d %b %Y %H:%M:%S +0000"),
    "milliseconds": lambda when: str(int(when.replace(tzinfo=UTC).timestamp() * 1000)),
}
NUM_ROWS = 200


def tickets(seed: int, formats: Sequence[str]) -> tuple[list[dict[str, str]], dict[str, datetime]]:
    """Rows of an export, a seventh of them without a reply, and when each ticket came."""
    random_numbers = random.Random(seed)
    when, rows, came = datetime(2026, 1, 3, 9, 30), list[dict[str, str]](), dict[str, datetime]()
    for number in range(NUM_ROWS):
        when += timedelta(minutes=random_numbers.randrange(60, 2400))
        ticket = f"T-{1000 + number}"
        came[ticket] = when
        rows.append(
            {
                "ticket": ticket,
                "customer_message": random_numbers.choice(QUESTIONS),
                "bot_reply": "" if number % 7 == 3 else random_numbers.choice(ANSWERS),
                "csat": random_numbers.choice(RATINGS),
                "agent_note": random_numbers.choice(("", "", "called back")),
                "created": FORMATS[random_numbers.choice(formats)](when),
            }
        )
    return rows, came


def write_csv(path: Path, rows: Sequence[Mapping[str, str]], *, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


@pytest.mark.parametrize(
    ("formats", "delimiter", "encoding"),
    [
        *((name, ",", "utf-8") for name in FORMATS),
        ("german", ";", "utf-8-sig"),
        ("american", "\t", "utf-16"),
        ("iso zoned mail milliseconds german", ",", "utf-8"),
    ],
)
def test_every_row_with_a_reply_comes_in_by_one_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], formats: str, delimiter: str, encoding: str
):
    rows, came = tickets(len(formats), formats.split())
    path = write_csv(tmp_path / "helpdesk.csv", rows, delimiter=delimiter, encoding=encoding)
    app(["import", str(path), "--into", str(tmp_path / "st"), "--scale", "1", "5"], result_action="return_value")
    shown = " ".join(capsys.readouterr().out.split())
    answered = {row["ticket"]: row for row in rows if row["bot_reply"]}
    samples = {sample.sample_id: sample for sample in Store(tmp_path / "st").samples()}
    assert samples.keys() == answered.keys() and len(answered) == 171
    for ticket, sample in samples.items():
        row = answered[ticket]
        expected = (int(row["csat"]) - 1) / 4 if row["csat"].isdigit() else None
        assert (sample.prompt[0]["content"], sample.response) == (row["customer_message"], row["bot_reply"])
        assert sample.reward == expected
        assert abs(sample.created_at - came[ticket].replace(tzinfo=UTC).timestamp()) < 60
    assert (
        "guessed prompt = customer_message, response = bot_reply, reward = csat, id = ticket, created_at = created"
        in shown
    )
    assert "29 × no response helpdesk.csv:" in shown and "the cell of bot_reply is empty" in shown
    assert "agent_note" in shown
    assert ("taken as UTC" in shown) == bool({"iso", "american", "german"} & {*formats.split()})


def test_without_a_scale_the_ratings_come_as_they_are_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows, _ = tickets(1, ["iso"])
    path = write_csv(tmp_path / "helpdesk.csv", rows)
    app(["import", str(path), "--into", str(tmp_path / "st")], result_action="return_value")
    shown = " ".join(capsys.readouterr().out.split())
    assert "reward = csat (1 to 5, taken as they are: no scale was assumed)" in shown
    assert "--into NEW --scale 1 5" in shown


def test_a_column_of_dates_in_two_orders_asks_which_and_takes_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows, _ = tickets(2, ["american", "german"])
    path, into = write_csv(tmp_path / "helpdesk.csv", rows), str(tmp_path / "st")
    with pytest.raises(ValueError, match=r"no order fits all dates of the column created.*--dates day-first or"):
        app(["import", str(path), "--into", into], result_action="return_value")
    app(["import", str(path), "--into", into, "--dates", "day-first"], result_action="return_value")
    shown = " ".join(capsys.readouterr().out.split())
    assert "day-first, as stated" in shown and "rows left undated: a date that is none in the order" in shown
    assert len(list(Store(tmp_path / "st").samples())) == 171
