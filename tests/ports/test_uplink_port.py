"""What every uplink does, on each client library and protocol version."""

import asyncio
import contextlib
import re
import socket
import time
from dataclasses import replace

import pytest

from gateway.errors import MessageTooLargeError, PublishRefusedError, UnreachableError
from gateway.uplinks.aws_iot import AwsIotCore, Thing
from gateway.uplinks.mqtt import Broker, MqttUplink, Tls
from gateway.uplinks.port import Limits, Will, backoff_secs
from tests.support.authority import Authority
from tests.support.gateway_parts import SITE, Store, eventually
from tests.support.mosquitto import Mosquitto
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

TOPIC = f"oee/v1/{SITE}/area/line/filler/telemetry"
ECHO = f"oee/v1/{SITE}/gateways/edge/receipt"
WILL = f"oee/v1/{SITE}/gateways/edge/status"
MQTT_5 = ("mqtt", "mqtts", "aws_iot")
TLS = ("mqtts", "aws_iot")


class Listener:
    """Notes what an uplink tells."""

    def __init__(self) -> None:
        self.limits: list[Limits] = []
        self.lost: list[tuple[str, bool]] = []
        self.messages: list[tuple[str, bytes]] = []

    def on_connected(self, limits: Limits) -> None:
        self.limits.append(limits)

    def on_lost(self, reason: str, *, silent: bool) -> None:
        self.lost.append((reason, silent))

    def on_message(self, topic: str, payload: bytes) -> None:
        self.messages.append((topic, payload))


class Setting:
    """A broker and the way of one kind of uplink to it."""

    def __init__(self, kind, folder, authority, *, settings=(), users=None, acl=None):
        self.kind = kind
        self.authority = authority
        self.plain_port = free_port()
        options = {"users": users, "acl": acl}
        lines = list(settings)
        if kind in TLS:
            certificate, key = authority.issue("broker")
            options["certificates"] = {"cafile": authority.ca_file, "certfile": certificate, "keyfile": key}
            options["require_certificate"] = True
            self.client = authority.issue("edge")
            lines += ["per_listener_settings false", f"listener {self.plain_port} 127.0.0.1"]
        self.mosquitto = Mosquitto(folder / f"mosquitto-{kind}", settings=lines, **options)
        self.port = self.mosquitto.port

    @property
    def observer_port(self):
        return self.plain_port if self.kind in TLS else self.port

    def uplink(self, **changes):
        subscriptions = changes.pop("subscriptions", [ECHO])
        parts = {"subscriptions": subscriptions, "will": lambda: Will(WILL, b'{"online": false}')}
        if self.kind == "aws_iot":
            thing = Thing(
                endpoint="localhost",
                port=self.port,
                name="edge",
                certificate_file=self.client[0],
                private_key_file=self.client[1],
                ca_file=self.authority.ca_file,
                keepalive_secs=2,
                limits=Limits(),
            )
            return AwsIotCore("up", replace(thing, **changes), **parts)
        broker = Broker(
            host="localhost" if self.kind in TLS else "127.0.0.1",
            port=self.port,
            client_id="edge",
            version="3.1.1" if self.kind == "mqtt-3.1.1" else "5",
            tls=Tls(self.authority.ca_file, *self.client) if self.kind in TLS else None,
            keepalive_secs=2,
        )
        return MqttUplink("up", replace(broker, **changes), **parts)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=["mqtt", "mqtt-3.1.1", "mqtts", "aws_iot"])
def setting(request, tmp_path, authority):
    setting = Setting(request.param, tmp_path, authority)
    with setting.mosquitto:
        yield setting


def published(uplink, topic, payload):
    """Send a message; the future ends with the broker's answer, which comes once."""
    future = asyncio.get_running_loop().create_future()
    uplink.publish(
        topic, payload, lambda error: future.set_exception(error) if error else future.set_result(None)
    )
    return future


@contextlib.asynccontextmanager
async def running(uplink):
    listener = Listener()
    task = asyncio.create_task(uplink.run(listener))
    try:
        yield listener
    finally:
        task.cancel()
        await asyncio.wait([task])


