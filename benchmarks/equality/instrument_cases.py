"""What is said about data and runs, on inputs that do not change: imports, audits, estimates, findings, studies."""

import html
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.equality.case import Case
from benchmarks.equality.comparing import Outcome
from benchmarks.equality.outcomes import (
    export_samples,
    flat_settings,
    normalise,
    read_csv_files,
    read_lines,
    read_metrics,
    read_settings,
    read_tensors,
    read_toml,
    rename_settings,
    without_machine,
)
from benchmarks.equality.sides import Place

ROOT = Path(__file__).resolve().parents[2]
DISEASES = Path("tests") / "recorded" / "diseases"
"""In either checkout: a recorded run has the names of its state."""

IMPORTS: Mapping[str, tuple[str, ...]] = {
    "kto": ("kto.jsonl",),
    "openai": ("openai.jsonl",),
    "openai-processed": ("openai.jsonl", "--log-probs", "processed", "--sampling", "temperature=0.7"),
    "openai-model": ("openai.jsonl", "--model", "{material}/tiny-model"),
    "vllm": ("vllm.jsonl",),
    "vllm-model": ("vllm.jsonl", "--model", "{material}/tiny-model", "--max-tokens", "40"),
    "preference": ("preference.jsonl",),
    "prompt-completion": ("prompt-completion.jsonl",),
    "verl": ("verl.jsonl",),
    "langfuse": ("langfuse.jsonl", "--scores", "langfuse-scores.jsonl", "--score-name", "helpful"),
    "stars": ("stars.jsonl", "--as", "table"),
    "stars-scaled": ("stars.jsonl", "--as", "table", "--scale", "1", "5"),
    "stars-capped": ("stars.jsonl", "--as", "table", "--max-reward", "5"),
    "csv": ("table.csv",),
    "columns": ("kto.jsonl", "--as", "table", "--columns", "response=completion", "reward=label"),
}
"""Name of an import -> its arguments. Users keep their ids: the salt of their hashes is random."""

REFUSED_IMPORTS: tuple[tuple[str, ...], ...] = (
    ("langfuse.jsonl", "--scores", "langfuse-scores.jsonl"),
    ("stars.jsonl", "--as", "feedback"),
    ("kto.jsonl", "--as", "ktoo"),
    ("kto.jsonl", "--strict"),
    ("kto.jsonl", "--scale", "5", "1"),
    ("kto.jsonl", "--columns", "prompt"),
    ("nothing.jsonl",),
)
"""Arguments of imports that are refused as a whole."""

FINDING = re.compile(r"^  (bad|warning|note|good) +.*?  ([a-z0-9-]+) *$")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?%?")
CHECK = re.compile(r"^  (good|warning|bad|not known) +(\S.*?)(?: {2,}(.*))?$")
STUDY = """
[study]
name = "tiny"
seeds = 2
baseline = "grpo"
budget = {{kind = "tokens", amount = 100}}
evaluations = 2
jobs = 1

[base.model]
path = {model}
dtype = "float32"
device = "cpu"

[base.scoring.format]
pattern = "[aeiou]"
weight = 1.0

[base.sampling]
num_prompts = 2
num_samples = 2
max_new_tokens = 6

[base.advantages]
group_filter = false

[base.optimizer]
learning_rate = 1e-2
warmup_steps = 0

[base.evaluation]
num_problems = 6
num_samples = 2

[base.run]
save_model = true

[tasks.sums.task]
kind = "arithmetic"

[methods.grpo]
[methods.rloo]
"""


def measure_import(arguments: Sequence[str], place: Place) -> Outcome:
    """Import a file: rows, refusals, ratings, counts."""
    for name in arguments:
        if name.endswith((".jsonl", ".csv")):
            shutil.copy(place.material / name, place.folder / name)
    filled = [argument.format(material=place.material) for argument in arguments]
    said = place.klimb("import", *filled, "--into", "store", "--keep-users")
    rejected = sorted((place.folder / "store").glob("rejected/*"))
    rows = [row for path in rejected for row in read_lines(path)]
    return {
        **export_samples(place, "store", times=True),
        "refused: place, row": [[row["place"], row["row"]] for row in rows],
        "refused: reasons": [[row["reason"], row["detail"]] for row in rows],
        "text": normalise(said.out, place),
    }


