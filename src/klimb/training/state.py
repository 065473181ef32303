"""The state of a run: everything that the next step depends on, to and from a checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from klimb.policies import Policy
from klimb.training.checkpoints import CheckpointContent, CheckpointError
from klimb.training.clock import RunClock
from klimb.training.critic import Critic
from klimb.training.guard.watch import QualityGuard
from klimb.training.identity import environment
from klimb.training.late_writes import LateWrites
from klimb.training.metrics import Notices, WeightsWatch
from klimb.training.optimizers import Optimizer
from klimb.training.prompts import PromptStream
from klimb.training.reference_rules import Reference
from klimb.training.rescue import Rescue
from klimb.training.settings import LoopSettings
from klimb.training.sources.offline import OfflineSource
from klimb.training.sources.replay import DelayQueue, ReplayBuffer
from klimb.training.streams import derive_seed, open_stream
from klimb.training.update import NonFiniteGuard
from klimb.training.watches import Watches

PURPOSES = ("sampling", "rewards", "minibatches", "replay")


CRITIC = "critic"


@dataclass
class RunState:
    """What a step reads and changes.

    Attributes:
        step: loop steps done.
        stream: the order of the problems; None where nothing is drawn.
        num_tokens_generated: response tokens drawn by them, those of groups that were not trained on included.
        elapsed_seconds: that they took.
        generators: purpose -> its random numbers.
        identity: what the run is; a resume checks it.
        clock: tells the time of the whole run, earlier processes included.
        folder: of the run.
        replay: rollouts that may be used again.
        queue: rollouts that wait for their turn, when the settings delay them.
        critic: of credit `gae`; None elsewhere.
        logs: groups that this run did not draw.
        quality: watches what the model could do before; None when nothing is watched.
        rescue: the last complete step, while the next one changes all this.
        writes: what the disk has refused so far.
        watches: the best of the metrics that the best checkpoint and early stopping go by.
    """

    policy: Policy
    optimizer: Optimizer
    reference: Reference
    stream: PromptStream | None
    generators: dict[str, torch.Generator]
    guard: NonFiniteGuard
    identity: Mapping[str, Any]
    folder: Path
    replay: ReplayBuffer
    critic: Critic | None = None
    queue: DelayQueue = field(default_factory=DelayQueue)
    logs: tuple[OfflineSource, ...] = ()
    quality: QualityGuard | None = None
    weights_watch: WeightsWatch = field(default_factory=WeightsWatch)
    clock: RunClock = field(default_factory=RunClock)
    notices: Notices = field(default_factory=Notices)
    rescue: Rescue = field(default_factory=Rescue)
    writes: LateWrites = field(default_factory=LateWrites)
    watches: Watches = field(default_factory=Watches)
    step: int = 0
    num_tokens_generated: int = 0
    elapsed_seconds: float = 0.0


def fresh_state(
    policy: Policy,
    settings: LoopSettings,
    *,
    num_problems: int,
    folder: Path,
    identity: Mapping[str, Any],
    logs: Sequence[OfflineSource] = (),
    quality: QualityGuard | None = None,
    clock: RunClock | None = None,
) -> RunState:
    """Return the state before the first step.

    Also seeds torch's global generator: what draws from it (dropout) belongs to the run, and its state is saved.

    Raises:
        ValueError: there is no problem, and some are to be asked.
    """
    torch.manual_seed(derive_seed(settings.seed, "global"))
    rescue, writes = Rescue(is_on=settings.checkpoints.rescue), LateWrites()
    return RunState(
        policy=policy,
        optimizer=Optimizer(policy.trainable(), settings.optimizer, before_change=rescue.hold),
        reference=Reference(settings.reference, policy, after_following=rescue.follow_reference),
        stream=PromptStream(num_problems, seed=settings.seed) if settings.sources.share("rollout") else None,
        generators=_generators(settings),
        critic=_critic(policy, settings),
        guard=NonFiniteGuard(folder / "skipped", max_in_a_row=settings.training.max_skipped_steps, writes=writes),
        identity=identity,
        folder=folder,
        replay=ReplayBuffer(settings.replay),
        logs=tuple(logs),
        quality=quality,
        clock=clock or RunClock(),
        rescue=rescue,
        writes=writes,
        watches=Watches.of(settings),
    )


def _generators(settings: LoopSettings) -> dict[str, torch.Generator]:
    purposes = (*PURPOSES, CRITIC) if settings.credit.kind == "gae" else PURPOSES
    return {purpose: open_stream(settings.seed, purpose) for purpose in purposes}


def _critic(policy: Policy, settings: LoopSettings) -> Critic | None:
    if settings.credit.kind != "gae":
        return None
    num_features = policy.causal_lm.config.get_text_config().hidden_size
    return Critic(num_features, settings.critic, seed=derive_seed(settings.seed, "value head"))


def capture(state: RunState, *, metrics_bytes: int) -> CheckpointContent:
    """Return the state as a checkpoint's content. Reads only: saving or not saving changes no later number."""
    optimizer_tensors, optimizer_numbers = state.optimizer.state()
    reference_tensors, reference_numbers = state.reference.state()
    random_states = {purpose: generator.get_state() for purpose, generator in state.generators.items()}
    tensors: dict[str, Mapping[str, Tensor]] = {
        "weights": state.policy.trainable(),
        "optimizer": optimizer_tensors,
        "random": random_states | {"global": torch.get_rng_state()},
    }
    if reference_tensors:
        tensors["reference"] = reference_tensors
    if state.critic is not None:
        tensors["critic"] = state.critic.state()
    numbers = {
        "step": state.step,
        "num_tokens_generated": state.num_tokens_generated,
        "elapsed_seconds": state.elapsed_seconds,
        "total_seconds": state.clock.seconds(),
        "optimizer": optimizer_numbers,
        "reference": reference_numbers,
        "stream": None if state.stream is None else state.stream.state(),
        "replay": state.replay.state(),
        "queue": state.queue.state(),
        "logs": {logged.source: logged.state() for logged in state.logs},
        "num_skipped_in_a_row": state.guard.num_in_a_row,
        "quality": None if state.quality is None else state.quality.state(),
        "watches": state.watches.state(),
        "pass_limit": state.policy.pass_limit.state(),
        "metrics_bytes": metrics_bytes,
        "identity": dict(state.identity),
        "environment": environment(state.policy),
    }
    return CheckpointContent(tensors, numbers)


