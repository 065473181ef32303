"""`[environment]` of a run file: what it takes, what is refused, what a dry run shows, and what a resume holds fast."""

import json
import sys
from pathlib import Path

import pytest
from tests.workbench.conftest import Workplace

import klimb
from klimb.errors import ConfigError
from klimb.experience import read_samples
from klimb.tasks.environments import EnvironmentSettings
from klimb.training import read_evaluations
from klimb.training.checkpoints import CheckpointError
from klimb.workbench.config import build_config, read_tables
from klimb.workbench.description import describe
from klimb.workbench.environments import files_of
from klimb.workbench.session import make_session
from klimb.workbench.study.worker import start_key

# A run takes twice as long when the shapes are checked; other tests check those of the same run.
pytestmark = pytest.mark.usefixtures("without_shape_checks")

TEMPLATE = Path(__file__).parents[2] / "examples" / "templates" / "smollm2-tools.jinja"

GAME = '''
import random


class Guess:
    """A digit to be guessed."""

    def reset(self, **row):
        self.number = random.randint(0, 9)
        self.tries = 0
        self.found = False
        return f"Which digit? It is not {(self.number + 1) % 10}."

    def guess(self, number: int) -> str:
        """Guess the digit.

        Args:
            number: The guess.
        """
        self.tries += 1
        self.found = self.found or number == self.number
        return "right" if number == self.number else "wrong"

    def get_reward(self):
        return 0.25 + self.found + self.tries / 100


class Other(Guess):
    """The same by another name."""


class Worthless:
    """Gives no reward."""

    def reset(self):
        return "Say anything."


class Talk:
    """Has no tools."""

    def reset(self, **row):
        self.num_words = 0
        return "Say anything."

    def respond(self, text):
        self.num_words += 1
        return "Go on." if self.num_words < 2 else None

    def get_reward(self):
        return self.num_words


class Broken:
    """Cannot begin."""

    def reset(self, **row):
        raise KeyError("no board")

    def get_reward(self):
        return 0.0


class Still:
    """Cannot be reset."""


def guess(number: int) -> str:
    """Have the name of a method.

    Args:
        number: The guess.
    """
    return "no"


def note(text: str, times: int = 1) -> str:
    """Write something down.

    Args:
        text: What to write.
        times: How often.
    """
    return "noted"
'''

SAMPLER = '''
from klimb.samplers import Completion

CALL = '<tool_call>{"name": "guess", "arguments": {"number": 3}}</tool_call>'


def caller(policy, max_batch):
    """One that first calls the tool, and then says that it is done."""

    class Caller:
        def sample(self, prompts, *, num_samples, settings, generator):
            return [[say(ids)] * num_samples for ids in prompts]

    def say(prompt):
        words = "done" if "<|im_start|>tool" in policy.tokenizer.decode(prompt) else CALL
        ids = (*policy.tokenizer(words, add_special_tokens=False).input_ids, policy.end_ids[0])
        values = (-4.0,) * len(ids)
        return Completion(response_ids=ids, log_mu=values, log_model=values, finish_reason="stop")

    return Caller()
'''

RUN = """
seed = 1
[model]
path = "talker"
chat_template = {template!r}
dtype = "float32"
device = "cpu"
[task]
kind = "environment"
question = "A game."
num_problems = 10
[environment]
factory = "python:my_game.Guess"
max_turns = 3
[sampling]
sampler = "python:my_sampler.caller"
num_prompts = 2
num_samples = 2
max_new_tokens = 80
[advantages]
group_filter = false
[optimizer]
learning_rate = 1e-3
warmup_steps = 0
[training]
num_steps = 1
[evaluation]
num_problems = 2
num_samples = 2
greedy = false
[run]
loggers = []
report = false
save_model = false
"""


