"""Which libraries a command line loads before it answers, in a process of its own."""

import functools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cyclopts import App

from klimb.workbench import commands
from klimb.workbench.cli import add_commands, run_command

COMPUTE = frozenset(
    {"torch", "transformers", "peft", "pyarrow", "duckdb", "matplotlib", "scipy", "numpy", "safetensors"}
)
SETTINGS = frozenset({"pydantic"})

PROGRAM = """
import json, os, sys
from klimb.workbench.cli import main
for number, line in enumerate(json.load(open("lines.json"))):
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT), stream)
    sys.argv = ["klimb", *line]
    try:
        main()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        names = sorted({name.partition(".")[0] for name in sys.modules})
        json.dump({"status": end.code, "loaded": names}, open(f"{number}.json", "w"))
"""
"""Answers one line after the other: what is loaded adds up, so that all must do without what one must do without."""

COMMANDS = (
    "audit",
    "board",
    "compare",
    "demo",
    "estimate",
    "eval",
    "experience",
    "export",
    "import",
    "recipes",
    "report",
    "train",
)


@dataclass(frozen=True)
class Answer:
    """What a command answered, and the packages that it had loaded by then."""

    status: int
    out: str
    err: str
    loaded: frozenset[str]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory):
    """Command lines -> the answer to each, from one process, in a folder with a right, a misspelt and a broken file."""

    @functools.cache
    def answer(lines: tuple[tuple[str, ...], ...]) -> dict[tuple[str, ...], Answer]:
        place = tmp_path_factory.mktemp("startup")
        (place / "empty").mkdir()
        (place / "run.toml").write_text("[objective]\nbeta = 0.1\n")
        (place / "misspelt.toml").write_text("[objective]\nbta = 0.1\n")
        (place / "broken.toml").write_text("[objective\n")
        (place / "study.toml").write_text("[study]\nseeds = 0\n")
        (place / "lines.json").write_text(json.dumps(lines))
        done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=place, timeout=300, check=False)
        assert done.returncode == 0, [path.read_text()[-2000:] for path in place.glob("*.err")]
        return {line: read_answer(place, number) for number, line in enumerate(lines)}

    return answer


def read_answer(place: Path, number: int) -> Answer:
    out, err = ((place / f"{number}.{name}").read_text() for name in ("out", "err"))
    found = json.loads((place / f"{number}.json").read_text())
    return Answer(found["status"], out, err, frozenset(found["loaded"]))


HELP = (("--help",), ("--version",), ("train", "--help"), ("experience", "score", "--help"))

MISSPELT = (("trian", "run.toml"), ("train", "run.toml", "--resme", "x"), ("estimate", "x", "--modle", "m"))

NAMING = (("recipes",), ("recipes", "show", "grpo"), ("config",), ("config", "beta"), ("compare",))


@pytest.mark.parametrize("arguments", HELP, ids=" ".join)
def test_help_loads_neither_what_computes_nor_what_checks_settings(answers, arguments):
    answer = answers(HELP + MISSPELT)[arguments]
    assert answer.status == 0, answer.err
    assert answer.out.strip()
    assert not answer.loaded & (COMPUTE | SETTINGS)


@pytest.mark.parametrize("arguments", MISSPELT, ids=" ".join)
def test_a_misspelt_command_or_option_loads_nothing_heavy(answers, arguments):
    answer = answers(HELP + MISSPELT)[arguments]
    assert answer.status == 2
    assert "ou mean" in answer.err
    assert not answer.loaded & (COMPUTE | SETTINGS)


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (("trian", "run.toml"), '"train"'),
        (("impot",), '"import"'),
        (("experience", "scroe"), '"score"'),
        (("train", "run.toml", "--resme", "x"), "--resume"),
        (("eval", "model", "--tsk", "arithmetic"), "--task"),
        (("audit", "logs", "--max-sample", "3"), "--max-samples"),
        (("estimate", "logs", "--modle", "m"), "--model"),
        (("experience", "score", "logs", "--model", "m", "--inot", "x"), "--into"),
        (("compare", "smoke", "--dry-rnu"), "--dry-run"),
        (("import", "log.jsonl", "--into", "x", "--sacle", "1", "5"), "--scale"),
        (("report", "runs/x", "--figurs", "f"), "--figures"),
        (("board", "--prot", "1"), "--port"),
        (("demo", "--sed", "1"), "--seed"),
    ],
)
def test_a_misspelt_command_or_option_gets_the_nearest_name(arguments, nearest, capsys):
    with pytest.raises(SystemExit) as end:
        run_command(list(arguments))
    assert end.value.code == 2
    assert f"ou mean {nearest}" in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_what_it_is_for(name, capsys):
    assert run_command([name, "--help"]) == 0
    assert f"klimb {name}" in capsys.readouterr().out