def measure_refused_imports(place: Place) -> Outcome:
    """Ask for imports that cannot be: what is said, and that nothing is there then."""
    for path in place.material.glob("*.jsonl"):
        shutil.copy(path, place.folder / path.name)
    statuses: dict[str, int] = {}
    texts: dict[str, Any] = {}
    for arguments in REFUSED_IMPORTS:
        said = place.side.klimb(place.folder, "import", *arguments, "--into", "store")
        statuses[" ".join(arguments)] = said.status
        texts[" ".join(arguments)] = normalise(said.out + said.err, place)
    return {"exit status": statuses, "text": texts}


def measure_import_twice(place: Place) -> Outcome:
    """Import a file, the same again, and what is in the store then."""
    import_log(place)
    shutil.copy(place.material / "log.jsonl", place.folder / "log.jsonl")
    again = place.klimb("import", "log.jsonl", "--into", "log", "--as", "table")
    shown = [
        place.klimb("experience", "ls", "log"),
        place.klimb("experience", "ls", "log", "--where", "reward > 0"),
        place.klimb("experience", "show", "log", "row-0-0", "--model", str(place.material / "other-model")),
    ]
    return {
        **export_samples(place, "log", times=True),
        "text": normalise(again.out, place),
        "ls and show": [normalise(said.out, place) for said in shown],
    }


def measure_feedback(place: Place) -> Outcome:
    """Import responses and then ratings of them."""
    for name in ("stars.jsonl", "feedback.jsonl"):
        shutil.copy(place.material / name, place.folder / name)
    place.klimb("import", "stars.jsonl", "--as", "table", "--into", "store", "--keep-users")
    said = place.klimb("import", "feedback.jsonl", "--into", "store", "--keep-users")
    rows = [row for path in sorted((place.folder / "store").glob("rejected/feedback*")) for row in read_lines(path)]
    return {
        **export_samples(place, "store", times=True),
        "refused: place, row": [[row["place"], row["row"]] for row in rows],
        "refused: reasons": [[row["reason"], row["detail"]] for row in rows],
        "text": normalise(said.out, place),
        "ls": normalise(place.klimb("experience", "ls", "store").out, place),
    }


def import_log(place: Place) -> None:
    """Import the log that the tiny model drew, as `log`."""
    place.klimb("import", str(place.material / "log.jsonl"), "--into", "log", "--as", "table")


def measure_audit(options: Sequence[str], data: str, place: Place) -> Outcome:
    """Audit a store: checks, verdict, run file."""
    kind = "table" if data == "log" else data
    shutil.copy(place.material / f"{data}.jsonl", place.folder / f"{data}.jsonl")
    place.klimb("import", f"{data}.jsonl", "--into", "data", "--as", kind, "--keep-users")
    filled = [option.format(material=place.material) for option in options]
    said = place.klimb("audit", "data", "--html", "page.html", "--config", "run.toml", *filled)
    checks = [match.groups() for line in said.out.splitlines() if (match := CHECK.match(line.rstrip()))]
    return {
        "checks: name, status": [[name, status] for status, name, _ in checks],
        "checks: values": [[name, value] for _, name, value in checks],
        "run file": rename_settings(read_toml(place.folder / "run.toml"), is_old=place.is_old),
        "text": normalise(said.out, place),
        "page text": page_text(place.folder / "page.html", place),
    }


def measure_estimate(model: str, options: Sequence[str], place: Place) -> Outcome:
    """Estimate a model's value on the log."""
    import_log(place)
    path = str(place.material / model)
    said = place.klimb("estimate", "log", "--model", path, "--json", "out.json", *options)
    found = json.loads((place.folder / "out.json").read_text(encoding="utf-8"))
    prose = {name: found.pop(name) for name in ("notes", "warnings") if name in found}
    return {"numbers": found, "warnings": prose, "text": normalise(said.out, place)}


def measure_score(place: Place) -> Outcome:
    """Recompute log_mu of the log with the other model."""
    import_log(place)
    model = str(place.material / "other-model")
    said = place.klimb("experience", "score", "log", "--model", model, "--into", "scored", "--is-logging-model")
    return {**export_samples(place, "scored"), "text": normalise(said.out, place)}


def measure_report(name: str, place: Place) -> Outcome:
    """Report on a recorded run that has one disease."""
    shutil.copytree(place.side.checkout / DISEASES / name, place.folder / "run")
    said = place.klimb("report", "run", "--output", "page.html", "--csv", "csv")
    fired = read_findings("\n".join(normalise(said.out, place)))
    return {
        "findings: severity, key": [[severity, key] for severity, key, _ in fired],
        "findings: numbers": {key: NUMBER.findall(evidence) for _, key, evidence in fired},
        "text": normalise(said.out, place),
        "tables": read_csv_files(place.folder / "csv", is_old=place.is_old),
        "page text": page_text(place.folder / "page.html", place),
    }