@pytest.fixture
def talking(workplace: Workplace) -> Workplace:
    """A place with a model that has positions enough, a template that offers tools, and an environment."""
    talker = workplace.path / "talker"
    talker.mkdir()
    for path in workplace.model.iterdir():
        talker.joinpath(path.name).write_bytes(path.read_bytes())
    config = json.loads((talker / "config.json").read_text())
    (talker / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    workplace.write("run.toml", RUN.format(template=str(TEMPLATE)))
    workplace.write("my_game.py", GAME)
    workplace.write("my_sampler.py", SAMPLER)
    forget()
    return workplace


def forget() -> None:
    for name in ("my_game", "my_sampler"):
        sys.modules.pop(name, None)


REFUSED = {
    "a key that there is not": (("environment.max_turn=3",), "environment.max_turn = 3: unknown key; did you mean env"),
    "a number that is too small": (("environment.max_turns=0",), "environment.max_turns = 0: expected a whole number"),
    "a format that there is not": (
        ("environment.call_format=hermess",),
        "'minimax', 'atem'; did you mean 'hermes'?",
    ),
    "another word": (("environment.rewritten_history=keep",), "expected one of 'split', 'refuse'"),
    "a factory that is no location": (
        ("environment.factory=Guess",),
        "environment.factory = 'Guess': expected 'python:module.name' or 'openenv:",
    ),
    "a module that there is not": (
        ("environment.factory=python:no_game.Guess",),
        "environment.factory = 'python:no_game.Guess': there is no module 'no_game'",
    ),
    "a module of tools that there is not": (
        ("environment.tools=['python:no_tools.look']",),
        "environment.tools = 'python:no_tools.look': there is no module 'no_tools'",
    ),
    "a name that there is not": (
        ("environment.factory=python:my_game.Gues",),
        "environment.factory = 'python:my_game.Gues': the module my_game has no 'Gues'",
    ),
    "a factory without reset": (
        ("environment.factory=python:my_game.Still",),
        "environment.factory = 'python:my_game.Still': python:my_game.Still makes Still, which has no method `reset`",
    ),
    "a tool with a method's name": (
        ("environment.tools=['python:my_game.guess']",),
        "two tools are called 'guess'; rename one of them",
    ),
    "nothing to talk to": (
        ("environment.factory=''", "task=arithmetic"),
        "[environment] names nothing to talk to, and the task arithmetic",
    ),
    "problems of no environment": (
        ("environment.factory=''", "environment.tools=['python:my_game.note']"),
        "task.kind = 'environment' asks what an environment makes in `reset`, and there is none: set environment.fac",
    ),
    "an environment without a reward": (
        ("environment.factory=python:my_game.Worthless",),
        "task.reward is the environment's own reward, and the environment has neither get_reward nor get_turn_reward",
    ),
    "an environment that nobody asks": (
        ("sources.log=1.0", "log.path=talker", "evaluation.at_ends=false"),
        "[environment] does nothing: with sources.log = 1 no answer is drawn, and nothing is evaluated; leave it out",
    ),
    "a history that is rewritten": (
        (
            "environment.factory=python:my_game.Other",
            "environment.rewritten_history=refuse",
            "model.chat_template=forgetful.jinja",
        ),
        "environment.rewritten_history = 'refuse', and the chat template rewrites the history",
    ),
}
FORGETFUL = (
    "{{ tools | tojson }}<tool_call>{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{{ m.content | trim }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_by_its_key_and_leaves_nothing(talking: Workplace, case: str):
    changed, told = REFUSED[case]
    talking.write("forgetful.jinja", FORGETFUL)
    outcome = talking.klimb("train", "run.toml", "--set", *changed)
    assert outcome.status == 2 and told in outcome.err, outcome.err
    assert not Path("runs").exists()


def test_a_template_that_tells_of_no_tools_is_refused(talking: Workplace):
    template = "model.chat_template=talker/chat_template.jinja"
    outcome = talking.klimb("train", "run.toml", "--set", template, "environment.call_format=hermes")
    assert outcome.status == 2 and "the model's chat template tells the model of none" in outcome.err, outcome.err
    outcome = talking.klimb("train", "run.toml", "--set", template)
    assert outcome.status == 2 and "state one with environment.call_format: hermes" in outcome.err, outcome.err
    assert not Path("runs").exists()


def test_an_environment_without_tools_needs_no_template_that_offers_any(talking: Workplace):
    changed = ("environment.factory=python:my_game.Talk", "model.chat_template=talker/chat_template.jinja")
    outcome = talking.klimb("train", "run.toml", "--dry-run", "--set", *changed)
    assert outcome.status == 0, outcome.err
    assert "none, as there are no tools" in outcome.out
    assert "user       Go on. (put in" in outcome.out
    # What looks like a call is what the policy says.
    assert "calls guess" not in outcome.out


def test_a_run_whose_environments_all_fail_ends_and_says_why(talking: Workplace):
    changed = ("environment.factory=python:my_game.Broken", "evaluation.at_ends=false", "training.num_steps=9")
    outcome = talking.klimb("train", "run.toml", "--folder", "run", "--set", *changed)
    assert outcome.status == 3, outcome.err
    assert "16 of 16 responses to task" in outcome.err and "KeyError: 'no board'" in outcome.err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("task.reward=environment", "task.reward = 'environment', and there is no environment"),
        ("rewards.game.reward=environment", "rewards.game.reward = 'environment', and there is no environment"),
        ("credit.kind=turn", "credit.kind = 'turn' credits the turns of conversations, and each answer is one turn"),
    ],
)
def test_what_only_an_environment_gives_is_refused_without_one(workplace: Workplace, given: str, told: str):
    own = () if given.startswith("task.reward") else ("task.reward=task",)
    outcome = workplace.klimb("train", "run.toml", "--set", given, *own)
    assert outcome.status == 2 and told in outcome.err, outcome.err


