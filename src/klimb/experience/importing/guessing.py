"""Which column of a table is what, by names that help desks, chat exports and data sets give them.

A guess is made where exactly one column fits, and every guess is said. What a rating stands for is none: its scale is
proposed to whoever asks, and never taken.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import islice, product
from types import MappingProxyType

from klimb.experience.importing.cells import chat_cell, from_json_cell, listed, mapping, messages, python_value
from klimb.experience.importing.dates import moment_of_number, readings
from klimb.experience.importing.rating_texts import is_unrated, read_rating, read_thumb
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Record, Row, RowError
from klimb.experience.samples import POLICY_ROLE, Message

NUM_ROWS_SEEN = 200
"""Of the first rows, whose columns and cells a guess looks at."""


NEEDED = ("prompt", "response")


DECIDING = ("prompt", "response", "messages", "reward")
"""What is learned, so two columns for one of them stop an import; of the others none is taken, and that is said."""


_ASKING = (
    "user customer client human visitor enduser kunde kunden nutzer nutzers benutzer utilisateur usuario cliente "
    "пользователь клиент"
)
_ASKED = (
    "message question query input text prompt utterance request msg nachricht frage anfrage pregunta вопрос сообщение"
)
_SAYING = "bot bots assistant ai model llm chatbot agent gpt generated support asistente ассистент бот"
_SAID = "reply response answer message output text completion msg antwort reponse respuesta ответ"


_OF = "of from by des der vom von du de del"


def _pairs(first: str, second: str) -> str:
    """Return every word of the first with every one of the second: `customer_message`, `Nachricht des Kunden`."""
    joined = [f"{a}{b}" for a, b in product(first.split(), second.split())]
    return " ".join(joined + [f"{b}{of}{a}" for a, of, b in product(first.split(), _OF.split(), second.split())])


_WORDS: Mapping[str, str] = {
    "prompt": "prompt question query input instruction instructions message usermessage inquiry request ask "
    "prompttext questiontext querytext inputtext messagetext "
    "frage anfrage nachricht kundennachricht kundenanfrage eingabe questionclient demande requete "
    "pregunta consulta mensaje entrada mensajecliente вопрос запрос сообщение обращение " + _pairs(_ASKING, _ASKED),
    "response": "response answer reply output assistant completion generation generatedtext prediction bot chatbot ai "
    "antwort ausgabe botantwort reponse reponsebot sortie respuesta salida respuestabot ответ ответбота "
    "chatgpt responsetext answertext replytext outputtext " + _pairs(_SAYING, _SAID),
    "messages": "messages message conversation conversations dialog dialogue dialogs chat chats chatlog transcript "
    "gesprach chatverlauf unterhaltung discussion dialogo conversacion диалог чат переписка",
    "reward": "reward csat csatscore rating userrating customerrating ratingscore starrating stars score userscore "
    "ratingvalue conversationrating surveyresult customersatisfaction customersatisfactionscore "
    "satisfaction satisfactionscore satisfactionrating thumb thumbs thumbsup vote feedback userfeedback feedbackscore "
    "helpful ishelpful washelpful helpfulness liked grade nps "
    "bewertung sterne zufriedenheit kundenzufriedenheit hilfreich etoiles evaluation calificacion puntuacion "
    "valoracion estrellas "
    "оценка рейтинг звезды полезно",
    "id": "id ticket ticketid ticketnumber ticketno conversationid chatid messageid requestid interactionid caseid "
    "casenumber threadid rowid recordid uuid ticketnummer vorgang vorgangsnummer identifiant identificador "
    "номер тикет идентификатор",
    "group": "group groupid promptid questionid queryid",
    "user": "user userid username customerid customeremail useremail clientid authorid author requester requesterid "
    "visitorid email kundennummer kundenid benutzer utilisateur usuario пользователь",
    "created_at": "createdat created createdon createdtime creationdate creationtime datecreated date datetime time "
    "timestamp sentat submittedat erstellt erstelltam datum zeitpunkt zeitstempel datecreation creele "
    "fecha fechacreacion creado fechahora дата датасоздания время создано создан",
    "model": "model modelname modelid llm llmmodel engine modell modele modelo модель",
}


def _key(name: object) -> str:
    """Return a column's name as names are compared: letters and digits alone, small, without accents and `(1-5)`."""
    plain = unicodedata.normalize("NFKD", re.sub(r"\(.*?\)|\[.*?\]", "", str(name)).casefold())
    return "".join(character for character in plain if character.isalnum())