@contextlib.asynccontextmanager
async def connected(uplink):
    async with running(uplink) as listener:
        await eventually(lambda: uplink.connected)
        yield listener


async def test_a_message_is_answered_and_arrives(setting):
    with Store(setting.observer_port) as store:
        uplink = setting.uplink()
        async with connected(uplink):
            assert uplink.last_error is None
            await asyncio.wait_for(published(uplink, TOPIC, b'{"sequence": 1}'), 5)
            await eventually(lambda: store.arrivals == [(TOPIC, 1)])


async def test_many_in_flight_arrive_once_and_in_order(setting):
    with Store(setting.observer_port) as store:
        uplink = setting.uplink()
        async with connected(uplink):
            for start in range(0, 300, 30):
                batch = [published(uplink, TOPIC, b'{"sequence": %d}' % n) for n in range(start, start + 30)]
                await asyncio.wait_for(asyncio.gather(*batch), 10)
            await eventually(lambda: [sequence for _, sequence in store.arrivals] == list(range(300)))


async def test_subscriptions_stand_before_a_session_counts_as_connected(setting):
    with Store(setting.observer_port) as store:
        store.publish(ECHO, b"retained", retain=True)
        async with connected(setting.uplink()) as listener:
            await eventually(lambda: listener.messages == [(ECHO, b"retained")])
            store.publish(ECHO, b"live")
            await eventually(lambda: listener.messages[-1] == (ECHO, b"live"))


async def test_a_message_beyond_the_limit_is_refused_before_it_is_sent(setting):
    uplink = setting.uplink(limits=Limits(max_message_bytes=1000))
    async with connected(uplink) as listener:
        assert listener.limits[0].max_message_bytes == 1000
        with pytest.raises(MessageTooLargeError):
            await published(uplink, TOPIC, b"x" * 1001)
        await asyncio.wait_for(published(uplink, TOPIC, b"x" * 1000), 5)
        assert listener.lost == []


async def test_publishing_without_a_session_fails_at_once(setting):
    uplink = setting.uplink()
    with pytest.raises(UnreachableError):
        await published(uplink, TOPIC, b"{}")


async def test_a_killed_broker_fails_what_was_in_flight_and_is_found_again(setting):
    uplink = setting.uplink()
    async with connected(uplink) as listener:
        setting.mosquitto.freeze()
        answer = published(uplink, TOPIC, b"{}")
        told_before = []
        uplink.publish(TOPIC, b"{}", lambda _error: told_before.extend(listener.lost))
        setting.mosquitto.kill()
        with pytest.raises(UnreachableError):
            await asyncio.wait_for(answer, 5)
        await eventually(lambda: listener.lost)
        assert told_before == listener.lost
        assert listener.lost[0][1] is False
        assert not uplink.connected
        setting.mosquitto.start()
        began = time.monotonic()
        await eventually(lambda: uplink.connected, 5)
        assert time.monotonic() - began < PATIENCE * 5
        assert uplink.reconnects == 1
        with Store(setting.observer_port) as store:
            store.publish(ECHO, b"again")
            await eventually(lambda: (ECHO, b"again") in listener.messages)


async def test_a_silent_broker_is_noticed(setting):
    uplink = setting.uplink(keepalive_secs=1)
    async with connected(uplink) as listener:
        setting.mosquitto.freeze()
        began = time.monotonic()
        await eventually(lambda: listener.lost, 10)
        assert time.monotonic() - began < PATIENCE * 10
        assert listener.lost[0][1] is True
        setting.mosquitto.thaw()
        await eventually(lambda: uplink.connected)


async def test_a_broker_that_answers_pings_but_no_messages_is_left(setting):
    """The liveness of a session is that of its messages."""
    uplink = setting.uplink(keepalive_secs=1)
    async with connected(uplink) as listener:
        session = uplink._session
        answers = []
        now = time.monotonic()
        session._pending[10**6] = (answers.append, now)
        await eventually(lambda: listener.lost and answers, 10)
        assert "PUBACK" in listener.lost[0][0]
        assert [type(answer) for answer in answers] == [UnreachableError]


