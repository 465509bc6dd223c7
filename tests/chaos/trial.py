"""One trial: a schedule of faults against real processes, then judgement."""

import contextlib
import multiprocessing
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from tests.chaos import faults, judgement
from tests.chaos.factory import scenario
from tests.chaos.faults import Doing, Ground, now_us
from tests.chaos.listener import Listener
from tests.chaos.proxies import Proxies
from tests.chaos.schedule import KINDS, Fault, Schedule, Stand
from tests.support import judge, kept
from tests.support.judge import Span
from tests.support.kept import US
from tests.support.whole_system import WholeSystem

OEE: Final = (sys.executable, "-m", "oee")
_QUIET_SECS: Final = 150.0
"""How long everything may take to be well again after the last fault."""
_START_SECS: Final = 240.0
"""How long a machine that is busy with much else may take until four processes stand."""
_PLAYS_ITS_PAST: Final = {"assume_live_after_secs": _START_SECS}
"""A PLC that shows old values first, and then nothing until all its tags are watched, is not there yet."""
_IS_READ: Final = "all-is-read"
"""The file that says that the past may begin."""
_BUSY: Final = 0.9
"""A share of a core that nobody may take while little happens."""


@dataclass(kw_only=True)
class Outcome:
    """What a trial came to."""

    seed: int
    kinds: list[str]
    secs: float = 0.0
    moments: int = 0
    delivered: int = 0
    coalesced: int = 0
    covered: int = 0
    gaps: int = 0
    dead_letters: int = 0
    alerts: int = 0
    cleared: int = 0
    due: int = 0
    """Alerts that were due beyond doubt: the cloud side knew of a stand, and watched, for long enough."""
    unexplained: list[str] = field(default_factory=list)
    phantoms: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    holes: list[str] = field(default_factory=list)
    """What nobody could know, as the reliability page says: told, but no fault."""
    others: list[str] = field(default_factory=list)
    """Needless gaps, figures that differ, processes that ended, promises that were broken."""
    busy: list[str] = field(default_factory=list)
    """Processes that took nearly a core while little happened."""
    slow: list[str] = field(default_factory=list)
    """What came later than promised: told, but no fault, since a busy machine alone can be the cause."""
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    """Kind, and how long after its end data flowed again [s], of faults that stood alone."""
    busiest: dict[str, float] = field(default_factory=dict)
    """Process -> the largest share of a core that it took over two seconds."""

    @property
    def faults(self) -> list[str]:
        """Return everything that may not be."""
        return [*self.wrong, *self.busy]

    @property
    def wrong(self) -> list[str]:
        """Return the faults that do not hang on how quick the machine is."""
        return [*self.unexplained, *self.phantoms, *self.duplicates, *self.others]


