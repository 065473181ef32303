"""Train a reward model on a store's ratings and preferences: read, train, judge on what was held out, write, print."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from klimb.errors import ConfigError
from klimb.experience.feedback import Feedback
from klimb.experience.store import Store, open_store
from klimb.experience.store_feedback import FEEDBACK_SCHEMA
from klimb.findings.reward_model import RewardModelReport, judge_reward_model
from klimb.policies import load_policy
from klimb.training.reward_model.classifier import save_classifier
from klimb.training.reward_model.judgements import Judgements, read_judgements
from klimb.training.reward_model.settings import RewardModelSettings
from klimb.training.reward_model.train import TrainedRewardModel, train_reward_model
from klimb.training.run_folder import write_json
from klimb.ui.pages.reward_model import reward_model_page, sentence_of
from klimb.ui.terminal.reward_model import print_reward_model
from klimb.workbench.model_path import model_path

FACTS_FILE = "reward_model.json"


PAGE = "report.html"


def run_reward_model(
    path: Path, *, model: str, into: Path, where: str, settings: RewardModelSettings, console: Console
) -> RewardModelReport:
    """Train, judge, print, and write the folder whole or not at all.

    Raises:
        ConfigError: something is at `into` already.
        ValueError: there is nothing to learn from, or the model cannot become a classifier.
    """
    if into.exists():
        raise ConfigError(f"{into} already exists; name another folder")
    store = open_store(path, max_rater_fraction=settings.max_rater_fraction)
    data = read_judgements(
        store.samples(where=where),
        read_feedback(store),
        fraction=settings.held_out_fraction,
        seed=settings.seed,
        max_pairs=settings.max_pairs,
        max_rater_fraction=settings.max_rater_fraction,
    )
    policy = load_policy(model_path(model), dtype="float32")
    with console.status("training") as status:
        trained = train_reward_model(policy, data, settings, progress=status.update)
    report = judge_reward_model(trained.held_out_pairs(), trained.held_out_ratings(), unit=trained.data.unit)
    facts = _facts(trained, path=path, model=model, where=where, settings=settings)
    into.parent.mkdir(parents=True, exist_ok=True)
    # Renamed at the end, so that a training that was stopped leaves no half model behind.
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}-") as aside:
        folder = Path(aside) / "model"
        save_classifier(trained.model, policy.tokenizer, folder)
        write_json(folder / FACTS_FILE, _as_json(trained, report, settings=settings, model=model))
        page = reward_model_page(report, name=into.name, facts=facts)
        (folder / PAGE).write_text(page, encoding="utf-8")
        folder.rename(into)
    print_reward_model(console, report, facts=(*facts, ("written", f"{into}, with {PAGE}")))
    return report


def read_feedback(store: Store) -> tuple[Feedback, ...]:
    """Return all rows of a store's feedback."""
    columns = ", ".join(f'feedback."{name}"' for name in FEEDBACK_SCHEMA.names)
    return tuple(Feedback(**row) for row in store.query(f"select {columns} from feedback").to_pylist())


def _facts(
    trained: TrainedRewardModel, *, path: Path, model: str, where: str, settings: RewardModelSettings
) -> list[tuple[str, str]]:
    data = trained.data
    facts = [
        ("store", f"{path}{f' where {where}' if where else ''}"),
        ("model", model),
        ("trained", f"{settings.train}; {_counts(data, held_out=False)}; penalty {trained.l2:g}"),
        ("held out", f"{_counts(data, held_out=True)}, by {data.unit}"),
        ("ratings are", _kind_of(data)),
        ("seed", str(settings.seed)),
    ]
    return facts + [("left out", f"{number:,} {reason}") for reason, number in data.left_out.items()]


def _counts(data: Judgements, *, held_out: bool) -> str:
    pairs, ratings = data.pairs_of(held_out=held_out), data.ratings_of(held_out=held_out)
    num_preferences = sum(pair.kind == "preference" for pair in pairs)
    return f"{len(pairs):,} pairs ({num_preferences:,} preferences) and {len(ratings):,} ratings"


def _kind_of(data: Judgements) -> str:
    if data.thumbs is not None:
        return f"{data.thumbs[0]:g} or {data.thumbs[1]:g}"
    return "graded" if data.ratings else "none"


def _as_json(
    trained: TrainedRewardModel, report: RewardModelReport, *, settings: RewardModelSettings, model: str
) -> Mapping[str, Any]:
    """Return what a reader of the model must know to make ratings of its logits, and what it is worth."""
    data = trained.data
    return {
        "base_model": model,
        "settings": asdict(settings),
        "ratings": {
            "low": trained.scale.low,
            "span": trained.scale.span,
            "offset": trained.offset,
            "is_logistic": trained.scale.is_binary,
            "has_ratings": bool(data.ratings_of(held_out=False)),
        },
        "num_pairs": {"trained": len(data.pairs_of(held_out=False)), "held_out": len(data.pairs_of(held_out=True))},
        "num_ratings": {
            "trained": len(data.ratings_of(held_out=False)),
            "held_out": len(data.ratings_of(held_out=True)),
        },
        "held_out_by": data.unit,
        "left_out": dict(data.left_out),
        "l2": trained.l2,
        "verdict": report.verdict.status,
        "sentence": sentence_of(report),
        "findings": [
            {
                "block": block.name,
                "name": each.name,
                "status": each.status,
                "number": _number(each.number),
                "evidence": each.evidence,
            }
            for block in report.blocks
            for each in block.findings
        ],
    }


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
