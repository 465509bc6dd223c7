"""`[[rule]]` of alerts.toml: what is watched, where, and how urgent it is."""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from cloud.alerts.subjects import Subject
from cloud.config import PositiveSecs, Real, Secs
from cloud.toml_file import Array, TomlModel
from contract.states import MachineState

Kind = Literal["idle", "fault", "speed", "rejects", "oee", "no_data", "plc", "gateway", "backlog", "disk"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
PLANT_IDLE: Final = "idle"
"""The name of the rule that plant.toml's `idle_alert_secs` makes."""

StandingState = Literal["idle", "stopped", "faulted", "changeover", "planned_stop"]
Globs = Annotated[tuple[str, ...], Array]
AlertLevel = Annotated[int, Field(ge=1, le=9)]
Percent = Annotated[Real, Field(gt=0, le=1000)]

_EVERYWHERE: Final = frozenset({"name", "kind", "level", "escalate", "clear_after_secs", "advice", "sites"})
_OF_MACHINES: Final = frozenset({"areas", "lines", "machines"})
_OF_GATEWAYS: Final = frozenset({"gateways"})
_KEYS: Final[dict[Kind, frozenset[str]]] = {
    "idle": _OF_MACHINES | {"after_secs", "states"},
    "fault": _OF_MACHINES | {"after_secs", "codes"},
    "speed": _OF_MACHINES | {"below_percent", "window_secs", "margin_percent"},
    "rejects": _OF_MACHINES | {"above_percent", "window_secs", "min_units", "margin_percent"},
    "oee": _OF_MACHINES | {"below_percent", "after_secs", "of", "margin_percent"},
    "no_data": _OF_MACHINES | {"after_secs"},
    "plc": _OF_GATEWAYS | {"after_secs", "connections"},
    "gateway": _OF_GATEWAYS | {"after_secs"},
    "backlog": _OF_GATEWAYS | {"after_secs", "above_records", "above_mb", "above_age_secs"},
    "disk": _OF_GATEWAYS | {"after_secs", "free_below_percent", "of", "margin_percent"},
}
"""What each kind may say beside what every rule may."""
_AFTER_SECS: Final[dict[Kind, float]] = {
    "fault": 0.0,
    "oee": 3600.0,
    "no_data": 60.0,
    "plc": 30.0,
    "gateway": 30.0,
    "backlog": 60.0,
    "disk": 60.0,
}
_BELOW_PERCENT: Final[dict[Kind, float]] = {"speed": 80.0}
_OF: Final[dict[Kind, tuple[str, ...]]] = {"oee": ("machine", "line"), "disk": ("gateway", "service")}


class StepTable(TomlModel):
    """A step of an escalation: after so long without an answer, this level."""

    after_secs: PositiveSecs
    level: AlertLevel


class RuleTable(TomlModel):
    """One `[[rule]]`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    kind: Kind
    sites: Globs = ()
    areas: Globs = ()
    lines: Globs = ()
    machines: Globs = ()
    gateways: Globs = ()
    connections: Globs = ()
    after_secs: Secs | None = None
    states: Annotated[tuple[StandingState, ...], Array, Field(min_length=1)] = ("idle", "stopped")
    codes: Annotated[tuple[int | str, ...], Array] = ()
    below_percent: Percent | None = None
    above_percent: Percent = 5.0
    free_below_percent: Percent = 10.0
    window_secs: PositiveSecs = 600.0
    min_units: Annotated[int, Field(ge=1)] = 50
    above_records: Annotated[int, Field(ge=1)] | None = None
    above_mb: PositiveSecs | None = None
    above_age_secs: PositiveSecs | None = None
    of: Annotated[tuple[Literal["machine", "line", "gateway", "service"], ...], Array] = ()
    margin_percent: Annotated[Real, Field(ge=0, le=100)] = 2.0
    clear_after_secs: Secs = 10.0
    level: AlertLevel = 1
    escalate: Annotated[tuple[StepTable, ...], Array] | None = None
    advice: Annotated[str, Field(max_length=1000)] = ""

    def covers(self, subject: Subject) -> bool:
        """Tell whether a subject is one that this rule names; a list that is empty names all."""
        named = (
            (self.sites, subject.site),
            (self.areas, subject.area),
            (self.lines, subject.line),
            (self.machines if subject.machine else (), subject.machine),
            (self.gateways, subject.gateway),
            (self.connections, subject.connection),
        )
        return all(not globs or _fits(globs, name) for globs, name in named)

    @property
    def is_of_machines(self) -> bool:
        """Tell whether it watches machines or lines."""
        return _KEYS[self.kind] >= _OF_MACHINES

    @property
    def standing_states(self) -> frozenset[MachineState]:
        """Return the states in which a machine stands for this rule."""
        return frozenset(map(MachineState, self.states))

    @property
    def after_us(self) -> int | None:
        """Return for how long its condition must hold [us]; None: as plant.toml says for the machine."""
        secs = _AFTER_SECS.get(self.kind) if self.after_secs is None else self.after_secs
        return None if secs is None else round(secs * 1e6)

    @property
    def window_us(self) -> int:
        """Return the length of the window that it judges [us]."""
        return round(self.window_secs * 1e6)

    @property
    def clear_after_us(self) -> int:
        """Return for how long its condition must be over until the alert is cleared [us]."""
        return round(self.clear_after_secs * 1e6)

    @property
    def below(self) -> float | None:
        """Return the ratio that must not be fallen below; None: the machine's target."""
        percent = _BELOW_PERCENT.get(self.kind) if self.below_percent is None else self.below_percent
        return None if percent is None else percent / 100

    @property
    def margin(self) -> float:
        """Return by how much a ratio must be better than its limit for the alert to be over."""
        return self.margin_percent / 100

    @property
    def watches(self) -> tuple[str, ...]:
        """Return which of the subjects that its kind knows are watched: all when it says nothing."""
        return tuple(self.of) or _OF.get(self.kind, ())[: 1 if self.kind == "oee" else None]

    def fits_code(self, codes: Iterable[object]) -> bool:
        """Tell whether one of a stop's codes is one that it names; it names all when it lists none."""
        return not self.codes or any(_fits(map(str, self.codes), str(code)) for code in codes)


def oddities(rule: RuleTable) -> Iterator[tuple[str, str, str]]:
    """Yield what does not go together: key, problem and what is allowed."""
    allowed = _EVERYWHERE | _KEYS[rule.kind]
    for key in sorted(rule.model_fields_set - allowed):
        kinds = ", ".join(kind for kind in KINDS if key in _KEYS[kind])
        yield key, f'is not for kind = "{rule.kind}"', f"these have it: {kinds}"
    choices = _OF.get(rule.kind, ())
    for choice in rule.of:
        if choices and choice not in choices:
            yield "of", f"names {choice!r}", f"allowed: {', '.join(choices)}"
    if rule.kind == "backlog" and not any((rule.above_records, rule.above_mb, rule.above_age_secs)):
        yield "", "names no limit", "name above_records, above_mb or above_age_secs"
    yield from steps_oddities(rule.escalate or (), rule.level)


def steps_oddities(steps: Iterable[StepTable], level: int) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with an escalation that begins at a level."""
    last = StepTable.model_construct(after_secs=0.0, level=level)
    for step in steps:
        if step.after_secs <= last.after_secs or step.level <= last.level:
            yield "escalate", f"goes from level {last.level} to {step.level}", "each step is later and higher"
        last = step


def _fits(globs: Iterable[str], name: str) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
