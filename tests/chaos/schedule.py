"""Which faults happen when: a pure function of a seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

IDLE_ALERT_SECS: Final = 3.0
"""So long a machine stands in planned time until an alert is raised."""
_LIVE_SECS: Final = 10.0
_SHARE_WITH_STANDS: Final = 0.3
_CLEARED_SECS: Final = 4.0
"""So long after a stand the factory goes on, for its alert to be cleared."""
_STRUCK: Final = 0.7
_STRIKING: Final = (
    *("kill gateway", "kill broker", "kill cloud"),
    *("reset cloud downlink", "hang gateway uplink", "reset plc way"),
)
Row = int
"""The number of a fault in the catalogue of the reliability page."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One way in which things go wrong.

    rows: which faults of the catalogue it is
    weight: how often it is drawn beside the others
    secs: shortest and longest duration; what has none is over at once
    blinds: while it lasts, and until the gateway has healed, values can really not be read
    promise_secs: data flow again so soon after its end; None: nothing is promised
    settle_secs: so long after its end the driver watches on, because nothing outside shows when it is healed
    """

    name: str
    rows: tuple[Row, ...]
    weight: float = 1.0
    secs: tuple[float, float] = (0.0, 0.0)
    blinds: bool = False
    promise_secs: float | None = None
    settle_secs: float = 2.5

    @property
    def blinds_plc(self) -> bool:
        """Tell whether what the gateway knows of a PLC's subscription may end by it."""
        return self.blinds or self.name.endswith((" plc", " plc way"))


_PLC: Final = 3.0
_BROKER: Final = 5.0
_SILENT_PLC: Final = 5.0
_SILENT_BROKER: Final = 10.0

KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(name="kill gateway", rows=(1,), weight=3, secs=(0.2, 3), promise_secs=_BROKER),
        Kind(name="kill broker", rows=(1,), weight=3, secs=(0.2, 4), promise_secs=_BROKER),
        Kind(name="kill cloud", rows=(1,), weight=3, secs=(0.2, 4), promise_secs=_BROKER),
        Kind(name="kill plc", rows=(2,), weight=2, secs=(0.2, 4), blinds=True, promise_secs=_PLC),
        Kind(name="stop gateway", rows=(3,), secs=(2, 8), promise_secs=_SILENT_PLC),
        Kind(name="stop broker", rows=(3,), secs=(2, 8), promise_secs=_SILENT_BROKER),
        Kind(name="stop cloud", rows=(3,), secs=(2, 8), promise_secs=_BROKER),
        Kind(name="stop plc", rows=(3,), secs=(2, 8), promise_secs=_SILENT_PLC),
        Kind(name="reset plc way", rows=(4,), promise_secs=_PLC),
        Kind(name="refuse plc way", rows=(4,), secs=(1, 6), promise_secs=_PLC),
        Kind(name="hang plc way", rows=(4,), secs=(1, 9), promise_secs=_SILENT_PLC),
        Kind(name="one-way plc way", rows=(4,), secs=(1, 9), promise_secs=_SILENT_PLC),
        Kind(name="delay plc way", rows=(4,), secs=(3, 6), promise_secs=_SILENT_PLC + 2),
        Kind(name="truncate plc way", rows=(4,), promise_secs=_PLC),
        Kind(name="trickle plc way", rows=(4,), secs=(2, 6), promise_secs=_SILENT_PLC),
        Kind(name="reset gateway uplink", rows=(4,), promise_secs=_BROKER),
        Kind(name="refuse gateway uplink", rows=(4,), secs=(1, 6), promise_secs=_BROKER),
        Kind(name="hang gateway uplink", rows=(4,), secs=(1, 12), promise_secs=_SILENT_BROKER),
        Kind(name="one-way gateway uplink", rows=(4,), secs=(1, 12), promise_secs=_SILENT_BROKER),
        Kind(name="delay gateway uplink", rows=(4,), secs=(3, 6), promise_secs=_SILENT_BROKER),
        Kind(name="truncate gateway uplink", rows=(4,), promise_secs=_BROKER),
        Kind(name="trickle gateway uplink", rows=(4,), secs=(2, 6), promise_secs=_SILENT_BROKER),
        Kind(name="reset cloud downlink", rows=(4,), promise_secs=_BROKER),
        Kind(name="refuse cloud downlink", rows=(4,), secs=(1, 6), promise_secs=_BROKER),
        Kind(name="hang cloud downlink", rows=(4,), secs=(1, 12), promise_secs=_SILENT_BROKER),
        Kind(name="truncate cloud downlink", rows=(4,), promise_secs=_BROKER),
        Kind(name="expire sessions", rows=(5,), blinds=True, promise_secs=10.0, settle_secs=8),
        Kind(name="drop subscriptions", rows=(5,), blinds=True, promise_secs=10.0, settle_secs=8),
        Kind(name="delete tag", rows=(5,), secs=(1, 5), blinds=True, promise_secs=10.0, settle_secs=12),
        Kind(name="disk full on gateway", rows=(7,), secs=(1, 5), promise_secs=_BROKER),
        Kind(name="disk full on cloud", rows=(7,), secs=(1, 5), promise_secs=_BROKER),
        *(
            Kind(name=f"clock {span} {way} on {whom}", rows=(8,), weight=0.25, secs=(3, 6), settle_secs=4)
            for span in ("an hour", "a year")
            for way in ("ahead", "back")
            for whom in ("gateway", "cloud")
        ),
        Kind(name="replay messages", rows=(10,), weight=2),
        Kind(name="bad values", rows=(11,), secs=(1, 5)),
        Kind(name="uncertain values", rows=(11,), secs=(1, 5)),
        Kind(name="odd values", rows=(11,), secs=(1, 5)),
        Kind(name="unstamped values", rows=(11,), secs=(1, 5)),
        Kind(name="malformed messages", rows=(12,), weight=2),
        Kind(name="slow dashboards", rows=(17,), secs=(2, 6)),
    )
}
"""All kinds by name. Faults 6, 9 and 18 are circumstances of a whole trial; 20 is every mixture of them."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of a schedule.

    at_secs: when it begins, counted from the moment at which the factory is live
    secs: how long it lasts
    detail: a number from 0 to 1 for what else there is to choose
    """

    kind: str
    at_secs: float
    secs: float
    detail: float

    @property
    def end_secs(self) -> float:
        """Return when it ends."""
        return self.at_secs + self.secs