NAMES: Mapping[str, frozenset[str]] = MappingProxyType(
    {role: frozenset(map(_key, words.split())) for role, words in _WORDS.items()}
)
"""What a column may be -> the names it is known by, as `_key` writes them."""


ROLES = tuple(NAMES)


RATED_AT = frozenset(
    (
        *("ratedat", "ratingdate", "ratingtime", "votedat", "feedbackat", "feedbackdate"),
        *("answeredat", "repliedat", "respondedat", "bewertetam", "beantwortetam"),
    )
)
"""Names of dates that are taken where no other fits."""


def has_name_of(role: str, name: str) -> bool:
    """Return whether a column is called as those of this role are."""
    return _key(name) in NAMES[role]


SPEAKERS: Mapping[str, frozenset[str]] = {
    "prompt": frozenset(map(_key, _ASKING.split())),
    "response": frozenset({"assistant", "bot", "chatbot", "ai"}),
}
"""Where nothing else fits, columns that are called by who speaks: `user` beside `assistant`."""


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What was guessed of a table.

    Attributes:
        columns: our name -> the file's.
        left: our name -> why none of those that fit it was taken.
    """

    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    left: Mapping[str, str] = field(default_factory=dict[str, str])

    def without(self, role: str, why: str) -> "Guess":
        """Return the guess without this column, and why."""
        columns = {name: theirs for name, theirs in self.columns.items() if name != role}
        return Guess(columns=columns, left={**self.left, role: why})


def with_guess(rules: ImportRules, guess: Guess) -> ImportRules:
    """Return the rules with the columns as they are guessed; what the user states stays."""
    return replace(rules, columns={**guess.columns, **rules.columns}, guessed=frozenset(guess.columns))


def first_rows(records: Iterable[Record]) -> Sequence[Row]:
    """Return the rows among the first records, whose columns and cells a guess looks at."""
    return [record for record in islice(records, NUM_ROWS_SEEN) if isinstance(record, Row)]


def guess_columns(
    rows: Sequence[Row], roles: Iterable[str] = ROLES, *, stated: Mapping[str, str] = MappingProxyType({})
) -> Guess:
    """Return which columns of the rows are what, for what has no column under our own name.

    Args:
        rows: some of the file.
        roles: what is looked for.
        stated: our name -> the file's, which the user states; those columns are nothing else.

    Raises:
        ValueError: two columns could be the prompt, the response or the reward.
    """
    columns = {name: None for row in rows for name in row.values if name not in stated.values()}
    wanted = [role for role in roles if role not in stated and role not in columns]
    fitting = {role: _fitting(role, columns, rows) for role in wanted}
    if "prompt" in fitting and not fitting["prompt"]:
        fitting["prompt"] = _speaking("prompt", columns, rows) or _history(columns, rows)
        fitting["user"] = [name for name in fitting.get("user", ()) if name not in fitting["prompt"]]
    if "created_at" in fitting and not fitting["created_at"]:
        fitting["created_at"] = [name for name in columns if _key(name) in RATED_AT and _are_dates(_cells(name, rows))]
    if all(role in stated or role in columns or fitting.get(role) for role in NEEDED):
        fitting["messages"] = []  # prompts and responses stand by themselves
    for role in DECIDING:
        if len(fitting.get(role, ())) > 1:
            raise ValueError(_which(rows[0], role, fitting[role]))
    return Guess(
        columns={role: names[0] for role, names in fitting.items() if len(names) == 1},
        left={role: f"{' or '.join(names)}" for role, names in fitting.items() if len(names) > 1},
    )


def guess_table(rows: Sequence[Row], *, stated: Mapping[str, str] = MappingProxyType({})) -> Guess | None:
    """Return the guess for rows of no known kind; None if no column could be the prompt, or none the response.

    A column of whole conversations is both.

    Raises:
        ValueError: there are columns for both, and two for one of them.
    """
    columns = {name: None for row in rows for name in row.values}
    if not any(_has_conversations(role, columns, rows, stated) for role in ("messages", *NEEDED)):
        for role in NEEDED:
            is_there = role in stated or role in columns
            found = _fitting(role, columns, rows) or _speaking(role, columns, rows)
            if not (is_there or found or (role == "prompt" and _history(columns, rows))):
                return None
    return guess_columns(rows, stated=stated)


def _has_conversations(role: str, columns: Iterable[str], rows: Sequence[Row], stated: Mapping[str, str]) -> bool:
    """Tell whether a column that is stated, or called, so holds whole conversations: prompt and response in one."""
    if role in stated:
        return _are_conversations(_cells(stated[role], rows))
    return role == "messages" and bool(_fitting(role, columns, rows))


def check_words(guess: Guess, rows: Sequence[Row]) -> None:
    """Look at the ratings of a guessed column.

    Raises:
        ValueError: most of them are words that say nothing by themselves, so that their rows could not come in.
    """
    name = guess.columns.get("reward")
    rated = [cell for cell in _cells(name, rows) if not (isinstance(cell, str) and is_unrated(cell))] if name else []
    words = dict.fromkeys(cell.strip() for cell in rated if isinstance(cell, str) and _is_word(cell))
    if name and 2 * sum(isinstance(cell, str) and _is_word(cell) for cell in rated) > len(rated):
        pairs = " ".join(f"{quoted(word)}=NUMBER" for word in words)
        raise ValueError(
            f"{_file_of(rows[0])}{name} could be the reward and holds words ({', '.join(words)}); say "
            f"what each stands for: --map {pairs}. If it is none: --ignore {quoted(name)}"
        )


def comes_twice(records: Iterable[Record], name: str) -> bool:
    """Tell whether two rows have the same text or number in this column; many millions are not looked at to the end."""
    seen: set[int] = set()
    for record in islice(records, MOST_IDS):
        cell = record.values.get(name) if isinstance(record, Row) else None
        if cell is None or cell == "":
            continue
        if hash(str(cell)) in seen:
            return True
        seen.add(hash(str(cell)))
    return False


MOST_IDS = 2_000_000


def _which(row: Row, role: str, names: Sequence[str]) -> str:
    said = f"{' and '.join(names)} could each be the {role}; say which is: --columns {role}={quoted(names[0])}"
    return f"{_file_of(row)}{said}"


def _file_of(row: Row) -> str:
    """Return `data.csv: ` of a row of a file; nothing of one of an object."""
    file = row.place.rpartition(":")[0]
    return f"{file}: " if file else ""


def quoted(name: str) -> str:
    """Return a column's name as a shell takes it."""
    return name if re.fullmatch(r"[\w.-]+", name) else f"'{name}'"


