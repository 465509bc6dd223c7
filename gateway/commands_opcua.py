"""What `oee gateway check`, `browse` and `trust` do; each function returns the exit code."""

import asyncio
import datetime as dt
import logging
import sys
from pathlib import Path
from typing import Any, Final

from rich import markup
from rich.console import Console
from rich.table import Table

from contract.printable import printable
from gateway import config
from gateway.errors import CertificateError, ConfigError, GatewayError

OK: Final = 0
FAULT: Final = 1
_UNFOLDED: Final = 240
CONFIG_FAULT: Final = 2
_COLOURS: Final = {"ok": "green", "warning": "yellow", "fault": "red"}
_DEFAULT_PKI: Final = Path.home() / ".local" / "state" / "oee-gateway" / "pki"


def check(path: Path, console: Console | None = None) -> int:
    """Try configuration, certificates, PLCs, nodes and brokers; print a table; 1 where something is wrong."""
    console = console or _console()
    try:
        configuration = config.load(path)
    except ConfigError as error:
        for fault in error.faults:
            console.print(f"[red]fault[/] {escape(fault)}", soft_wrap=True)
        return CONFIG_FAULT
    from gateway.check import check as findings_of

    _quiet()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "what", "result", "what to do"):
        table.add_column(heading, overflow="fold")
    worst = OK

    async def collect() -> None:
        nonlocal worst
        async for finding in findings_of(configuration, dt.datetime.now(dt.UTC)):
            worst = max(worst, FAULT if finding.grade == "fault" else OK)
            mark = f"[{_COLOURS[finding.grade]}]{finding.grade}[/]"
            table.add_row(mark, escape(finding.subject), escape(finding.said), escape(finding.remedy))

    asyncio.run(collect())
    console.print(table)
    return worst


def browse(
    endpoint: str,
    pattern: str = "",
    *,
    draft: bool = False,
    path: Path | None = None,
    allow_insecure: bool = False,
    username: str = "",
    password_file: Path | None = None,
    limit: int = 0,
    console: Console | None = None,
) -> int:
    """List a PLC's tags that match a pattern, or print gateway.toml entries for them.

    endpoint: opc.tcp://..., or the name of a connection of the configuration at `path`
    draft: print `[[connection.machine]]` tables, one per folder that holds matches
    limit: stop after so many tags; 0 for all
    """
    console = console or _console()
    notes = Console(stderr=True)
    _quiet()
    try:
        connection, who = _connection(endpoint, path, allow_insecure, username, password_file)
        found = asyncio.run(_browse(connection, who, pattern, limit, notes))
    except ConfigError as error:
        notes.print("\n".join(map(escape, error.faults)), style="red", soft_wrap=True)
        return CONFIG_FAULT
    except GatewayError as error:
        notes.print(escape(str(error)), style="red", soft_wrap=True)
        return FAULT
    if not found:
        notes.print(
            f"no tag matches {escape(pattern) or 'anything'}: names are browse names, ** is any folder, "
            "the last name is the tag's; what is in a folder is FOLDER/**",
            soft_wrap=True,
        )
        return FAULT
    if draft:
        from gateway.sources.draft import draft as drafted

        console.print(drafted(found), markup=False, highlight=False, soft_wrap=True, end="")
        return OK
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("tag", "value", "type", "quality", "address"):
        table.add_column(heading, overflow="fold")
    for tag in found:
        value = escape(_shown(tag.other or tag.value))
        table.add_row(escape(tag.path), value, tag.type, tag.status, escape(tag.address))
    console.print(table)
    return OK


def trust_list(path: Path | None = None, console: Console | None = None) -> int:
    """List the certificates that are trusted, and those that wait for a decision."""
    console = console or _console()
    try:
        shelved = _store(path).shelved()
    except ConfigError as error:
        return _config_fault(error)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "thumbprint", "subject", "application", "valid until", "why"):
        table.add_column(heading, overflow="fold")
    for one in shelved:
        colour = "green" if one.shelf == "trusted" else "red"
        cells = (one.thumbprint, one.subject, one.application_uri, f"{one.not_after:%Y-%m-%d}", one.fault)
        table.add_row(f"[{colour}]{one.shelf}[/]", *map(escape, cells))
    if shelved:
        console.print(table)
    else:
        console.print("no PLC's certificate has been seen yet")
    return OK