def read_findings(text: str) -> list[tuple[str, str, str]]:
    """Read severity, key and evidence of each finding from what `klimb report` prints."""
    lines = text.splitlines()
    found = [(match, lines[number + 1]) for number, line in enumerate(lines[:-1]) if (match := FINDING.match(line))]
    return [(match[1], match[2], evidence.strip()) for match, evidence in found]


def measure_study(place: Place) -> Outcome:
    """Run two methods with two seeds, then judge evaluations that are made up."""
    place.write("study.toml", STUDY.format(model=json.dumps(str(place.material / "tiny-model"))))
    said = place.klimb("compare", "study.toml", "--folder", "study")
    runs = sorted(path.parent for path in (place.folder / "study").rglob("metrics.jsonl"))
    outcome: dict[str, Any] = {
        "metrics": {str(run.relative_to(place.folder)): run_rows(run, place) for run in runs},
        "models": {str(run.relative_to(place.folder)): read_tensors(run) for run in runs},
        "tables": read_csv_files(place.folder / "study" / "tables", is_old=place.is_old),
        "text": normalise(said.out, place),
    }
    for run in runs:
        make_up_evaluations(run)
    said = place.klimb("compare", "study.toml", "--folder", "study", "--report-only")
    return outcome | {
        "tables, made-up scores": read_csv_files(place.folder / "study" / "tables", is_old=place.is_old),
        "text, made-up scores": normalise(said.out, place),
        "page text": page_text(place.folder / "study" / "report.html", place),
    }


def run_rows(run: Path, place: Place) -> Any:
    """Return a run's metrics and evaluations."""
    return {
        "metrics": read_metrics(run / "metrics.jsonl", is_old=place.is_old),
        "evaluations": without_machine(read_lines(run / "evaluations.jsonl"), is_old=place.is_old),
    }


def make_up_evaluations(run: Path) -> None:
    """Replace what each problem scored: better for rloo, later and by a pattern of seed and problem."""
    path = run / "evaluations.jsonl"
    is_better, seed = "rloo" in run.parts, int(run.name.rpartition("-")[2])
    records = read_lines(path)
    for number, record in enumerate(records):
        for index, problem in enumerate(record["problems"]):
            chance = (index * 7 + seed * 3) % 10 + (number + 1) * (3 if is_better else 1)
            problem["values"] = [float(chance > 6), float(chance > 9)]
        means = [sum(problem["values"]) / 2 for problem in record["problems"]]
        record["mean"] = sum(means) / len(means)
        record["pass_at"] = {"1": record["mean"], "2": sum(mean > 0 for mean in means) / len(means)}
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def measure_study_settings(source: str, place: Place) -> Outcome:
    """Resolve the configuration of each run of a study."""
    given = str(place.side.checkout / source) if source.endswith(".toml") else source
    resolved = json.loads(place.klimb("python", "study-settings", given).out)
    plan = place.klimb("compare", given, "--dry-run")
    settings = {name: rename_settings(flat_settings(config), is_old=place.is_old) for name, config in resolved.items()}
    return {"settings": settings, "plan": normalise(plan.out, place)}


def measure_example(name: str, place: Place) -> Outcome:
    """Train one step of an example's file on the tiny model and read its resolved configuration."""
    shutil.copytree(place.side.checkout / "examples", place.folder / "examples")
    short = [
        "training.num_steps=1",
        f"model.path={json.dumps(str(place.material / 'tiny-model'))}",
        "evaluation.at_ends=false",
        "run.report=false",
        "run.loggers=[]",
        "run.folder='runs'",
        "run.name='run'",
    ]
    if name == "logs.toml":
        import_log(place)
        short += ["log.path='log'", "log.where='reward is not null'"]
    if name == "demo":
        place.klimb("demo", "--folder", "runs/run", "--set", *short)
        return example_outcome(place, place.folder / "runs" / "run")
    if name == "capitals.toml":
        short += ["task.path='examples/capitals.jsonl'", "task.reward='exact'"]
    place.klimb("train", f"examples/{name}", "--set", *short)
    return example_outcome(place, place.folder / "runs" / "run")


