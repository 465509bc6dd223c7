"""A session with an OPC UA server: secured, resumed where possible, and asked in chunks that it can bear."""

import asyncio
import contextlib
import datetime as dt
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from asyncua import Client, ua
from asyncua.crypto import security_policies
from asyncua.crypto.uacrypto import load_certificate, load_private_key
from asyncua.ua.ua_binary import struct_from_binary
from msgspec import Struct

from gateway.config import Certificates, Connection, SecurityPolicy, secret
from gateway.errors import SourceError
from gateway.sources.certificates import CertificateStore
from gateway.sources.errors import LIBRARY_ERRORS, ServiceError, mapped
from gateway.sources.statuses import status_name
from gateway.sources.values import moment_us

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_R = TypeVar("_R")

_POLICIES: Final[dict[str, type[security_policies.SecurityPolicy]]] = {
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
}
"""In the order in which `auto` prefers them."""
_MODES: Final = {
    "sign": ua.MessageSecurityMode.Sign,
    "sign_and_encrypt": ua.MessageSecurityMode.SignAndEncrypt,
}
_CHANNEL_LIFETIME_MS: Final = 3_600_000
_RENEW_AT: Final = 0.75
"""Of its lifetime; OPC UA part 4, 5.5.2."""
_DEFAULT_CHUNK: Final = 1000
_MIN_NODES: Final = 1
_TOO_MUCH: Final = frozenset(
    {
        ua.StatusCodes.BadTooManyOperations,
        ua.StatusCodes.BadTooManyMonitoredItems,
        ua.StatusCodes.BadRequestTooLarge,
        ua.StatusCodes.BadResponseTooLarge,
        ua.StatusCodes.BadEncodingLimitsExceeded,
        ua.StatusCodes.BadTcpMessageTooLarge,
    }
)


class Identity(Struct, frozen=True):
    """Who we are to OPC UA servers.

    application_uri: the one in our certificate
    store: own and foreign certificates
    """

    application_uri: str
    store: CertificateStore
    certificates: Certificates


class Resumable(Struct, frozen=True, array_like=True):
    """What lets a session live on over a new connection, also of a new process."""

    token: str
    nonce: bytes


class Limits(Struct, frozen=True):
    """How many operations a server takes in one request; learnt by asking and by being refused."""

    read: int = _DEFAULT_CHUNK
    items: int = _DEFAULT_CHUNK
    browse: int = _DEFAULT_CHUNK
    history: int = 100