def _fitting(role: str, columns: Iterable[str], rows: Sequence[Row]) -> list[str]:
    """Return the columns that have a name of this role, and cells that it may have."""
    fits = _FITS.get(role, _is_anything)
    return [name for name in columns if _key(name) in NAMES[role] and fits(_cells(name, rows))]


def _speaking(role: str, columns: Iterable[str], rows: Sequence[Row]) -> list[str]:
    """Return columns that are called by who speaks in them, where the other one is called so too."""
    keys = {_key(name): name for name in columns}
    if not (SPEAKERS["prompt"] & set(keys) and SPEAKERS["response"] & set(keys)):
        return []
    return [name for key, name in keys.items() if key in SPEAKERS[role] and _is_speech(_cells(name, rows))]


def _history(columns: Iterable[str], rows: Sequence[Row]) -> list[str]:
    """Return columns of conversations that end before the answer."""
    named = [(name, _cells(name, rows)) for name in columns if _key(name) in NAMES["messages"]]
    return [name for name, cells in named if _are_chats(cells) and not _are_conversations(cells)]


def _cells(name: str, rows: Sequence[Row]) -> Sequence[object]:
    return [value for row in rows if (value := row.values.get(name)) not in (None, "")]


def _is_anything(cells: Sequence[object]) -> bool:
    return True


def _are_texts(cells: Sequence[object]) -> bool:
    return all(isinstance(cell, str) or listed(cell) is not None for cell in cells)


def _is_speech(cells: Sequence[object]) -> bool:
    """Tell what somebody says from their name: it has blanks, or is a list of messages."""
    return _are_texts(cells) and any(not isinstance(cell, str) or " " in cell.strip() for cell in cells)


def _are_ids(cells: Sequence[object]) -> bool:
    """Tell whether no cell comes twice: an id that repeats is one of something larger than a row."""
    return len({str(cell) for cell in cells}) == len(cells)


def _are_dates(cells: Sequence[object]) -> bool:
    """Tell whether any cell says a date; seconds that an answer took do not."""
    return not cells or any(_is_date(cell) for cell in cells)


def _is_date(cell: object) -> bool:
    if isinstance(cell, str):
        return bool(readings(cell))
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return moment_of_number(cell) is not None
    return isinstance(cell, date | Mapping)


MOST_WORDS = 20
"""Different texts of a column that may be ratings; comments are more, and longer."""