def test_a_dry_run_shows_calls_tools_limits_the_history_and_a_conversation(talking: Workplace):
    outcome = talking.klimb("train", "run.toml", "--dry-run", "--set", "environment.tools=['python:my_game.note']")
    assert outcome.status == 0, outcome.err
    lines = [line for line in outcome.out.splitlines() if line]
    for line in (
        "environment python:my_game.Guess · tools note, guess · at most 3 turns of 80 tokens · 10 s a call",
        "calls        hermes, which the chat template shows",
        "tool         guess(number: integer): Guess the digit.",
        "tool         note(text: string, times: integer (optional)): Write something down.",
        "history      the chat template keeps the history",
        "ended        the last turn called no tool, or the environment is done",
    ):
        assert any(" ".join(line.split()) == " ".join(each.split()) for each in lines), (line, lines)
    said = lines[next(place for place, line in enumerate(lines) if line.startswith("conversation")) :]
    assert [line.split()[0] for line in said] == ["conversation", "user", "assistant", "tool", "assistant", "ended"]
    assert "A game.Which digit? It is not " in said[1]
    assert 'calls guess({"number": 3})' in said[2] and "drawn, " in said[2]
    assert said[3].split()[1] == "guess" and said[3].split()[2] in ("right", "wrong") and "put in" in said[3]
    assert "done (drawn, 5 tokens)" in said[4]
    assert not any(line.startswith("an answer") for line in lines)
    assert not Path("runs").exists()


def test_a_problem_is_the_same_whenever_it_is_asked_and_another_seed_another_one(talking: Workplace):
    assert talking.klimb("train", "run.toml", "--folder", "run").status == 0
    samples = read_samples(Path("run/rollouts/step-000001.parquet"))
    opened = {}
    for sample in samples:
        opened.setdefault(sample.metadata["problem_id"], set()).add(sample.prompt[-1]["content"])
    assert len(opened) == 2 and all(len(each) == 1 for each in opened.values())
    before, after = read_evaluations(Path("run/evaluations.jsonl"))
    assert [each.question for each in before.problems] == [each.question for each in after.problems]
    assert all(each.question.startswith("A game.Which digit?") for each in before.problems)
    # Both ask the same words, and are evidence each for itself.
    assert len({each.prompt_id for each in before.problems}) == 2
    assert not {each.problem_id for each in before.problems} & opened.keys()
    # All answers to a problem meet the same digit, so their rewards are one number here, where the guess is one.
    assert all(len(set(each.values)) == 1 for each in before.problems)


def test_a_resume_holds_the_environment_fast(talking: Workplace):
    begun = talking.klimb("train", "run.toml", "--folder", "run", "--set", "evaluation.at_ends=false")
    assert begun.status == 0, begun.err

    def go_on(*settings: str):
        forget()
        return talking.klimb("train", "--resume", "run", "--set", "training.num_steps=2", *settings)

    for changed, told in (
        ("environment.factory=python:my_game.Other", "environment.factory: 'python:my_game.Guess' in the checkpoint"),
        ("environment.call_seconds=3", "environment.call_seconds: 10.0 in the checkpoint, 3.0 now"),
        ("environment.max_turns=2", "environment.max_turns: 3 in the checkpoint, 2 now"),
        ("environment.tools=['python:my_game.note']", "environment.tools: [] in the checkpoint, ['python:my_game"),
    ):
        resumed = go_on(changed)
        assert resumed.status == 2 and told in resumed.err, resumed.err
    talking.write("my_game.py", GAME.replace("/ 100", "/ 10"))
    assert "own_parts.python:my_game.Guess" in go_on().err
    talking.write("my_game.py", GAME)
    assert go_on("environment.max_processes=1").status == 0


