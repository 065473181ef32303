"""What is logged of conversations: turns, calls of tools, why they ended. Runs of single answers have none of it."""

from klimb.findings.metrics.metric import Metric

CONVERSATIONS = (
    Metric(
        name="num_turns_mean",
        unit="count",
        formula="mean number of the policy's turns in a conversation",
        healthy="as many as the task needs",
        outside="rising without reward: look at `reward_turns_correlation`. 1: no tool is used, or none answers",
        panel="Turns and calls of a conversation",
        label="turns of the policy",
    ),
    Metric(
        name="calls_mean",
        unit="count",
        formula="mean number of calls in a conversation; a turn whose calls could not be read counts as one",
        healthy="above 0 where tools are offered",
        outside="0: see `tools_unused_fraction`",
        panel="Turns and calls of a conversation",
        label="calls of tools",
    ),
    Metric(
        name="failed_calls_fraction",
        unit="fraction",
        formula=(
            "calls that could not be read, named no tool, had wrong arguments, raised or took too long, over all calls"
        ),
        healthy="falls; below 0.2 (own)",
        outside="read the errors in the rollouts: the model sees them too",
        panel="How conversations go",
        label="calls that fail",
    ),
    Metric(
        name="unread_calls_fraction",
        unit="fraction",
        formula="turns whose calls could not be read, over those and all calls that could",
        healthy="near 0",
        outside="near 1: the model writes its calls in another format than the one that is read",
        panel="How conversations go",
        label="calls that cannot be read",
    ),
    Metric(
        name="tools_unused_fraction",
        unit="fraction",
        formula="conversations without any call, over those that were offered tools",
        healthy="as the task has it",
        outside="near 1: what is learnt has nothing to do with the tools",
        panel="How conversations go",
        label="without a call, of those with tools",
    ),
    Metric(
        name="num_context_tokens",
        unit="count",
        formula="tokens put in: results of tools, a user's turns, the template's text around them; none is learnt from",
        outside="far above `num_tokens_sampled`: long results of tools fill the context",
    ),
    Metric(
        name="drawn_fraction",
        unit="fraction",
        formula="drawn tokens over all tokens of the responses that are conversations",
        healthy="above 0.1 (own)",
        outside="near 0: most of what is computed is read and never learnt from. Shorten what the tools return",
        panel="How conversations go",
        label="tokens that were drawn",
    ),
    Metric(
        name="truncated_turns_fraction",
        unit="fraction",
        formula="turns of the policy that were cut by `max_new_tokens`, over all of its turns",
        healthy="falls to 0",
        outside="a call that is cut off cannot be read: raise `sampling.max_new_tokens`",
        panel="Responses cut off",
        label="turns cut at max_new_tokens",
    ),
    Metric(
        name="turn_limit_fraction",
        unit="fraction",
        formula=(
            "conversations that a limit ended (turns, tokens, the model's context, seconds), over those that say why "
            "they ended"
        ),
        healthy="falls",
        outside="above 0.5: raise the limits of `[environment]`, or shorten the task",
        panel="Responses cut off",
        label="conversations ended by a limit",
    ),
    Metric(
        name="num_environment_errors",
        unit="count",
        formula="conversations without a reward because their environment died",
        healthy="0",
        outside="`environment_error` in the metadata of the rollouts says why",
        panel="Trouble",
        label="environments that died",
    ),
    Metric(
        name="split_fraction",
        unit="fraction",
        formula="conversations whose turns are samples of their own: the template rewrites what was said before",
        healthy="0; 1 with a template that rewrites",
        outside="each turn reads its history anew, which costs as many times the prompt as there are turns",
    ),
    Metric(
        name="reward_turns_correlation",
        unit="1",
        formula=(
            "correlation of the ranks of reward and of the number of the policy's turns, both taken within a group; "
            "not there where nothing differs"
        ),
        healthy="no more than `correct_turns_correlation`",
        outside="near 1 while that is near 0: the reward pays for talking",
        panel="What goes with the length of a dialogue",
        label="reward and turns",
    ),
    Metric(
        name="correct_turns_correlation",
        unit="1",
        formula="the same of being correct and turns; only where the score says what is correct",
        panel="What goes with the length of a dialogue",
        label="being correct and turns",
    ),
    Metric(
        name="reward_drawn_correlation",
        unit="1",
        formula="the same of reward and drawn tokens",
        healthy="no more than `correct_drawn_correlation`",
        outside="near 1 while that is near 0: the reward pays for length",
        panel="What goes with the length of a dialogue",
        label="reward and drawn tokens",
    ),
    Metric(
        name="correct_drawn_correlation",
        unit="1",
        formula="the same of being correct and drawn tokens",
        panel="What goes with the length of a dialogue",
        label="being correct and drawn tokens",
    ),
)
