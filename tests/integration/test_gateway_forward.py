"""Records of an outbox reach a store over a real broker, whatever happens to broker, store and messages."""

import asyncio
import contextlib
import json
import os
import signal
import time

import pytest

from gateway.forward import Forwarder
from gateway.outbox.port import GapDraft
from gateway.uplinks.mqtt import Broker, MqttUplink
from gateway.uplinks.port import Limits, Will
from tests.support.gateway_parts import (
    BACKLOG_TOPIC,
    GAP_TOPIC,
    GATEWAY,
    MACHINE,
    RECEIPT_TOPIC,
    SITE,
    START_US,
    STATUS_TOPIC,
    TELEMETRY_TOPIC,
    Blob,
    Record,
    Store,
    eventually,
    open_outbox,
)
from tests.support.mosquitto import Mosquitto
from tests.support.patience import PATIENCE


@pytest.fixture
def mosquitto():
    with Mosquitto() as broker:
        yield broker


@pytest.fixture
def outbox(tmp_path):
    outbox = open_outbox(tmp_path / "outbox")
    yield outbox
    outbox.close()


@contextlib.asynccontextmanager
async def forwarding(outbox, port, *, broker=None, **options):
    """Run an uplink and its forwarder for as long as an `async with` lasts."""

    def status():
        first = outbox.statistics().first_sequence
        return Will(STATUS_TOPIC, json.dumps({"online": True, "first_sequence": first}).encode())

    asked = dict(broker or {})
    bounds = {name: asked.pop(name) for name in set(asked) & {*Limits.__dataclass_fields__}}
    settings = {"host": "127.0.0.1", "port": port, "client_id": "edge", "keepalive_secs": 2} | asked
    options = {"acknowledge": "store", "status": status} | options
    uplink = MqttUplink(
        "broker",
        Broker(**settings, limits=Limits(**bounds)),
        subscriptions=[RECEIPT_TOPIC] if options["acknowledge"] == "store" else [],
        will=lambda: Will(STATUS_TOPIC, b'{"online": false}'),
    )
    forwarder = Forwarder(outbox, uplink, site=SITE, gateway=GATEWAY, monotonic=time.monotonic, **options)
    tasks = [asyncio.create_task(uplink.run(forwarder)), asyncio.create_task(forwarder.run())]
    try:
        yield forwarder
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        forwarder.close()


def waiting(outbox):
    outbox.flush()
    return outbox.statistics().records


async def test_records_arrive_and_leave_the_outbox_on_the_receipt(mosquitto, outbox):
    with Store(mosquitto.port) as store:
        async with forwarding(outbox, mosquitto.port):
            for n in range(50):
                outbox.append([Record(n)])
            await eventually(lambda: waiting(outbox) == 0)
    assert store.counts == list(range(50))
    assert set(store.topics) == {TELEMETRY_TOPIC, STATUS_TOPIC}


async def test_records_stay_without_a_receipt_and_leave_with_it(mosquitto, outbox):
    with Store(mosquitto.port, receipts=False) as store:
        async with forwarding(outbox, mosquitto.port):
            outbox.append([Record(n) for n in range(20)])
            await eventually(lambda: len(store.records) == 20)
            await asyncio.sleep(0.3)
            assert waiting(outbox) == 20
            store.send_receipt()
            await eventually(lambda: waiting(outbox) == 0)


async def test_a_retained_receipt_is_enough_when_the_store_is_gone(mosquitto, outbox):
    last = outbox.append([Record(n) for n in range(20)])
    with Store(mosquitto.port) as store:
        store.publish(RECEIPT_TOPIC, f'{{"stored_through": {last}}}'.encode(), retain=True)
    async with forwarding(outbox, mosquitto.port):
        await eventually(lambda: waiting(outbox) == 0)


async def test_the_puback_is_enough_where_the_configuration_says_so(mosquitto, outbox):
    async with forwarding(outbox, mosquitto.port, acknowledge="broker"):
        outbox.append([Record(n) for n in range(20)])
        await eventually(lambda: waiting(outbox) == 0)


async def test_records_that_a_broker_lost_are_sent_again(mosquitto, outbox):
    with Store(mosquitto.port, lose=[START_US + n for n in (3, 4, 17)]) as store:
        async with forwarding(outbox, mosquitto.port, receipt_timeout_secs=0.5) as forwarder:
            outbox.append([Record(n) for n in range(20)])
            await eventually(lambda: waiting(outbox) == 0)
            assert 3 <= forwarder.counters.resent_records <= 20
    assert store.counts == list(range(20))