REFUSED = (
    (("train",), "give a TOML file"),
    (("train", "nothing.toml"), "nothing.toml"),
    (("train", "broken.toml"), "not valid TOML"),
    (("train", "misspelt.toml"), "did you mean objective.beta?"),
    (("train", "run.toml", "--set", "objective.recipe=grop"), "did you mean 'grpo'?"),
    (("train", "run.toml", "--set", "model.path=nothing"), "there is no model 'nothing'"),
    (("train", "--resume", "nothing"), "holds no run"),
    (("train", "run.toml", "--set", "task={kind='file', path='no.csv'}"), "task.path = 'no.csv': expected a file"),
    (
        ("train", "run.toml", "--set", "sources.log=1.0", "log.path=nowhere"),
        "log.path = 'nowhere': expected a store",
    ),
    (
        ("train", "run.toml", "--set", "cloning.path=empty"),
        "cloning.path = 'empty': empty is a folder without data files",
    ),
    (("train", "run.toml", "--set", "optimizer.kind=python:my_lost.one"), "optimizer.kind = 'python:my_lost.one'"),
    (("eval", "smollm2-135m", "--task", "file:no.jsonl"), "task.path = 'no.jsonl': expected a file"),
    (("eval", "model"), "--task"),
    (("eval", "model", "--task", "arithmetics"), "arithmetic"),
    (("demo", "--divergence", "fk"), "did you mean 'fkl'?"),
    (("recipes", "show", "grop"), "did you mean 'grpo'?"),
    (("eval", "nothing", "--task", "arithmetic"), "there is no model 'nothing'"),
    (("config", "objective.bta"), "objective.bta"),
    (("audit", "run.toml", "--model", "nothing"), "there is no model 'nothing'"),
    (("audit", "nothing"), "nothing at nothing"),
    (("audit", "logs", "--fresh", "-1"), "--fresh"),
    (("estimate", "nothing", "--model", "m"), "nothing at nothing"),
    (("estimate", "logs", "--model", "m", "--clip", "0"), "--clip"),
    (("experience", "ls", "nothing"), "nothing at nothing"),
    (("experience", "show", "nothing", "id"), "nothing at nothing"),
    (("experience", "export", "nothing", "--to", "x.csv"), "nothing at nothing"),
    (("experience", "score", "nothing", "--model", "m", "--into", "x"), "nothing at nothing"),
    (("experience", "score", "run.toml", "--model", ".", "--into", "run.toml"), "already exists"),
    (("import", "nothing.jsonl", "--into", "x"), "nothing at nothing.jsonl"),
    (("report", "nothing"), "holds no run"),
    (("board", "nothing"), "is not a folder"),
    (("compare", "nothing"), "no ready study"),
    (("compare", "study.toml"), "study.seeds"),
    (("compare", "smoke", "--jobs", "0"), "--jobs"),
)

WITHOUT_COMPUTE = (*(arguments for arguments, _ in REFUSED), *NAMING)


@pytest.mark.parametrize(
    ("arguments", "words"),
    REFUSED,
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_path_or_setting_is_refused_before_what_computes_is_loaded(answers, arguments, words):
    answer = answers(WITHOUT_COMPUTE)[arguments]
    assert answer.status == 2, answer.err
    assert words in " ".join(answer.err.split())
    assert not answer.loaded & COMPUTE


@pytest.mark.parametrize("arguments", NAMING, ids=" ".join)
def test_what_only_names_things_loads_nothing_that_computes(answers, arguments):
    answer = answers(WITHOUT_COMPUTE)[arguments]
    assert answer.status == 0, answer.err
    assert not answer.loaded & COMPUTE


def test_every_file_of_commands_is_a_command(capsys):
    app = App(name="klimb")
    add_commands(app, commands)
    assert set(COMMANDS) <= set(app)


def test_a_file_is_all_that_a_command_takes(tmp_path: Path, monkeypatch, capsys):
    folder = tmp_path / "own_commands"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "greet.py").write_text("def greet(name: str, /):\n    print('hello', name)\n")
    (folder / "from_here.py").write_text("NAME = 'from'\n\ndef from_here():\n    print('here')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_commands  # pyright: ignore[reportMissingImports]

    app = App(name="klimb", result_action="return_value")
    add_commands(app, own_commands)
    app(["greet", "you"])
    app(["from"])
    assert capsys.readouterr().out.split() == ["hello", "you", "here"]
