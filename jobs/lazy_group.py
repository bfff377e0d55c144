"""A click group that imports a command only when it is called, so that ``--help`` answers at once."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click


def name_variables(command: click.Command) -> None:
    """Let every option come from ``SLIDESTREAM_<OPTION>``, whatever command it belongs to."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            name_variables(each)
    for param in command.params:
        if isinstance(param, click.Option) and param.envvar is None:
            longest = max(param.opts, key=len).lstrip("-")
            param.envvar = f"SLIDESTREAM_{longest.replace('-', '_').upper()}"


class LazyGroup(click.Group):
    """Group whose commands are named by module.

    Parameters
    ----------
    name
        As of ``click.Group``.
    help
        As of ``click.Group``.
    commands
        Command name → ("module:attribute", one-line help); the help is shown without importing the module.
    """

    def __init__(self, name: str, help: str, lazy: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(
            name=name, help=help, context_settings={"help_option_names": ["-h", "--help"]}
        )
        self._lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of a user's path through them."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in self._lazy:
            return None
        module, attribute = self._lazy[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        name_variables(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command list from the one-line helps."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._lazy.items()])