async def test_a_store_that_is_behind_gets_no_more_backlog_than_live_records_can_wait_for(mosquitto, outbox):
    outbox.append([Record(n) for n in range(20_000)])
    with Store(mosquitto.port, receipts=False) as store:
        async with forwarding(outbox, mosquitto.port):
            await eventually(lambda: len(store.records) > 5_000)
            await asyncio.sleep(1)
            assert len(store.records) < 7_000
            newest = outbox.append([Record(20_000)])
            await eventually(lambda: newest in store.records)
            store.receipts = True
            store.send_receipt()
            await eventually(lambda: waiting(outbox) == 0, 30)
    assert store.counts == list(range(20_001))


async def test_after_an_outage_the_newest_go_first_and_the_backlog_beside(mosquitto, outbox):
    outbox.append([Record(n) for n in range(5000)])
    with Store(mosquitto.port) as store:
        async with forwarding(outbox, mosquitto.port):
            await eventually(lambda: waiting(outbox) == 0)
    live = [sequence for topic, sequence in store.arrivals if topic == TELEMETRY_TOPIC]
    backlog = [sequence for topic, sequence in store.arrivals if topic == BACKLOG_TOPIC]
    assert live[0] > START_US + 4700, "live starts at the newest"
    assert backlog[0] == START_US, "backlog starts at the oldest"
    assert backlog == sorted(backlog)
    assert store.counts == list(range(5000))
    first_backlog = next(i for i, (topic, _) in enumerate(store.arrivals) if topic == BACKLOG_TOPIC)
    assert first_backlog >= 150, "the newest are not held up by the backlog"


async def test_backlog_messages_keep_within_100_kb_and_gaps_travel_on_their_topic(mosquitto, outbox):
    outbox.append([Record(n, padding="x" * 200) for n in range(1000)])
    outbox.append([GapDraft(MACHINE, GATEWAY, START_US, START_US + 10**6, "PLC lost")])
    outbox.append([Record(n, padding="x" * 200) for n in range(1000, 2000)])
    sizes = []
    with Store(mosquitto.port) as store:
        heard = store._client.on_message

        def measured(client, userdata, message):
            if message.topic == BACKLOG_TOPIC:
                sizes.append(len(message.payload))
            heard(client, userdata, message)

        store._client.on_message = measured
        async with forwarding(outbox, mosquitto.port):
            await eventually(lambda: waiting(outbox) == 0)
    assert max(sizes) <= 100_000
    assert len(sizes) < 20
    assert store.counts == list(range(2000))
    assert [topic for topic, sequence in store.arrivals if sequence == START_US + 1000] == [GAP_TOPIC]


async def test_live_goes_on_beside_a_backlog(mosquitto, outbox):
    outbox.append([Record(n) for n in range(40_000)])
    ages = []
    with Store(mosquitto.port) as store:
        async with forwarding(
            outbox, mosquitto.port, broker={"bytes_per_sec": 500_000, "publishes_per_sec": 100}
        ):
            for n in range(40):
                began = time.monotonic()
                sequence = outbox.append([Record(40_000 + n)])
                await eventually(lambda sequence=sequence: sequence in store.records, 5)
                ages.append(time.monotonic() - began)
                await asyncio.sleep(0.02)
            assert len(store.records) < 40_000, "the backlog was still draining"
    assert sorted(ages)[37] < 2.0


async def test_nothing_is_lost_when_the_broker_is_killed_and_comes_back(mosquitto, outbox):
    with Store(mosquitto.port) as store:
        async with forwarding(outbox, mosquitto.port, receipt_timeout_secs=1.0) as forwarder:
            for n in range(600):
                outbox.append([Record(n)])
                if n in (200, 400):
                    mosquitto.kill()
                if n in (250, 450):
                    mosquitto.start()
                await asyncio.sleep(0.004)
            await eventually(lambda: waiting(outbox) == 0, 15)
            assert forwarder.uplink.reconnects >= 2
    assert store.counts == list(range(600))


