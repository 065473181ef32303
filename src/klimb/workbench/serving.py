"""A server put together: policies or another server, the store, feedback, the page, and the checks around them."""

import logging
import signal
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from rich.console import Console
from rich.text import Text

from klimb.errors import ConfigError
from klimb.experience.answer_index import AnswerIndex
from klimb.experience.store import Store
from klimb.policies import load_policy
from klimb.policies.model_names import check_model_exists
from klimb.samplers.service.engine import DecodingEngine
from klimb.training.deployment import FILE, Deployment, ServedPolicy, read_deployment
from klimb.web.asgi import App
from klimb.web.serve.app import Answerer, make_serve_app
from klimb.web.serve.feedback import feedback_routes
from klimb.web.serve.feedback_intake import FeedbackIntake
from klimb.web.serve.keys import Keys
from klimb.web.serve.limits import Limits
from klimb.web.serve.meters import Meters
from klimb.web.serve.page import page_routes
from klimb.web.serve.policies import LoadedPolicy, Policies
from klimb.web.serve.recording import Recorder
from klimb.web.serve.security import Secured, check_binding
from klimb.web.serve.settings import ServeSettings
from klimb.web.serve.upstream import LogProbs, Upstream
from klimb.workbench.learn.promoting import named_model, open_deployment
from klimb.workbench.listening import address_of, bind
from klimb.workbench.model_path import model_path


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is served where.

    Attributes:
        policy: a model's name or folder, a run's folder, or a deployment's; empty in front of another server.
        store: where answers and feedback go.
        deployment: folder of the deployment that is served, begun with the policy; None for the policy alone.
        host: address to listen on.
        port: 0 for any.
        upstream: the other server's API.
        upstream_log_probs: what its log-probabilities are of.
        keys: file of keys; None for none.
        dtype: of the matrix products.
        device: where the policy runs.
        temperature: of the policy; None for the one it was saved with.
    """

    policy: str
    store: Path
    deployment: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    upstream: str = ""
    upstream_log_probs: LogProbs = "raw"
    keys: Path | None = None
    dtype: str = "auto"
    device: str = "auto"
    temperature: float | None = None


def run_server(asked: Asked, settings: ServeSettings, *, console: Console) -> None:
    """Serve until Ctrl-C; what is being drawn then is drawn to its end, and stored.

    Raises:
        ConfigError: it cannot be served so.
    """
    logging.getLogger("klimb").setLevel(logging.INFO)
    keys = Keys(asked.keys)
    check_binding(asked.host, keys)
    with bind(asked.host, asked.port) as listener, ExitStack() as stack, _ended_by_sigterm():
        app, answering = stack.enter_context(open_app(asked, settings, keys))
        listener.listen()  # before the address is told: whoever asks at once waits, and is not turned away
        for line in _announce(address_of(listener), answering, asked, settings):
            console.print(line, soft_wrap=True)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=round(settings.drain_seconds),
        )
        # Where the shell has SIGINT ignored (a job in the background), uvicorn ends without this.
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        console.print("stopped: what was being drawn has ended, and is stored")


@contextmanager
def open_app(asked: Asked, settings: ServeSettings, keys: Keys) -> Generator[tuple[App, str]]:
    """Give the application, behind its checks, and in a few words what answers; all of it is closed in the end.

    Raises:
        ConfigError: there is no such policy, or the store cannot be written.
    """
    with ExitStack() as stack:
        recorder = _recorder(asked.store, settings)
        stack.callback(recorder.close)
        intake = FeedbackIntake(Store(recorder.folder), find=recorder.find)
        stack.callback(intake.close)
        meters = Meters()
        answerer, deployment, answering = _answerer(asked, settings, recorder, meters, stack)
        routers = (
            feedback_routes(intake),
            page_routes(
                AnswerIndex(recorder.folder), deployment=deployment, hash_user=intake.hash_rater, model=settings.name
            ),
        )
        app = make_serve_app(answerer, recorder, settings, meters=meters, routers=routers)
        limits = Limits(max_new_tokens=settings.max_tokens, max_choices=settings.max_choices)
        yield Secured(app, keys=keys, limits=limits, names=frozenset({asked.host.lower()})), answering


def _recorder(store: Path, settings: ServeSettings) -> Recorder:
    try:
        return Recorder(store, commit_seconds=settings.commit_seconds)
    except OSError as error:
        raise ConfigError(f"--store {store} cannot be written: {error}; give a folder that can") from error


def _answerer(
    asked: Asked, settings: ServeSettings, recorder: Recorder, meters: Meters, stack: ExitStack
) -> tuple[Policies | Answerer, Callable[[], Deployment], str]:
    if asked.upstream:
        upstream = Upstream(asked.upstream, recorder, settings, meters, log_probs=asked.upstream_log_probs)
        stands_for = Deployment(current=ServedPolicy(name=settings.name, model=asked.upstream, since=time.time()))
        return upstream, lambda: stands_for, f"the server at {asked.upstream}"
    deployment, folder = read_target(asked.policy, asked.deployment)
    policies = Policies(
        partial(load_served, folder=folder, asked=asked, settings=settings),
        deployment,
        folder=folder,
        name=settings.name,
        watch_seconds=settings.watch_seconds,
    )
    stack.callback(policies.close)
    return policies, lambda: policies.deployment, f"{deployment.current.name} ({deployment.current.model})"


def read_target(policy: str, deployment: Path | None = None) -> tuple[Deployment, Path | None]:
    """Return what is served, and the deployment's folder; None for a policy that stays.

    Raises:
        ConfigError: the run has no model yet, or the deployment was begun with another policy.
        ValueError: there is no such model, or the deployment's file is none.
    """
    if deployment is not None:
        is_there = (deployment / FILE).is_file()
        found = open_deployment(deployment, policy)
        if is_there and policy and (first := (*found.earlier, found.current)[0]).model != named_model(policy):
            raise ConfigError(
                f"{deployment} was begun with {first.model}, not with {policy}: leave the policy out, or give another "
                "folder for a new deployment"
            )
        return found, deployment
    if (folder := _folder_of(policy, None)) is not None:
        return read_deployment(folder), folder
    served = ServedPolicy(name=_name_of(policy), model=model_path(policy), since=time.time(), reason="as asked")
    return Deployment(current=served), None


def _folder_of(policy: str, deployment: Path | None) -> Path | None:
    if deployment is None and policy and (Path(policy) / FILE).is_file():
        return Path(policy)
    return deployment


def _name_of(policy: str) -> str:
    """Return a short name: that of the folder or file where it is one."""
    return Path(policy).resolve().name if Path(policy).exists() else policy.rpartition("/")[2] or policy


def load_served(served: ServedPolicy, *, folder: Path | None, asked: Asked, settings: ServeSettings) -> LoadedPolicy:
    """Return the policy with an engine of its own.

    Raises:
        ValueError: there is no model of this name.
    """
    there = None if folder is None else folder / served.model
    path = model_path(str(there) if there is not None and there.exists() else served.model)
    check_model_exists(path)
    policy = load_policy(path, dtype=asked.dtype, device=asked.device)
    temperature = (
        saved_temperature(policy.causal_lm.generation_config) if asked.temperature is None else asked.temperature
    )
    policy = replace(policy, temperature=temperature)
    engine = DecodingEngine(policy, max_batch=settings.max_batch, max_waiting=settings.max_waiting)
    return LoadedPolicy(served=served, policy=policy, engine=engine)


def saved_temperature(config: Any) -> float:
    """Return the temperature that klimb saved a policy with, with nothing cut; 1 for a model that it did not save."""
    is_ours = getattr(config, "do_sample", False) and getattr(config, "top_p", None) == 1.0
    is_ours = is_ours and getattr(config, "top_k", None) == 0
    return float(config.temperature) if is_ours and config.temperature else 1.0


def _announce(address: str, answering: str, asked: Asked, settings: ServeSettings) -> list[Text]:
    who = "keys: none, this machine alone is answered" if asked.keys is None else f"keys: of {asked.keys}"
    logs = "the log has prompts and answers (--log-requests)" if settings.log_requests else "no text is logged"
    folder = _folder_of(asked.policy, asked.deployment)
    watched = [] if folder is None else [Text(f"watched: {folder / FILE}, which klimb learn and klimb rollback change")]
    return [
        Text.assemble("serving ", (answering, "bold"), f" as {settings.name!r}  ", (address, "cyan")),
        *watched,
        Text.assemble("OpenAI's API at ", (f"{address}v1", "cyan"), ", a page for people at ", (address, "cyan")),
        Text(
            f"recorded in {asked.store}: every answer with its prompt, token ids, log-probabilities, settings and "
            f"policy version, feedback, users as hashes; {logs}"
        ),
        Text(who),
        Text("stop with Ctrl-C", style="dim"),
    ]


@contextmanager
def _ended_by_sigterm() -> Generator[None]:
    """Let SIGTERM end the server as Ctrl-C does, so that what is being drawn is stored."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
