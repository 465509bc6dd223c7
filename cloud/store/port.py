"""What the service asks of a store of records, figures and alerts."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from cloud.store.rows import Draft, Names, Rows, Table
from cloud.views import AlertView, ChannelView, MuteView, Revision
from contract.delivery import Gap, Receipt, Status
from contract.machine_key import MachineKey
from contract.telemetry import Telemetry

Gateway = tuple[str, str]
"""(site, gateway)"""


class DeadLetter(NamedTuple):
    """What was refused, whole."""

    received_us: int
    topic: str
    """Where it arrived; for a file its name and line."""
    reason: str
    payload: bytes
    key: str | None = None
    """One that is kept already under the same key is not kept again."""


class Arrivals(NamedTuple):
    """What one batch brought."""

    records: Sequence[Telemetry] = ()
    gaps: Sequence[Gap] = ()
    dead_letters: Sequence[DeadLetter] = ()
    drafts: Sequence[Draft] = ()
    """Further records, as columns already."""


class Appended(NamedTuple):
    """What a batch changed, once it is on disk."""

    fresh: Rows
    """The rows that were not stored before, by machine and time."""
    repeated: int
    """Records that were stored already, or stood twice in the batch."""
    receipts: Mapping[Gateway, Receipt]
    """What to tell each gateway that had a record in the batch."""


class Dirty(NamedTuple):
    """Records arrived for an hour of a machine that lies before the running shift."""

    machine: int
    hour: int
    """Whole hours since 1970 UTC."""
    mark: int
    """Grows with every change of that hour."""
    why: str | None = None
    """What else than late records is the cause, such as a correction."""


class AfterLock(NamedTuple):
    """Records of a time that was locked when they arrived: they are kept, and in no figure."""

    records: int
    first_us: int
    """When the first of them arrived, and the last."""
    last_us: int


class StoredGateway(NamedTuple):
    """What the store knows of one gateway."""

    gateway: Gateway
    status: Status | None
    received_us: int | None
    """When the status came."""
    receipt: Receipt


class ClosedShift(NamedTuple):
    """One revision of the figures of one closed shift of a machine or line."""

    scope: str
    """`site/area/line/machine` or `site/area/line`."""
    start_us: int
    end_us: int
    revision: Revision


class LoggedShift(NamedTuple):
    """A revision of a closed shift, and where it stands in the order in which revisions were made."""

    position: int
    """Ascending, never used again."""
    shift: ClosedShift


class Event(NamedTuple):
    """A message that must reach the broker, such as a change of an alert."""

    id: int
    topic: str
    payload: bytes


class Delivery(NamedTuple):
    """A message that a channel has not taken yet."""

    id: int
    channel: str
    payload: bytes


class Errand(NamedTuple):
    """What somebody asks of the running service from beside it, such as to acknowledge an alert."""

    id: int
    body: bytes


class JobRun(NamedTuple):
    """The last run of a job."""

    name: str
    started_us: int
    took_us: int
    runs: int
    failures: int
    result: str
    """What it did last, '' when it never found anything to do."""
    error: str
    """Why its last run failed, '' when it did not."""


class Store(Protocol):
    """Durable when a call returns; safe to call from several threads.

    Every method raises StoreError when the store cannot be read or written; nothing of the call is then kept.
    """

    names: Names
    live_from_us: dict[int, int]
    """By machine: records from this instant on leave no dirty mark, since the live figures see them."""

    def append(self, arrivals: Arrivals) -> Appended:
        """Keep a batch in one transaction; a record whose (gateway, sequence) is stored changes nothing."""

    def read(self, machines: Iterable[int], from_us: int, to_us: int) -> Rows:
        """Return the rows of [from_us, to_us) in order."""

    def read_before(self, machines: Iterable[int], at_us: int) -> Rows:
        """Return each machine's rows before an instant, back to its last reading of every counter.

        Of the counters that the last hour with any tells. Of a machine that never counted, all rows, or once
        that is known the last ones.
        """

    def read_after(self, machines: Iterable[int], at_us: int) -> Rows:
        """Return each machine's rows from an instant on, up to the first one that has a counter."""

    def read_table(self, machines: Iterable[int], from_us: int, to_us: int) -> Table:
        """Return the rows of [from_us, to_us) in order, with all that they hold beyond their columns."""

    def extent(self, machine: int) -> tuple[int, int] | None:
        """Return the time of the first and the last record, None when there is none."""

    def next_time(self, machine: int, after_us: int) -> int | None:
        """Return the time of the first record after an instant."""

    def compact(self, before_us: int, limit: int) -> int:
        """Join the small pieces of at most `limit` hours that end before an instant; return how many were."""

    def set_status(self, status: Status, received_us: int) -> Receipt:
        """Keep what a gateway said of itself; return what it is to be told."""

    def gateways(self) -> list[StoredGateway]:
        """Return all gateways that ever said anything."""

    def dead_letter_count(self) -> int:
        """Return how many dead letters are kept."""

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters, newest first."""

    def forget_dead_letters(self, keep: int) -> int:
        """Drop the oldest dead letters beyond a number; return how many were."""

    def dirty(self) -> list[Dirty]:
        """Return all dirty hours."""

    def clean(self, hours: Iterable[Dirty]) -> None:
        """Take back marks, but none that was set anew since."""

    def changes(self) -> dict[int, int]:
        """Return by machine how often its past was changed; what is being written now is waited for."""

    def save_closed(self, shifts: Sequence[ClosedShift], cleaned: Iterable[Dirty] = ()) -> None:
        """Keep revisions and take back the marks that led to them, in one transaction."""

    def closed(self, scope: str, start_us: int) -> list[Revision]:
        """Return all revisions of one closed shift, oldest first."""

    def closed_between(self, scope: str, from_us: int, to_us: int) -> list[ClosedShift]:
        """Return the newest revision of each closed shift that starts in [from_us, to_us), in order."""

    def lock(self, machine: int, before_us: int | None, now_us: int) -> int:
        """Keep apart what arrives from now on of a machine's time before an instant; None: nothing.

        Of what was kept apart, that from the instant on counts again, as if it arrived now; return how much.

        now_us: what is said to be the moment at which records arrive, until this is called again
        """

    def after_lock(self, machines: Iterable[int], from_us: int, to_us: int) -> AfterLock | None:
        """Return what is kept apart of [from_us, to_us); None when nothing is."""

    def closed_span(self, scope: str) -> tuple[int, int] | None:
        """Return the beginning of the first and the end of the last closed shift."""

    def closed_after(self, position: int, limit: int) -> list[LoggedShift]:
        """Return revisions in the order in which they were made, beyond a position; 0 is before the first."""

    def closed_end(self) -> int:
        """Return the position of the last revision, 0 when there is none."""

    def revisions_between(self, scopes: Iterable[str], from_us: int, to_us: int) -> int:
        """Return how many revisions there are of the shifts that start in [from_us, to_us) of some scopes."""

    def note(self, name: str) -> bytes | None:
        """Return what a part of the service wants to know after a restart; None when it never said so."""

    def set_note(self, name: str, body: bytes) -> None:
        """Keep what a part of the service wants to know after a restart."""

    def save_alert(
        self, alert: AlertView, topic: str, event: bytes | None, channels: Iterable[str] = ()
    ) -> None:
        """Keep an alert as it is now, and the event that told of the change, in one transaction.

        event: None for a change that nobody is told of
        channels: names of those that are to be told of the event, each with a queue of its own
        """

    def queue_delivery(self, alert: AlertView, event: bytes, channels: Iterable[str]) -> None:
        """Keep an alert as it is now, and queue a message for some channels alone, in one transaction."""

    def alerts(self, *, open_only: bool, limit: int) -> list[AlertView]:
        """Return alerts, newest first."""

    def events(self, limit: int) -> list[Event]:
        """Return events that have not reached the broker, oldest first."""

    def event_sent(self, event: int) -> None:
        """Note that an event has reached the broker."""

    def queue_deliveries(self, channels: Iterable[str], payload: bytes, note: str, body: bytes) -> None:
        """Keep a message for some channels and a note that it was made, in one transaction."""

    def deliveries(self, channel: str, limit: int, after: int = 0) -> list[Delivery]:
        """Return what a channel has not taken yet, oldest first; after: only those behind a delivery."""

    def delivery_count(self, channel: str) -> int:
        """Return how many messages a channel has not taken yet."""

    def delivery_done(self, delivery: int) -> None:
        """Note that a channel has taken a message, or never will."""

    def forget_deliveries(self, channels: Iterable[str], kind: str = "") -> int:
        """Drop what waits for any channel of a kind but these, which are all there are; return how many were.

        kind: what stands before the colon in the channel's name; '' for names without one
        """

    def add_mute(self, mute: MuteView) -> MuteView:
        """Keep a new mute and return it with its number."""

    def lift_mute(self, mute: int, by: str, at_us: int) -> MuteView | None:
        """End a mute that is in force; return it, or None when there is none of that number."""

    def mutes(self, since_us: int) -> list[MuteView]:
        """Return the mutes that end, or ended, after an instant, oldest first."""

    def add_errand(self, body: bytes) -> None:
        """Ask something of the running service."""

    def errands(self) -> list[Errand]:
        """Return what is asked of the service, oldest first."""

    def errand_done(self, errand: int) -> None:
        """Note that the service has done what was asked."""

    def save_channel(self, channel: ChannelView) -> None:
        """Keep what a channel has done."""

    def channels(self) -> list[ChannelView]:
        """Return what channels have done, by name."""

    def add_correction(
        self, text: bytes, machine: MachineKey, hours: Iterable[int], why: str, *, after: int
    ) -> int | None:
        """Keep a correction for good, with marks on the hours whose figures it changes; return its number.

        after: the number of the last one that it was judged beside; None is returned, and nothing kept, when
            there is another one by now
        """

    def corrections(self, after: int = 0) -> list[tuple[int, bytes]]:
        """Return all corrections beyond a number with their numbers, oldest first."""

    def job_runs(self) -> list[JobRun]:
        """Return the last run of each job, by name."""

    def save_job_run(self, run: JobRun) -> None:
        """Keep the last run of a job."""

    def back_up(self, target: Path) -> None:
        """Write a consistent copy of everything but the history to a new file."""

    def close(self) -> None:
        """Give the store back; it can be opened again."""