async def test_a_puback_is_not_storage(outbox):
    """The broker has acknowledged all and forgets all when it is killed; the store was away meanwhile."""
    with Mosquitto(persistence=False) as forgetful:
        async with forwarding(outbox, forgetful.port, receipt_timeout_secs=1.0) as forwarder:
            outbox.append([Record(n) for n in range(500)])
            await eventually(
                lambda: forwarder.counters.live_records + forwarder.counters.backlog_records_sent >= 500
            )
            forgetful.kill()
            assert waiting(outbox) == 500
            forgetful.start()
            with Store(forgetful.port) as store:
                await eventually(lambda: waiting(outbox) == 0, 20)
    assert store.counts == list(range(500))


async def test_a_backlog_beyond_what_a_client_could_queue_arrives_whole(mosquitto, outbox):
    outbox.append([Record(n) for n in range(70_000)])
    with Store(mosquitto.port) as store:
        async with forwarding(outbox, mosquitto.port):
            await eventually(lambda: waiting(outbox) == 0, 40)
    assert len(store.records) == 70_000


async def test_a_broker_that_comes_back_is_used_again_soon(mosquitto, outbox):
    with Store(mosquitto.port) as store:
        async with forwarding(outbox, mosquitto.port):
            outbox.append([Record(0)])
            await eventually(lambda: store.records)
            mosquitto.kill()
            await asyncio.sleep(3)
            mosquitto.start()
            began = time.monotonic()
            while len(store.records) == 1:  # one that comes before the store listens is sent again much later
                outbox.append([Record(1)])
                await asyncio.sleep(0.1)
                assert time.monotonic() - began < PATIENCE * 5


async def test_a_silent_broker_is_noticed(mosquitto, outbox):
    async with forwarding(outbox, mosquitto.port, broker={"keepalive_secs": 4}) as forwarder:
        await eventually(lambda: forwarder.uplink.connected)
        mosquitto.freeze()
        began = time.monotonic()
        while forwarder.uplink.connected:
            outbox.append([Record(0)])
            await asyncio.sleep(0.1)
            assert time.monotonic() - began < PATIENCE * 10
        mosquitto.thaw()
        await eventually(lambda: forwarder.uplink.connected)


async def test_a_silent_store_gets_no_flood(mosquitto, outbox):
    outbox.append([Record(n) for n in range(30_000)])
    with Store(mosquitto.port, receipts=False) as store:
        async with forwarding(outbox, mosquitto.port, receipt_timeout_secs=0.4) as forwarder:
            await eventually(lambda: forwarder.store_silent)
            await asyncio.sleep(0.5)
            before = forwarder.counters.messages
            await asyncio.sleep(2)
            assert forwarder.counters.messages - before <= 4
            assert waiting(outbox) == 30_000
            store.receipts = True
            outbox.append([Record(30_000)])
            await eventually(lambda: waiting(outbox) == 0, 20)
    assert store.counts == list(range(30_001))


async def test_a_malformed_receipt_is_counted_and_the_session_lives_on(mosquitto, outbox):
    with Store(mosquitto.port) as store:
        async with forwarding(outbox, mosquitto.port) as forwarder:
            await eventually(lambda: forwarder.uplink.connected)
            for payload in (
                b"",
                b"\xff",
                b"[" * 9000,
                b'{"stored_through": "all"}',
                b'{"stored_through": -1}',
            ):
                store.publish(RECEIPT_TOPIC, payload)
            await eventually(lambda: forwarder.counters.malformed_receipts == 5)
            outbox.append([Record(1)])
            await eventually(lambda: waiting(outbox) == 0)
            assert forwarder.uplink.reconnects == 0


async def test_receipts_for_sequences_never_given_push_the_outbox_above_them(mosquitto, outbox):
    outbox.append([Record(0)])
    with Store(mosquitto.port) as store:
        store.publish(RECEIPT_TOPIC, f'{{"stored_through": {START_US + 1000}}}'.encode(), retain=True)
        async with forwarding(outbox, mosquitto.port):
            await eventually(lambda: outbox.next_sequence > START_US + 1000)
            outbox.append([Record(1)])
            await eventually(lambda: store.counts == [0, 1])


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_record_too_large_for_the_broker_is_set_aside_and_the_rest_arrives(tmp_path, outbox, version):
    """MQTT 5 brokers tell their limit; a 3.1.1 broker hangs up each time, so the culprit has to be found."""
    with Mosquitto(settings=["max_packet_size 20000"]) as small, Store(small.port) as store:
        for n in range(10):
            outbox.append([Record(n)])
        poison = outbox.append([Blob(50_000)])
        for n in range(10, 20):
            outbox.append([Record(n)])
        async with forwarding(outbox, small.port, broker={"version": version}) as forwarder:
            await eventually(lambda: waiting(outbox) == 0, 20)
            assert forwarder.counters.quarantined_records == 1
    assert store.counts == list(range(20))
    assert poison not in store.records
    assert outbox.statistics().quarantined == 1


