"""The cloud side's session with a real broker: what is not stored comes again, whatever ends the session."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from paho.mqtt import publish
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from cloud.config import MqttTable
from cloud.ingest.message import Message
from cloud.ingest.mqtt import Broker, Inbox, _Client
from tests.support.mosquitto import Mosquitto
from tests.support.patience import PATIENCE

_TOPIC: Final = "oee/v1/berlin/packaging/line-1/filler-1/telemetry"
_LIMIT: Final = 100
_PAUSE_SECS: Final = 0.1


@contextlib.asynccontextmanager
async def session(mosquitto: Mosquitto, inbox: Inbox) -> AsyncIterator[Broker]:
    broker = Broker(MqttTable(url=mosquitto.url, protocol="5", reconnect_max_secs=0.3), inbox)
    holding = asyncio.create_task(broker.run())
    try:
        yield broker
    finally:
        holding.cancel()
        await asyncio.wait([holding])


async def say(mosquitto: Mosquitto, payload: bytes) -> None:
    await asyncio.to_thread(publish.single, _TOPIC, payload, qos=1, hostname="127.0.0.1", port=mosquitto.port)


async def heard(inbox: Inbox, payload: bytes, broker: Broker | None = None) -> set[bytes]:
    """Return what arrives, up to a payload; a broker that is given is told that all of it is stored."""
    found: set[bytes] = set()
    async with asyncio.timeout(PATIENCE * 10):
        while payload not in found:
            messages = await inbox.take(_LIMIT, 0.0)
            found.update(message.payload for message in messages)
            if broker is not None:
                for message in messages:
                    broker.acknowledge(message)
    return found


async def subscribed(mosquitto: Mosquitto, inbox: Inbox) -> None:
    """Wait until something arrives: what is said before the subscription stands goes to nobody."""
    async with asyncio.timeout(PATIENCE * 15):
        while not inbox.waiting:
            await say(mosquitto, b"hello")
            await asyncio.sleep(_PAUSE_SECS)


async def test_a_message_comes_again_until_it_is_acknowledged(tmp_path: Path) -> None:
    """A service that ends between a message's arrival and its commit has lost nothing."""
    with Mosquitto(tmp_path) as mosquitto:
        inbox = Inbox(_LIMIT)
        async with session(mosquitto, inbox):
            await subscribed(mosquitto, inbox)
            await say(mosquitto, b"first")
            await heard(inbox, b"first")
        inbox = Inbox(_LIMIT)
        async with session(mosquitto, inbox) as broker:
            await heard(inbox, b"first", broker)
        for number in range(
            5
        ):  # an acknowledgement that is not away yet when its session ends lets it come once more
            last = f"last {number}".encode()
            inbox = Inbox(_LIMIT)
            async with session(mosquitto, inbox) as broker:
                await say(mosquitto, last)
                if await heard(inbox, last, broker) == {last}:
                    break
        else:
            pytest.fail("what is acknowledged comes again and again")


async def test_a_broker_that_has_forgotten_the_session_is_asked_again(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, persistence=False) as mosquitto:
        inbox = Inbox(_LIMIT)
        async with session(mosquitto, inbox):
            await subscribed(mosquitto, inbox)
            await say(mosquitto, b"before")
            await heard(inbox, b"before")
            mosquitto.kill()
            mosquitto.start()
            await subscribed(mosquitto, inbox)
            await say(mosquitto, b"after")
            await heard(inbox, b"after")


class _FailingOnce(Inbox):
    """Fails to take the first message."""

    failures = 0

    def put(self, message: Message) -> bool:
        if not self.failures:
            self.failures += 1
            raise ValueError("this message cannot be taken")
        return super().put(message)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_fault_in_the_brokers_thread_costs_a_session_and_no_message(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as mosquitto:
        inbox = _FailingOnce(_LIMIT)
        async with session(mosquitto, inbox):
            async with asyncio.timeout(PATIENCE * 15):
                while not inbox.failures:
                    await say(mosquitto, b"first")
                    await asyncio.sleep(_PAUSE_SECS)
            await heard(inbox, b"first")


def test_a_thread_that_forgets_itself_while_it_is_waited_for_is_waited_for() -> None:
    """paho lets go of its thread when that ends: between a look at it and the wait for it, too."""

    class Fleeting(_Client):
        @property
        def _thread(self) -> threading.Thread | None:
            """Be there when first looked at, and never again."""
            found, self.there = self.there, None
            return found

        @_thread.setter
        def _thread(self, thread: threading.Thread | None) -> None:
            self.there = thread

    fleeting = Fleeting(CallbackAPIVersion.VERSION2)
    fleeting._thread = threading.Thread(target=int)
    fleeting.there.start()
    assert fleeting.loop_stop() == MQTTErrorCode.MQTT_ERR_SUCCESS
    assert fleeting.loop_stop() == MQTTErrorCode.MQTT_ERR_INVAL


async def test_no_fault_of_our_own_ends_the_broker_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails when a connection ends, the next one is made."""
    with Mosquitto(tmp_path) as mosquitto:
        inbox = Inbox(_LIMIT)
        failed = []
        stopping = _Client.loop_stop

        def broken(client: _Client) -> MQTTErrorCode:
            stopping(client)
            if not failed:
                failed.append(client)
                raise AttributeError("'NoneType' object has no attribute 'join'")
            return MQTTErrorCode.MQTT_ERR_SUCCESS

        monkeypatch.setattr(_Client, "loop_stop", broken)
        async with session(mosquitto, inbox) as broker:
            await subscribed(mosquitto, inbox)
            await heard(inbox, b"hello", broker)
            mosquitto.kill()
            mosquitto.start()
            await subscribed(mosquitto, inbox)
        assert failed
