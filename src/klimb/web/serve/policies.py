"""The policies that answer: one engine for each, taken over from the deployment's file while others still answer."""

import hashlib
import logging
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from klimb.experience.samples import Message
from klimb.policies import Policy
from klimb.policies.tokenizer import PromptError, vocabulary_of
from klimb.policies.turns import history_is_kept, ids_between, message_of_turn, opened_thought
from klimb.samplers.service.requests import DrawService
from klimb.tasks.tools.call_format import CallFormat, ParsedTurn
from klimb.tasks.tools.foreign import call_entry
from klimb.tasks.tools.formats import choose_format
from klimb.training.deployment import FILE, Deployment, ServedPolicy, read_deployment
from klimb.web.serve.history import Remembered
from klimb.web.serve.openai_errors import RequestRefused

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class LoadedPolicy:
    """A policy that can answer.

    Attributes:
        served: its name and version.
        policy: renders and decodes.
        engine: draws.
        num_leases: requests that it is answering.
    """

    served: ServedPolicy
    policy: Policy
    engine: DrawService
    num_leases: int = 0
    _tokenizing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def max_positions(self) -> int | None:
        """Tokens that prompt and answer may have together."""
        return self.engine.max_positions

    def prompt_ids(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        earlier: tuple[int, Remembered] | None,
    ) -> tuple[int, ...]:
        """Return the ids of a prompt: those of the earlier answer with what follows, where the template keeps them.

        What was drawn is then not encoded again. Otherwise all of it is as the template renders it.

        Raises:
            PromptError: the template refuses the messages.
        """
        with self._tokenizing:
            whole = self.policy.render(messages, tools)
            if earlier is None or earlier[1].tokenizer != self.policy.fingerprint:
                return whole
            num_said, remembered = earlier
            so_far, new = remembered.messages, messages[num_said:]
            if not new:
                return whole
            tokenizer = self.policy.tokenizer
            try:
                between = ids_between(tokenizer, so_far, new, tools=tools, last_id=remembered.ids[-1])
                ids = (*remembered.ids, *between)
                return ids if history_is_kept(tokenizer, so_far, new, ids, tools) else whole
            except PromptError:  # a template that rewrites what was said: only the whole can be rendered
                return whole

    @cached_property
    def spellings(self) -> Mapping[int, bytes]:
        """What each token stands for, by its id."""
        return spellings_of(self.policy)

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text that is no conversation; what spells a control token is text."""
        with self._tokenizing:
            return tuple(self.policy.tokenizer(text, split_special_tokens=True)["input_ids"])

    def as_message(
        self, messages: tuple[Message, ...], tools: tuple[Mapping[str, Any], ...], text: str, parsed: ParsedTurn | None
    ) -> Message:
        """Return a drawn turn as the template reads it behind these messages."""
        calls = [] if parsed is None else [call_entry(call.name, call.arguments) for call in parsed.calls]
        tokenizer = self.policy.tokenizer
        with self._tokenizing:
            opened = opened_thought(tokenizer, messages, tools)
            content = text if parsed is None else parsed.content
            return message_of_turn(tokenizer, text, content=content, calls=calls, opened=opened)

    def call_format(self) -> CallFormat:
        """Return how the model writes calls.

        Raises:
            RequestRefused: its chat template shows no format of calls.
        """
        try:
            return choose_format(str(self.policy.tokenizer.chat_template))
        except ValueError as error:
            raise RequestRefused(
                f"tools cannot be offered to {self.served.name}: its chat template shows no format of tool calls that "
                "is known here",
                param="tools",
                code="unsupported_parameter",
            ) from error


def spellings_of(policy: Policy) -> Mapping[int, bytes]:
    """Return what each token of the policy stands for, by its id."""
    by_bytes = vocabulary_of(policy.tokenizer).ids_of_bytes
    return {token_id: spelled for spelled, ids in by_bytes.items() for token_id in ids}


Load = Callable[[ServedPolicy], LoadedPolicy]
"""Loads a policy and starts its engine."""


@dataclass(frozen=True)
class _Serving:
    """What answers at one moment."""

    deployment: Deployment
    current: LoadedPolicy
    candidate: LoadedPolicy | None


class Policies:
    """The policies of a deployment, each with an engine of its own.

    Args:
        load: makes a policy ready.
        deployment: what answers; with a folder, what its file says at the start.
        folder: of the deployment, whose file is watched; None for one that stays.
        name: by which clients ask for whichever policy answers.
        watch_seconds: between two looks at the file.
    """

    def __init__(
        self,
        load: Load,
        deployment: Deployment,
        *,
        folder: Path | None = None,
        name: str = "klimb",
        watch_seconds: float = 1.0,
    ) -> None:
        self.name, self.error = name, ""
        self._load, self._folder, self._watch_seconds = load, folder, watch_seconds
        self._lock = threading.Lock()
        self._retired: list[LoadedPolicy] = []
        self._is_closing = threading.Event()
        self._seen = self._stamp()
        self._serving = _Serving(deployment, load(deployment.current), None)
        self._take_over(deployment)
        self._watcher = threading.Thread(target=self._watch, name="klimb-deployment", daemon=True)
        if folder is not None:
            self._watcher.start()

    @contextmanager
    def lease(self, episode: str, model: str | None = None) -> Generator[LoadedPolicy]:
        """Give the policy for a conversation; it is kept until the block ends, whatever is promoted meanwhile.

        Args:
            episode: id of the conversation, which decides whether the candidate answers it.
            model: as a client asks for it.

        Raises:
            RequestRefused: there is no such model.
        """
        with self._lock:
            loaded = self._choose(self._serving, episode, model)
            loaded.num_leases += 1
        try:
            yield loaded
        finally:
            with self._lock:
                loaded.num_leases -= 1
            self._close_retired()

    def _choose(self, serving: _Serving, episode: str, model: str | None) -> LoadedPolicy:
        here = {each.served.name: each for each in (serving.current, serving.candidate) if each is not None}
        if model is not None and model in here:
            return here[model]
        if model not in (None, "", self.name):
            raise RequestRefused(
                f"there is no model {model!r} here; there are {', '.join((self.name, *here))}",
                status=404,
                param="model",
                code="model_not_found",
            )
        candidate = serving.candidate
        if candidate is None:
            return serving.current
        share = share_of(episode, candidate.served.name)
        return candidate if share < serving.deployment.candidate_fraction else serving.current

    @property
    def loaded(self) -> tuple[LoadedPolicy, ...]:
        """The policies that take requests: the one that answers, and a candidate."""
        serving = self._serving
        return tuple(each for each in (serving.current, serving.candidate) if each is not None)

    @property
    def deployment(self) -> Deployment:
        """What answers now."""
        return self._serving.deployment

    def close(self) -> None:
        """End what is being drawn as usual, then close all engines."""
        self._is_closing.set()
        if self._watcher.is_alive():
            self._watcher.join()
        for each in (*self.loaded, *self._retired):
            each.engine.close()

    def look(self) -> None:
        """Take over what the deployment's file says, if it changed. What cannot be read or loaded changes nothing."""
        if self._folder is None or (stamp := self._stamp()) == self._seen:
            return
        self._seen = stamp
        try:
            self._take_over(read_deployment(self._folder))
        except (OSError, ValueError) as error:
            self._fail(f"{FILE} cannot be used", error)

    def _take_over(self, deployment: Deployment) -> None:
        """Load what is new, then switch to it in one step."""
        failed: Exception | None = None
        here = {_key_of(each.served): each for each in self.loaded}
        serving = self._serving
        try:
            current = here.get(_key_of(deployment.current)) or self._load(deployment.current)
        # A policy that does not load must not end one that answers, whatever is wrong with it.
        except Exception as failure:
            self._fail(f"{deployment.current.name} cannot be loaded, {serving.current.served.name} answers on", failure)
            return
        candidate = None
        if deployment.candidate is not None:
            try:
                candidate = here.get(_key_of(deployment.candidate)) or self._load(deployment.candidate)
            # The same holds for a candidate.
            except Exception as failure:
                failed = failure
        with self._lock:
            self._serving = _Serving(deployment, current, candidate)
            kept = (current, candidate)
            self._retired += [each for each in here.values() if each not in kept]
        if serving.current is not current:
            logger.info("%s answers now: %s", current.served.name, current.served.reason or "no reason given")
        self.error = ""
        if failed is not None and deployment.candidate is not None:
            self._fail(f"the candidate {deployment.candidate.name} cannot be loaded", failed)
        self._close_retired()

    def _fail(self, error: str, why: Exception) -> None:
        """Keep what everybody may know: why it is so, with names of files, is for the log."""
        self.error = f"{error}; the log says why"
        logger.error("%s: %s", error, why)

    def _close_retired(self) -> None:
        """Close the engines of policies that no request holds any more, without making anybody wait."""
        with self._lock:
            free = [each for each in self._retired if not each.num_leases]
            self._retired = [each for each in self._retired if each.num_leases]
        for each in free:
            threading.Thread(target=each.engine.close, name="klimb-retire", daemon=True).start()

    def _stamp(self) -> tuple[int, int] | None:
        """Return what tells the file from what it was."""
        if self._folder is None:
            return None
        try:
            status = (self._folder / FILE).stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino

    def _watch(self) -> None:
        while not self._is_closing.wait(self._watch_seconds):
            self.look()


def _key_of(served: ServedPolicy) -> tuple[str, str, int]:
    """Return what tells policies apart: a name that has another model now is another policy."""
    return served.name, served.model, served.policy_version


def share_of(episode: str, candidate: str) -> float:
    """Return a number in [0, 1) that is a conversation's own with this candidate: the same at every request."""
    digest = hashlib.sha256(f"{candidate}\n{episode}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