def test_an_edit_of_a_tools_source_is_noticed(talking: Workplace):
    talking.write("my_tools.py", GAME[GAME.index("def note") :])
    config = build_config(read_tables(Path("run.toml")), ["environment.tools=['python:my_tools.note']"], source="t")
    before = start_key(config)
    talking.write("my_tools.py", GAME[GAME.index("def note") :].replace("noted", "written"))
    assert start_key(config) != before


def test_runs_of_a_study_share_an_evaluation_only_of_the_same_environment(talking: Workplace):
    def key(*settings: str) -> str:
        return start_key(build_config(read_tables(Path("run.toml")), settings, source="run.toml"))

    plain = key()
    assert key("environment.max_processes=2") == plain
    assert key("seed=5", "training.num_steps=7") == plain
    others = [key("environment.max_turns=2"), key("environment.factory=python:my_game.Other")]
    talking.write("my_game.py", GAME.replace("/ 100", "/ 10"))
    others.append(key())
    assert len({plain, *others}) == 4


def test_the_tools_of_the_environment_take_room_of_the_prompt(talking: Workplace):
    def make(num_positions: int):
        config = json.loads(Path("talker/config.json").read_text())
        Path("talker/config.json").write_text(json.dumps(config | {"max_position_embeddings": num_positions}))
        return make_session(build_config(read_tables(Path("run.toml")), (), source="run.toml"))

    session = make(2048)
    assert not session.unusable[0].reasons
    asked = session.task.train[0].messages
    offer = session.offer
    assert offer is not None
    alone, told = len(session.policy.render(asked)), len(session.policy.render(asked, offer.tools))
    assert told > alone + 200
    assert make(told + 80).unusable[0].reasons == ()
    with pytest.raises(ConfigError, match=rf"the prompt has {told} tokens"):
        make(told + 79)


def test_a_session_says_what_it_talks_to(talking: Workplace):
    settings = ("environment.max_turns=1", "environment.max_tokens=90", "environment.sample_seconds=30")
    session = make_session(build_config(read_tables(Path("run.toml")), settings, source="run.toml"))
    assert dict(describe(session))["environment"] == (
        "python:my_game.Guess · tools guess · at most 1 turn of 80 tokens, 90 in all with what is put in · 10 s a "
        "call, 30 s for all of a sample"
    )


def run_in_python(talking: Workplace, *, save_model: bool = False, **given):
    tables = read_tables(Path("run.toml"))
    del tables["environment"]
    tables["run"]["save_model"] = save_model
    return klimb.train(tables, show=False, **given)


def test_an_environment_may_be_a_class_of_the_program(talking: Workplace):
    class Guess:
        def reset(self, **row):
            self.tries = 0

        def guess(self, number: int) -> str:
            """Guess.

            Args:
                number: The guess.
            """
            self.tries += 1
            return "wrong"

        def get_reward(self):
            return 0.5 * self.tries

    run = run_in_python(talking, environment=Guess, folder="run", save_model=True)
    config = json.loads((run.folder / "config.json").read_text())
    assert config["environment"]["factory"] == "python:__object__.Guess"
    samples = read_samples(run.folder / "rollouts" / "step-000001.parquet")
    assert [sample.reward for sample in samples] == [0.5] * 4
    assert [turn.role for turn in samples[0].turns] == ["assistant", "tool", "assistant"]
    evaluated = talking.klimb("eval", "run")
    assert evaluated.status == 2 and "environment.factory" in evaluated.err, evaluated.err

    class Guesses(Guess):
        def get_reward(self):
            return 0.25 * self.tries

    Guesses.__name__ = "Guess"
    with pytest.raises(CheckpointError, match=r"own_parts\.python:__object__\.Guess"):
        run_in_python(talking, environment=Guesses, folder="run", resume=True, save_model=True)


