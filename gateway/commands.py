"""What `oee gateway ...` does; each function returns the exit code."""

import asyncio
import json
import sys
from pathlib import Path
from types import ModuleType

from gateway import config
from gateway.errors import ConfigError, ProvisionError, StartError

CONFIG_FAULT = 2
NOT_RUNNING = 3


def run(path: Path) -> int:
    """Run the daemon until SIGTERM or SIGINT; 2 when the configuration or this machine forbids it."""
    _load_lean()
    from gateway.logging import configure

    try:
        configuration = config.load(path)
        configure(configuration.log.level, configuration.log.format)
        from gateway.service import Daemon

        asyncio.run(Daemon(configuration, path=path).run())
    except (ConfigError, StartError) as error:
        print(error, file=sys.stderr)
        return CONFIG_FAULT
    return 0


def status(path: Path) -> int:
    """Print what the running daemon says of itself; 0 all well, 1 problems, 3 not running, 2 bad config."""
    import msgspec

    from gateway.health import Health
    from gateway.status import fetch, show

    try:
        configuration = config.load(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return CONFIG_FAULT
    url = _health_url(configuration)
    try:
        health = msgspec.json.decode(fetch(f"{url}/healthz"), type=Health)
    except (OSError, msgspec.MsgspecError) as error:
        print(f"no gateway answers at {url}: {error}", file=sys.stderr)
        return NOT_RUNNING
    ours = (configuration.gateway.site, configuration.gateway.name)
    if (health.site, health.gateway) != ours:
        print(
            f"another gateway answers at {url}: {health.site}/{health.gateway}, not {'/'.join(ours)}; "
            "each gateway of a machine needs a [health] port of its own",
            file=sys.stderr,
        )
        return NOT_RUNNING
    show(health)
    return 1 if health.problems else 0


def provision(
    folder: Path,
    thing: str,
    *,
    path: Path | None = None,
    site: str = "",
    gateway: str = "",
    endpoint: str = "",
    region: str | None = None,
    register: bool = False,
) -> int:
    """Write a thing's key, request, policy and uplink; with `register` also make it known to AWS.

    path: a gateway.toml that tells site, gateway and machines; else `site` and `gateway` must be given
    """
    from gateway.provision import ThingFiles, policy, uplink_table, write_identity
    from gateway.provision import register as register_thing

    if path is None and not (site and gateway):
        print("site and gateway are needed: name them, or a gateway.toml that does", file=sys.stderr)
        return CONFIG_FAULT
    try:
        machines, hears_commands = [], False
        if path is not None:
            configuration = config.load(path)
            site, gateway = configuration.gateway.site, configuration.gateway.name
            hears_commands = configuration.gateway.accept_commands
            machines = [key for key, _ in configuration.machines()]
        files = ThingFiles(folder, thing)
        new = write_identity(files)
        said = [f"{'new' if new else 'kept'} private key: {files.private_key}", f"request: {files.request}"]
        if register:
            made = register_thing(files, site, gateway, machines, region, commands=hears_commands)
            endpoint = made.endpoint
            said.append(f"registered in account {made.account}, {made.region}")
            said.append(f"{'new' if made.new_certificate else 'kept'} certificate: {files.certificate}")
        else:
            document = policy(site, gateway, machines, commands=hears_commands)
            files.policy.write_text(json.dumps(document, indent=2) + "\n")
            said.append(f"have the request signed and put the certificate at {files.certificate}")
        said.append(f"policy: {files.policy}")
        files.uplink.write_text(uplink_table(files, endpoint or "YOUR-ENDPOINT-ats.iot.REGION.amazonaws.com"))
        said.append(f"for gateway.toml: {files.uplink}")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return CONFIG_FAULT
    except (ProvisionError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(said))
    return 0


def _load_lean() -> None:
    """Keep libraries from loading what a daemon never uses: 8 MB, and a tenth of a second of its start.

    rich and greenlet serve structlog, where they are installed, for coloured tracebacks and for a threading
    that we have not; asyncua's server comes with its client.
    """
    if "structlog" not in sys.modules:
        sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
        sys.modules.setdefault("greenlet", None)  # type: ignore[arg-type]
    if "asyncua" not in sys.modules:
        nothing = ModuleType("asyncua.server")
        nothing.__dict__["Server"] = None
        sys.modules["asyncua.server"] = nothing


def _health_url(configuration: config.Configuration) -> str:
    """Return where health is served; a port of 0 was chosen by the system and stands in the data folder."""
    told = configuration.gateway.data_dir / "health.url"
    if configuration.health.port == 0 and told.exists():
        return told.read_text().strip()
    host = configuration.health.host
    return f"http://{f'[{host}]' if ':' in host else host}:{configuration.health.port}"