class Session:
    """A session that is open. Made by `open_session`; closed by `close`."""

    def __init__(self, client: Client, connection: Connection, *, resumed: bool) -> None:
        self.client = client
        self.resumed = resumed
        self.namespaces: list[str] = []
        self.began_us = 0
        """[us since 1970, the server's clock] Since when the server runs; 0 where it does not tell."""
        self.chunk = {"read": _DEFAULT_CHUNK, "items": _DEFAULT_CHUNK, "browse": 50, "history": 100}
        self._timeout_secs = connection.request_timeout_secs

    @property
    def resumable(self) -> Resumable:
        """Return what lets this session live on after the connection is lost."""
        token = self.client.uaclient.session.authentication_token
        return Resumable(token.to_string(), self.client._server_nonce or b"")  # noqa: SLF001

    @property
    def is_open(self) -> bool:
        """Tell whether the socket is there."""
        protocol = self.client.uaclient.protocol
        return protocol is not None and protocol.transport is not None

    async def call(self, request: Any, response_type: type[_R], timeout_secs: float | None = None) -> _R:
        """Send one request and return its answer.

        Raises ServiceError where the server says why it will not, SourceError for anything else.
        """
        what = type(request).__name__.removesuffix("Request")
        with mapped(what):
            protocol = self.client.uaclient.protocol
            if protocol is None:
                raise ConnectionError("not connected")
            body = await protocol.send_request(request, timeout_secs or self._timeout_secs)
            response: _R = struct_from_binary(response_type, body)
            answered: Any = response
            answered.ResponseHeader.ServiceResult.check()
        return response

    async def in_chunks(
        self, kind: str, wanted: Sequence[_T], ask: Callable[[Sequence[_T]], Awaitable[Sequence[_R]]]
    ) -> list[_R]:
        """Ask for many in as few requests as the server takes; halve the chunk when it is too large.

        Raises SourceError when even one at a time is refused, or when answers are missing.
        """
        found: list[_R] = []
        while len(found) < len(wanted):
            part = wanted[len(found) : len(found) + self.chunk[kind]]
            try:
                answers = await ask(part)
            except ServiceError as error:
                if error.status not in _TOO_MUCH or len(part) <= _MIN_NODES:
                    raise
                self.chunk[kind] = max(1, len(part) // 2)
                continue
            if len(answers) != len(part):
                raise SourceError(f"the server gave {len(answers)} answers to {len(part)} questions ({kind})")
            found += answers
        return found

    async def read(
        self,
        nodes: Sequence[ua.NodeId],
        attribute: ua.AttributeIds = ua.AttributeIds.Value,
        *,
        max_age_secs: float = 0.0,
    ) -> list[ua.DataValue]:
        """Read one attribute of many nodes; a bad node has a bad status."""

        async def ask(part: Sequence[ua.NodeId]) -> Sequence[ua.DataValue]:
            request = ua.ReadRequest()
            request.Parameters.MaxAge = max_age_secs * 1000.0
            request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
            request.Parameters.NodesToRead = [
                ua.ReadValueId(NodeId=node, AttributeId=attribute) for node in part
            ]
            return (await self.call(request, ua.ReadResponse)).Results

        return await self.in_chunks("read", nodes, ask)

    async def learn(self) -> None:
        """Read the server's namespaces, since when it runs, and its limits."""
        asked = (ua.ObjectIds.Server_NamespaceArray, ua.ObjectIds.Server_ServerStatus_StartTime)
        spaces, began = await self.read([standard_node(node) for node in asked])
        self.namespaces = _strings(spaces)
        self.began_us = moment_us(began)
        prefix = "Server_ServerCapabilities_OperationLimits_"
        names = {
            "read": "MaxNodesPerRead",
            "items": "MaxMonitoredItemsPerCall",
            "browse": "MaxNodesPerBrowse",
            "history": "MaxNodesPerHistoryReadData",
        }
        with contextlib.suppress(ServiceError):
            nodes = [standard_node(getattr(ua.ObjectIds, prefix + name)) for name in names.values()]
            for kind, limit in zip(names, await self.read(nodes), strict=True):
                value = limit.Value.Value if limit.Value is not None else None
                if isinstance(value, int) and value > 0:
                    self.chunk[kind] = min(self.chunk[kind], value)

    async def renew_channel(self) -> None:
        """Renew the secure channel before it ends, for ever."""
        while True:
            await asyncio.sleep(self.client.secure_channel_timeout / 1000 * _RENEW_AT)
            with mapped("renewing the secure channel"):
                await self.client.open_secure_channel(renew=True)
                self.client.uaclient.revolve_security_token()
            # the server goes on with the old key until it has seen the new one from us
            await self.read([standard_node(ua.ObjectIds.Server_ServerStatus_State)])

    async def close(self, *, keep_subscriptions: bool, politely: bool = True) -> None:
        """End the session; never raises.

        keep_subscriptions: let them live on, so that another session can take them over
        politely: tell the server; false when it does not answer anyway
        """
        client = self.client
        with contextlib.suppress(*LIBRARY_ERRORS):
            if politely and self.is_open:
                async with asyncio.timeout(min(1.0, self._timeout_secs)):
                    if not keep_subscriptions:
                        await client.uaclient.close_session(True)
                    await client.close_secure_channel()
        _drop(client)


def _drop(client: Client) -> None:
    """Let go of the socket at once, also of one whose peer is gone."""
    protocol = client.uaclient.protocol
    with contextlib.suppress(*LIBRARY_ERRORS):
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abort()
        client.disconnect_socket()


async def open_session(
    connection: Connection, identity: Identity, *, now: dt.datetime, resume: Resumable | None = None
) -> Session:
    """Connect as the configuration says and open a session, or go on with an earlier one.

    Each call uses a new client, so that nothing of a broken connection remains.
    Raises CertificateError when we do not trust the server, SourceError for anything else.
    """
    client = _client(connection, identity)
    timeout_secs = connection.connect_timeout_secs
    try:
        with mapped(f"connecting to {connection.endpoint}"):
            async with asyncio.timeout(2 * timeout_secs):
                await _secure(client, connection, identity, now)
                await _prove_user(client, connection)
                await client.connect_socket()
                await client.send_hello()
                await client.open_secure_channel()
                resumed = resume is not None and await _resumed(client, resume)
                if not resumed:
                    await client.create_session()
                    await _activate(client)
        session = Session(client, connection, resumed=resumed)
        await session.learn()
    except BaseException:
        _drop(client)
        raise
    return session


async def endpoints(connection: Connection, identity: Identity) -> list[ua.EndpointDescription]:
    """Return what ways in a server offers; this needs no security."""
    client = _client(connection, identity)
    try:
        with mapped(f"asking {connection.endpoint} for its endpoints"):
            async with asyncio.timeout(connection.connect_timeout_secs):
                return list(await client.connect_and_get_server_endpoints())
    finally:
        _drop(client)


def _client(connection: Connection, identity: Identity) -> Client:
    client = Client(connection.endpoint, timeout=connection.connect_timeout_secs)
    client.name = "oee-gateway"
    client.description = "oee-gateway"
    client.application_uri = identity.application_uri
    client.product_uri = "urn:oee-gateway"
    client.secure_channel_timeout = _CHANNEL_LIFETIME_MS
    client.session_timeout = math.ceil(connection.session_timeout_secs * 1000)
    return client


async def _secure(client: Client, connection: Connection, identity: Identity, now: dt.datetime) -> None:
    """Choose a security policy and check the server's certificate before anything is said under it."""
    if connection.security == "None":
        return
    offered = await client.connect_and_get_server_endpoints()
    name, endpoint = choose_endpoint(connection.security, connection.security_mode, offered)
    uri = endpoint.Server.ApplicationUri or ""
    host = urlsplit(connection.endpoint).hostname or ""
    server = identity.store.check(endpoint.ServerCertificate or b"", uri, now, host=host)
    own = identity.store.own(
        identity.application_uri,
        valid_days=identity.certificates.valid_days,
        renew_before_days=identity.certificates.renew_before_days,
        now=now,
    )
    policy = _POLICIES[name](server, own.certificate, own.key, _MODES[connection.security_mode])
    client.security_policy = policy  # type: ignore[assignment]  # the library's own set_security does the same
    client.uaclient.set_security(policy)


def choose_endpoint(
    wanted: SecurityPolicy, mode: str, offered: Sequence[ua.EndpointDescription]
) -> tuple[str, ua.EndpointDescription]:
    """Return the policy to use and the endpoint that has it; raise SourceError when none is offered."""
    for name in _POLICIES if wanted == "auto" else [wanted]:
        for endpoint in offered:
            if endpoint.SecurityPolicyUri == _POLICIES[name].URI and endpoint.SecurityMode == _MODES[mode]:
                return name, endpoint
    said = sorted({f"{_named(one.SecurityPolicyUri)}/{one.SecurityMode.name.strip('_')}" for one in offered})
    raise SourceError(
        f"the server offers {', '.join(said) or 'nothing'}, but not security = {wanted!r} with {mode}"
    )


def _named(policy_uri: str | None) -> str:
    return (policy_uri or "nothing").rpartition("#")[2]


async def _prove_user(client: Client, connection: Connection) -> None:
    if connection.username:
        client.set_user(connection.username)
        client.set_password(secret(connection.password_file, connection.password_env) or "")
    if connection.user_certificate_file is not None and connection.user_private_key_file is not None:
        content = connection.user_certificate_file.read_bytes()
        pem = content.lstrip().startswith(b"-----BEGIN")
        client.user_certificate = await load_certificate(content, "pem" if pem else "der")
        key = connection.user_private_key_file.read_bytes()
        pem = key.lstrip().startswith(b"-----BEGIN")
        client.user_private_key = await load_private_key(key, None, "pem" if pem else "der")


async def _activate(client: Client) -> None:
    await client.activate_session(
        username=client._username,  # noqa: SLF001
        password=client._password,  # noqa: SLF001
        certificate=client.user_certificate,
    )


async def _resumed(client: Client, resume: Resumable) -> bool:
    """Bind an earlier session to the new channel; false when the server does not know it any more."""
    client.uaclient.session.restore_authentication_token(ua.NodeId.from_string(resume.token))
    client._server_nonce = resume.nonce or None  # type: ignore[assignment]  # noqa: SLF001
    try:
        # without the server's own names for ways to identify, a user looks like another one to it
        policy = client.security_policy
        endpoint = Client.find_endpoint(await client.get_endpoints(), policy.Mode, policy.URI)
        client._policy_ids = endpoint.UserIdentityTokens  # noqa: SLF001
        await _activate(client)
    except ua.UaStatusCodeError as error:
        _log.info("the earlier session cannot go on: %s", status_name(int(error.code)))
        client.uaclient.session.reset_authentication_token()
        client._server_nonce = None  # noqa: SLF001
        return False
    return True


def standard_node(identifier: int) -> ua.NodeId:
    """Return the node of the standard's own namespace with this number."""
    return ua.NodeId(ua.Int32(identifier), ua.Int16(0))


def _strings(value: ua.DataValue) -> list[str]:
    content = value.Value.Value if value.Value is not None else None
    return [str(one) for one in content] if isinstance(content, list) else []