def play(schedule: Schedule, folder: Path, *, oee: Sequence[str] = OEE, keep: bool = False) -> Outcome:
    """Play a schedule; the folder keeps all logs when something was wrong, or when asked to keep them."""
    begun = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcome = Outcome(seed=schedule.seed, kinds=schedule.kinds)
    (folder / "schedule.json").write_bytes(msgspec.json.format(msgspec.json.encode(schedule)))
    with Proxies() as proxies, _system(schedule, folder, proxies, oee) as system:
        listener = Listener(system.broker.port)
        ground = Ground(system, proxies, listener, random.Random(schedule.seed))
        try:
            _run(schedule, ground, outcome)
        except AssertionError as error:
            outcome.others.append(str(error)[:3000])
        except Exception as error:  # noqa: BLE001 - what breaks one trial must not end a run of hundreds
            outcome.others.append(f"the trial itself broke: {error!r}")
        finally:
            listener.close()
            ground.drop_sockets()
    if not outcome.others:
        _judge(schedule, ground, outcome, folder)
    outcome.secs = time.monotonic() - begun
    (folder / "outcome.json").write_bytes(msgspec.json.format(msgspec.json.encode(outcome)))
    if not outcome.faults and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def play_all(
    schedules: Sequence[Schedule],
    folder: Path,
    *,
    jobs: int = 1,
    oee: Sequence[str] = OEE,
    keep: bool = False,
) -> Iterator[Outcome]:
    """Play schedules, so many at a time, each in a process of its own; yields outcomes as they come."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawned) as pool:
        waiting = [
            pool.submit(play, one, folder / f"seed-{one.seed}", oee=oee, keep=keep) for one in schedules
        ]
        for done in as_completed(waiting):
            yield done.result()


def _system(schedule: Schedule, folder: Path, proxies: Proxies, oee: Sequence[str]) -> WholeSystem:
    built = scenario(
        schedule.seed,
        tick_us=round(schedule.tick_secs * US),
        lines=schedule.lines,
        machines=schedule.machines,
    )
    simulate = [
        *(sys.executable, "-m", "tests.chaos.factory", "--folder", "{folder}", "--port", "{port}"),
        *("--seed", str(schedule.seed), "--tick-secs", str(schedule.tick_secs)),
        *("--lines", str(schedule.lines), "--machines", str(schedule.machines)),
        *("--history-secs", str(schedule.history_secs)),
        *("--late-nodes-secs", "3" if schedule.late_nodes else "0"),
        *("--items-per-call", "5" if schedule.limits == "five items per call" else "0"),
        *("--queue-size", "1" if schedule.limits == "queue of one" else "0"),
        *("--play-when", "{folder}/" + _IS_READ),
    ]

    def port_of(url: str) -> int:
        return int(url.rsplit(":", 1)[1])

    def before(name: str, scheme: str, url: str) -> str:
        target = port_of(url)
        return f"{scheme}://127.0.0.1:{proxies.add(name, target)}"

    return WholeSystem(
        folder,
        built,
        seed=schedule.seed,
        simulate=simulate,
        oee=oee,
        gateway={"heartbeat_secs": 3.0},
        connection=_PLAYS_ITS_PAST if schedule.history_secs else None,
        environments={
            name: faults.clock_environment(folder / f"{name}.clock") for name in sorted(schedule.clocks)
        },
        endpoint=lambda url: before("plc", "opc.tcp", url),
        gateway_broker=lambda url: before("uplink", "mqtt", url),
        cloud_broker=lambda url: before("downlink", "mqtt", url),
    )


def _run(schedule: Schedule, ground: Ground, outcome: Outcome) -> None:
    system = ground.system
    watch = _Busyness(system)
    system.start()
    begun = time.monotonic()
    if schedule.history_secs:
        system.wait_until(lambda: _is_all_read(system.health()), "all tags are read", _START_SECS)
        (system.folder / _IS_READ).touch()
        _play_faults(schedule.in_the_past, ground, 0.0, watch)
    system.wait_until(system.is_live, "the past is played", _START_SECS)
    outcome.secs = time.monotonic() - begun
    if schedule.history_secs == 0:
        _wait_until_well(system)
    _play_faults(schedule.faults, ground, schedule.live_secs, watch, schedule.stands)
    _wait_until_well(system)
    faults.wait_us(max(now_us() + US, *(_healed_us(span) for span in ground.spans), 0))
    _wait_until_looked(ground)
    outcome.busiest = watch.busiest()
    outcome.busy += [
        f"{name} took {share:.2f} of a core"
        for name, share in outcome.busiest.items()
        if share > _BUSY and not (name == "cloud" and "slow dashboards" in schedule.kinds)
    ]
    for part in system.parts:
        assert part.is_running, f"{part.name} has ended by itself:\n{part.tail()}"
    ground.over_us = now_us()
    system.stop_in_order(_QUIET_SECS)


def _play_faults(
    planned: Sequence[Fault],
    ground: Ground,
    at_least_secs: float,
    watch: "_Busyness",
    stands: Sequence[Stand] = (),
) -> None:
    """Begin and end each fault at its time, counted from now; let machines stand at theirs."""
    start_us = now_us()
    ahead = sorted(planned, key=lambda fault: fault.at_secs)
    to_stand = sorted(stands, key=lambda stand: stand.at_secs)
    under_way: list[Doing] = []
    while True:
        secs = (now_us() - start_us) / US
        for doing in [doing for doing in under_way if secs >= doing.fault.end_secs]:
            faults.finish(doing, ground)
            under_way.remove(doing)
        while to_stand and secs >= to_stand[0].at_secs:
            faults.let_stand(to_stand.pop(0), ground)
        while ahead and secs >= ahead[0].at_secs:
            doing = faults.begin(ahead.pop(0), ground)
            if doing.fault.secs:
                under_way.append(doing)
            else:
                faults.finish(doing, ground)
        if not ahead and not under_way and secs >= at_least_secs:
            return
        watch.look()
        time.sleep(0.02)


def _wait_until_well(system: WholeSystem) -> None:
    """Wait until gateway and cloud side have healed: all connected, only the newest left to deliver."""

    def is_well() -> bool:
        health = system.health()
        return health is not None and _is_all_read(health) and health["outbox"]["records"] < 50

    system.wait_until(
        lambda: is_well() or not all(part.is_running for part in system.parts),
        "all is well again",
        _QUIET_SECS,
    )


def _is_all_read(health: dict[str, Any] | None) -> bool:
    """Tell whether a gateway is connected everywhere and reads all that it wants."""
    return health is not None and all(
        one["status"]["state"] == "connected"
        and one["status"].get("items_live", 0) == one["status"]["items_wanted"]
        for one in health["connections"]
    )


def _wait_until_looked(ground: Ground) -> None:
    """Go on until a gateway must have looked at each tag that was taken away and is not as it was told."""
    for span in ground.spans:
        if span.tag:
            moments = judge.read_moments(ground.system.truth_log)[span.machine]
            faults.wait_us(judge.Mute(span, moments, now_us()).seen_by_us())


def _healed_us(span: Span) -> int:
    """Return by when a fault should be over for everybody."""
    return span.to_us + round(KINDS[span.what].settle_secs * US)


class _Busyness:
    """Watches how much of a core each process takes."""

    def __init__(self, system: WholeSystem) -> None:
        self._system = system
        self._seen: dict[tuple[str, int], list[tuple[float, float]]] = {}

    def look(self) -> None:
        """Take note, at most twice a second."""
        now = time.monotonic()
        for part in (self._system.gateway, self._system.cloud):
            if not part.is_running:
                continue
            seen = self._seen.setdefault((part.name, part.pid), [])
            if seen and now - seen[-1][0] < 0.5:
                continue
            with contextlib.suppress(psutil.Error):
                spent = psutil.Process(part.pid).cpu_times()
                seen.append((now, spent.user + spent.system))

    def busiest(self) -> dict[str, float]:
        """Return the largest share over two seconds of each process, after its first five seconds."""
        found: dict[str, float] = {}
        for (name, _), seen in self._seen.items():
            settled = [item for item in seen if item[0] - seen[0][0] > 5.0]
            for early, late in zip(settled, settled[4:], strict=False):
                share = (late[1] - early[1]) / (late[0] - early[0])
                found[name] = max(found.get(name, 0.0), round(share, 3))
        return found


def _judge(schedule: Schedule, ground: Ground, outcome: Outcome, folder: Path) -> None:
    store = folder / "cloud" / "store.sqlite3"
    stored = kept.read_store(store)
    boots_us = judgement.boots_us(folder / "simulator.log")
    ground.spans[:] = [judgement.until_boot(span, boots_us) for span in ground.spans]
    truth = judge.read_moments(folder / "truth.jsonl")
    if schedule.history_secs == 0:
        truth = judge.since_first_read(truth, stored)
    spans = judgement.blind_spans(ground.spans, always=schedule.limits == "queue of one")
    verdict = judge.judge(
        truth,
        stored,
        faults=spans,
        overflows=schedule.limits == "queue of one",
        edge_us=judgement.EDGE_US,
        silences=[span for span in ground.spans if span.tag],
    )
    outcome.moments, outcome.delivered = verdict.moments, verdict.delivered
    outcome.coalesced, outcome.covered = verdict.coalesced, verdict.covered
    outcome.gaps = sum(record.gap_until_us is not None for record in stored)
    outcome.holes += verdict.holes
    outcome.unexplained += verdict.unexplained
    outcome.phantoms += verdict.phantoms
    outcome.duplicates += verdict.duplicates
    outcome.others += verdict.needless_gaps
    outcome.dead_letters = kept.count_dead_letters(store)
    wary = any(kind.endswith("back on cloud") for kind in schedule.kinds)  # of what comes from its future
    if outcome.dead_letters > ground.malformed and not wary:
        outcome.others.append(f"{outcome.dead_letters} dead letters of {ground.malformed} malformed messages")
    differing = judgement.figures(folder, stored, truth)
    differing += judgement.closed_shifts(folder, kept.read_closed_shifts(store))
    with_holes = {machine_in(hole) for hole in verdict.holes}
    outcome.others += [one for one in differing if machine_in(one) not in with_holes]
    outcome.holes += [one for one in differing if machine_in(one) in with_holes]
    found = judgement.alerts(
        folder,
        kept.read_alerts(store),
        ground.listener.alerts,
        stored,
        ground.listener.receipts,
        ground.spans,
        ground.over_us,
    )
    outcome.alerts, outcome.cleared, outcome.due = found.raised, found.cleared, found.expected
    outcome.others += found.faults
    outcome.slow += found.late
    outcome.recoveries = judgement.recoveries(ground.spans, ground.listener.receipts, stored, truth)
    outcome.slow += [
        f"{kind}: data flowed again after {secs:.1f} s; promised are {KINDS[kind].promise_secs} s"
        for kind, secs in outcome.recoveries
        if (promised := KINDS[kind].promise_secs) is not None and secs > promised
    ]


def machine_in(fault: str) -> str:
    """Return the machine's own name at the beginning of what is said of it."""
    return fault.split(maxsplit=1)[0].rstrip(":").rpartition("/")[2]
