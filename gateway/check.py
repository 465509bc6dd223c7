"""Whether a configuration works: each PLC, certificate, node and broker tried once, with a remedy."""

import asyncio
import datetime as dt
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from contract import topics
from gateway.config import AwsIotUplink, Configuration, Connection, MqttUplink, Uplink
from gateway.errors import (
    CertificateError,
    PublishRefusedError,
    RefusedError,
    SourceError,
    UplinkError,
)
from gateway.sources.statuses import status_name
from gateway.tags import WAITING, MachineTags, bindings

if TYPE_CHECKING:
    from gateway.sources.session import Session

Grade = Literal["ok", "warning", "fault"]
_BROKER_SECS: Final = 5.0
_CLOCK_SECS: Final = 2.0
"""A PLC's clock may differ by this much from ours and pass for right."""
_ALMOST_FULL_BYTES: Final = 100_000_000
_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried.

    subject: what, such as `plc-1` or `plc-1 line-1/filler-1 state`
    remedy: what to do about it; empty when all is well
    """

    subject: str
    grade: Grade
    said: str
    remedy: str = ""


async def check(configuration: Configuration, now: dt.datetime) -> AsyncIterator[Finding]:
    """Try everything that a configuration names; PLCs and brokers at the same time, told in order."""
    for finding in (*_data_folder(configuration), *_own_certificate(configuration, now)):
        yield finding
    tries = [
        *(_connection(configuration, connection, now) for connection in configuration.connection),
        *(_uplink(configuration, uplink) for uplink in configuration.uplink),
    ]
    if not configuration.connection:
        yield Finding("connections", "warning", "there are none", "add a [[connection]] per PLC")
    if not configuration.uplink:
        yield Finding(
            "uplinks", "warning", "there are none", "add an [[uplink]], else records stay on this disk"
        )
    tasks = [asyncio.ensure_future(one) for one in tries]
    for task in tasks:
        for finding in await task:
            yield finding


def _data_folder(configuration: Configuration) -> Iterator[Finding]:
    """See whether records can be put on disk, and as many of them as the configuration allows."""
    folder = configuration.gateway.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="check-") as file:
            file.write(b"record")
            file.flush()
        free_bytes = shutil.disk_usage(folder).free
        kept_bytes = sum(path.stat().st_size for path in folder.glob("outbox*"))
    except OSError as error:
        said = f"{folder} takes no files: {error.strerror or error}"
        remedy = "make it writable for the user that the gateway runs as, or set gateway.data_dir"
        yield Finding("data folder", "fault", said, remedy)
        return
    room = f"{free_bytes / 1e9:.1f} GB are free at {folder}"
    if free_bytes < _ALMOST_FULL_BYTES:
        yield Finding("data folder", "fault", room, "make room, or set gateway.data_dir to another disk")
    elif free_bytes + kept_bytes < configuration.outbox.max_bytes:
        said = f"{room}; the outbox may grow to {configuration.outbox.max_bytes / 1e9:,.1f} GB"
        remedy = "make room, or lower outbox.max_bytes: on a full disk nothing more is kept"
        yield Finding("data folder", "warning", said, remedy)
    else:
        yield Finding("data folder", "ok", room)


def _own_certificate(configuration: Configuration, now: dt.datetime) -> Iterable[Finding]:
    """Make or look at our certificate, where a connection needs one."""
    if all(connection.security == "None" for connection in configuration.connection):
        return
    from gateway.sources.certificates import CertificateStore

    settings = configuration.certificates
    try:
        own = CertificateStore(configuration.pki_dir).own(
            configuration.application_uri,
            valid_days=settings.valid_days,
            renew_before_days=settings.renew_before_days,
            now=now,
        )
    except CertificateError as error:
        yield Finding("own certificate", "fault", str(error), "make the folder writable for this user")
        return
    until = f"{own.file}, valid until {own.certificate.not_valid_after_utc:%Y-%m-%d}"
    if own.renewed:
        yield Finding("own certificate", "warning", f"made just now: {until}", "have each PLC trust it")
    else:
        yield Finding("own certificate", "ok", until)


async def _connection(
    configuration: Configuration, connection: Connection, now: dt.datetime
) -> list[Finding]:
    from gateway.sources.opcua import identity
    from gateway.sources.session import open_session

    name = connection.name
    found: list[Finding] = []
    if connection.security == "None":
        found.append(Finding(name, "warning", "is read without any protection", 'use security = "auto"'))
    try:
        session = await open_session(connection, identity(configuration), now=now)
    except CertificateError as error:
        return [*found, Finding(name, "fault", str(error), _certificate_remedy(str(error)))]
    except SourceError as error:
        return [*found, Finding(name, "fault", str(error), _remedy(str(error)))]
    try:
        protection = "None" if connection.security == "None" else session.client.security_policy.URI
        found.append(Finding(name, "ok", f"connected, {str(protection).rpartition('#')[2]}"))
        found += await _clock(connection, session)
        found += await _nodes(configuration, connection, session)
    except SourceError as error:
        found.append(Finding(name, "fault", str(error), _remedy(str(error))))
    finally:
        await session.close(keep_subscriptions=False)
    return found


async def _clock(connection: Connection, session: "Session") -> list[Finding]:
    """Compare the PLC's clock with ours: its time is what every record carries."""
    from gateway.sources.bridge import server_time_us

    before_us = time.time_ns() // 1000
    told_us = await server_time_us(session)
    after_us = time.time_ns() // 1000
    if told_us is None:
        return []
    told_us += round(connection.source_clock_offset_secs * _US)
    off_secs = (max(0, told_us - after_us) - max(0, before_us - told_us)) / _US
    if abs(off_secs) <= _CLOCK_SECS:
        return []
    said = f"its clock is {abs(off_secs):,.0f} s {'ahead of' if off_secs > 0 else 'behind'} ours"
    remedy = "set both clocks by NTP; source_clock_offset_secs corrects a clock that cannot be set"
    return [Finding(connection.name, "warning", said, remedy)]


