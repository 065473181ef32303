"""The command line: one module for each command; to add one, add a file.

A module holds its command, a function or a cyclopts `App`, under the module's own name. The user types that name, or
the module's `NAME` if it has one. At the top of a module stand light imports only: every module here is loaded before
any command is looked at, `klimb --help` included. What a command needs beyond that is imported where it is called.
"""
