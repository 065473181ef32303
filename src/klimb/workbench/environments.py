"""What the policy of a run talks to: its environments, how it calls tools, and what its chat template does to them."""

from klimb.errors import ConfigError
from klimb.policies import Policy
from klimb.policies.stability import check_history
from klimb.samplers import Sampler
from klimb.tasks import ProblemSet
from klimb.tasks.environments import Environments, EnvironmentSettings
from klimb.tasks.tools import CallFormat, choose_format, get_format
from klimb.training.dialogues import Dialogues


def make_environments(settings: EnvironmentSettings | None, policy: Policy, task: ProblemSet) -> Environments | None:
    """Return the environments of a run, not yet entered; None where each answer is one turn.

    Raises:
        ConfigError: it cannot be said how the model writes its calls.
    """
    if settings is None and task.environment is None:
        return None
    chosen = settings or EnvironmentSettings()
    try:
        return Environments(chosen, call_format=find_format(chosen, policy), factory=task.environment)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def find_format(settings: EnvironmentSettings, policy: Policy) -> CallFormat:
    """Return how the model writes its calls, as stated or as its chat template shows.

    Raises:
        ValueError: there is no such format, or the template shows none that is known.
    """
    if settings.call_format != "auto":
        return get_format(settings.call_format)
    return choose_format(str(policy.tokenizer.chat_template))


def make_dialogues(policy: Policy, sampler: Sampler, environments: Environments) -> Dialogues:
    """Return the policy with its environments, which are running.

    Raises:
        ConfigError: the chat template refuses such conversations, tells the model of no tools though there are some,
            or rewrites histories though that is to be refused.
    """
    stability = check_history(policy.tokenizer, tools=environments.tools, end_ids=policy.end_ids)
    if stability.kind == "refuses":
        raise ConfigError(f"the model cannot talk to an environment: {stability.describe()}")
    if environments.tools and not stability.offers_tools:
        raise ConfigError(
            "the environment has tools, and the model's chat template tells the model of none; set model.chat_template "
            "to one that does (examples/templates has one), or take a model that was made for tools"
        )
    if stability.kind == "rewrites" and environments.settings.rewritten_history == "refuse":
        raise ConfigError(
            f"environment.rewritten_history = 'refuse', and {stability.describe()}; set it to 'split', or take a "
            "template that keeps what was said"
        )
    return Dialogues(policy=policy, sampler=sampler, environments=environments, stability=stability)
