"""Learn from a store again and again: split, audit, train, compare, and promote what is shown to be better.

Each stage writes down that it is done before the next one begins, so whatever ends the process, the next one goes on
from there.
"""

import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from klimb.errors import ConfigError
from klimb.experience import Sample
from klimb.experience.store import Store
from klimb.findings.audit import audit
from klimb.findings.guard.events import in_one_sentence
from klimb.findings.promotion import (
    Decision,
    Evidence,
    decide,
    level_of,
    live_evidence,
    preference_evidence,
    reward_evidence,
)
from klimb.training.deployment import Deployment, ServedPolicy
from klimb.training.run_folder import RunFolder, read_tables
from klimb.workbench.auditing import read_ratings
from klimb.workbench.config import RunConfig
from klimb.workbench.config import read_tables as read_run_file
from klimb.workbench.learn.admission import admit
from klimb.workbench.learn.checking import check_base_metrics
from klimb.workbench.learn.history import DecisionRow, Outcome, append_decision, read_history
from klimb.workbench.learn.promoting import (
    end_trial,
    model_of,
    next_name,
    open_deployment,
    promote,
    take_model,
    try_out,
)
from klimb.workbench.learn.ratings import Preference, Said, copy_said, read_preferences, read_said, read_samples
from klimb.workbench.learn.rounds import Round, RoundFolder, folder_of, held_out_rows, live_rows, rounds_of
from klimb.workbench.learn.scoring import score_changes
from klimb.workbench.learn.settings import LearnSettings
from klimb.workbench.learn.split import Side, open_split
from klimb.workbench.learn.training import rewards_at_ends, round_config, train_round

logger = logging.getLogger(__name__)


