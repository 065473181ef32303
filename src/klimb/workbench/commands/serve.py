"""`klimb serve`: a policy behind OpenAI's API, each of its answers a sample in a store."""

from pathlib import Path
from typing import Literal

from rich.console import Console

from klimb.errors import ConfigError
from klimb.workbench.options import PathOrNone, Switch, TextOrNone, check_temperature

DEFAULT_PORT = 8000


def serve(
    policy: str = "",
    /,
    *,
    store: Path,
    deployment: PathOrNone = None,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    name: str = "klimb",
    upstream: TextOrNone = "",
    upstream_log_probs: Literal["raw", "processed"] = "raw",
    keys: PathOrNone = None,
    max_batch: int = 32,
    max_waiting: int = 256,
    max_tokens: int = 4096,
    dtype: str = "auto",
    device: str = "auto",
    temperature: float | None = None,
    on_store_error: Literal["refuse", "answer"] = "refuse",
    log_requests: Switch = False,
) -> None:
    """Answer as OpenAI's API does, keep every answer as a sample, and take what people say of it.

    Args:
        policy: A model's name or folder, a run's folder, or a folder with a deployment.json, which is watched.
        store: Where answers and feedback go; made if need be.
        deployment: Folder whose deployment.json says which policy answers, and is watched; begun with the given policy
            where there is none yet. klimb learn and klimb rollback change it.
        host: Address to listen on; another than this machine's own needs --keys.
        port: Where to listen; 0 takes any port that is free.
        name: The model's name for clients.
        upstream: Instead of a policy: the API of another server, such as http://127.0.0.1:8001/v1.
        upstream_log_probs: What that server's log-probabilities are of: the model itself, or what is drawn from.
        keys: File of klimb keys; requests need one of them then.
        max_batch: Answers that are drawn at the same time.
        max_waiting: Answers that may wait for that.
        max_tokens: The most that a request may ask for.
        dtype: Of the matrix products: float32, bfloat16 or auto.
        device: Where it runs; auto takes the best there is.
        temperature: Of the policy; without it, the one it was trained at.
        on_store_error: What becomes of an answer that cannot be written to the store.
        log_requests: Write prompts and answers to the log.
    """
    if bool(policy or deployment) == bool(upstream):
        raise ConfigError("give a policy to serve, or --upstream with the API of another server: one of them")
    check_temperature(temperature)
    from klimb.web.serve.settings import ServeSettings
    from klimb.workbench.listening import import_server

    settings = ServeSettings(
        name=name,
        max_batch=max_batch,
        max_waiting=max_waiting,
        max_tokens=max_tokens,
        default_max_tokens=min(512, max_tokens),
        on_store_error=on_store_error,
        log_requests=log_requests,
    )
    _, serving = import_server("klimb.workbench.serving", what="klimb serve")
    asked = serving.Asked(
        policy=policy,
        deployment=deployment,
        store=store,
        host=host,
        port=port,
        upstream=upstream,
        upstream_log_probs=upstream_log_probs,
        keys=keys,
        dtype=dtype,
        device=device,
        temperature=temperature,
    )
    serving.run_server(asked, settings, console=Console())
