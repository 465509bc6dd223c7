"""What the cloud side shows: finished values for pages, reports and feeds, which compute nothing themselves.

Instants are Unix seconds UTC (`_epochtime`), durations seconds (`_secs`), ratios 0 to 1. `figures` is always
the flat object that `oee compute --format json` prints for the same machine or line and shift.
"""

from typing import Any, Literal

from msgspec import Struct

from contract.delivery import ConnectionStatus, Status

Category = Literal["production", "break", "planned_stop", "not_scheduled"]
AlertState = Literal["open", "acknowledged", "cleared"]
LossLevel = Literal["good", "warning", "bad", "none"]


class ShiftView(Struct, frozen=True, kw_only=True):
    """One shift window of a calendar."""

    name: str
    production_date: str
    """ISO date of the day the shift counts for."""
    start_epochtime: float
    end_epochtime: float
    calendar: str
    crew: str | None = None


class AlertView(Struct, frozen=True, kw_only=True):
    """One alert over its whole life."""

    id: str
    rule: str
    """The rule's name, as alerts.toml has it; `idle` for what plant.toml asks for."""
    kind: str = "idle"
    """What the rule watches, such as `idle` or `gateway`."""
    site: str
    area: str = ""
    """Levels that do not apply are empty: a gateway has no line, a line no machine."""
    line: str = ""
    machine: str = ""
    gateway: str = ""
    connection: str = ""
    state: AlertState
    level: int
    message: str
    """What is wrong."""
    advice: str = ""
    """What to do about it."""
    since_epochtime: float
    """When the condition began."""
    raised_epochtime: float
    acknowledged_epochtime: float | None = None
    acknowledged_by: str | None = None
    note: str | None = None
    cleared_epochtime: float | None = None
    ended_epochtime: float | None = None
    """When the condition ended, by what is known now; late records may set it back."""
    outcome: str | None = None
    """How it ended."""
    returns: int = 0
    """How often the condition came back before the alert could be cleared."""
    told: list[str] = []
    """Channels that were told of it."""
    muted_until_epochtime: float | None = None

    @property
    def name(self) -> str:
        """Return what people call what it is of."""
        if self.gateway:
            return self.connection or self.gateway
        return self.machine or self.line or self.site

    @property
    def place(self) -> str:
        """Return where that is, from the area down; for a gateway, that it is one."""
        if self.gateway:
            return f"PLC at {self.gateway}" if self.connection else "gateway"
        levels = (self.area, self.line) if self.machine else (self.area,)
        return " \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} ".join(filter(None, levels)) or "service"

    @property
    def path(self) -> str:
        """Return the place from the site down, as mutes name it."""
        if self.gateway:
            return f"{self.site}/gateways/{self.gateway}"
        return "/".join(filter(None, (self.site, self.area, self.line, self.machine)))


class MuteView(Struct, frozen=True, kw_only=True):
    """A place whose alerts wake nobody until a moment, because somebody works there."""

    id: int
    place: str
    """From the site down, such as `berlin/packaging/line-1`; all that lies below is muted, too."""
    rules: list[str] = []
    """Only these; empty: all."""
    from_epochtime: float
    until_epochtime: float
    who: str
    why: str
    lifted_epochtime: float | None = None
    lifted_by: str | None = None

    @property
    def end_epochtime(self) -> float:
        """Return when it ends, or ended."""
        lifted = self.lifted_epochtime
        return self.until_epochtime if lifted is None else min(lifted, self.until_epochtime)


class ChannelView(Struct, frozen=True, kw_only=True):
    """Somebody who is sent alerts or results, and what waits for them."""

    name: str
    kind: str
    waiting: int
    """Messages that it has not taken yet."""
    oldest_epochtime: float | None = None
    """Of the oldest of them."""
    sent: int = 0
    """Since the channel is known, or of results since the start."""
    failures: int = 0
    dropped: int = 0
    """Messages that grew too old."""
    last_dropped_epochtime: float | None = None
    last_sent_epochtime: float | None = None
    fault: str | None = None
    """Why it takes nothing now."""


class MachineView(Struct, frozen=True, kw_only=True):
    """One machine now, with its running shift."""

    site: str
    area: str
    line: str
    machine: str
    state: str
    """The contract's word; `unknown` while the machine is silent."""
    state_since_epochtime: float | None = None
    reason: str | None = None
    """The reason's key in plant.toml, or the PLC's own code where none names it."""
    reason_name: str | None = None
    product: str | None = None
    order: str | None = None
    category: Category = "not_scheduled"
    """What the calendar says of this moment."""
    shift: ShiftView | None = None
    figures: dict[str, Any] | None = None
    target_units: float | None = None
    """Units that the OEE target asks for in the whole shift."""
    target_units_now: float | None = None
    """Units that the OEE target asks for until now: the goal-by-now marker."""
    good_units: int = 0
    off_quality_units: int = 0
    total_units: int = 0
    verdicts: dict[str, LossLevel] = {}
    """How oee, availability, performance and quality stand to their targets, judged once for every screen."""
    last_data_epochtime: float | None = None
    in_plant: bool = True
    """False for a machine that plant.toml lacks: its telemetry is kept and shown, without figures."""
    alerts: list[AlertView] = []
    """Open ones."""


