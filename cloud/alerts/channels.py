"""Carries alerts to people: one courier for each channel, with an outbox of its own in the store.

What was sent twice, after a crash at the wrong moment, has one key: a FIFO topic of SNS drops it by that,
receivers of mails and webhooks may.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, tzinfo
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import structlog

from cloud.alerts import quiet
from cloud.alerts.config import ChannelTable, is_plain
from cloud.carrier import Carrier, Running
from cloud.errors import NotificationError
from cloud.postbox import Postbox, key_of
from cloud.store.port import Delivery, Store
from cloud.views import ChannelView
from contract.delivery import Alert

_AT_ONCE: Final = 50
_MOST_FOLDED: Final = 10_000
_MOST_OPEN: Final = 100_000
_TIMEOUT_SECS: Final = 5
_SUBJECT_CHARACTERS: Final = 100
_ATTRIBUTES: Final = (
    *("site", "area", "line", "machine", "gateway", "connection"),
    *("place", "rule", "kind", "event"),
)
"""What SNS subscriptions may filter by, beside the level. No alert has more than ten: SQS takes no more."""


_log = structlog.get_logger("cloud.alerts.channels")


class Door(Protocol):
    """Where a channel's messages go out."""

    def send(self, alert: Alert, title: str, body: str) -> None:
        """Send one message; raise NotificationError when it was not taken. Blocks for seconds at most."""


class AppriseDoor:
    """Mail, chat, SMS, webhook: whatever the URL names."""

    def __init__(self, channel: ChannelTable) -> None:
        self._name = channel.name
        self._postbox = Postbox(channel.name, channel.secret_url(), allow_insecure=channel.allow_insecure)

    def send(self, alert: Alert, title: str, body: str) -> None:
        """Send one message; raise NotificationError when it was not taken."""
        self._postbox.send(
            title,
            body,
            key=key_of(self._name, msgspec.json.encode(alert)),
            tone="good" if alert.event == "cleared" else "warning",
        )


class SnsDoor:
    """An AWS SNS topic; credentials are found as all AWS tools find them."""

    def __init__(self, channel: ChannelTable) -> None:
        import boto3
        import botocore.config
        import botocore.exceptions

        assert channel.topic_arn is not None
        self._name = channel.name
        self._topic = channel.topic_arn
        if (url := channel.endpoint_url) is not None and is_plain(url):
            _log.warning("messages go to another machine in plain text", to=channel.name)
        self._errors = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError)
        try:
            self._client: Any = boto3.client(
                "sns",
                region_name=channel.region or channel.topic_arn.split(":")[3],
                endpoint_url=channel.endpoint_url,
                config=botocore.config.Config(
                    connect_timeout=_TIMEOUT_SECS,
                    read_timeout=_TIMEOUT_SECS,
                    retries={"total_max_attempts": 1},
                ),
            )
        except (*self._errors, ValueError) as error:
            raise NotificationError(f"{channel.name}: {error}") from error

    def send(self, alert: Alert, title: str, body: str) -> None:
        """Publish one message; raise NotificationError when it was not taken."""
        attributes = {
            key: {"DataType": "String", "StringValue": said}
            for key in _ATTRIBUTES
            if isinstance(said := getattr(alert, key), str) and said
        }
        attributes["level"] = {"DataType": "Number", "StringValue": str(alert.level)}
        once: dict[str, str] = {}
        if self._topic.endswith(".fifo"):
            once = {
                "MessageGroupId": hashlib.sha256(alert.id.encode()).hexdigest(),
                "MessageDeduplicationId": hashlib.sha256(msgspec.json.encode(alert)).hexdigest(),
            }
        try:
            self._client.publish(
                TopicArn=self._topic,
                Subject=_subject(title),
                Message=body,
                MessageAttributes=attributes,
                **once,
            )
        except self._errors as error:
            raise NotificationError(f"{self._name}: {error}") from error


def open_door(channel: ChannelTable) -> Door:
    """Return where a channel's messages go out; raise NotificationError when there is no such place."""
    return SnsDoor(channel) if channel.kind == "sns" else AppriseDoor(channel)


class Parcel(NamedTuple):
    """What is told together."""

    deliveries: Sequence[Delivery]
    is_past: bool = False
    """Whether it came and went in quiet hours."""