def test_an_environment_may_be_a_table_with_functions_as_tools(talking: Workplace):
    def guess(number: int) -> str:
        """Guess.

        Args:
            number: The guess.
        """
        return f"not {number}"

    def reward(prompt, response, answer, metadata):
        return float(response == "done")

    run = run_in_python(talking, environment={"tools": [guess], "max_turns": 2}, task="arithmetic", reward=reward)
    config = json.loads((run.folder / "config.json").read_text())
    assert config["environment"]["tools"] == ["python:__object__.guess"]
    assert config["environment"]["max_turns"] == 2
    assert "python:__object__.guess" in json.loads((run.folder / "provenance.json").read_text())["own_parts"]
    samples = read_samples(run.folder / "rollouts" / "step-000001.parquet")
    assert [turn.text for turn in samples[0].turns if turn.role == "tool"] == ["not 3"]


def test_an_environment_may_be_settings_and_an_object_that_is_none_is_refused(talking: Workplace):
    settings = EnvironmentSettings(factory="python:my_game.Still", max_turns=2)
    with pytest.raises(ConfigError, match=r"'python:my_game.Still': .* has no method `reset`"):
        run_in_python(talking, environment=settings)
    with pytest.raises(ConfigError, match=r"environment\.factory = .*: expected a class, or a function"):
        run_in_python(talking, environment=object())


def test_problems_without_a_score_take_the_environments_reward(talking: Workplace):
    talking.write(
        "my_problems.py",
        "from klimb.tasks import Problem, ProblemSet, chat\n\n"
        "def bare(seed):\n"
        "    asked = [Problem(problem_id=str(n), messages=chat(f'Play {n}.'), answer='') for n in range(4)]\n"
        "    return ProblemSet(name='bare', train=tuple(asked[:2]), held_out=tuple(asked[2:]))\n",
    )
    outcome = talking.klimb("train", "run.toml", "--folder", "run", "--set", "task=python:my_problems.bare")
    assert outcome.status == 0, outcome.err
    rewards = {sample.reward for sample in read_samples(Path("run/rollouts/step-000001.parquet"))}
    assert rewards <= {0.26, 1.26}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"factory": "python:games.Guess"}, "factory must be left out beside command"),
        ({"tools": ("python:games.look",)}, "tools must be left out beside command"),
        ({"rewritten_history": "refuse"}, "rewritten_history must be 'split' beside command"),
        ({"command": "python 'agent.py"}, "cannot be read"),
        ({"command": " "}, "command must be a program"),
    ],
)
def test_a_command_stands_alone(changes, said):
    with pytest.raises(ValueError, match=said):
        EnvironmentSettings(**{"command": "python agent.py", **changes})


AGENT = """
import json, os, sys, urllib.request

asked = json.dumps({"messages": json.load(sys.stdin)["prompt"]}).encode()
headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
address = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
with urllib.request.urlopen(urllib.request.Request(address, asked, headers)) as answer:
    print(json.dumps({"reward": len(json.load(answer)["choices"][0]["message"]["content"])}))
"""


def test_a_run_trains_on_what_a_program_does(workplace: Workplace):
    workplace.write("agent.py", AGENT)
    settings = [
        "environment.command='python agent.py'",
        "environment.call_seconds=120",
        "task.reward=environment",
        "training.num_steps=1",
        "sampling.num_samples=2",
        "evaluation.at_ends=false",
    ]
    outcome = workplace.klimb("train", "run.toml", "--set", *settings)
    assert outcome.status == 0, outcome.err
    assert "python agent.py, a program for each sample" in outcome.out
    samples = read_samples(next(Path("runs").glob("*/rollouts/step-000001.parquet")))
    assert len(samples) == 4 and all(sample.reward == len(sample.response) for sample in samples)


def test_a_program_that_there_is_not_is_refused_before_the_model_is_loaded(workplace: Workplace):
    outcome = workplace.klimb("train", "run.toml", "--set", "environment.command=no-such-program", "--dry-run")
    assert outcome.status != 0 and "there is no program 'no-such-program'" in outcome.err


def test_an_edit_of_the_program_or_of_what_it_imports_is_another_experiment(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.py").write_text("import beside")
    (tmp_path / "beside.py").write_text("x = 1")
    first = files_of("python agent.py --fast")
    assert list(first) == ["agent.py, in environment.command"] and files_of("") == {}
    (tmp_path / "beside.py").write_text("x = 2")
    assert files_of("python agent.py --fast") != first