def example_outcome(place: Place, run: Path) -> Outcome:
    """Return the resolved configuration and the metrics of the one step."""
    return {
        "settings": read_settings(run / "config.json", is_old=place.is_old),
        "metrics": read_metrics(run / "metrics.jsonl", is_old=place.is_old),
    }


def measure_refusals(place: Place) -> Outcome:
    """Make mistakes and read what is said of them."""
    texts: dict[str, Any] = {}
    statuses: dict[str, int] = {}
    for number, line in enumerate(MISTAKES):
        place.write(f"mistake-{number}.toml", f"{line}\n")
        said = place.side.klimb(place.folder, "train", f"mistake-{number}.toml")
        statuses[line] = said.status
        texts[line] = normalise(said.err, place)
    return {"exit status": statuses, "text": texts}


MISTAKES = (
    "objective.recipe = 'grppo'",
    "objective.betta = 1",
    "optimizer.learning_rate = -1",
    "optimizer.learning_rate = '1e-5'",
    "objective.clip.kind = 'duel'",
    "advantages.kind = 'group-means'",
    "sources.log = 1.0",
    "reference.kind = 'none'\nobjective.recipe = 'grpo'",
    "task.kind = 'sums'",
    "training.num_steps = 0",
    "correction.kind = 'truncate'\nobjective.recipe = 'kto'",
    "credit.gae_lambda = 0.5",
    "run.loggers = ['nobody']",
    "model.path = 'no/such/model'",
    "task.kind = 'file'\ntask.path = 'no-such.jsonl'",
    "guard.general = ['a', 'a']",
    "not toml",
)


def page_text(path: Path, place: Place) -> list[str]:
    """Return the words of a page, without scripts, styles and drawings."""
    if not path.exists():
        return ["(no page)"]
    text = re.sub(r"(?s)<(script|style|svg)\b.*?</\1>", " ", path.read_text(encoding="utf-8"))
    return normalise(html.unescape(re.sub(r"<[^>]+>", "\n", text)), place)


def _cases() -> list[Case]:
    scoring = ("--model", "{material}/tiny-model", "--is-logging-model", "--fresh", "12", "--eval", "arithmetic")
    audits: Mapping[str, tuple[str, tuple[str, ...]]] = {
        "audit-log": ("log", scoring),
        "audit-other-model": ("log", ("--model", "{material}/other-model")),
        "audit-log-alone": ("log", ()),
        "audit-kto": ("kto", ("--hoped-gain", "0.5")),
        "audit-vllm": ("vllm", ("--model", "{material}/tiny-model")),
    }
    estimates: Mapping[str, tuple[str, ...]] = {
        "tiny-model": (),
        "other-model": ("--clip", "1.5", "--where", "group_id <> 'group-3'", "--seed", "1"),
    }
    examples = ("sums.toml", "logs.toml", "capitals.toml", "demo")
    studies = ("headline", "ablations", "smoke", "examples/studies/divergences.toml")
    return [
        *(
            Case(name=f"import-{name}", about="rows and refusals", measure=partial(measure_import, arguments))
            for name, arguments in IMPORTS.items()
        ),
        Case(name="import-refused", about="imports that cannot be", measure=measure_refused_imports),
        Case(name="import-twice", about="the log, twice; ls and show", measure=measure_import_twice),
        Case(name="import-feedback", about="ratings of responses", measure=measure_feedback),
        *(
            Case(name=name, about="checks and verdict", measure=partial(measure_audit, options, data))
            for name, (data, options) in audits.items()
        ),
        *(
            Case(name=f"estimate-{model}", about="value on a log", measure=partial(measure_estimate, model, options))
            for model, options in estimates.items()
        ),
        Case(name="score", about="log_mu recomputed", measure=measure_score),
        *(
            Case(name=f"report-{path.name}", about="fired findings", measure=partial(measure_report, path.name))
            for path in sorted((ROOT / DISEASES).iterdir())
        ),
        Case(name="study", about="two methods, two seeds; statistics and tables", measure=measure_study),
        *(
            Case(
                name=f"settings-{Path(name).stem}",
                about="resolved configuration",
                measure=partial(measure_study_settings, name),
            )
            for name in studies
        ),
        *(
            Case(
                name=f"example-{name.removesuffix('.toml')}",
                about="resolved configuration",
                measure=partial(measure_example, name),
            )
            for name in examples
        ),
        Case(name="refusals", about="mistakes in a run file", measure=measure_refusals),
    ]


INSTRUMENT_CASES: tuple[Case, ...] = tuple(_cases())