class Courier(Carrier[Parcel]):
    """Empties the outbox of one channel: one by one, and what came and went in quiet hours together."""

    def __init__(
        self,
        channel: ChannelTable,
        store: Store,
        *,
        now_us: Callable[[], int],
        timezone_of: Callable[[str], tzinfo] = lambda _: UTC,
        opener: Callable[[ChannelTable], Door] = open_door,
    ) -> None:
        """Make the courier.

        timezone_of: the time zone of a site
        """
        super().__init__(
            channel.name, store, kind=channel.kind, retry_max_secs=channel.retry_max_secs, now_us=now_us
        )
        self.channel = channel
        self._timezone_of = timezone_of
        self._opener = opener
        self._door: Door | None = None

    def backlog(self) -> int:
        """Return how many messages wait."""
        return self._store.delivery_count(self.name)

    def oldest_epochtime(self) -> float | None:
        """Return of when the oldest message is that waits."""
        return oldest_epochtime(self._store, self.name)

    def reopen(self) -> None:
        """Read the channel's URL anew next time."""
        self._door = None

    def waiting(self) -> Sequence[Parcel]:
        """Return what the channel has not taken yet and may be told now."""
        after = 0
        while found := self._store.deliveries(self.channel.name, _AT_ONCE, after):
            if may_be_told := [each for each in found if not self._is_held(each)]:
                return self._folded(may_be_told)
            after = found[-1].id
        return []

    def done(self, item: Parcel) -> None:
        """Note that the channel has taken some messages, or never will."""
        for delivery in item.deliveries:
            self._store.delivery_done(delivery.id)

    def carry(self, item: Parcel) -> bool:
        """Send or drop one message, or sum up several that came and went in quiet hours."""
        alerts = [_alert_of(delivery) for delivery in item.deliveries]
        alert = alerts[0]
        if item.is_past:
            folded = quiet.summary(alerts, self.channel.zone(self._timezone_of(alert.site)))
            if folded is not None and self.channel.quiet_summary:
                title, told = folded
                self._send_by_door(told, title, told.message)
            else:
                _log.info("came and went in quiet hours", channel=self.name, messages=len(alerts))
            return True
        if self._now_us() / 1e6 - alert.epochtime > self.channel.max_age_secs:
            self._note_dropped("too old to be told", alert.id)
            return True
        self._send_by_door(alert, *self.channel.words(alert, self._timezone_of(alert.site)))
        return True

    def _send_by_door(self, alert: Alert, title: str, body: str) -> None:
        if self._door is None:
            self._door = self._opener(self.channel)
        self._door.send(alert, title, body)
        self._note_sent()

    def _folded(self, waiting: Sequence[Delivery]) -> list[Parcel]:
        """Return messages one by one; those of alerts that came and went in quiet hours in one parcel."""
        if not self._came_and_went([_alert_of(each) for each in waiting]):
            return [Parcel([each]) for each in waiting]
        every = self._store.deliveries(self.channel.name, _MOST_FOLDED)  # others, and ends, are further back
        ids = self._came_and_went([_alert_of(each) for each in every])
        together = [each for each in every if _alert_of(each).id in ids]
        rest = [Parcel([each]) for each in waiting if _alert_of(each).id not in ids]
        return [Parcel(together, is_past=True), *rest]

    def _came_and_went(self, alerts: Sequence[Alert]) -> set[str]:
        """Return of which alerts nobody was told because of quiet hours, which are over by now."""
        held = [alert for alert in alerts if self._was_held(alert)]
        if not held:
            return set()
        return quiet.over(held, {alert.id for alert in self._store.alerts(open_only=True, limit=_MOST_OPEN)})

    def _is_held(self, item: Delivery) -> bool:
        """Tell whether a message waits for the end of quiet hours."""
        alert = _alert_of(item)
        now_us = self._now_us()
        is_old = now_us / 1e6 - alert.epochtime > self.channel.max_age_secs
        return not is_old and self._is_calm(alert, now_us)

    def _was_held(self, alert: Alert) -> bool:
        """Tell whether a message came up in quiet hours."""
        return self._is_calm(alert, round(alert.epochtime * 1e6))

    def _is_calm(self, alert: Alert, at_us: int) -> bool:
        is_low = alert.level < self.channel.quiet_below_level
        return is_low and self.channel.is_quiet(at_us, self._timezone_of(alert.site))


class Couriers:
    """One courier for each channel of alerts.toml, whichever these are by now."""

    def __init__(
        self, store: Store, *, now_us: Callable[[], int], timezone_of: Callable[[str], tzinfo] = lambda _: UTC
    ) -> None:
        self._store = store
        self._now_us = now_us
        self._timezone_of = timezone_of
        self._couriers: dict[str, Courier] = {}
        self._running = Running()
        self._loop: asyncio.AbstractEventLoop | None = None

    def views(self) -> list[ChannelView]:
        """Return the channels with their outboxes."""
        return [courier.view for courier in list(self._couriers.values())]

    def wake(self) -> None:
        """Let all look at once, from any thread: something was queued."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            for courier in list(self._couriers.values()):
                loop.call_soon_threadsafe(courier.wake)

    def take(self, channels: Iterable[ChannelTable], group: asyncio.TaskGroup) -> None:
        """Serve these channels from now on; what waits for others is dropped. In the loop's thread."""
        self._loop = asyncio.get_running_loop()
        wanted = {channel.name: channel for channel in channels}
        if forgotten := self._store.forget_deliveries(wanted):
            _log.warning("channels are gone, and what waited for them", messages=forgotten)
        self._couriers = {
            name: known
            if (known := self._couriers.get(name)) is not None and known.channel == channel
            else Courier(channel, self._store, now_us=self._now_us, timezone_of=self._timezone_of)
            for name, channel in wanted.items()
        }
        self._running.serve(self._couriers.values(), group)


def oldest_epochtime(store: Store, channel: str) -> float | None:
    """Return of when the oldest message is that waits for a channel; None when none does."""
    first = store.deliveries(channel, 1)
    return msgspec.json.decode(first[0].payload, type=Alert).epochtime if first else None


def _alert_of(delivery: Delivery) -> Alert:
    return msgspec.json.decode(delivery.payload, type=Alert)


def _subject(title: str) -> str:
    """Return a title as SNS allows it: ASCII, one line, nothing that cannot be printed."""
    ascii_only = title.encode("ascii", "replace").decode()
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in ascii_only).split())
    return text[:_SUBJECT_CHARACTERS] or "alert"