async def test_two_that_take_a_session_from_each_other_say_which_and_what_to_do(setting, capsys):
    one, other = setting.uplink(), setting.uplink()
    async with running(one):
        await _take_from_each_other(one, other, capsys)
        if setting.kind == "mqtt":
            await eventually(lambda: one.connected and one.last_error is None, 20)
            assert "holds again" in capsys.readouterr().out


async def _take_from_each_other(one, other, capsys):
    async with running(other):
        await eventually(
            lambda: all("client_id is 'edge'" in (each.last_error or "") for each in (one, other)), 20
        )
        said = capsys.readouterr().out.count("uplink lost")
        tried = one.reconnects
        await eventually(lambda: one.reconnects > tried + 1, 20)
        assert "uplink lost" not in capsys.readouterr().out
    assert said <= 10


async def test_the_will_is_said_when_we_die_and_by_ourselves_when_we_leave(setting):
    with Store(setting.observer_port) as store:
        async with connected(setting.uplink()):
            assert store.statuses == []
        await eventually(lambda: store.statuses == [{"online": False}])


async def test_a_broker_that_is_not_there_is_tried_for_ever_and_said_once(setting, caplog, capsys):
    setting.mosquitto.kill()
    uplink = setting.uplink()
    async with running(uplink):
        await asyncio.sleep(2.5)
        assert not uplink.connected
        assert "reach" in uplink.last_error or "answer" in uplink.last_error
        setting.mosquitto.start()
        await eventually(lambda: uplink.connected, 5)
        assert uplink.reconnects == 0
    assert capsys.readouterr().out.count("uplink unreachable") == 1


async def test_a_listener_that_fails_costs_a_session_at_most(setting, recwarn):
    class Faulty(Listener):
        def on_message(self, topic, payload):
            super().on_message(topic, payload)
            raise RuntimeError("a fault of ours")

    uplink = setting.uplink()
    listener = Faulty()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    task = asyncio.create_task(uplink.run(listener))
    try:
        await eventually(lambda: uplink.connected)
        with Store(setting.observer_port) as store:
            store.publish(ECHO, b"boom")
            await eventually(lambda: listener.messages)
            await eventually(lambda: uplink.connected)
            await asyncio.wait_for(published(uplink, TOPIC, b'{"sequence": 5}'), 5)
            await eventually(lambda: store.arrivals == [(TOPIC, 5)])
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("setting", MQTT_5, indirect=True)
async def test_a_refused_publish_says_why(tmp_path, authority, setting):
    setting.mosquitto.stop()
    acl = f"topic read #\nuser edge\ntopic readwrite oee/v1/{SITE}/gateways/#\n"
    guarded = Setting(
        setting.kind,
        tmp_path / "acl",
        authority,
        acl=acl,
        users=None if setting.kind in TLS else {"edge": "one"},
    )
    with guarded.mosquitto:
        uplink = guarded.uplink(**({} if setting.kind in TLS else {"username": "edge", "password": "one"}))
        async with connected(uplink):
            with pytest.raises(PublishRefusedError, match=r"(?i)not authorized") as refused:
                await asyncio.wait_for(published(uplink, TOPIC, b"{}"), 5)
            assert refused.value.transient


@pytest.mark.parametrize("setting", MQTT_5, indirect=True)
async def test_what_the_broker_allows_in_flight_is_kept(tmp_path, authority, setting):
    setting.mosquitto.stop()
    narrow = Setting(setting.kind, tmp_path / "narrow", authority, settings=["max_packet_size 5000"])
    with narrow.mosquitto:
        async with connected(narrow.uplink()) as listener:
            assert listener.limits[0].max_message_bytes <= 5000