def _are_ratings(cells: Sequence[object]) -> bool:
    """Tell numbers, thumbs and words that could be mapped from what people write at length."""
    words = {cell for cell in cells if isinstance(cell, str) and _is_word(cell)}
    others = [cell for cell in cells if not isinstance(cell, str) and not isinstance(python_value(cell), int | float)]
    is_short = all(len(word) <= 30 and len(word.split()) <= 3 for word in words)
    return is_short and len(words) <= MOST_WORDS and all(hasattr(cell, "__float__") for cell in others)


def _is_word(text: str) -> bool:
    return not (is_unrated(text) or read_rating(text) or read_thumb(text) is not None)


def _are_conversations(cells: Sequence[object]) -> bool:
    """Tell lists of messages, also as text, of which some end with the answer."""
    found = [_spoken(cell) for cell in cells]
    return bool(found) and all(found) and any(spoken[-1]["role"] == POLICY_ROLE for spoken in found)


def _are_chats(cells: Sequence[object]) -> bool:
    """Tell lists of messages, also as text."""
    return bool(cells) and all(_spoken(cell) for cell in cells)


_CSV = Row("", {}, "", is_text=True)
"""A row whose cells are text: lists and objects are read out of it."""


def _spoken(cell: object) -> Sequence[Message]:
    """Return the messages of a cell; none if it holds something else."""
    try:
        found = chat_cell(cell, _CSV) if isinstance(cell, str) else cell
        return messages(found, what="messages") if listed(found) is not None else ()
    except RowError:
        return ()


_LOGGED = ("messages", "choices", "contents", "candidates")
"""Names in the requests and the responses of servers."""


def _are_one_side(cells: Sequence[object]) -> bool:
    """Tell what one side says from whole conversations, and from what servers log, written as JSON into a cell."""
    if not _are_texts(cells) or _are_conversations(cells):
        return False
    texts = [cell for cell in cells if isinstance(cell, str) and cell.lstrip()[:1] == "{"]
    if any(name in _object_in(text) for text in texts for name in _LOGGED):
        return False
    return not any(f"'{name}':" in text for text in texts for name in _LOGGED)  # as Python writes them


def _object_in(text: str) -> Mapping[str, object]:
    """Return the object that a text is; an empty one for any other, and where a name comes twice in it."""
    try:
        return mapping(from_json_cell(text, _CSV))
    except RowError:
        return {}


_FITS: Mapping[str, Callable[[Sequence[object]], bool]] = {
    "messages": _are_conversations,
    "prompt": _are_one_side,
    "response": _are_one_side,
    "reward": _are_ratings,
    "id": _are_ids,
    "created_at": _are_dates,
    "user": lambda cells: not _are_long(cells),
}


def _are_long(cells: Sequence[object]) -> bool:
    return any(isinstance(cell, str) and len(cell.split()) > 4 for cell in cells)


_SCALES = (
    (1, 5),
    (0, 5),
    (1, 10),
    (0, 10),
    (1, 7),
    (1, 4),
    (1, 3),
    (0, 4),
    (0, 3),
    (0, 100),
    (1, 100),
    (-1, 1),
    (0, 1),
)
"""Lowest and highest rating that forms ask for, the frequent first."""


@dataclass(frozen=True, kw_only=True)
class ScaleProposal:
    """A scale that ratings may be on, to be asked of whoever knows.

    Attributes:
        low: the lowest rating that can be given.
        high: the highest.
        reason: what shows it, in words.
    """

    low: float
    high: float
    reason: str


def propose_scale(values: Iterable[object]) -> ScaleProposal | None:
    """Return the scale that whole numbers seem to be on, whose ends they reach; from 1 on the lowest may be missing.

    None for parts of 1, for words, and for numbers whose ends are those of no form.
    """
    numbers = {number for value in values if (number := _number(value)) is not None}
    if not numbers or any(number % 1 for number in numbers):
        return None
    lowest, highest = min(numbers), max(numbers)
    for low, high in _SCALES:
        num_steps = high - low + 1
        if highest != high or not (lowest == low or (low == 1 and lowest == 2 and num_steps > 3)):
            continue
        span = f"whole numbers {lowest:g} to {highest:g}"
        if len(numbers) == num_steps:
            return ScaleProposal(low=low, high=high, reason=f"{span}, all {num_steps} seen")
        return ScaleProposal(low=low, high=high, reason=f"{span}, {len(numbers)} of {num_steps} seen")
    return None


def _number(value: object) -> float | None:
    value = python_value(value)
    if isinstance(value, str):
        found = read_rating(value)
        return None if found is None else found.value
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return float(value) if is_number else None  # type: ignore[arg-type]