MOST_ASKED = 40
"""Held-out prompts that the guard's own checks are made on."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a look at the store found: what people said, and on which side each of it is."""

    said: Sequence[Said]
    sides: dict[str, Side]

    def on(self, side: Side) -> list[Said]:
        """Return what is on this side, in the order of time."""
        return [each for each in self.said if self.sides[each.sample_id] == side]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A deployment that learns.

    Attributes:
        run_file: how a candidate is trained.
        store: where the answers and what people said of them are.
        folder: of the deployment.
        settings: when and how sure.
        console: where it is told.
        clock: seconds since the epoch.
    """

    run_file: Path
    store: Path
    folder: Path
    settings: LearnSettings
    console: Console
    clock: Callable[[], float] = time.time

    def tick(self) -> bool:
        """Do what is due, and return whether anything was.

        Raises:
            ConfigError: the run file, the store or the deployment cannot be used.
        """
        deployment = self.open()
        seen = self._look()
        latest = self._latest()
        if latest is not None and latest.stage != "over":
            if latest.candidate == deployment.current.name:
                self._close(latest, "promoted", deployment.current.reason)  # a crash came between the two
            elif latest.serving != deployment.current.name:
                reason = f"{deployment.current.name} answers by now, and the candidate was made for {latest.serving}"
                self._close(latest, "superseded", reason)
            elif latest.stage == "judge" and latest.num_looked_at >= 0 and self._is_due(seen, latest):
                reason = f"{len(seen.said) - latest.num_said:,} answers were rated since: a newer candidate takes over"
                self._close(latest, "superseded", reason)
            else:
                return self._go_on(latest, deployment, seen)
            latest = self._latest()
        if not self._is_due(seen, latest):
            return False
        return self._go_on(self._begin(deployment, seen, latest), deployment, seen)

    def open(self) -> Deployment:
        """Return the deployment; one that is not there yet begins with the model of the run file."""
        table: Any = _tables(self.run_file).get("model", {})
        return open_deployment(self.folder, str(table.get("path", "")) if isinstance(table, dict) else "")

    def num_missing(self) -> int:
        """Return how many answers are still to be rated until a round is due by their number."""
        latest = self._latest()
        begun = 0 if latest is None else latest.num_said
        return max(0, self.settings.due.num_ratings - (len(read_said(Store(self.store))) - begun))

    def _latest(self) -> Round | None:
        rounds = rounds_of(self.folder)
        return rounds[-1].read() if rounds else None

    def _look(self) -> Seen:
        said = read_said(Store(self.store))
        if not said:
            return Seen(said=(), sides={})
        split = open_split(self.folder, said, fraction=self.settings.held_out_fraction, seed=self.settings.seed)
        known = len(split.sides)
        sides = split.assign(said)
        if len(split.sides) != known:
            split.write(self.folder)
        return Seen(said=said, sides=sides)

    def _is_due(self, seen: Seen, latest: Round | None) -> bool:
        begun, began_at = (0, 0.0) if latest is None else (latest.num_said, latest.began_at)
        every = self.settings.due
        return len(seen.said) - begun >= every.num_ratings and self.clock() - began_at >= every.seconds

    def _begin(self, deployment: Deployment, seen: Seen, latest: Round | None) -> Round:
        history = read_history(self.folder)
        last = max((place for place, row in enumerate(history) if row.outcome == "promoted"), default=-1)
        earlier = {row.round for row in history[last + 1 :] if row.round}
        state = Round(
            number=1 if latest is None else latest.number + 1,
            stage="snapshot",
            serving=deployment.current.name,
            candidate=next_name(self.folder, deployment),
            num_said=len(seen.said),
            began_at=self.clock(),
            rank=len(earlier) + 1,
        )
        self._tell(f"round {state.number}: {_in_words(seen)}")
        return folder_of(self.folder, state.number).write(state)

    def _go_on(self, state: Round, deployment: Deployment, seen: Seen) -> bool:
        """Do the stages that are left, as far as the ratings take it; False where there was nothing new to look at."""
        stages = {
            "snapshot": self._snapshot,
            "audit": self._audit,
            "train": self._train,
            "check": self._check,
            "judge": self._judge,
            "live": self._follow_trial,
        }
        begun = state
        while state.stage != "over":
            after = stages[state.stage](state, deployment, seen)
            if after == state or after.stage in (state.stage, "live"):
                return after != begun
            state = after
        return True

    def _snapshot(self, state: Round, deployment: Deployment, seen: Seen) -> Round:
        place = folder_of(self.folder, state.number)
        training = {each.sample_id for each in seen.on("train")}
        if not training:
            return self._close(state, "stopped", "no rated answer is on the side that trains")
        store = Store(self.store)
        pairs = [row for row in read_preferences(store) if row.better in training]
        copy_said(store, Store(place.experience), sorted(training | {row.worse for row in pairs}))
        return place.write(state, stage="audit")

    def _audit(self, state: Round, deployment: Deployment, seen: Seen) -> Round:
        place = folder_of(self.folder, state.number)
        store = Store(place.experience)
        report = audit(list(store.samples()), data=str(self.store), ratings=read_ratings(store))
        verdict = report.verdict
        is_pairwise = bool(read_preferences(store))
        # That nothing to be seen of the answers goes with the ratings is told, and no end: ratings of what only people
        # see look the same, and the bet below keeps out what was learnt from noise.
        if verdict.kind == "behaviour-cloning" and not is_pairwise:
            return self._close(state, "stopped", f"the audit says: {verdict.title}. {verdict.reason}")
        self._tell(f"audit: {verdict.title}. {verdict.reason}")
        return place.write(state, stage="train")

    def _train(self, state: Round, deployment: Deployment, seen: Seen) -> Round:
        place = folder_of(self.folder, state.number)
        train_round(self._config(state, deployment), place.run, console=self.console)
        return place.write(state, stage="check")

    def _check(self, state: Round, deployment: Deployment, seen: Seen) -> Round:
        place = folder_of(self.folder, state.number)
        asked = self._samples(each.sample_id for each in seen.on("judge")[-MOST_ASKED:])
        config = self._config(state, deployment)
        if config.guard is not None and config.guard.checks and not asked:
            return state  # the checks are made on held-out prompts, and none has been rated yet
        breaches = check_base_metrics(
            config,
            first=self._model((*deployment.earlier, deployment.current)[0]),
            candidate=str(RunFolder(place.run).model),
            asked=asked,
            path=place.guard,
        )
        if breaches:
            return self._close(state, "rejected", f"the guard: {'; '.join(map(in_one_sentence, breaches))}")
        return place.write(state, stage="judge")

    def _judge(self, state: Round, deployment: Deployment, seen: Seen) -> Round:
        """Look at the held-out ratings; then promote, reject, begin a trial, or wait for more."""
        place = folder_of(self.folder, state.number)
        self._add_held_out(state, deployment, seen, place)
        evidence = preference_evidence(held_out_rows(place.read_evidence()))
        if state.num_looked_at >= 0 and evidence.num_observations - state.num_looked_at < self.settings.look_every:
            return state
        decision = self._decide(state, evidence)
        against = self._rewards_against(state, place)
        if against is not None:
            return self._close(state, "rejected", against.sentence, against)
        if decision.verdict == "reject":
            return self._close(state, "rejected", decision.sentence, decision)
        if self.settings.candidate_fraction:
            return self._begin_trial(state, deployment, decision, place)
        if decision.verdict == "promote":
            return self._promote(state, deployment, decision)
        self._tell(decision.sentence)
        return place.write(state, num_looked_at=evidence.num_observations)

    def _add_held_out(self, state: Round, deployment: Deployment, seen: Seen, place: RoundFolder) -> None:
        """Score what was rated since the serving policy answers and has not been looked at."""
        evidence = place.read_evidence()
        known = {row["id"] for row in evidence}
        since = deployment.current.since if deployment.earlier else 0.0
        judging = {each.sample_id for each in seen.on("judge")}
        said = [each for each in seen.on("judge") if each.said_at >= since and each.sample_id not in known]
        preferred = [
            row
            for row in read_preferences(Store(self.store))
            if row.said_at >= since and row.feedback_id not in known and row.better in judging
        ]
        given = [{"what": each, "users": each.users} for each in said if each.rating is not None]
        given += [{"what": row, "users": row.users} for row in preferred]
        admitted = [row["what"] for row in admit(evidence, sorted(given, key=lambda each: each["what"].said_at))]
        rated = [each for each in admitted if isinstance(each, Said)]
        pairs = [row for row in admitted if isinstance(row, Preference)]
        wanted = {*(each.sample_id for each in rated), *(row.better for row in pairs), *(row.worse for row in pairs)}
        if not wanted or len(rated) + 2 * len(pairs) < (self.settings.look_every if state.num_looked_at >= 0 else 1):
            return
        config = self._config(state, deployment)
        changes = score_changes(
            config.model,
            serving=self._model(deployment.current),
            candidate=str(RunFolder(place.run).model),
            samples=self._samples(sorted(wanted)),
            micro_batch_tokens=config.training.micro_batch_tokens,
        )
        rows: list[tuple[float, dict[str, Any]]] = [
            (each.said_at, self._rating_row(each, changes[each.sample_id], deployment))
            for each in rated
            if each.sample_id in changes
        ]
        rows += [
            (
                row.said_at,
                {
                    "kind": "preference",
                    "id": row.feedback_id,
                    "users": row.users,
                    "better": changes[row.better],
                    "worse": changes[row.worse],
                },
            )
            for row in pairs
            if row.better in changes and row.worse in changes
        ]
        place.add_evidence([row for _, row in sorted(rows, key=lambda each: each[0])])

    def _rating_row(self, said: Said, change: float, deployment: Deployment) -> dict[str, Any]:
        assert said.rating is not None
        return {
            "kind": "rating",
            "id": said.sample_id,
            "users": said.users,
            "rating": self.settings.scaled(said.rating, sample_id=said.sample_id),
            "change": change,
            "is_of_serving": said.model == deployment.current.name,
        }

    def _rewards_against(self, state: Round, place: RoundFolder) -> Decision | None:
        """Return what the rewards on held-out prompts say if they say that it is worse; else nothing."""
        before, after = rewards_at_ends(place.run)
        if not before or not all(0 <= value <= 1 for value in (*before, *after)):
            return None
        found = self._decide(state, reward_evidence(before, after, bounds=(0.0, 1.0)), gives_up=False)
        return found if found.verdict == "reject" else None

    def _begin_trial(self, state: Round, deployment: Deployment, decision: Decision, place: RoundFolder) -> Round:
        fraction = self.settings.candidate_fraction
        policy = self._served(state, deployment, f"a trial with {fraction:.0%} of the requests")
        if not try_out(self.folder, policy, fraction, serving=state.serving):
            return self._close(state, "superseded", f"{state.serving} does not answer any more")
        reason = f"{fraction:.0%} of the requests go to it. {decision.sentence}"
        self._write_down(state, "trial", reason, decision)
        return place.write(state, stage="live", trial_since=self.clock(), num_looked_at=-1)

    def _follow_trial(self, state: Round, deployment: Deployment, seen: Seen) -> Round:
        """Compare the live ratings of both policies since the trial began: one observation a conversation.

        Chance gives conversations to the policies, and not answers; those that asked for a policy by its name say
        nothing.
        """
        if deployment.candidate is None or deployment.candidate.name != state.candidate:
            return self._close(state, "superseded", "its share of the requests was taken from it")
        place = folder_of(self.folder, state.number)
        evidence = place.read_evidence()
        known = {row["id"] for row in evidence}
        rows = [row for row in self._live_rows(state, seen) if row["id"] not in known]
        place.add_evidence(admit(evidence, rows))
        evidence = live_evidence(live_rows(place.read_evidence()), fraction=deployment.candidate_fraction)
        if evidence.num_observations - max(0, state.num_looked_at) < self.settings.look_every:
            return state
        decision = self._decide(state, evidence)
        if decision.verdict == "promote":
            return self._promote(state, deployment, decision)
        if decision.verdict == "reject":
            return self._close(state, "rejected", decision.sentence, decision)
        self._tell(decision.sentence)
        return place.write(state, num_looked_at=evidence.num_observations)

    def _live_rows(self, state: Round, seen: Seen) -> list[dict[str, Any]]:
        """Return an observation of each conversation since the trial began: the mean of its ratings."""
        arms = {state.serving: False, state.candidate: True}
        found: dict[tuple[str, str], list[Said]] = defaultdict(list)
        for each in seen.said:
            is_live = each.model in arms and each.drawn_at >= state.trial_since and not each.is_by_name
            if is_live and each.rating is not None:
                found[each.conversation or each.sample_id, each.model].append(each)
        return [
            {
                "kind": "live",
                "id": f"live {conversation} {model}",
                "rating": fmean(self.settings.scaled(each.rating or 0.0, sample_id=each.sample_id) for each in rated),
                "is_of_candidate": arms[model],
                "users": sorted({user for each in rated for user in each.users}),
            }
            for (conversation, model), rated in found.items()
        ]

    def _decide(self, state: Round, evidence: Evidence, *, gives_up: bool = True) -> Decision:
        level = level_of(state.rank, alpha=self.settings.alpha, spending=self.settings.spending)
        most = self.settings.give_up_after if gives_up else evidence.num_observations + 1
        return decide(evidence, level=level, give_up_after=most)

    def _promote(self, state: Round, deployment: Deployment, decision: Decision) -> Round:
        policy = self._served(state, deployment, decision.sentence)
        if not promote(self.folder, policy, serving=state.serving):
            return self._close(state, "superseded", f"{state.serving} does not answer any more", decision)
        return self._close(state, "promoted", decision.sentence, decision)

    def _served(self, state: Round, deployment: Deployment, reason: str) -> ServedPolicy:
        """Return the candidate as it is served, with its model in the deployment's folder."""
        run = RunFolder(folder_of(self.folder, state.number).run)
        take_model(self.folder, run.model, state.candidate)
        return ServedPolicy(
            name=state.candidate,
            model=state.candidate,
            policy_version=self._start(deployment).policy_version + int(read_tables(run.summary)["num_steps"]),
            since=self.clock(),
            reason=reason,
        )

    def _close(self, state: Round, outcome: Outcome, reason: str, decision: Decision | None = None) -> Round:
        """Write down what was decided, and remove what only the round needed."""
        place = folder_of(self.folder, state.number)
        if outcome != "promoted":
            end_trial(self.folder, state.candidate)
        self._write_down(state, outcome, reason, decision)
        closed = place.write(state, stage="over")
        shutil.rmtree(place.experience, ignore_errors=True)
        if outcome == "promoted":
            shutil.rmtree(RunFolder(place.run).model, ignore_errors=True)  # the deployment has its copy
        return closed

    def _write_down(self, state: Round, outcome: Outcome, reason: str, decision: Decision | None) -> None:
        row = DecisionRow(
            time=self.clock(),
            round=state.number,
            outcome=outcome,
            candidate=state.candidate,
            serving=state.serving,
            reason=reason,
        )
        if decision is not None:
            number, capital, level = decision.num_observations, decision.capital, decision.level
            row = replace(row, num_ratings=number, capital=capital, level=level)
        append_decision(self.folder, row)
        self._tell(f"{state.candidate} {outcome}: {reason}")

    def _start(self, deployment: Deployment) -> ServedPolicy:
        is_first = self.settings.start == "first" and deployment.earlier
        return deployment.earlier[0] if is_first else deployment.current

    def _config(self, state: Round, deployment: Deployment) -> RunConfig:
        experience = folder_of(self.folder, state.number).experience
        return round_config(self.run_file, model=self._model(self._start(deployment)), experience=experience)

    def _model(self, policy: ServedPolicy) -> str:
        return model_of(self.folder, policy)

    def _samples(self, ids: Any) -> list[Sample]:
        return list(read_samples(Store(self.store), list(ids)).values())

    def _tell(self, sentence: str) -> None:
        self.console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _in_words(seen: Seen) -> str:
    train, judge, aside = (len(seen.on(side)) for side in ("train", "judge", "aside"))
    rest = f", {aside:,} do neither: the user is on one side and the prompt on the other" if aside else ""
    return f"{len(seen.said):,} rated answers: {train:,} train, {judge:,} judge{rest}"


def _tables(run_file: Path) -> dict[str, Any]:
    if not run_file.is_file():
        raise ConfigError(f"there is nothing at {run_file}: give the run's TOML file")
    return read_run_file(run_file)
