"""Tools: what the policy may call, how a call is written in a model's own format, and where tools come from."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.tasks.tools.arguments import check_arguments
    from klimb.tasks.tools.call_format import CallFormat, ParsedTurn, load_arguments
    from klimb.tasks.tools.formats import FORMATS, NO_CALLS, choose_format, get_format
    from klimb.tasks.tools.loading import close_tools, load_tools
    from klimb.tasks.tools.mcp_server import mcp_tools
    from klimb.tasks.tools.response_template import TokenizerFormat, describes_answers
    from klimb.tasks.tools.tool import Tool, tool_of, tools_of

__all__ = [
    "FORMATS",
    "NO_CALLS",
    "CallFormat",
    "ParsedTurn",
    "TokenizerFormat",
    "Tool",
    "check_arguments",
    "choose_format",
    "close_tools",
    "describes_answers",
    "get_format",
    "load_arguments",
    "load_tools",
    "mcp_tools",
    "tool_of",
    "tools_of",
]

open_lazily(__name__)