def restore(state: RunState, content: CheckpointContent) -> int:
    """Put a fresh state where the checkpoint was; returns how many bytes of metrics belong to it.

    Raises:
        CheckpointError: it is of another model.
    """
    numbers = content.numbers
    roll_back(state, content)
    if state.stream is not None:
        state.stream.load_state(numbers["stream"])
    for logged in state.logs:
        logged.load_state(numbers["logs"][logged.source])
    for purpose, generator in state.generators.items():
        generator.set_state(content.tensors["random"][purpose])
    torch.set_rng_state(content.tensors["random"]["global"])
    state.guard.num_in_a_row = int(numbers["num_skipped_in_a_row"])
    if state.quality is not None and numbers["quality"] is not None:
        state.quality.load_state(numbers["quality"])
    if "pass_limit" in numbers and _has_the_same_memory(state, numbers):
        state.policy.pass_limit.load_state(numbers["pass_limit"])
    state.watches.load_state(numbers.get("watches", {}), checkpoints=state.folder / "checkpoints")
    state.step = int(numbers["step"])
    state.num_tokens_generated = int(numbers["num_tokens_generated"])
    state.elapsed_seconds = float(numbers["elapsed_seconds"])
    state.clock.continue_from(float(numbers["total_seconds"]))
    return int(numbers["metrics_bytes"])


def _has_the_same_memory(state: RunState, numbers: Mapping[str, Any]) -> bool:
    """Whether what was learnt of what fits still holds: the same device, and the settings that say how much goes in."""
    if numbers["environment"]["device"] != state.policy.device.type:
        return False
    keys = ("training.micro_batch_tokens", "sampling.max_batch", "model.activation_checkpointing")
    return all(numbers["identity"].get(key) == state.identity.get(key) for key in keys)


def roll_back(state: RunState, content: CheckpointContent) -> None:
    """Put back what was learned, and the rollouts kept to learn from; time, prompts and random numbers go on.

    The kept rollouts go back with the optimizer, whose steps their age is counted in.
    """
    tensors, numbers = content.tensors, content.numbers
    copy_weights(tensors["weights"], state.policy.trainable())
    state.optimizer.load_state(tensors.get("optimizer", {}), numbers["optimizer"])
    state.reference.load_state(dict(tensors.get("reference", {})), numbers["reference"])
    if state.critic is not None:
        state.critic.load_state(dict(tensors["critic"]))
    rollouts = state.folder / "rollouts"
    state.replay.load_state(numbers["replay"], rollouts=rollouts)
    state.queue.load_state(numbers["queue"], rollouts=rollouts)


@torch.no_grad()
def copy_weights(saved: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    """Put saved weights in the place of the parameters.

    Raises:
        CheckpointError: they are of another model.
    """
    wrong = sorted({*saved} ^ {*parameters}) or [
        name for name, parameter in parameters.items() if saved[name].shape != parameter.shape
    ]
    if wrong:
        raise CheckpointError(
            f"the checkpoint is of another model: {len(wrong)} weights are missing, new or of another shape, "
            f"the first of them {_shown(wrong)}; load the model (and LoRA settings) the run began with"
        )
    for name, parameter in parameters.items():
        parameter.copy_(saved[name])


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:3])