@dataclass(frozen=True, kw_only=True)
class Stand:
    """A machine that stands idle in the midst of planned time, long enough for an alert.

    at_secs, secs: as for faults
    detail: a number from 0 to 1 for which machine it is
    """

    at_secs: float
    secs: float
    detail: float


Limits = Literal["none", "five items per call", "queue of one"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """All that a seed means.

    in_the_past: kinds that strike while the past is played as fast as it is read
    stands: machines that stand idle while the present is played
    """

    seed: int
    tick_secs: float = 0.5
    lines: int = 1
    machines: int = 4
    history_secs: float = 0.0
    limits: Limits = "none"
    late_nodes: bool = False
    in_the_past: tuple[Fault, ...] = ()
    faults: tuple[Fault, ...] = ()
    stands: tuple[Stand, ...] = ()
    live_secs: float = _LIVE_SECS

    @property
    def kinds(self) -> list[str]:
        """Return the names of all faults in it, each once."""
        return sorted({fault.kind for fault in (*self.in_the_past, *self.faults)})

    @property
    def clocks(self) -> set[str]:
        """Return the processes whose clocks jump."""
        return {kind.rpartition(" ")[2] for kind in self.kinds if kind.startswith("clock")}


def schedule(seed: int, *, only: str | None = None) -> Schedule:
    """Return what a seed means; only: take the faults of this kind alone."""
    dice = random.Random(f"chaos {seed}")
    limits: Limits = dice.choices(
        ("none", "five items per call", "queue of one"), weights=(0.84, 0.08, 0.08)
    )[0]
    count = dice.choice((1, 2, 2, 3, 3, 4, 5))
    names = [only] * count if only else _draw(dice, count)
    faults = sorted((_fault(name, dice, 1.0, _LIVE_SECS) for name in names), key=lambda fault: fault.at_secs)
    stands = () if only else _stands(seed)
    if stands:  # with much else going on at once, nobody could be held to an alert
        faults = sorted([*faults[:1], *_around(stands, seed)], key=lambda fault: fault.at_secs)
    history_secs = 0.0 if limits == "queue of one" else dice.choice((0.0, 300.0, 600.0, 600.0))
    past = []
    if history_secs and only is None and dice.random() < 0.6:
        past = [
            Fault(
                kind=name, at_secs=dice.uniform(0.1, 1.5), secs=dice.uniform(0.3, 1.5), detail=dice.random()
            )
            for name in dice.sample(("kill gateway", "kill broker", "kill cloud", "reset plc way"), k=2)
        ]
    return Schedule(
        seed=seed,
        tick_secs=dice.choice((0.25, 0.5, 1.0)),
        lines=dice.choice((1, 1, 2)),
        machines=dice.choice((2, 4)),
        history_secs=history_secs,
        limits=limits,
        late_nodes=dice.random() < 0.2,
        in_the_past=tuple(past),
        faults=_apart(faults),
        stands=stands,
        live_secs=max([_LIVE_SECS, *(stand.at_secs + stand.secs + _CLEARED_SECS for stand in stands)]),
    )


def _stands(seed: int) -> tuple[Stand, ...]:
    """Return which machines stand idle: in some schedules one or two, in most none."""
    dice = random.Random(f"stands {seed}")
    if dice.random() > _SHARE_WITH_STANDS:
        return ()
    count = dice.choice((1, 2))
    return tuple(
        Stand(
            at_secs=round(dice.uniform(0.5, 2), 2),
            secs=round(dice.uniform(13, 15), 2),
            detail=(place + dice.random()) / count,
        )
        for place in range(count)
    )


def _around(stands: Sequence[Stand], seed: int) -> Iterator[Fault]:
    """Yield what strikes while alerts are raised and cleared."""
    dice = random.Random(f"around stands {seed}")
    for stand in stands:
        raised_secs = stand.at_secs + IDLE_ALERT_SECS
        cleared_secs = stand.at_secs + stand.secs
        for at_secs in (raised_secs, cleared_secs):
            if dice.random() < _STRUCK:
                yield _fault(dice.choice(_STRIKING), dice, at_secs - 1.0, at_secs + 2.0)


def _draw(dice: random.Random, count: int) -> list[str]:
    kinds = list(KINDS.values())
    return [kind.name for kind in dice.choices(kinds, weights=[kind.weight for kind in kinds], k=count)]


def _fault(name: str, dice: random.Random, first_secs: float, last_secs: float) -> Fault:
    shortest, longest = KINDS[name].secs
    return Fault(
        kind=name,
        at_secs=round(dice.uniform(first_secs, last_secs), 2),
        secs=round(dice.uniform(shortest, longest), 2),
        detail=dice.random(),
    )


def _target(name: str) -> str:
    """Return whom a fault is about, so that the same is not broken twice at once."""
    for target in ("gateway uplink", "cloud downlink", "plc way", "gateway", "cloud", "broker", "plc"):
        if name.endswith(target):
            return target
    return name


def _apart(faults: list[Fault]) -> tuple[Fault, ...]:
    """Let faults of one target follow each other; those of different targets may overlap.

    What a PLC loses after it has gone silent about a tag, and before anybody could notice, nobody can tell:
    after a tag is gone, its PLC is left alone for as long as noticing takes.
    """
    free_secs: dict[str, float] = {}
    kept = []
    gone_secs = min((fault.at_secs for fault in faults if fault.kind == "delete tag"), default=None)
    for fault in faults:
        target = _target(fault.kind)
        at_secs = max(fault.at_secs, free_secs.get(target, 0.0))
        is_hidden = gone_secs is not None and at_secs >= gone_secs and fault.kind != "delete tag"
        if is_hidden and KINDS[fault.kind].blinds_plc:
            continue
        kept.append(Fault(kind=fault.kind, at_secs=at_secs, secs=fault.secs, detail=fault.detail))
        free_secs[target] = at_secs + fault.secs + 1.0
    return tuple(sorted(kept, key=lambda fault: fault.at_secs))


_TOUR_STOPS: Final = 8
_A_COUNTER: Final = 0.5062
"""Deletes a counter, which never comes back to what it was: a state may, and then nobody can tell."""
_TOUR_PAUSE_SECS: Final = 1.2


def tours() -> list[Schedule]:
    """Return few schedules in which each kind of fault happens once: they are played with every change.

    What the gateway has to find out by itself comes last, with nothing after it that would hide it.
    """
    last = [name for name, kind in KINDS.items() if kind.settle_secs >= 8]
    others = [name for name in KINDS if name not in last]
    count = max(-(-len(others) // _TOUR_STOPS), len(last))
    dice = random.Random("tours")
    dice.shuffle(others)
    found = []
    for number in range(count):
        names = [*others[number::count], *last[number::count]]
        at_secs = 1.0
        faults = []
        for name in names:
            shortest, longest = KINDS[name].secs
            secs = round(shortest + 0.3 * (longest - shortest), 2)
            detail = _A_COUNTER if name == "delete tag" else dice.random()
            faults.append(Fault(kind=name, at_secs=round(at_secs, 2), secs=secs, detail=detail))
            at_secs += secs + _TOUR_PAUSE_SECS
        found.append(
            Schedule(
                seed=1_000_000 + number,
                lines=1 + number % 2,
                machines=2 + 2 * (number % 2),
                tick_secs=(0.25, 0.5, 1.0)[number % 3],
                history_secs=600.0 if number % 2 else 0.0,
                limits=("none", "five items per call")[number % 2],
                late_nodes=number % 3 == 1,
                faults=tuple(faults),
                live_secs=at_secs,
            )
        )
    return found
