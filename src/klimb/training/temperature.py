"""The temperature τ of the policy that a run trains: π = softmax(logits / τ)."""

from collections.abc import Sequence

from klimb.training.settings import LoopSettings
from klimb.training.sources.offline import OfflineSource


def find_temperature(settings: LoopSettings, logs: Sequence[OfflineSource], *, needs_log_mu: bool) -> float:
    """Return the settings' own temperature, else that of the sampling, else the one recorded with logged samples.

    Where a run samples nothing and its logs recorded several temperatures or none, a loss that compares with log_mu
    must be told which policy it trains; any other takes that of the sampling settings.

    Raises:
        ValueError: it must be told, and is not.
    """
    if settings.temperature != "auto":
        return float(settings.temperature)
    if settings.sources.share("rollout") > 0:
        return settings.sampling.temperature
    found = {temperature for logged in logs for temperature in logged.temperatures()}
    (only,) = found if len(found) == 1 else (None,)
    if only:
        return only
    if not needs_log_mu:
        return settings.sampling.temperature
    raise ValueError(
        f"the logged samples were drawn {_in_words(found)}, so the temperature of the policy to train is not known; "
        "say it: model.temperature = 1.0 (LoopSettings.temperature from Python), or take samples of one temperature "
        'with where = "sampling.temperature = 1.0"'
    )


def _in_words(found: set[float | None]) -> str:
    known = sorted(temperature for temperature in found if temperature is not None)
    if not known:
        return "at a temperature that was not recorded"
    if known == [0.0]:
        return "greedily, at temperature 0"
    shown = ", ".join(f"{temperature:g}" for temperature in known)
    return f"at temperatures {shown}{' and some that were not recorded' if None in found else ''}"
