"""What the client libraries do that would lose, double or forge values; what is done about it; what shows it.

`python -m tests.traps [WORD]` takes each remedy away in a copy of the tree and runs its test, which must fail
then. docs/traps.md is made of the same rows (`python -m tests.traps --page`).
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Trap:
    """One trap.

    does: what the library does
    remedy: what the product does about it
    file, has, without: where the remedy stands, its text there, and that place as it would be without it
    test: file::name of a test, in pytest's words, that fails without the remedy
    """

    library: str
    does: str
    remedy: str
    file: str
    has: str
    without: str
    test: str


_RESILIENCE: Final = "tests/integration/test_opcua_resilience.py"
_READING: Final = "tests/integration/test_opcua_reading.py"
_FOREIGN: Final = "tests/integration/test_opcua_foreign.py"
_SECURITY: Final = "tests/integration/test_opcua_security.py"
_COMMANDS: Final = "tests/integration/test_opcua_commands.py"
_FORWARD: Final = "tests/integration/test_gateway_forward.py"
_CLOUD_BROKER: Final = "tests/integration/test_cloud_broker.py"
_SIMULATOR: Final = "tests/unit/simulator/test_server.py"
_PORT: Final = "tests/ports/test_uplink_port.py"
_SUBSCRIPTION: Final = "gateway/sources/subscription.py"
_REQUESTS: Final = "gateway/sources/publish_requests.py"
_RECONCILER: Final = "gateway/sources/reconciler.py"
_SESSION: Final = "gateway/sources/session.py"
_SOURCE: Final = "gateway/sources/opcua.py"
_MQTT: Final = "gateway/uplinks/mqtt.py"
_UPLINK: Final = "gateway/uplinks/sessions.py"
_FORWARDER: Final = "gateway/forward.py"
_READER: Final = "cloud/ingest/mqtt.py"

TRAPS: Final = (
    Trap(
        "asyncua",
        "Its reconnecting asks for lost messages for ever: a server may answer with an empty message.",
        "An empty answer means that the message is gone.",
        _SUBSCRIPTION,
        "if int(message.SequenceNumber) != sequence or not message.NotificationData:",
        "if message is None:",
        f"{_RESILIENCE}::test_a_message_that_is_gone_becomes_a_gap_and_no_endless_asking",
    ),
    Trap(
        "asyncua",
        'After a second short loss its client is "connected" and no values come.',
        "A new client for each connection, which takes session and subscription over.",
        _SOURCE,
        "            self._saved = subscription.saved\n",
        "            self._saved = None\n",
        f"{_RESILIENCE}::test_a_cut_connection_loses_nothing",
    ),
    Trap(
        "asyncua",
        "Tags whose nodes are not there yet when it connects are given up after a line in the log.",
        "Wanted tags are compared with live ones for ever.",
        _RECONCILER,
        "if item.item_id is None and item.retry_at <= now]",
        "if item.item_id is None and not item.failures]",
        f"{_RESILIENCE}::test_nodes_that_appear_after_the_port_are_read_when_they_come",
    ),
    Trap(
        "asyncua",
        "More tags than the server takes in one call raise: nothing is divided.",
        "Calls are divided by the server's limits, and halved when it refuses one as too large.",
        _SESSION,
        "part = wanted[len(found) : len(found) + self.chunk[kind]]",
        "part = wanted[len(found) :]",
        f"{_RESILIENCE}::test_a_server_that_takes_five_at_once_is_asked_in_fives",
    ),
    Trap(
        "asyncua",
        "A subscription that the server has dropped is missed after 675 s.",
        "A server that publishes nothing for a few seconds is asked, and the subscription made anew.",
        _REQUESTS,
        "                await self._ask_why_silent()\n",
        "                pass\n",
        f"{_RESILIENCE}::test_a_dropped_subscription_is_made_anew",
    ),
    Trap(
        "asyncua",
        "It waits up to 30 s before it connects again.",
        "2 s at most, varied by chance.",
        _SOURCE,
        "ceiling = min(cap_secs, _FIRST_DELAY_SECS * 2 ** min(failures, 30))",
        "ceiling = 60.0",
        f"{_RESILIENCE}::test_restarted_plc_is_read_again_soon_and_the_gap_is_told",
    ),
    Trap(
        "asyncua",
        "Its queues, and those that servers make unless told, drop the oldest values without a word.",
        "Each tag's queue is asked for in the size that it needs.",
        _RECONCILER,
        "RequestedParameters.QueueSize = ua.UInt32(binding.queue_size)",
        "RequestedParameters.QueueSize = ua.UInt32(1)",
        f"{_READING}::test_every_state_change_is_recorded_at_its_source_time",
    ),
    Trap(
        "asyncua",
        "A value that was dropped for a full queue shows only as a bit of the next one's status.",
        "The bit becomes a gap.",
        _SUBSCRIPTION,
        "            overflowed=frozenset(found.overflowed),\n",
        "",
        f"{_RESILIENCE}::test_an_overflowed_queue_becomes_a_gap",
    ),
    Trap(
        "asyncua",
        "It acknowledges a message after the callback, also when that raised.",
        "A message is acknowledged when its values are on disk, and not before.",
        _SUBSCRIPTION,
        "                await asyncio.sleep(_OUTBOX_RETRY_SECS)\n",
        "                break\n",
        f"{_RESILIENCE}::test_nothing_is_acknowledged_before_it_is_on_disk",
    ),
    Trap(
        "asyncua",
        "A handler that is a coroutine gets a task for each value: they pile up and overtake each other.",
        "No task for a value or a message: one message after the other is taken, to its end.",
        _SUBSCRIPTION,
        "            await self._commit(gathered, self.next_sequence)\n",
        "            asyncio.ensure_future(self._commit(gathered, self.next_sequence))\n",
        f"{_RESILIENCE}::test_nothing_is_acknowledged_before_it_is_on_disk",
    ),
    Trap(
        "asyncua",
        "A message that was lost on the way is not missed.",
        "Sequence numbers are followed; what is missing is asked for again.",
        _SUBSCRIPTION,
        "if not missed or missed >= _SEQUENCES // 2:",
        "if missed >= 0:",
        f"{_RESILIENCE}::test_a_lost_message_is_asked_for_again",
    ),
    Trap(
        "asyncua",
        "What a killed client had not acknowledged is lost with it.",
        "Session and subscription are on disk with the values; the next process takes them over.",
        _SOURCE,
        "        self._saved, self._next_sequence = _parse(saved)\n",
        "        self._saved, self._next_sequence = _parse(None)\n",
        f"{_RESILIENCE}::test_a_killed_gateway_goes_on_where_it_was",
    ),
    Trap(
        "asyncua",
        "A session that is gone takes its subscription with it, as far as the client knows.",
        "TransferSubscriptions, then Republish.",
        _SUBSCRIPTION,
        "                transfer.Parameters.SubscriptionIds = [ua.UInt32(saved.subscription)]\n",
        "                transfer.Parameters.SubscriptionIds = [ua.UInt32(0)]\n",
        f"{_FOREIGN}::test_what_a_killed_gateway_had_not_on_disk_is_sent_again",
    ),
    Trap(
        "asyncua",
        "That a value is bad or uncertain stands beside it, where a callback does not look.",
        "The status goes with each value, and lowers the quality of its record.",
        "gateway/tags.py",
        "            if status and status >> 30 and worst == GOOD:\n",
        "            if status and status < 0 and worst == GOOD:\n",
        f"{_RESILIENCE}::test_a_value_that_is_not_good_is_never_counted_as_good",
    ),
    Trap(
        "asyncua",
        "A value may come without a source timestamp.",
        "The server's is taken, else ours, which is marked.",
        _SUBSCRIPTION,
        "unstamped = frozenset(position for position, stamp in enumerate(times) if stamp <= 0)",
        "unstamped: frozenset[int] = frozenset()",
        f"{_RESILIENCE}::test_missing_timestamps_fall_back_to_the_servers_then_to_ours",
    ),
    Trap(
        "asyncua",
        "NaN is told each time, and is no number.",
        "It is no count: the record is uncertain and has none.",
        "gateway/tags.py",
        "not math.isfinite(value):\n        return None, _OUT_OF_RANGE\n    raw",
        "not math.isfinite(value):\n        return 0, 0\n    raw",
        f"{_RESILIENCE}::test_a_value_that_is_not_good_is_never_counted_as_good",
    ),
    Trap(
        "asyncua",
        "A value that stays the same is never told again.",
        "A heartbeat says that it still holds, as long as the server is heard.",
        "gateway/recorder.py",
        "        machine.beat_us = at_us + self._heartbeat_us\n",
        "        machine.beat_us = NEVER\n",
        f"{_READING}::test_quiet_machine_has_heartbeats",
    ),
    Trap(
        "asyncua",
        "Its client trusts any server's certificate.",
        "A trust list that a person fills, looked at before anything is said.",
        _SESSION,
        'server = identity.store.check(endpoint.ServerCertificate or b"", uri, now, host=host)',
        'server = __import__("cryptography.x509").x509.load_der_x509_certificate(endpoint.ServerCertificate)',
        f"{_SECURITY}::test_an_untrusted_plc_is_not_read_until_somebody_trusts_it",
    ),
    Trap(
        "asyncua",
        "Its secure channel is renewed by a watchdog that we do not run.",
        "Our own renews it at three quarters of its life, and uses the new key at once.",
        _SESSION,
        "_RENEW_AT: Final = 0.75\n",
        "_RENEW_AT: Final = 75.0\n",
        f"{_FOREIGN}::test_the_secure_channel_is_renewed_in_time",
    ),
    Trap(
        "asyncua",
        "HistoryRead only throws away what is left of an earlier one, unless told: nothing seems kept.",
        "It is told: what no Republish brings is read from the history, after a restart of the gateway too.",
        "gateway/sources/history.py",
        "request.Parameters.ReleaseContinuationPoints = False",
        "request.Parameters.ReleaseContinuationPoints = True",
        f"{_FOREIGN}::test_a_subscription_that_may_not_be_taken_over_leaves_a_gap_only_without_history[True]",
    ),
    Trap(
        "asyncua",
        "BrowseNext throws away what it has not listed yet, unless told otherwise.",
        "It is told; a server with few continuation points is asked folder by folder.",
        "gateway/sources/addresses.py",
        "following.Parameters.ReleaseContinuationPoints = False",
        "following.Parameters.ReleaseContinuationPoints = True",
        f"{_COMMANDS}::test_thousands_of_tags_are_found_with_few_questions_and_progress",
    ),
    Trap(
        "asyncua",
        "Its server drops the oldest of a full queue and sets no overflow bit, so that nobody sees the loss.",
        "The simulated plant plays no faster than the smallest queue of those who read it.",
        "simulator/server.py",
        "        return min((int(item.queue_size) for item in self._watched.values()), default=1) or 1\n",
        "        return 10_000\n",
        f"{_SIMULATOR}::test_a_client_sees_each_write_of_the_past_with_its_time[7]",
    ),
    Trap(
        "servers",
        "A node that is deleted and made again leaves a dead item behind, or its last status.",
        "All tags are read every few seconds and compared with what was told.",
        _RECONCILER,
        "if self.look_closer.is_set() or (verify_secs and loop.time() >= verify_at):",
        "if not verify_at:",
        f"{_RESILIENCE}::test_a_node_reborn_at_once_is_not_left_dead",
    ),
    Trap(
        "servers",
        "An item whose making was not answered lives on: made again, its values come twice and out of order.",
        "A subscription that goes on is asked for its items; those that we do not know are deleted.",
        _SUBSCRIPTION,
        "if self.live < len(self.items):",
        "if self.live < 0:",
        f"{_FOREIGN}::test_no_tag_is_watched_twice_when_the_answer_to_its_creation_was_lost",
    ),
    Trap(
        "paho",
        "Its queue is memory: what waits in it dies with the process, and beyond 65,535 it drops.",
        "Records wait on disk, and leave it when they have arrived.",
        _FORWARDER,
        "        self._in_flight[parcel.first] = parcel\n",
        "        self._in_flight[parcel.first] = parcel\n        self._deliver(parcel.first, parcel.last)\n",
        f"{_FORWARD}::test_nothing_is_lost_when_the_broker_is_killed_and_comes_back",
    ),
    Trap(
        "paho",
        "A publish without a connection looks like one that was queued.",
        "Without a session a publish fails at once.",
        _UPLINK,
        '            raise UnreachableError("there is no session")\n',
        "            return\n",
        f"{_PORT}::test_publishing_without_a_session_fails_at_once",
    ),
    Trap(
        "MQTT",
        "A PUBACK is not storage: a killed broker forgets what it has acknowledged.",
        "A record is kept until the store's receipt.",
        _FORWARDER,
        '        if self._acknowledge == "store":\n',
        '        if self._acknowledge == "nobody":\n',
        f"{_FORWARD}::test_a_puback_is_not_storage",
    ),
    Trap(
        "MQTT",
        "A publish that the broker's access list forbids looks like success in version 3.1.1.",
        "Without a receipt the record is kept, and said.",
        _FORWARDER,
        '        if self._acknowledge == "store":\n',
        '        if self._acknowledge == "nobody":\n',
        f"{_FORWARD}::test_a_publish_that_a_3_1_1_broker_swallows_is_kept",
    ),
    Trap(
        "MQTT",
        "In version 5 the refusal stands in a reason code that nobody has to read.",
        "It is read; the record is kept and tried again.",
        _MQTT,
        "self._answered(number, refused)",
        "self._answered(number, None)",
        f"{_PORT}::test_a_refused_publish_says_why[mqtt]",
    ),
    Trap(
        "paho",
        "An exception in a callback ends its thread while it says that it is connected.",
        "No thread: the event loop serves the socket, and a fault ends the session, which is made anew.",
        _MQTT,
        '            self._finish(End(f"a packet could not be handled: {error!r}", silent=False))\n',
        "            self._detach()\n            del error\n",
        f"{_PORT}::test_a_listener_that_fails_costs_a_session_at_most[mqtt]",
    ),
    Trap(
        "MQTT",
        "A broker hangs up on a message that is too large, for ever: nothing behind it goes out.",
        "The message that stood alone when the connection broke three times is set aside.",
        _FORWARDER,
        "        if strikes >= _STRIKES:\n",
        "        if strikes < 0:\n",
        f"{_FORWARD}::test_a_record_too_large_for_the_broker_is_set_aside_and_the_rest_arrives[3.1.1]",
    ),
    Trap(
        "paho",
        "It does not subscribe again after a loss.",
        "Each session subscribes before it counts as connected.",
        _MQTT,
        "        if self._subscriptions:\n            self._client.subscribe",
        "        if not self._subscriptions:\n            self._client.subscribe",
        f"{_PORT}::test_a_killed_broker_fails_what_was_in_flight_and_is_found_again[mqtt]",
    ),
    Trap(
        "awscrt",
        "What is published without a connection waits in its memory.",
        "Without a session a publish fails at once, and the record waits on disk.",
        _UPLINK,
        '            raise UnreachableError("there is no session")\n',
        "            answer = asyncio.get_running_loop().create_future()\n"
        "            answer.set_result(None)\n"
        "            return answer\n",
        f"{_PORT}::test_publishing_without_a_session_fails_at_once[aws_iot]",
    ),
    Trap(
        "paho",
        "It acknowledges a message when the callback returns, before anybody has stored it.",
        "The cloud side acknowledges by itself, after its commit; until then the broker keeps the message.",
        _READER,
        "            manual_ack=True,\n",
        "            manual_ack=False,\n",
        f"{_CLOUD_BROKER}::test_a_message_comes_again_until_it_is_acknowledged",
    ),
    Trap(
        "paho",
        "It does not subscribe again at a broker that has forgotten the session.",
        "The cloud side subscribes on each connection.",
        _READER,
        "        client.subscribe(wanted)\n",
        "        if not is_back:\n            client.subscribe(wanted)\n",
        f"{_CLOUD_BROKER}::test_a_broker_that_has_forgotten_the_session_is_asked_again",
    ),
    Trap(
        "paho",
        "An exception in a callback ends the thread that reads, and nobody is told.",
        "The cloud side waits for that thread's end, whatever ends it, and makes the next connection.",
        _READER,
        "            self.ended.set()\n",
        "            pass\n",
        f"{_CLOUD_BROKER}::test_a_fault_in_the_brokers_thread_costs_a_session_and_no_message",
    ),
)