async def _nodes(configuration: Configuration, connection: Connection, session: "Session") -> list[Finding]:
    """Read every tag once and see whether it can be what it is meant to be."""
    from gateway.sources.addresses import Unresolved, resolve
    from gateway.sources.values import plain_value

    machines = [
        MachineTags(configuration.key(machine), machine, status_name) for machine in connection.machine
    ]
    wanted = bindings(connection, machines)
    nodes = await resolve(session, [binding.node for binding in wanted])
    found: list[Finding] = []
    there = []
    for binding in wanted:
        node = nodes[binding.node]
        if isinstance(node, Unresolved):
            remedy = f"find it with `oee gateway browse {connection.endpoint}`"
            found.append(Finding(f"{connection.name} {binding.name}", "fault", node.reason, remedy))
        else:
            there.append((binding, node))
    told: dict[int, tuple[object, int]] = {}
    for (binding, _), value in zip(there, await session.read([node for _, node in there]), strict=True):
        _, status = told[binding.handle] = plain_value(value)
        if status >> 30:
            said = f"{binding.node} is {status_name(status)}"
            grade: Grade = "fault" if status >> 31 else "warning"
            remedy = _node_remedy(status_name(status))
            found.append(Finding(f"{connection.name} {binding.name}", grade, said, remedy))
    for index, machine in enumerate(machines):
        ours = [binding for binding in wanted if binding.machine == index]
        found += _meaning(
            connection, machine, [told.get(binding.handle, (None, WAITING)) for binding in ours]
        )
    if not found:
        found.append(
            Finding(connection.name, "ok", f"all {len(wanted)} tags of {len(machines)} machines can be read")
        )
    return found


