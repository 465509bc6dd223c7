"""Commands of the edge."""

from pathlib import Path
from typing import Annotated

import typer

from oee.cli_parts import GatewayFile, app, command, gateway, leave, leave_at_once, trust
from oee.quick_help import QuickCommand


@app.command("broker", cls=QuickCommand, hidden=True)
def broker(port: Annotated[int, typer.Option(min=1, max=65535, help="Port of loopback.")] = 1883) -> None:
    """Run the demo's MQTT broker alone: loopback, no security, MQTT 3.1.1."""
    from oee import broker as mqtt

    leave(mqtt.run(port))


@command(
    gateway,
    "run",
    "Read the PLCs and publish, until SIGTERM or Ctrl-C.",
    "oee gateway run --config /etc/oee/gateway.toml",
)
def gateway_run(config: GatewayFile = Path("gateway.toml")) -> None:
    """Read the PLCs and publish, until SIGTERM or Ctrl-C; SIGHUP reads the configuration again."""
    from gateway import commands

    leave_at_once(commands.run(config))


@command(
    gateway,
    "check",
    "Try configuration, certificates, PLCs, tags and broker.",
    "oee gateway check --config gateway.toml",
)
def gateway_check(config: GatewayFile = Path("gateway.toml")) -> None:
    """Try everything that the configuration names, and print what to do about each fault."""
    from gateway import commands_opcua

    leave(commands_opcua.check(config))


@command(
    gateway,
    "status",
    "Show what the running daemon reads, sends and keeps.",
    "oee gateway status --config /etc/oee/gateway.toml",
)
def gateway_status(config: GatewayFile = Path("gateway.toml")) -> None:
    """Ask the running daemon how it is. Exit code 0: all well, 1: problems, 3: not running."""
    from gateway import commands

    leave(commands.status(config))


@command(
    gateway,
    "provision",
    "Prepare a thing of AWS IoT Core: key, request, policy.",
    "oee gateway provision gw-packaging -c gateway.toml            files to be signed by your own hands",
    "oee gateway provision gw-packaging -c gateway.toml --register with the AWS credentials found here",
)
def gateway_provision(
    thing: Annotated[str, typer.Argument(help="Name of the thing, and of its session.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="A gateway.toml: site, name and machines."),
    ] = None,
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the files go.")] = Path("aws"),
    site: Annotated[str, typer.Option(help="Site, where no gateway.toml tells it.")] = "",
    gateway_name: Annotated[
        str, typer.Option("--gateway", help="The gateway's name, where no gateway.toml tells it.")
    ] = "",
    endpoint: Annotated[str, typer.Option(help="The account's data endpoint, where AWS is not asked.")] = "",
    region: Annotated[str | None, typer.Option(help="AWS region; else the environment's.")] = None,
    *,
    register: Annotated[
        bool, typer.Option("--register", help="Make thing, certificate and policy known to AWS.")
    ] = False,
) -> None:
    """Write a thing's private key, certificate request, least-privilege policy and [[uplink]] table.

    Safe to repeat: a key or certificate that is there stays.
    """
    from gateway import commands

    leave(
        commands.provision(
            folder,
            thing,
            path=config,
            site=site,
            gateway=gateway_name,
            endpoint=endpoint,
            region=region,
            register=register,
        )
    )


@command(
    gateway,
    "browse",
    "List a PLC's tags, or draft gateway.toml from them.",
    "oee gateway browse opc.tcp://plc:4840",
    "oee gateway browse opc.tcp://plc:4840 'Factory/*/filler-*/**'",
    "oee gateway browse opc.tcp://plc:4840 'Factory/**' --draft >> gateway.toml",
)
def gateway_browse(
    endpoint: Annotated[
        str, typer.Argument(help="opc.tcp://HOST:PORT, or a connection's name with --config.")
    ],
    pattern: Annotated[
        str, typer.Argument(help="Browse names below Objects: * and ? in a name, ** for any folders.")
    ] = "",
    *,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="Take security and user from here.")
    ] = None,
    draft: Annotated[
        bool, typer.Option("--draft", help="Print gateway.toml entries, one machine per folder.")
    ] = False,
    allow_insecure: Annotated[
        bool, typer.Option("--allow-insecure", help="Connect without any protection.")
    ] = False,
    username: Annotated[str, typer.Option(help="Who we are to the PLC.")] = "",
    password_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The user's password.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Stop after so many tags; 0 for all.")] = 0,
) -> None:
    """List the tags that match a pattern with value, type and quality."""
    from gateway import commands_opcua

    leave(
        commands_opcua.browse(
            endpoint,
            pattern,
            draft=draft,
            path=config,
            allow_insecure=allow_insecure,
            username=username,
            password_file=password_file,
            limit=limit,
        )
    )


TrustFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="The edge's configuration.")
]


Certificate = Annotated[str, typer.Argument(help="Six digits or more of the thumbprint, or a file.")]


@command(trust, "list", "List trusted and rejected certificates.", "oee gateway trust list -c gateway.toml")
def trust_list(config: TrustFile = None) -> None:
    """List the certificates that are trusted, and those that wait for a decision."""
    from gateway import commands_opcua

    leave(commands_opcua.trust_list(config))


@command(trust, "add", "Trust a PLC's certificate.", "oee gateway trust add 3f2a91 -c gateway.toml")
def trust_add(certificate: Certificate, config: TrustFile = None) -> None:
    """Trust a rejected certificate, or one in a file."""
    from gateway import commands_opcua

    leave(commands_opcua.trust_add(certificate, config))


@command(trust, "reject", "Trust a certificate no more.", "oee gateway trust reject 3f2a91 -c gateway.toml")
def trust_reject(certificate: Certificate, config: TrustFile = None) -> None:
    """Trust a certificate no more, or forget a rejected one."""
    from gateway import commands_opcua

    leave(commands_opcua.trust_reject(certificate, config))
