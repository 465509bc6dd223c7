"""Secured connections: every policy and mode, users, and everything that must be refused."""

import io
import logging
from pathlib import Path

import pytest
import structlog
from asyncua import ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.user_managers import UserManager

from gateway.errors import RefusedError
from gateway.logging import configure
from gateway.sources.certificates import CertificateStore
from gateway.uplinks.mqtt import Broker, MqttUplink
from simulator import scenarios
from simulator.certificates import own
from simulator.server import NAMESPACE_URI
from simulator.service import Settings, simulate
from tests.support.certificates import Made, make
from tests.support.mosquitto import Mosquitto
from tests.support.opcua_gateway import MemoryOutbox, configured, reading
from tests.support.opcua_server import Plc, until

TAGS = {"State": 1}
POLICIES = [
    ("Basic256Sha256", "sign", ua.SecurityPolicyType.Basic256Sha256_Sign),
    ("Basic256Sha256", "sign_and_encrypt", ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt),
    ("Aes128_Sha256_RsaOaep", "sign", ua.SecurityPolicyType.Aes128Sha256RsaOaep_Sign),
    ("Aes128_Sha256_RsaOaep", "sign_and_encrypt", ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt),
    ("Aes256_Sha256_RsaPss", "sign", ua.SecurityPolicyType.Aes256Sha256RsaPss_Sign),
    ("Aes256_Sha256_RsaPss", "sign_and_encrypt", ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt),
    ("auto", "sign_and_encrypt", ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt),
]


class Users(UserManager):
    """Lets in operator/secret, and one user certificate."""

    def __init__(self, certificate: bytes | None = None) -> None:
        self.certificate = certificate

    def get_user(self, iserver, username=None, password=None, certificate=None):
        password = password.decode() if isinstance(password, bytes) else password
        if (username, password) == ("operator", "secret"):
            return User(role=UserRole.User, name=username)
        if self.certificate is not None and certificate == self.certificate:
            return User(role=UserRole.User, name="certified")
        return None


@pytest.fixture(scope="module")
def server_certificate() -> Made:
    return make("plc", uri="urn:test:plc:server")


async def secured(
    folder: Path, made: Made, policy: ua.SecurityPolicyType, users: UserManager | None = None
) -> Plc:
    server = Plc()
    server.certificate, server.key = made.save(folder / "server", "plc")
    server.policies = [ua.SecurityPolicyType.NoSecurity, policy]
    server.user_manager = users
    await server.start(TAGS)
    return server


def machine(server: Plc) -> dict:
    return {"name": "m1", "state": {"node": server.node("State"), "map": {"1": "running", "2": "idle"}}}


@pytest.mark.parametrize(
    ("policy", "mode", "offered"), POLICIES, ids=lambda one: str(getattr(one, "name", one))
)
async def test_values_come_over_every_policy(
    tmp_path: Path, server_certificate: Made, policy: str, mode: str, offered: ua.SecurityPolicyType
) -> None:
    server = await secured(tmp_path, server_certificate, offered)
    try:
        CertificateStore(tmp_path / "pki").trust(str(server.certificate))
        outbox = MemoryOutbox()
        options = {"security": policy, "security_mode": mode, "allow_insecure": False}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            session = gateway.source._subscription._session
            wanted = "Basic256Sha256" if policy == "auto" else policy
            assert session.client.security_policy.URI.endswith(wanted)
            await server.write("State", 2)
            await until(lambda: outbox.states()[-1] == "idle")
            server.drop_connections()
            await server.write("State", 1)
            await until(lambda: outbox.states()[-1] == "running")
        assert outbox.gaps == []
    finally:
        await server.stop()


async def test_an_untrusted_plc_is_not_read_until_somebody_trusts_it(
    tmp_path: Path, server_certificate: Made
) -> None:
    server = await secured(tmp_path, server_certificate, ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt)
    try:
        outbox = MemoryOutbox()
        options = {"security": "auto", "allow_insecure": False}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await until(lambda: gateway.source.status.state == "failed")
            assert "nobody has trusted it yet" in str(gateway.source.status.last_error)
            assert outbox.records == []
            store = CertificateStore(tmp_path / "pki")
            (waiting,) = store.shelved()
            store.trust(waiting.thumbprint)
            await until(lambda: outbox.telemetry)
    finally:
        await server.stop()


async def test_a_plc_that_offers_no_security_is_not_read_without_an_explicit_word(tmp_path: Path) -> None:
    server = Plc()
    await server.start(TAGS)
    try:
        outbox = MemoryOutbox()
        options = {"security": "auto", "allow_insecure": False}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await until(lambda: gateway.source.status.last_error)
            assert "the server offers None" in str(gateway.source.status.last_error)
        assert outbox.records == []
    finally:
        await server.stop()


async def test_an_unprotected_connection_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = Plc()
    await server.start(TAGS)
    try:
        outbox = MemoryOutbox()
        with caplog.at_level(logging.WARNING):
            async with reading(configured(server.url, [machine(server)], tmp_path), outbox):
                await until(lambda: outbox.telemetry)
        assert "without any protection" in caplog.text
    finally:
        await server.stop()