def trust_add(name: str, path: Path | None = None, console: Console | None = None) -> int:
    """Trust a rejected certificate by the start of its thumbprint, or one in a file."""
    return _moved("trusted", name, path, console)


def trust_reject(name: str, path: Path | None = None, console: Console | None = None) -> int:
    """Trust a certificate no more, or forget a rejected one."""
    return _moved("rejected", name, path, console)


def _moved(shelf: str, name: str, path: Path | None, console: Console | None) -> int:
    try:
        store = _store(path)
        found = store.trust(name) if shelf == "trusted" else store.reject(name)
    except ConfigError as error:
        return _config_fault(error)
    except (CertificateError, OSError) as error:
        Console(stderr=True).print(escape(str(error)), style="red", soft_wrap=True)
        return FAULT
    (console or _console()).print(f"{shelf}: {found.thumbprint} {escape(found.subject)}", soft_wrap=True)
    return OK


def _config_fault(error: ConfigError) -> int:
    Console(stderr=True).print("\n".join(map(escape, error.faults)), style="red", soft_wrap=True)
    return CONFIG_FAULT


def _store(path: Path | None) -> Any:
    from gateway.sources.certificates import CertificateStore

    return CertificateStore(config.load(path).pki_dir if path is not None else _DEFAULT_PKI)


def _connection(
    endpoint: str,
    path: Path | None,
    allow_insecure: bool,  # noqa: FBT001 - passed on as it came
    username: str,
    password_file: Path | None,
) -> tuple[config.Connection, Any]:
    """Return the connection to browse and who we are to it."""
    from gateway.sources.opcua import identity

    if path is not None:
        configuration = config.load(path)
        for connection in configuration.connection:
            if endpoint in (connection.name, connection.endpoint):
                return connection, identity(configuration)
    elif "://" not in endpoint:
        raise ConfigError([f"{endpoint!r}: give an opc.tcp:// address, or --config and a connection's name"])
    tables = {
        "gateway": {"name": "browse", "site": "browse", "data_dir": str(_DEFAULT_PKI.parent)},
        "connection": [
            {
                "name": "browsed",
                "endpoint": endpoint,
                "security": "None" if allow_insecure else "auto",
                "allow_insecure": allow_insecure,
                "username": username,
                "password_file": password_file,
                "machine": [
                    {"area": "a", "line": "l", "name": "m", "state": {"node": "i=1", "map": {"0": "idle"}}}
                ],
            }
        ],
    }
    configuration = config.parse(tables, "command line")
    return configuration.connection[0], identity(configuration)


async def _browse(
    connection: config.Connection, who: Any, pattern: str, limit: int, notes: Console
) -> list[Any]:
    from gateway.sources.browse import Pattern, find_tags
    from gateway.sources.session import open_session

    session = await open_session(connection, who, now=dt.datetime.now(dt.UTC))
    found: list[Any] = []
    try:
        with notes.status(f"browsing {escape(connection.endpoint)}") as status:

            def progress(folders: int, tags: int) -> None:
                status.update(f"browsing: {folders} folders read, {tags} tags found")

            async for portion in find_tags(session, Pattern(pattern), progress):
                found += portion
                if limit and len(found) >= limit:
                    return found[:limit]
    finally:
        await session.close(keep_subscriptions=False)
    return found


def _console() -> Console:
    """Return the terminal; into a file or a pipe, nothing is folded."""
    return Console() if sys.stdout.isatty() else Console(width=_UNFOLDED)


def escape(text: str) -> str:
    """Return a text of others as it may be printed: neither markup nor controls."""
    return markup.escape(printable(text))


def _shown(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _quiet() -> None:
    """Keep the library's own log out of a table."""
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