def _meaning(
    connection: Connection, machine: MachineTags, told: Sequence[tuple[object, int]]
) -> Iterator[Finding]:
    """Yield a finding per tag of a machine whose value cannot mean what the configuration says."""
    subject = f"{connection.name} {machine.key.line}/{machine.key.machine}"
    values = [value for value, _ in told]
    for slot, (value, status) in enumerate(told):
        if status >> 30:
            continue
        name = machine.slots[slot].name
        if not machine.takes(slot, value):
            said = f"{value!r} cannot be {name}"
            yield Finding(
                f"{subject} {name}", "fault", said, "a counter is a number: see `oee gateway browse`"
            )
    if all(not status >> 30 for _, status in told) and machine.moving_slot < 0:
        fields = machine.compose(values, [0] * len(told))
        if fields.state == "unknown":
            shown = ", ".join(
                repr(value)
                for value, slot in zip(values, machine.slots, strict=True)
                if slot.name.startswith("state")
            )
            yield Finding(
                subject, "warning", f"its state {shown} means unknown", "add the value to the state's map"
            )


def _remedy(said: str) -> str:
    """Return what to do about a connection that cannot be had."""
    return next((remedy for sign, remedy in _REMEDIES if sign in said), "see the PLC's own log")


def _certificate_remedy(said: str) -> str:
    """Return what to do about a certificate that is refused: trust helps only where nothing else is wrong."""
    return next((remedy for sign, remedy in _CERTIFICATE_REMEDIES if sign in said), _OTHER_CERTIFICATE)


_OTHER_CERTIFICATE: Final = "give the PLC another certificate: RSA of 2048 to 4096 bits, signed by SHA-256"
_CERTIFICATE_REMEDIES: Final = (
    (
        "nobody has trusted it",
        "compare its thumbprint with the PLC's, then `oee gateway trust add THUMBPRINT -c FILE`",
    ),
    (
        "not for the host",
        "use the name that it was made for, or trust it alone: `oee gateway trust add THUMBPRINT -c FILE`",
    ),
    ("expired", "have the PLC's certificate renewed; is this machine's clock right?"),
    ("valid only from", "is this machine's clock right, and the PLC's when it made the certificate?"),
    ("revoked it", "it must not be used any more: give the PLC a new one"),
    ("calls itself", "make the PLC's certificate anew: its application URI must be the server's own"),
    ("revocation list", "replace the file in pki/revoked"),
    ("our own certificate", "make the folder writable for the user that the gateway runs as"),
    ("shows no certificate", "let the PLC make a certificate for its OPC UA server"),
)


_REMEDIES: Final = (
    ("connection refused", "is the PLC's OPC UA server on, and is this its port?"),
    ("no answer in time", "is it the right address, and does a firewall stand between?"),
    ("the name is unknown here", "use an address, or repair DNS"),
    ("o route to host", "is it the right address, and is its network reached from here?"),
    ("etwork is unreachable", "is it the right address, and is its network reached from here?"),
    ("connection lost", "something that is no OPC UA server listens there, or a firewall ends connections"),
    ("BadIdentityTokenRejected", "the PLC does not take this user: check username and password"),
    ("BadUserAccessDenied", "the PLC does not take this user: check username and password"),
    ("BadIdentityTokenInvalid", "the PLC does not take this kind of user: set a username or a certificate"),
    ("BadSecurityChecksFailed", "have the PLC trust our certificate, pki/own/gateway.der"),
    ("BadCertificate", "have the PLC trust our certificate, pki/own/gateway.der"),
    ("but not security", "set security and security_mode to something that it offers"),
)


def _node_remedy(status: str) -> str:
    return {
        "BadNodeIdUnknown": "the PLC has no such node: find it with `oee gateway browse`",
        "BadUserAccessDenied": "give this user the right to read it",
        "BadNotReadable": "give this user the right to read it",
        "BadTypeMismatch": "this type cannot be mapped: choose a number, a text or a truth value",
    }.get(status, "see what the PLC's program says about this tag")