async def test_a_user_proves_who_he_is_by_password(
    tmp_path: Path, server_certificate: Made, caplog: pytest.LogCaptureFixture
) -> None:
    policy = ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt
    server = await secured(tmp_path, server_certificate, policy, Users())
    try:
        CertificateStore(tmp_path / "pki").trust(str(server.certificate))
        password = tmp_path / "password"
        password.write_text("wrong\n")
        outbox = MemoryOutbox()
        options = {
            "security": "auto",
            "allow_insecure": False,
            "username": "operator",
            "password_file": str(password),
        }
        with caplog.at_level(logging.DEBUG, logger="gateway"):
            async with reading(
                configured(server.url, [machine(server)], tmp_path, **options), outbox
            ) as gateway:
                await until(lambda: gateway.source.status.last_error)
                assert outbox.records == []
                password.write_text("secret\n")
                await until(lambda: outbox.telemetry)
        assert "secret" not in caplog.text
    finally:
        await server.stop()


async def test_the_simulated_factory_is_read_encrypted(tmp_path: Path) -> None:
    """What `oee simulate --secure` offers is what a gateway that trusts its certificate takes."""
    certificate, private_key = await own(tmp_path / "plcs", "127.0.0.1")
    offered = Settings(
        port=0,
        history_secs=0,
        wait_for_subscriber=False,
        certificate=certificate,
        private_key=private_key,
    )
    async with simulate(scenarios.build("good-day"), offered) as simulation:
        for line in simulation.lines:
            name = f"{line.server.line.name}.{line.server.line.machines[0].name}"
            filler = {
                "name": "m1",
                "state": {"node": f"nsu={NAMESPACE_URI};s={name}.State", "map": {"1": "running"}},
            }
            options = {"security": "auto", "allow_insecure": False}
            configuration = configured(line.server.url, [filler], tmp_path / name, **options)
            CertificateStore(configuration.pki_dir).trust(str(certificate))
            outbox = MemoryOutbox()
            async with reading(configuration, outbox):
                await until(lambda outbox=outbox: outbox.telemetry)


async def test_a_user_proves_who_he_is_by_certificate(tmp_path: Path, server_certificate: Made) -> None:
    user = make("operator")
    policy = ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt
    server = await secured(tmp_path, server_certificate, policy, Users(user.der))
    try:
        CertificateStore(tmp_path / "pki").trust(str(server.certificate))
        certificate, key = user.save(tmp_path, "user")
        outbox = MemoryOutbox()
        options = {
            "security": "auto",
            "allow_insecure": False,
            "user_certificate_file": str(certificate),
            "user_private_key_file": str(key),
        }
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox):
            await until(lambda: outbox.telemetry)
    finally:
        await server.stop()


async def test_an_anonymous_reader_is_refused_where_users_are_asked_for(
    tmp_path: Path, server_certificate: Made
) -> None:
    policy = ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt
    server = await secured(tmp_path, server_certificate, policy, Users())
    try:
        CertificateStore(tmp_path / "pki").trust(str(server.certificate))
        outbox = MemoryOutbox()
        options = {"security": "auto", "allow_insecure": False}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await until(lambda: gateway.source.status.last_error)
        assert outbox.records == []
    finally:
        await server.stop()


async def test_no_secret_is_ever_logged_at_any_level(tmp_path: Path) -> None:
    """The worst case: everything is logged, nothing is encrypted, and both ends refuse what they are told."""
    log = io.StringIO()
    before = logging.getLogger().handlers, logging.getLogger().level
    server = Plc()
    server.user_manager = Users()
    await server.start(TAGS)
    configure("debug", "text", log)
    try:
        password = tmp_path / "password"
        password.write_text("hunter2-of-the-plc\n")
        options = {"username": "operator", "password_file": str(password)}
        outbox = MemoryOutbox()
        with Mosquitto(users={"edge": "right"}) as mosquitto:
            broker = Broker(
                host="127.0.0.1",
                port=mosquitto.port,
                client_id="edge",
                username="edge",
                password="hunter2-of-the-broker",
            )
            uplink = MqttUplink("up", broker)
            with pytest.raises(RefusedError):
                await uplink.try_once()
            async with reading(
                configured(server.url, [machine(server)], tmp_path, **options), outbox
            ) as gateway:
                await until(lambda: gateway.source.status.last_error)
                password.write_text("secret\n")
                await until(lambda: outbox.telemetry)
                token = gateway.source._subscription._session.resumable.token
    finally:
        await server.stop()
        logging.getLogger().handlers, level = before
        logging.getLogger().setLevel(level)
        structlog.reset_defaults()
    said = log.getvalue()
    assert "plc-1" in said, "it was logged at all"
    assert "hunter2" not in said
    assert token.rpartition("=")[2] not in said