async def test_poison_inside_a_backlog_is_found_and_set_aside(outbox):
    with Mosquitto(settings=["max_packet_size 20000"]) as small, Store(small.port) as store:
        outbox.append([Record(n) for n in range(100)])
        outbox.append([Blob(30_000)])
        outbox.append([Record(n) for n in range(100, 600)])
        async with forwarding(outbox, small.port, broker={"version": "3.1.1", "max_message_bytes": 60_000}):
            await eventually(lambda: waiting(outbox) == 0, 40)
    assert store.counts == list(range(600))
    assert outbox.statistics().quarantined == 1


async def test_a_publish_that_the_broker_forbids_is_kept_and_said(outbox):
    acl = (
        f"user edge\ntopic readwrite oee/v1/{SITE}/gateways/#\nuser store\ntopic readwrite oee/v1/{SITE}/#\n"
    )
    with Mosquitto(users={"edge": "one", "store": "two"}, acl=acl) as guarded:
        login = {"username": "edge", "password": "one", "version": "5"}
        async with forwarding(outbox, guarded.port, broker=login) as forwarder:
            outbox.append([Record(1)])
            await eventually(lambda: forwarder.counters.refused_messages == 1)
            assert waiting(outbox) == 1
            assert forwarder.counters.live_records == 0


async def test_a_publish_that_a_3_1_1_broker_swallows_is_kept(outbox):
    """Version 3.1.1 has no word for a refusal: the PUBACK looks like success, the receipt does not come."""
    acl = f"user edge\ntopic readwrite oee/v1/{SITE}/gateways/edge/status\n"
    with Mosquitto(users={"edge": "one"}, acl=acl) as guarded:
        login = {"username": "edge", "password": "one", "version": "3.1.1"}
        async with forwarding(outbox, guarded.port, broker=login, receipt_timeout_secs=0.5) as forwarder:
            outbox.append([Record(1)])
            await eventually(lambda: forwarder.store_silent)
            assert waiting(outbox) == 1


async def test_a_broker_that_refuses_everything_loses_nothing(outbox):
    """A wrong policy must not send record after record into quarantine; once it is right, all arrive."""
    deaf = f"user edge\ntopic read #\ntopic readwrite oee/v1/{SITE}/gateways/edge/status\n"
    fine = f"user edge\ntopic readwrite oee/v1/{SITE}/#\n"
    store_may = f"user store\ntopic readwrite oee/v1/{SITE}/#\n"
    with Mosquitto(users={"edge": "one", "store": "two"}, acl=deaf + store_may) as guarded:
        login = {"username": "edge", "password": "one", "version": "5"}
        outbox.append([Record(n) for n in range(300)])
        with Store(guarded.port, login=("store", "two")) as store:
            async with forwarding(outbox, guarded.port, broker=login, hold_off_secs=0.5) as forwarder:
                await eventually(lambda: forwarder.counters.refused_messages > 20, 20)
                assert outbox.statistics().quarantined == 0
                assert waiting(outbox) == 300
                (guarded.folder / "acl").write_text(fine + store_may)
                os.kill(guarded.pid, signal.SIGHUP)
                await eventually(lambda: waiting(outbox) == 0, 20)
        assert store.counts == list(range(300))


async def test_the_will_says_offline_when_the_gateway_dies_and_a_goodbye_when_it_ends(mosquitto, outbox):
    with Store(mosquitto.port) as store:
        async with forwarding(outbox, mosquitto.port):
            await eventually(lambda: any(status["online"] for status in store.statuses))
        await eventually(lambda: store.statuses[-1] == {"online": False})


async def test_an_idle_forwarder_does_nothing(mosquitto, outbox):
    async with forwarding(outbox, mosquitto.port) as forwarder:
        await eventually(lambda: forwarder.uplink.connected)
        await asyncio.sleep(0.3)
        rounds = 0
        pump = forwarder._pump

        def counted(now):
            nonlocal rounds
            rounds += 1
            return pump(now)

        forwarder._pump = counted
        began = time.process_time()
        await asyncio.sleep(2)
        assert rounds <= 3
        assert time.process_time() - began < PATIENCE * 0.1