class LineView(Struct, frozen=True, kw_only=True):
    """One line with its machines, in the order of plant.toml."""

    site: str
    area: str
    line: str
    figures: dict[str, Any] | None = None
    """The line's running shift: sums of its machines, ratios made at the end."""
    verdicts: dict[str, LossLevel] = {}
    machines: list[MachineView] = []


class HealthView(Struct, frozen=True, kw_only=True):
    """How the service itself does."""

    started_epochtime: float
    broker: Literal["connecting", "connected", "lost"]
    broker_since_epochtime: float
    broker_url: str
    """Without credentials."""
    broker_fault: str | None = None
    """Why the session with the broker does not hold, and what to do."""
    records_per_sec: float
    """Over the last ten seconds."""
    records_stored: int
    """Since the service started, without repeated ones."""
    records_repeated: int
    records_refused: int
    """Dead letters since the service started."""
    dead_letters: int
    """In the store, of all times."""
    last_data_epochtime: float | None
    queue_messages: int
    live_overflows: int = 0
    """How often more came than live figures could join, so that all was read again; by plant."""
    clock_warnings: list[str]
    """Gateways whose telemetry is far ahead of or behind this clock."""
    plant_faults: list[str]
    """Why a changed plant.toml was refused; the plant before it stays in force."""
    store_fault: str | None = None
    """Why the store cannot be written now, such as a full disk."""
    alert_faults: list[str] = []
    """Why a changed alerts.toml was refused; the one before it stays in force."""
    results_faults: list[str] = []
    """Why a changed results.toml was refused."""
    masterdata_faults: list[str] = []
    """Why a changed masterdata.toml was refused."""
    channels: list[ChannelView] = []


class BoardView(Struct, frozen=True, kw_only=True):
    """Everything that the live board shows."""

    site: str
    generated_epochtime: float
    timezone: str
    shift: ShiftView | None
    """The running shift that most machines work by; None between shifts."""
    lines: list[LineView]
    not_in_plant: list[MachineView] = []
    alerts: list[AlertView] = []
    """Open ones, newest first."""
    health: HealthView | None = None


class Segment(Struct, frozen=True, kw_only=True):
    """A stretch of time in one state under one calendar category."""

    start_epochtime: float
    end_epochtime: float
    state: str
    category: Category
    loss: str
    """The bucket of the time-loss tree, such as `breakdown`."""
    reason: str | None = None
    reason_name: str | None = None
    product: str | None = None


class TimelineView(Struct, frozen=True, kw_only=True):
    """A machine's states from one instant to another, without holes: time without telemetry is `unknown`."""

    site: str
    area: str
    line: str
    machine: str
    from_epochtime: float
    to_epochtime: float
    """Never later than now."""
    segments: list[Segment]


class GatewayView(Struct, frozen=True, kw_only=True):
    """One gateway as it last reported, with what the store holds of it."""

    gateway: str
    site: str
    status: Status | None
    """None when it never said anything but telemetry."""
    received_epochtime: float | None
    stored_through: int
    last_record_epochtime: float | None
    connections: list[ConnectionStatus] = []


ShiftRow = dict[str, Any]
"""One row of a shift table: the flat object of `oee compute --format json`."""


class Revision(Struct, frozen=True, kw_only=True):
    """One revision of one closed shift of one machine."""

    revision: int
    made_epochtime: float
    why: str
    figures: dict[str, Any]


class AfterLockView(Struct, frozen=True, kw_only=True):
    """Records of a closed shift that arrived after it was locked: they are kept, and in no figure."""

    records: int
    first_epochtime: float
    """When the first of them arrived, and the last."""
    last_epochtime: float


class Update(Struct, frozen=True, kw_only=True):
    """What changed since the last update; sent at most once a second, and only what changed."""

    generated_epochtime: float
    machines: list[MachineView] = []
    lines: list[LineView] = []
    """Lines whose figures changed, without their machines."""
    alerts: list[AlertView] | None = None
    """All open alerts, when any changed."""
    shift: ShiftView | None = None
    health: HealthView | None = None
    whole: BoardView | None = None
    """Instead of everything above: after a change of plant, or when this reader fell behind."""


class JobView(Struct, frozen=True, kw_only=True):
    """A job that comes round."""

    name: str
    every_secs: float
    last_epochtime: float | None
    next_epochtime: float
    took_secs: float | None
    runs: int
    failures: int
    result: str
    """What it did last, '' when it never found anything to do."""
    error: str
    """Why its last run failed, '' when it did not."""


class RefusedRow(Struct, frozen=True, kw_only=True):
    """A row of master data that cannot be used as things are; it is tried again when they change."""

    source: str
    ref: str
    problem: str
    since_epochtime: float
