"""What the guard does to a run: it measures after a step, warns, ends the run, or puts the policy back."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

from klimb.experience import Sample
from klimb.findings.finding import Finding
from klimb.findings.guard.events import in_one_sentence
from klimb.training.checkpoints import CheckpointContent, find_damage, load_checkpoint
from klimb.training.guard.base_metrics import MeasuresBase, metrics_of
from klimb.training.guard.detection import Prompts, Schedule
from klimb.training.guard.watch import QualityGuard
from klimb.training.settings import LoopSettings
from klimb.training.state import RunState, roll_back

logger = logging.getLogger(__name__)


FILE = "guard.json"


def guard_step(state: RunState, rollouts: Sequence[Sample]) -> dict[str, float]:
    """Measures if it is due, acts on what is broken, and returns what is logged of it."""
    guard = state.quality
    if guard is None:
        return {}
    guard.see(rollouts)
    return _check(state, guard) if guard.is_due(state.step) else {}


def guard_end(state: RunState) -> dict[str, float]:
    """Measure after the last step what was not measured there, so that a run never ends unseen, and act on it.

    Returns:
        What was measured; empty where there was nothing to do.
    """
    if state.quality is None or state.quality.measured_at == state.step:
        return {}
    return _check(state, state.quality)


def new_guard(
    settings: LoopSettings,
    measurer: MeasuresBase | None,
    content: CheckpointContent | None,
    *,
    num_problems: int,
) -> QualityGuard | None:
    """Return the guard of a run that begins, or goes on from this checkpoint; None if there is to be none.

    It has measured the untrained policy: in the process that began the run, or now, while that policy is still loaded.

    Args:
        settings: of the run.
        measurer: measures the policy.
        content: of the checkpoint.
        num_problems: that there are to train on.
    """
    if settings.guard is None or measurer is None:
        return None
    schedule, prompts = plan_of(settings, num_problems=num_problems)
    guard = QualityGuard(settings=settings.guard, measurer=measurer, schedule=schedule, prompts=prompts)
    if content is None or content.numbers["quality"] is None:
        guard.measure_before()
    return guard


def plan_of(settings: LoopSettings, *, num_problems: int) -> tuple[Schedule, Prompts]:
    """Return how often a run with a guard is looked at, and what its rollouts are of.

    Args:
        settings: of the run.
        num_problems: that there are to train on.

    Raises:
        ValueError: it has no guard.
    """
    if settings.guard is None:
        raise ValueError("the run has no guard; give settings.guard, or ask nothing of one")
    training = settings.training
    limits = (training.max_seconds, training.max_generated_tokens, training.max_training_seconds)
    schedule = Schedule(
        num_steps=training.num_steps,
        every_steps=settings.guard.every_steps,
        may_end_earlier=any(map(math.isfinite, limits)),
    )
    num_drawn = settings.sources.num_groups(settings.sampling.num_prompts)["rollout"]
    return schedule, Prompts(per_step=num_drawn, different=num_problems)


def is_good_point(state: RunState) -> bool:
    """Whether the guard may come back to this step, which must then be saved."""
    return state.quality is not None and state.quality.wants_checkpoint(state.step)


def guard_ending(state: RunState) -> str:
    """Why the guard ended the run, in words; empty while it goes on."""
    return state.quality.ending if state.quality is not None and state.quality.is_over else ""


def seconds_of_end(state: RunState) -> float:
    """Return what measuring after the last step will take, as the measurement before the first one took."""
    return 0.0 if state.quality is None else state.quality.seconds


def guard_start(state: RunState, *, is_new: bool, is_prepared: bool) -> None:
    """Take the point at which training begins as the first good one, once it is seen to be good.

    Args:
        state: before the first step of this process; what the policy was when it came has been measured.
        is_new: the run begins now, it is not resumed.
        is_prepared: a new run whose policy has changed since then.
    """
    guard = state.quality
    if guard is None:
        return
    if is_new and is_prepared:
        _check(state, guard)
    elif is_new:
        guard.mark_good(state.step)
    if is_new:
        for detection in guard.detections:
            logger.info("guard: %s", detection.sentence)
    state.writes.do(f"{FILE} is", lambda: guard.write(state.folder / FILE))


def _check(state: RunState, guard: QualityGuard) -> dict[str, float]:
    started = time.monotonic()
    breaches = guard.check(state.step)
    metrics = metrics_of(guard.now) | {"guard/num_broken_limits": float(len(breaches))}
    if breaches:
        metrics |= _act(state, guard, breaches)
    state.writes.do(f"{FILE} is", lambda: guard.write(state.folder / FILE))
    return metrics | {"guard_seconds": time.monotonic() - started}


def _act(state: RunState, guard: QualityGuard, breaches: Sequence[Finding]) -> dict[str, float]:
    reasons = "; ".join(map(in_one_sentence, breaches))
    if guard.settings.action == "warn":
        guard.add_events(state.step, breaches, "warn")
        logger.warning("guard, step %d: %s", state.step, reasons)
        return {}
    good = _good_checkpoint(state, guard) if guard.settings.action == "rollback" else None
    if good is None or guard.good is None:
        guard.add_events(state.step, breaches, "stop")
        guard.ending = f"the guard ended it at step {state.step}: {reasons}"
        logger.warning("guard, step %d: %s. The run ends here", state.step, reasons)
        return {}
    goes_on = guard.may_go_on_after_rollback()
    _put_back(state, guard, good)
    guard.add_events(state.step, breaches, "rollback", to_step=guard.good.step)
    then = f"from there on {state.optimizer.rate_factor:g} × the learning rate" if goes_on else "the run ends here"
    if not goes_on:
        guard.ending = f"the guard ended it at step {state.step} and went back to step {guard.good.step}: {reasons}"
    logger.warning(
        "guard, step %d: %s. Went back to the policy after step %d; %s", state.step, reasons, guard.good.step, then
    )
    return {"guard/rolled_back_to": float(guard.good.step)}


def _good_checkpoint(state: RunState, guard: QualityGuard) -> Path | None:
    """Return the checkpoint to go back to; None, with the reason in the log, when there is none or it is damaged."""
    if guard.good is None:
        logger.error("guard: there is no checkpoint to go back to")
        return None
    path = state.folder / "checkpoints" / f"step-{guard.good.step:06d}"
    damage = find_damage(path)
    if damage:
        logger.error("guard: the checkpoint to go back to, %s, is damaged: %s", path, damage)
        return None
    return path


def _put_back(state: RunState, guard: QualityGuard, checkpoint: Path) -> None:
    assert guard.good is not None
    rate_factor = state.optimizer.rate_factor
    if guard.may_go_on_after_rollback():
        rate_factor *= guard.settings.rollback_learning_rate_factor or 1.0
    guard.num_rollbacks += 1
    guard.now, guard.recent = guard.good.measured, []
    state.rescue.hold_all()
    roll_back(state, load_checkpoint(checkpoint))
    state.optimizer.rate_factor = rate_factor
