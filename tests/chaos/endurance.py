"""`python -m tests.chaos.endurance`: much data, many watchers, long outages; what was measured as JSON."""

import argparse
import random
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec
import psutil
from msgspec import Struct
from websockets.sync.client import ClientConnection, connect

from tests.chaos import judgement
from tests.chaos.factory import scenario
from tests.chaos.listener import Listener
from tests.support import judge, kept
from tests.support.kept import US, Stored
from tests.support.whole_system import WholeSystem

IDLE_SOCKETS: Final = 500
SLOW_SOCKETS: Final = 20
_LIVE_SECS: Final = 20.0
_MEBIBYTE: Final = 2**20
_PATIENCE_SECS: Final = 3600.0
_SETTLED_SECS: Final = 12.0
"""So long nothing more has come, when everything has."""
_FIRST_RECORDS: Final = 100
_CLOSING_SECS: Final = 300.0
_WEEK_DAYS: Final = 7.0
_LATE_SECS: Final = 3600.0


class Measured(Struct, frozen=True, kw_only=True):
    """One figure: what it is, what is promised of it, and whether that holds."""

    row: int
    what: str
    found: str
    promised: str
    holds: bool


def slow_watchers(folder: Path, sockets: int) -> Iterator[Measured]:
    """Measure how late records are stored, and the cloud's memory, without and with pages that are left open.

    Some of them ask for the board and never read what comes.
    """
    with _live(folder, history_hours=0.0) as (system, listener):
        alone = _window(_LIVE_SECS)
        memory = _resident(system.cloud.pid)
        opened = [_open(system.web_port, reads=place >= SLOW_SOCKETS) for place in range(sockets)]
        watched = _window(_LIVE_SECS)
        after = _resident(system.cloud.pid)
        for socket in opened:
            socket.socket.close()
        stored = _finished(system)
    before_secs, with_secs = (
        percentile(latencies(stored, listener, *span), 0.95) for span in (alone, watched)
    )
    yield Measured(
        row=17,
        what=f"p95 from PLC to store with {sockets} open pages, {SLOW_SOCKETS} of which read nothing",
        found=f"{with_secs:.2f} s ({before_secs:.2f} s without)",
        promised="2 s",
        holds=with_secs <= 2.0,
    )
    yield Measured(
        row=17,
        what=f"memory of the cloud side for {sockets} open pages",
        found=f"{(after - memory) / _MEBIBYTE:.0f} MiB",
        promised="256 MiB",
        holds=after - memory <= 256 * _MEBIBYTE,
    )