async def _uplink(configuration: Configuration, uplink: Uplink) -> list[Finding]:
    """See whether a broker is there, shows the right certificate, and lets us in."""
    host, port, context = _door(uplink)
    try:
        async with asyncio.timeout(_BROKER_SECS):
            _, writer = await asyncio.open_connection(
                host, port, ssl=context() if context else None, server_hostname=host if context else None
            )
    except ssl.SSLCertVerificationError as error:
        remedy = "set ca_file to the authority that signed the broker's certificate"
        return [Finding(uplink.name, "fault", f"{host}:{port}: {error.verify_message}", remedy)]
    except ssl.SSLError as error:
        remedy = "does the broker speak TLS on this port, and want a certificate of ours?"
        return [Finding(uplink.name, "fault", f"{host}:{port}: {error.reason or error}", remedy)]
    except socket.gaierror:
        return [
            Finding(
                uplink.name, "fault", f"{host}: the name is unknown here", "use an address, or repair DNS"
            )
        ]
    except TimeoutError:
        remedy = "is it the right address, and does a firewall stand between?"
        return [Finding(uplink.name, "fault", f"{host}:{port}: no answer in time", remedy)]
    except ConnectionRefusedError:
        remedy = "is the broker on, and is this its port?"
        return [Finding(uplink.name, "fault", f"{host}:{port}: connection refused", remedy)]
    except OSError as error:
        said = f"{host}:{port}: {error.strerror or 'the connection was closed'}"
        remedy = "does the broker speak TLS on this port?" if context else "see the broker's own log"
        return [Finding(uplink.name, "fault", said, remedy)]
    writer.close()
    answers = f"{host}:{port} answers" + (", TLS is right" if context else "")
    if isinstance(uplink, AwsIotUplink):  # a second session of the same thing would end the gateway's own
        return [Finding(uplink.name, "ok", answers)]
    return [await _login(configuration, uplink, answers)]


async def _login(configuration: Configuration, uplink: Uplink, answers: str) -> Finding:
    """See whether the broker takes our name, and lets us hear and say what we have to.

    An MQTT 3.1.1 broker does not tell that it forbids a publish.
    """
    from gateway.uplinks.build import build

    gateway = configuration.gateway
    backlog = topics.gateway_topic(gateway.site, gateway.name, "backlog")
    try:
        await build(configuration, uplink, client_suffix="-check").try_once((backlog, _NO_RECORDS))
    except PublishRefusedError as error:
        remedy = f"let the broker's access list allow this client {backlog} and its machines' topics"
        return Finding(uplink.name, "fault", str(error), f"{remedy}: see `oee cloud acl`")
    except RefusedError as error:
        remedy = "check username, password and certificate, and what the broker's access list allows them"
        return Finding(uplink.name, "fault", str(error), remedy)
    except UplinkError as error:
        return Finding(uplink.name, "fault", str(error), "is it an MQTT broker? see its own log")
    return Finding(uplink.name, "ok", f"{answers}, and lets us in")


_NO_RECORDS: Final = b"[]"
"""A backlog of nothing: whoever reads it learns nothing."""


def _door(uplink: Uplink) -> tuple[str, int, Callable[[], ssl.SSLContext] | None]:
    if isinstance(uplink, AwsIotUplink):
        return uplink.endpoint, uplink.port, lambda: _context(uplink)
    assert isinstance(uplink, MqttUplink)
    return uplink.host, uplink.port, (lambda: _context(uplink)) if uplink.tls else None


def _context(uplink: MqttUplink | AwsIotUplink) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(uplink.ca_file) if uplink.ca_file else None)
    if uplink.certificate_file is not None and uplink.private_key_file is not None:
        context.load_cert_chain(uplink.certificate_file, uplink.private_key_file)
    if isinstance(uplink, AwsIotUplink) and uplink.port == 443:
        context.set_alpn_protocols(["x-amzn-mqtt-ca"])
    return context