@pytest.mark.parametrize("setting", TLS, indirect=True)
async def test_a_broker_that_our_authority_did_not_sign_is_refused(tmp_path, setting):
    stranger = Authority(tmp_path, "stranger")
    changes = {"ca_file": stranger.ca_file, "connect_timeout_secs": 2.0}
    if setting.kind == "mqtts":
        changes = {"tls": Tls(stranger.ca_file, *setting.client)}
    uplink = setting.uplink(**changes)
    async with running(uplink):
        await eventually(lambda: re.search("(?i)certificate|tls", uplink.last_error), 15)
        assert not uplink.connected


@pytest.mark.parametrize("setting", TLS, indirect=True)
@pytest.mark.parametrize("fault", ["stranger", "expired"])
async def test_a_client_certificate_that_is_not_good_is_refused(tmp_path, authority, setting, fault):
    if fault == "stranger":
        certificate, key = Authority(tmp_path, "other").issue("edge")
    else:
        certificate, key = authority.issue("old", days=-1)
    changes = {"certificate_file": certificate, "private_key_file": key}
    if setting.kind == "mqtts":
        changes = {"tls": Tls(authority.ca_file, certificate, key)}
    uplink = setting.uplink(**changes)
    async with running(uplink):
        await asyncio.sleep(1.5)
        assert not uplink.connected


@pytest.mark.parametrize("setting", TLS, indirect=True)
async def test_a_missing_certificate_file_is_said_and_tried_again(tmp_path, setting):
    """Certificates are read for each session, so that a renewed one is taken up."""
    certificate, key = tmp_path / "later.crt", tmp_path / "later.key"
    changes = {"certificate_file": certificate, "private_key_file": key}
    if setting.kind == "mqtts":
        changes = {"tls": Tls(setting.authority.ca_file, certificate, key)}
    uplink = setting.uplink(**changes)
    async with running(uplink):
        await asyncio.sleep(0.5)
        assert "certificates cannot be used" in uplink.last_error
        certificate.write_bytes(setting.client[0].read_bytes())
        key.write_bytes(setting.client[1].read_bytes())
        await eventually(lambda: uplink.connected, 5)


@pytest.mark.parametrize("setting", ["mqtt", "mqtt-3.1.1"], indirect=True)
async def test_a_wrong_password_is_refused_and_never_logged(tmp_path, authority, setting, capsys):
    setting.mosquitto.stop()
    guarded = Setting(setting.kind, tmp_path / "users", authority, users={"edge": "right"})
    with guarded.mosquitto:
        uplink = guarded.uplink(username="edge", password="hunter2-wrong")
        async with running(uplink):
            await asyncio.sleep(1.0)
            assert not uplink.connected
            assert re.search("(?i)not authori[sz]ed|bad user", uplink.last_error)
            assert "hunter2" not in uplink.last_error
            assert "hunter2" not in repr(uplink._broker)
    said = capsys.readouterr()
    assert said.out.count("uplink unreachable") == 1
    assert "hunter2" not in said.out + said.err


async def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1(unused_tcp_port_or_free):
    from amqtt.broker import Broker as Amqtt

    port = unused_tcp_port_or_free
    broker = Amqtt(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    try:
        uplink = MqttUplink("up", Broker(host="127.0.0.1", port=port, client_id="edge"), subscriptions=[ECHO])
        async with connected(uplink) as listener:
            await asyncio.wait_for(published(uplink, ECHO, b"hello"), 5)
            await eventually(lambda: listener.messages == [(ECHO, b"hello")])
    finally:
        await broker.shutdown()


@pytest.fixture
def unused_tcp_port_or_free():
    return free_port()


async def test_a_port_that_accepts_and_says_nothing_is_given_up_in_time():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        broker = Broker(
            host="127.0.0.1", port=silent.getsockname()[1], client_id="edge", connect_timeout_secs=0.5
        )
        uplink = MqttUplink("up", broker)
        async with running(uplink):
            await eventually(lambda: "did not answer" in uplink.last_error, 3)


async def test_mqtt_is_asked_for_by_alpn_on_port_443(tmp_path, authority):
    """A front door that speaks TLS and only lets MQTT by ALPN through, before a plain broker."""
    import ssl

    certificate, key = authority.issue("front")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["x-amzn-mqtt-ca"])
    chosen = []
    with Mosquitto(tmp_path / "behind") as behind:

        async def relay(reader, writer):
            try:
                while part := await reader.read(65536):
                    writer.write(part)
                    await writer.drain()
            except OSError:
                pass
            finally:
                writer.close()

        async def front(reader, writer):
            chosen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", behind.port)
            await asyncio.gather(relay(reader, inner_writer), relay(inner_reader, writer))

        server = await asyncio.start_server(front, "127.0.0.1", 0, ssl=context)
        client_certificate, client_key = authority.issue("thing")
        thing = Thing(
            endpoint="localhost",
            port=server.sockets[0].getsockname()[1],
            name="thing",
            certificate_file=client_certificate,
            private_key_file=client_key,
            ca_file=authority.ca_file,
            alpn=True,
        )
        uplink = AwsIotCore("up", thing)
        async with server:
            async with connected(uplink):
                await asyncio.wait_for(published(uplink, TOPIC, b"{}"), 5)
            await asyncio.sleep(0.1)
    assert chosen[0] == "x-amzn-mqtt-ca"