def soak(folder: Path, samples: int) -> Iterator[Measured]:
    """Measure how memory grows while so many samples pass; the first fifth is left to fill caches."""
    with _live(folder, history_hours=samples / _SAMPLES_PER_HOUR, is_live=False) as (system, _):
        seen: list[tuple[int, int, int]] = []
        while not system.is_live():
            health = system.health()
            if health is not None:
                seen.append((health["records"], _resident(system.gateway.pid), _resident(system.cloud.pid)))
            time.sleep(1.0)
        time.sleep(5.0)
        stored = _finished(system)
    moments = judge.read_moments(system.truth_log)
    verdict = judge.judge(moments, stored)
    told = sum(len(moment.changed) for machine in moments.values() for moment in machine)
    settled = [item for item in seen if item[0] >= seen[-1][0] / 5]
    for place, name in ((1, "gateway"), (2, "cloud side")):
        begin = statistics.median(item[place] for item in settled[: max(1, len(settled) // 8)])
        end = statistics.median(item[place] for item in settled[-max(1, len(settled) // 8) :])
        yield Measured(
            row=19,
            what=f"growth of the {name}'s memory over {told:,} samples; the first fifth fills caches",
            found=f"{100 * (end / begin - 1):.1f} %, to {end / _MEBIBYTE:.0f} MiB",
            promised="5 %",
            holds=end <= 1.05 * begin,
        )
    yield Measured(
        row=19,
        what=f"records lost, doubled or invented among {verdict.moments:,} moments",
        found=str(len(verdict.faults)),
        promised="0",
        holds=not verdict.faults,
    )


def outage(folder: Path, hours: float) -> Iterator[Measured]:
    """Measure what comes after so long without a cloud side: live first, the backlog beside it."""
    with _live(folder, history_hours=hours, is_live=False, is_cloud_up=False) as (system, listener):
        system.wait_until(system.is_live, "the outage is played", _PATIENCE_SECS)
        health = system.health()
        assert health is not None
        backlog = health["outbox"]["records"]
        system.cloud.start()
        known = len(listener.receipts)
        system.wait_until(lambda: len(listener.receipts) > known, "the cloud side is back", 300)
        begun = time.time_ns() // 1000
        system.wait_until(lambda: _left(system) < backlog / 20, "the backlog is delivered", _PATIENCE_SECS)
        drained = time.time_ns() // 1000
        stored = _finished(system)
    secs = (drained - begun) / US
    late_secs = percentile(latencies(stored, listener, begun, drained - 2 * US), 0.95)
    verdict = judge.judge(judge.read_moments(system.truth_log), stored)
    rate = backlog / secs
    yield Measured(
        row=18,
        what=f"records of an outage of {hours:g} h delivered per second",
        found=f"{rate:,.0f} ({backlog:,} records in {secs:.0f} s)",
        promised="20 x live",
        holds=rate >= 20 * backlog / (hours * 3600),
    )
    yield Measured(
        row=18,
        what="p95 from PLC to store of what is live meanwhile",
        found=f"{late_secs:.2f} s",
        promised="2 s",
        holds=late_secs <= 2.0,
    )
    yield Measured(
        row=18,
        what="records lost, doubled or invented",
        found=str(len(verdict.faults)),
        promised="0",
        holds=not verdict.faults,
    )


def late(folder: Path, days: float, history_secs: float) -> Iterator[Measured]:
    """Judge what comes so late: most of it once its shifts are closed, then all of it again out of order."""
    built = scenario(1, tick_us=US // 2, lines=1, machines=4)
    simulate = [
        *(sys.executable, "-m", "tests.chaos.factory", "--folder", "{folder}", "--port", "{port}"),
        *("--days-ago", str(days), "--history-secs", str(history_secs)),
    ]
    store = folder / "cloud" / "store.sqlite3"
    with WholeSystem(folder, built, simulate=simulate) as system:
        system.broker.start()
        system.cloud.start()
        system.wait_until(lambda: system.cloud.said("connected to the broker"), "the cloud side listens", 300)
        with closing(Listener(system.broker.port)) as listener:
            system.gateway.start()
            system.simulator.start()
            system.wait_until(lambda: _stored_count(listener) > _FIRST_RECORDS, "a part is stored", 300)
            system.gateway.kill()  # the factory waits for it with the rest
            first = _closed_in_the_end(system, store)
            system.gateway.start()
            system.wait_until(lambda: not system.simulator.is_running, "the past is played", 300)
            system.wait_until(system.is_drained, "the outbox is empty", 300)
            known = _closed_in_the_end(system, store)
            stored = kept.read_store(store)
            for topic, payload in listener.some_messages(random.Random(1), len(listener.messages)):
                listener.publish(topic, payload)
            again = _closed_in_the_end(system, store)
            stored_again = kept.read_store(store)
        system.gateway.stop()
        system.cloud.stop()
    wrong = judgement.closed_shifts(folder, kept.read_closed_shifts(store))
    verdict = judge.judge(judge.read_moments(system.truth_log), stored_again)
    revised = sum(known[shift] > number for shift, number in first.items())
    yield Measured(
        row=10,
        what=f"closed shifts of {days:g} days ago that differ from the truth, once their records came",
        found=f"{len(wrong)} of {len(known)}; {revised} were closed before and revised",
        promised="0, and those that were closed are revised",
        holds=not wrong and revised > 0,
    )
    yield Measured(
        row=10,
        what=f"records lost, doubled or invented among {verdict.moments:,} moments, each message sent again",
        found=f"{len(verdict.faults)}; {len(stored_again) - len(stored)} more records",
        promised="0; 0",
        holds=not verdict.faults and len(stored_again) == len(stored),
    )
    yield Measured(
        row=10,
        what="closed shifts that were revised because of messages that came again",
        found=str(sum(again[shift] != number for shift, number in known.items())),
        promised="0",
        holds=again == known,
    )


def _stored_count(listener: Listener) -> int:
    """Return how many records the receipts say were stored since the first of them."""
    reached = [heard.receipt.stored_through for heard in list(listener.receipts)]
    return max(reached) - reached[0] if reached else 0


def _closed_in_the_end(system: WholeSystem, store: Path) -> dict[tuple[str, int], int]:
    """Return the newest revision of each closed shift, once none has come for a while."""
    found: dict[tuple[str, int], int] = {}
    begun = quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < _SETTLED_SECS:
        assert time.monotonic() - begun < _CLOSING_SECS, "shifts are closed and revised without end"
        time.sleep(0.5)
        assert system.cloud.is_running, system.cloud.tail()
        now = kept.read_revisions(store)
        if now != found or not now:
            found, quiet_since = now, time.monotonic()
    return found


def latencies(stored: Sequence[Stored], listener: Listener, from_us: int, to_us: int) -> list[float]:
    """Return how long after its instant each record between two moments was known to be stored [s]."""
    through: list[tuple[int, int]] = []
    beyond: dict[int, int] = {}
    for heard in listener.receipts:
        reached = heard.receipt.stored_through
        if not through or reached > through[-1][0]:
            through.append((reached, heard.at_us))
        for first, last in heard.receipt.stored_beyond:
            for sequence in range(max(first, last - 2000), last + 1):
                beyond.setdefault(sequence, heard.at_us)
    reaches = [reached for reached, _ in through]
    found = []
    for record in stored:
        if from_us <= record.at_us <= to_us and record.gap_until_us is None:
            place = bisect_left(reaches, record.sequence)
            known = [through[place][1]] if place < len(through) else []
            known += [beyond[record.sequence]] if record.sequence in beyond else []
            if known:
                found.append((min(known) - record.at_us) / US)
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share of all does not exceed."""
    assert values, "nothing was measured"
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


_SAMPLES_PER_HOUR: Final = 12_300
"""About as many values change in an hour of the simulated line."""


@contextmanager
def _live(
    folder: Path, *, history_hours: float, is_live: bool = True, is_cloud_up: bool = True
) -> Iterator[tuple[WholeSystem, Listener]]:
    with WholeSystem(folder, "demo", history_hours=history_hours) as system:
        system.broker.start()
        system.cloud.start()
        system.wait_until(lambda: system.cloud.said("connected to the broker"), "the cloud side listens", 300)
        if not is_cloud_up:
            system.cloud.kill()
        system.gateway.start()
        system.simulator.start()
        with closing(Listener(system.broker.port)) as listener:
            if is_live:
                system.wait_until(system.is_live, "the factory shows the present", 300)
                time.sleep(5)
            else:
                system.wait_until(lambda: system.health() is not None, "the gateway answers", 300)
            yield system, listener


def _window(secs: float) -> tuple[int, int]:
    """Let time pass; return when that was [us]."""
    begun = time.time_ns() // 1000
    time.sleep(secs)
    return begun, time.time_ns() // 1000 - 2 * US


def _finished(system: WholeSystem) -> list[Stored]:
    system.stop_in_order(_PATIENCE_SECS)
    return kept.read_store(system.folder / "cloud" / "store.sqlite3")


def _left(system: WholeSystem) -> int:
    health = system.health()
    return sys.maxsize if health is None else int(health["outbox"]["records"])


def _resident(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def _open(port: int, *, reads: bool) -> ClientConnection:
    """Open a page's feed; one that does not read lets its buffers fill."""
    return connect(f"ws://127.0.0.1:{port}{_FEED}", max_queue=(16 if reads else 1), open_timeout=30)


_FEED: Final = "/feed"


def main() -> int:
    """Measure what was asked for; returns 1 when a promise does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.endurance", description=__doc__)
    parser.add_argument("--sockets", type=int, default=IDLE_SOCKETS, help=f"open pages ({IDLE_SOCKETS})")
    parser.add_argument("--samples", type=int, default=2_000_000, help="of the soak (2000000)")
    parser.add_argument("--outage-hours", type=float, default=8.0, help="played as fast as it is read (8)")
    parser.add_argument("--results", type=Path, default=Path("endurance.json"), help="(endurance.json)")
    parser.add_argument("--only", choices=("watchers", "soak", "outage", "late"), help="measure one alone")
    options = parser.parse_args()
    parts: dict[str, Callable[[Path], Iterator[Measured]]] = {
        "watchers": lambda folder: slow_watchers(folder, options.sockets),
        "outage": lambda folder: outage(folder, options.outage_hours),
        "late": lambda folder: late(folder, _WEEK_DAYS, _LATE_SECS),
        "soak": lambda folder: soak(folder, options.samples),
    }
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder:
        for name, part in parts.items():
            if options.only in (None, name):
                for one in part(Path(folder) / name):
                    found.append(one)
                    print(f"{'ok   ' if one.holds else 'WRONG'} {one.what}: {one.found} ({one.promised})")
    options.results.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return int(not all(one.holds for one in found))


if __name__ == "__main__":
    sys.exit(main())
