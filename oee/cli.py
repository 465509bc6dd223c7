"""The command line: what can be typed, and its help. Every command's work is imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from oee import cli_demo  # noqa: F401  as the next ones: each adds its commands, in the order of the help

# isort: split
from oee import cli_figures  # noqa: F401

# isort: split
from oee import cli_cloud, cli_corrections, cli_gateway  # noqa: F401
from oee.cli_parts import app, command, config

__all__ = ["app"]


@command(config, "list", "List the example files.")
def config_list() -> None:
    """List the example files."""
    from oee import examples

    for path in examples.paths():
        typer.echo(f"{path.name:28} {path.read_text().partition(chr(10))[0].lstrip('# ')}")


@command(
    config, "show", "Print one example file.", "oee config show gateway", "oee config show plant > plant.toml"
)
def config_show(name: Annotated[str, typer.Argument(help="gateway, cloud, plant, ...")]) -> None:
    """Print one example file."""
    from oee import examples

    typer.echo(examples.text(name), nl=False)


@command(
    config,
    "write",
    "Copy the example files into a folder, ready to be edited.",
    "oee config write /etc/oee",
    "oee config write . --replace",
)
def config_write(
    folder: Annotated[Path, typer.Argument(help="Where to; made when missing.")],
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite files that are there.")] = False,
) -> None:
    """Copy the example files into a folder, ready to be edited."""
    from oee import examples

    for path in examples.write(folder, replace=replace):
        typer.echo(f"wrote {path}")


@command(app, "version", "Print the version.")
def version() -> None:
    """Print the version."""
    from oee.versions import described

    typer.echo(described())
