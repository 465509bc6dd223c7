"""Help that answers before anything is parsed: typer imports pydantic to read even the word `--help`."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


def _asks_for_help(context: Any, arguments: list[str]) -> bool:
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(argument in context.help_option_names for argument in ours)


class QuickCommand(TyperCommand):
    """A command whose help costs no parsing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Answer a call for help at once; parse everything else as usual."""
        if _asks_for_help(ctx, args):
            typer.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)


class QuickGroup(TyperGroup):
    """A group of commands whose help costs no parsing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Answer a call for help, or hand it on to the command that it is about; parse the rest as usual."""
        if args and _asks_for_help(ctx, args):
            command = self.get_command(ctx, args[0])
            if command is not None:
                command.make_context(args[0], args[1:], parent=ctx)  # answers and leaves
            elif _asks_for_help(ctx, args[:1]):
                typer.echo(ctx.get_help())
                ctx.exit()
        return super().parse_args(ctx, args)