async def test_a_persistent_session_keeps_receipts_of_the_time_between(tmp_path, authority):
    setting = Setting("aws_iot", tmp_path, authority)
    with setting.mosquitto, Store(setting.observer_port) as store:
        async with connected(setting.uplink()):
            pass
        store.publish(ECHO, b"meanwhile")
        async with connected(setting.uplink()) as listener:
            await eventually(lambda: listener.messages == [(ECHO, b"meanwhile")])


def test_waiting_doubles_up_to_its_cap_with_jitter():
    assert [backoff_secs(n, 0.999999, first_secs=0.2, cap_secs=2) for n in range(6)] == pytest.approx(
        [0.2, 0.4, 0.8, 1.6, 2.0, 2.0], rel=1e-4
    )
    assert backoff_secs(3, 0.0) == pytest.approx(backoff_secs(3, 0.999999) / 2, rel=1e-4)
    assert backoff_secs(10_000, 0.5) <= 2.0


class OldBroker:
    """Lets whoever speaks MQTT 3.1.1 in, as a broker does that has never heard of MQTT 5.

    manner: what it does when it meets that
    """

    def __init__(self, manner):
        self.manner = manner
        self.versions = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            connect = await reader.readuntil(b"MQTT") + await reader.readexactly(1)
            self.versions.append(connect[-1])
            if connect[-1] == 4:
                writer.write(bytes([0x20, 2, 0, 0]))
            elif self.manner == "refuses":
                writer.write(bytes([0x20, 2, 0, 1]))
            if connect[-1] == 4 or self.manner != "hangs up":
                await reader.read()
        writer.close()


async def test_a_broker_that_says_that_a_session_was_taken_over_is_understood():
    connack, disconnect = bytes([0x20, 3, 0, 0, 0]), bytes([0xE0, 1, 0x8E])

    async def serve(reader, writer):
        await reader.readuntil(b"gw-1")
        writer.write(connack + disconnect)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        broker = Broker(
            host="127.0.0.1", port=server.sockets[0].getsockname()[1], client_id="gw-1", version="5"
        )
        uplink = MqttUplink("up", broker)
        async with running(uplink):
            await eventually(lambda: "has taken our session over" in uplink.last_error, 10)
            assert "'gw-1'" in uplink.last_error


@pytest.mark.parametrize("manner", ["refuses", "hangs up", "says nothing"])
async def test_a_broker_of_the_version_before_is_found(manner):
    async with OldBroker(manner) as old:
        broker = Broker(host="127.0.0.1", port=old.port, client_id="gw-1", connect_timeout_secs=2.0)
        await MqttUplink("up", broker, will=lambda: Will(WILL, b"offline")).try_once()
        assert old.versions == [5, 4]
        uplink = MqttUplink("up", broker)
        async with running(uplink):
            await eventually(lambda: uplink.connected, 15)
