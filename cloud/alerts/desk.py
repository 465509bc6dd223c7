"""Where alerts are looked after: judges the rules of alerts.toml, keeps what changes, and queues who is told.

Everything is kept in the store before anybody hears of it: a restart neither repeats nor forgets an alert.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, tzinfo
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
import structlog

from cloud.alerts import conditions, life, notify
from cloud.alerts.conditions import Condition, Moment, Names, Past, Stretch
from cloud.alerts.config import AlertsConfig, ChannelTable, unknown_names
from cloud.alerts.life import Event, Memory
from cloud.alerts.rule_tables import PLANT_IDLE, RuleTable
from cloud.alerts.subjects import Subject, lies_in
from cloud.alerts.windows import Sums, Tally, Window
from cloud.errors import AskedError, CloudError, StoreError
from cloud.evaluation import Evaluation
from cloud.live import Live, Picture
from cloud.oee.calendar import shift_at
from cloud.oee.figures import IdealTime
from cloud.oee.totals import Totals, totals
from cloud.plant import Machine, Plant
from cloud.store.port import Store, StoredGateway
from cloud.views import AlertView, MachineView, MuteView
from contract.machine_key import MachineKey
from contract.states import MachineState

MAX_MUTE_SECS: Final = 31 * 86_400.0
_MAX_OPEN: Final = 100_000
_MAX_PAST: Final = 500
_RECENT_SECS: Final = 86_400.0
"""How long after its end an alert's times are still corrected."""
_MUTES_KEPT_US: Final = 86_400_000_000
_TEXT_LENGTH: Final = 500
_PARTS: Final = 4
"""In how many stretches a window is read from the store: within each, all is taken as even."""
_OF_TIMELINE: Final = frozenset({"idle", "fault", "no_data"})

_log = structlog.get_logger("cloud.alerts")


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """An acknowledgement that somebody gave beside the running service."""

    alert: str
    by: str
    note: str = ""


class AlertDesk:
    """Judges in one thread; may be asked and told from any."""

    def __init__(self, config: AlertsConfig, plant: Plant, store: Store, data_dir: Path, now_us: int) -> None:
        self._store = store
        self._data_dir = data_dir
        self._lock = threading.RLock()
        self.on_queued: Callable[[], None] = lambda: None
        """Called when something waits for a channel."""
        self._memory = Memory()
        self._windows: dict[tuple[str, MachineKey], Window] = {}
        self._sampled: dict[MachineKey, MachineView] = {}
        self._open = {alert.id: alert for alert in store.alerts(open_only=True, limit=_MAX_OPEN)}
        self._recent = [
            alert
            for alert in store.alerts(open_only=False, limit=_MAX_PAST)
            if _ended_since(alert, now_us / 1e6 - _RECENT_SECS)
        ]
        self._mutes = store.mutes(now_us - _MUTES_KEPT_US)
        self.take(config, plant)

    def take(self, config: AlertsConfig, plant: Plant) -> None:
        """Put a configuration and a plant in force."""
        with self._lock:
            self.config = config
            self._plant = plant
            self._rules = {rule.name: rule for rule in config.rule}
            idle_rules = [rule for rule in config.rule if rule.kind == "idle"]
            self._plant_rule = RuleTable(name=PLANT_IDLE, kind="idle", clear_after_secs=0.0)
            self._machines: list[tuple[RuleTable, MachineKey]] = [
                (rule, key)
                for rule in config.rule
                if rule.is_of_machines
                for key in plant.machines
                if rule.covers(Subject(*key))
            ]
            self._machines += [
                (self._plant_rule, key)
                for key, machine in plant.machines.items()
                if machine.idle_alert_us > 0 and not any(rule.covers(Subject(*key)) for rule in idle_rules)
            ]
            self._names: dict[str, Names] = {
                site.name: {
                    text: (reason.name, reason.key, *reason.codes)
                    for text, reason in site.reasons_by_code.items()
                }
                for site in plant.sites.values()
            }
        for fault in unknown_names(config, plant):
            _log.warning("alerts.toml asks for what the plant does not have", fault=fault)

    # What is asked

    def open_alerts(self) -> list[AlertView]:
        """Return open alerts, newest first."""
        with self._lock:
            found = list(self._open.values())
        found.sort(key=lambda alert: (-alert.raised_epochtime, alert.id))
        return found

    def alerts(self) -> list[AlertView]:
        """Return open and past alerts, newest first."""
        return self._store.alerts(open_only=False, limit=_MAX_PAST)

    def mutes(self, now_us: int) -> list[MuteView]:
        """Return the mutes in force or to come, oldest first."""
        return self._store.mutes(now_us)

    # What people do

    def acknowledge(self, alert_id: str, by: str, note: str, now_us: int) -> AlertView:
        """Note who looks after an open alert; raise AskedError when it is not open."""
        with self._lock:
            alert = self._open.get(alert_id)
            if alert is None:
                raise AskedError(f"{alert_id} is not an open alert")
            alert = life.acknowledged(alert, by, note, now_us)
            return self._keep(alert, "acknowledged", now_us)

    def mute(self, mute: MuteView, now_us: int) -> MuteView:
        """Let alerts of a place wake nobody until a moment; raise AskedError when that may not be said."""
        with self._lock:
            kept = self._store.add_mute(checked(mute, self._plant, self._store, now_us))
            self._mutes = self._store.mutes(now_us - _MUTES_KEPT_US)
        _log.info("muted", place=kept.place, until=kept.until_epochtime, who=kept.who, why=kept.why)
        return kept

    def unmute(self, number: int, by: str, now_us: int) -> MuteView:
        """End a mute; raise AskedError when none of that number is in force."""
        with self._lock:
            lifted = self._store.lift_mute(number, by[:256], now_us)
            if lifted is None:
                raise AskedError(f"no mute {number} is in force")
            self._mutes = self._store.mutes(now_us - _MUTES_KEPT_US)
        _log.info("unmuted", place=lifted.place, by=by)
        return lifted

    # What the service does

    def judge(self, picture: Picture, live: Live, watching_since_us: int | None, now_us: int) -> None:
        """Judge all rules; keep and queue what changes.

        watching_since_us: since when we hear what gateways say; None while we do not
        """
        with self._lock:
            self._run_errands(now_us)
            self._mutes = self._store.mutes(now_us - _MUTES_KEPT_US)
            self._correct(live, now_us)
            self._begin_windows(now_us)
            found = list(self._judged(picture, watching_since_us, now_us))
            self._sampled = dict(picture.machines) if self._windows else {}
            for change in life.step(
                found,
                self._open.values(),
                self._memory,
                now_us=now_us,
                mutes=self._mutes,
                steps=self.config.escalation.steps,
            ):
                self._keep(change.alert, change.event, now_us)
            self._show_mutes(now_us)
            self._hand_over(now_us)

    def _run_errands(self, now_us: int) -> None:
        for errand in self._store.errands():
            try:
                asked = msgspec.json.decode(errand.body, type=Errand)
                self.acknowledge(asked.alert, asked.by, asked.note, now_us)
            except StoreError:
                raise
            except (CloudError, msgspec.DecodeError) as error:
                _log.warning("an acknowledgement is of no use", reason=str(error))
            self._store.errand_done(errand.id)

    def _judged(self, picture: Picture, watching_since_us: int | None, now_us: int) -> Iterator[Condition]:
        open_keys = {life.key_of(alert) for alert in self._open.values()}
        for rule, key in self._machines:
            subject = Subject(*key)
            past = picture.pasts.get(key)
            if past is None:
                continue
            moment = Moment(now_us, self._plant.machines[key].timezone, watching_since_us)
            if rule.kind in _OF_TIMELINE:
                # a running machine stands for nothing: no need to say so of each
                if past.state is not MachineState.RUNNING or (rule.name, subject) in open_keys:
                    yield self._of_timeline(rule, key, past, moment)
            elif rule.kind == "oee":
                if "machine" in rule.watches:
                    yield self._of_shift(rule, subject, picture.machines[key], [self._plant.machines[key]])
            else:
                tally = self._tally(rule, key, picture.machines[key], now_us)
                judge = conditions.speed if rule.kind == "speed" else conditions.rejects
                yield judge(rule, subject, past, tally)
        for rule in self.config.rule:
            if rule.kind == "oee" and "line" in rule.watches:
                yield from self._of_lines(rule, picture)
        yield from self._of_gateways(open_keys, watching_since_us, now_us)

    def _of_timeline(self, rule: RuleTable, key: MachineKey, past: Past, moment: Moment) -> Condition:
        subject, names = Subject(*key), self._names[key.site]
        if rule.kind == "fault":
            return conditions.fault(rule, subject, past, names, moment)
        if rule.kind == "no_data":
            return conditions.no_data(rule, subject, past, moment)
        after_us = rule.after_us
        if after_us is None:
            after_us = self._plant.machines[key].idle_alert_us
        return conditions.idle(rule, subject, past, after_us, names, moment)

    def _of_shift(
        self, rule: RuleTable, subject: Subject, view: MachineView, machines: Sequence[Machine]
    ) -> Condition:
        shift = "" if view.shift is None else view.shift.name
        planned_us = _planned_us([view])
        return conditions.oee(rule, subject, view.figures, planned_us, _target(machines), shift)

    def _of_lines(self, rule: RuleTable, picture: Picture) -> Iterator[Condition]:
        for line, machines in self._plant.lines.items():
            subject = Subject(*line)
            if not rule.covers(subject):
                continue
            views = [picture.machines[machine.key] for machine in machines]
            shift = next((each.shift.name for each in views if each.shift is not None), "")
            figures = picture.lines[line].figures
            yield conditions.oee(rule, subject, figures, _planned_us(views), _target(machines), shift)

    def _of_gateways(
        self, open_keys: set[life.Key], watching_since_us: int | None, now_us: int
    ) -> Iterator[Condition]:
        wanted = [rule for rule in self.config.rule if not rule.is_of_machines]
        if not wanted:
            return
        stored = self._store.gateways()
        for rule in wanted:
            for each in stored:
                subject = Subject(each.gateway[0], gateway=each.gateway[1])
                moment = Moment(now_us, self.timezone_of(subject.site), watching_since_us)
                if rule.kind == "plc" or rule.covers(subject):
                    yield from self._of_gateway(rule, subject, each, open_keys, moment)
            if rule.kind == "disk" and "service" in rule.watches:
                yield from self._of_service(rule)

    def _of_gateway(
        self,
        rule: RuleTable,
        subject: Subject,
        stored: StoredGateway,
        open_keys: set[life.Key],
        moment: Moment,
    ) -> Iterator[Condition]:
        status, received_us = stored.status, stored.received_us
        if rule.kind == "plc":
            said = {} if status is None else {each.name: each for each in status.connections}
            gone = {
                known.connection
                for name, known in open_keys
                if name == rule.name and known[:5] == subject[:5]
            }
            for name in sorted({*said, *gone}):
                connection = subject._replace(connection=name)
                if rule.covers(connection):
                    yield conditions.plc(rule, connection, status, received_us, said.get(name), moment)
        elif rule.kind == "gateway":
            yield conditions.gateway(rule, subject, status, received_us, moment)
        elif rule.kind == "backlog":
            yield conditions.backlog(rule, subject, status, received_us, moment)
        elif rule.kind == "disk" and "gateway" in rule.watches:
            known = status if conditions.speaks(status, received_us, moment) else None
            sizes = (None, None) if known is None else (known.disk_free_bytes, known.disk_total_bytes)
            free, total = (size if isinstance(size, int) else None for size in sizes)
            yield conditions.disk(rule, subject, free, total)

    def _of_service(self, rule: RuleTable) -> Iterator[Condition]:
        subjects = (Subject(site) for site in self._plant.sites)
        subject = next((each for each in subjects if rule.covers(each)), None)
        if subject is None:
            return
        try:
            usage = shutil.disk_usage(self._data_dir)
        except OSError:
            yield conditions.disk(rule, subject, None, None)
        else:
            yield conditions.disk(rule, subject, usage.free, usage.total)

    def _tally(self, rule: RuleTable, key: MachineKey, view: MachineView, now_us: int) -> Tally | None:
        """Return what the machine did in the rule's window."""
        window = self._windows[rule.name, key]
        if view.state == MachineState.UNKNOWN:
            window.forget()
        elif self._sampled.get(key) is not view and (sums := _sums(view)) is not None:
            window.add(now_us, sums)
        return window.tally()

    def _begin_windows(self, now_us: int) -> None:
        """Fill the windows of rules that are new here, or of a restarted service, from the store."""
        wanted = {(rule.name, key) for rule, key in self._machines if rule.kind in ("speed", "rejects")}
        self._windows = {place: window for place, window in self._windows.items() if place in wanted}
        for rule in self.config.rule:
            keys = [key for name, key in wanted - self._windows.keys() if name == rule.name]
            if not keys:
                continue
            part_us = rule.window_us // _PARTS
            edges = [now_us - part_us * number for number in range(_PARTS, -1, -1)]
            parts = [self._from_store(keys, *edge, now_us) for edge in pairwise(edges)]
            for key in keys:
                window = Window(rule.window_us, "running" if rule.kind == "speed" else "time")
                known = [tally for part in parts if (tally := part.get(key)) is not None]
                if len(known) == _PARTS:
                    window.begin_with(known, now_us)
                self._windows[rule.name, key] = window

    def _from_store(
        self, keys: Sequence[MachineKey], from_us: int, to_us: int, now_us: int
    ) -> dict[MachineKey, Tally]:
        """Return what machines did in a stretch of time, of those of which all of it is known."""
        evaluation = Evaluation(self._plant, self._store)
        whole, _ = evaluation.timeline(keys, from_us, to_us, now_us, widen="none")
        sums: dict[MachineKey, Totals] = {}
        for group, total in totals(whole, self._plant, evaluation.names).items():
            sums[group.machine] = sums.get(group.machine, Totals()) + total
        return {
            key: Tally(
                to_us - from_us,
                total.running_us,
                round(ideal.total / ideal.per),
                total.made.total,
                total.made.off,
            )
            for key, total in sums.items()
            if not total.unknown_us and (ideal := IdealTime.of(total.units))
        }

    def _correct(self, live: Live, now_us: int) -> None:
        """Set right the times of alerts whose machines' past became known better; nobody is told."""
        late = live.take_late()
        if not late:
            return
        self._recent = [each for each in self._recent if _ended_since(each, now_us / 1e6 - _RECENT_SECS)]
        whole: dict[MachineKey, list[Stretch]] = {}
        for alert in [*self._open.values(), *self._recent]:
            key = MachineKey(alert.site, alert.area, alert.line, alert.machine)
            if alert.kind not in _OF_TIMELINE or key not in late or key not in self._plant.machines:
                continue
            rule = self._rules.get(alert.rule, self._plant_rule)
            if rule.kind != alert.kind:
                continue
            if key not in whole:
                whole[key] = _stretches(live, key, now_us)
            stand = conditions.stand_at(
                rule, whole[key], self._names[key.site], round(alert.raised_epochtime * 1e6) - 1
            )
            if stand is None:
                continue
            since_us, ended_us = stand
            better = life.corrected(alert, since_us, ended_us)
            if better != alert:
                _log.info("late records set an alert right", alert=alert.id)
                self._recent = [better if each.id == alert.id else each for each in self._recent]
                self._keep(better, None, now_us)

    def _keep(self, alert: AlertView, event: Event | None, now_us: int) -> AlertView:
        """Keep an alert, with what is told of it; return it with who is told."""
        _, subject = life.key_of(alert)
        if alert.state == "cleared":
            alert = msgspec.structs.replace(alert, muted_until_epochtime=None)
        if event is None:
            self._store.save_alert(alert, subject.topic, None)
            self._remember(alert)
            return alert
        message = notify.message(alert, event, now_us)
        if event in ("raised", "escalated"):
            channels = [
                channel.name
                for channel in self.config.channel
                if channel.wants(message) and self._is_on_call(channel, subject, now_us)
            ]
            alert = msgspec.structs.replace(alert, told=sorted({*alert.told, *channels}))
        else:  # those who know of it hear how it goes on, whoever is on call by now
            channels = [
                channel.name
                for channel in self.config.channel
                if event in channel.events and channel.name in alert.told
            ]
        self._store.save_alert(alert, subject.topic, msgspec.json.encode(message), channels)
        self._remember(alert)
        if channels:
            self.on_queued()
        _log.warning(f"alert {event}", place=subject.place, rule=alert.rule, what=message.message)
        return alert

    def _remember(self, alert: AlertView) -> None:
        if alert.state == "cleared":
            if self._open.pop(alert.id, None) is not None:
                self._recent.append(alert)
        else:
            self._open[alert.id] = alert

    def _show_mutes(self, now_us: int) -> None:
        """Let open alerts show until when they are muted."""
        for alert in list(self._open.values()):
            until_us = life.muted_until(self._mutes, *life.key_of(alert), now_us)
            until = None if until_us is None else until_us / 1e6
            if until != alert.muted_until_epochtime:
                self._open[alert.id] = msgspec.structs.replace(alert, muted_until_epochtime=until)

    def _hand_over(self, now_us: int) -> None:
        """Tell those who have come on call of what nobody looks after yet."""
        coming = [channel for channel in self.config.channel if channel.has_shifts]
        if not coming:
            return
        for alert in list(self._open.values()):
            if alert.state != "open" or alert.muted_until_epochtime is not None:
                continue
            _, subject = life.key_of(alert)
            message = notify.message(alert, "raised", now_us)
            names = [
                channel.name
                for channel in coming
                if channel.name not in alert.told
                and channel.wants(message)
                and self._is_on_call(channel, subject, now_us)
            ]
            if names:
                told = msgspec.structs.replace(alert, told=sorted({*alert.told, *names}))
                self._store.queue_delivery(told, msgspec.json.encode(message), names)
                self.on_queued()
                self._open[alert.id] = told

    def _is_on_call(self, channel: ChannelTable, subject: Subject, now_us: int) -> bool:
        """Tell whether a channel is on call, by the calendar of what an alert is of, or of its site."""
        if not channel.has_shifts:
            return True
        machine = self._plant.machines.get(subject.machine_key)
        if machine is None:
            near = (each for key, each in self._plant.machines.items() if lies_in(str(key), subject.place))
            of_site = (each for key, each in self._plant.machines.items() if key.site == subject.site)
            machine = next(near, None) or next(of_site, None)
        window = None if machine is None else shift_at(machine, now_us)
        if window is None:
            return channel.is_on_call(None, None)
        return channel.is_on_call(window.name, window.crew or None)

    def timezone_of(self, site: str) -> tzinfo:
        """Return the time zone of a site; UTC for one that the plant does not have."""
        found = self._plant.sites.get(site)
        return UTC if found is None else found.timezone


def checked(mute: MuteView, plant: Plant, store: Store, now_us: int) -> MuteView:
    """Return a mute as it is kept; raise AskedError when it may not be."""
    place = mute.place.strip().strip("/")
    known = [*map(str, plant.machines)]
    for site, gateway in (each.gateway for each in store.gateways()):
        known.append(f"{site}/gateways/{gateway}")
    if not any(lies_in(each, place) or lies_in(place, each) for each in known) or not place:
        raise AskedError(f"{place or 'nothing'} is no site, line, machine or gateway that is known")
    now = now_us / 1e6
    if not now < mute.until_epochtime <= now + MAX_MUTE_SECS:
        raise AskedError(f"a mute ends in the future, within {MAX_MUTE_SECS / 86_400:.0f} days")
    who, why = mute.who.strip()[:256], mute.why.strip()[:_TEXT_LENGTH]
    if not who or not why:
        raise AskedError("say who mutes, and why")
    return msgspec.structs.replace(mute, place=place, who=who, why=why, from_epochtime=now)


def _stretches(live: Live, key: MachineKey, now_us: int) -> list[Stretch]:
    """Return all that is held in memory of a machine's timeline."""
    return [
        Stretch(
            round(each.start_epochtime * 1e6),
            round(each.end_epochtime * 1e6),
            MachineState(each.state),
            each.category == "production",
            each.reason,
        )
        for each in live.segments(key, live.from_us, now_us, now_us) or ()
    ]


def _ended_since(alert: AlertView, since: float) -> bool:
    return alert.cleared_epochtime is not None and alert.cleared_epochtime >= since


def _planned_us(machines: Sequence[MachineView]) -> int:
    """Return how much planned time of the running shift is over for the machine that has most of it [us]."""
    known = [each.figures["planned_production_secs"] for each in machines if each.figures is not None]
    return round(max(known, default=0.0) * 1e6)


def _target(machines: Sequence[Machine]) -> float:
    """Return the OEE target; of several machines, the mean of theirs."""
    return float(sum(machine.targets.oee for machine in machines)) / max(len(machines), 1)


def _sums(view: MachineView) -> Sums | None:
    """Return the sums of a machine's running shift; None between shifts."""
    figures = view.figures
    if figures is None or view.shift is None:
        return None
    return Sums(
        shift_start_us=round(view.shift.start_epochtime * 1e6),
        running_us=round(figures["running_secs"] * 1e6),
        ideal_us=round(figures["ideal_secs"] * 1e6),
        total_units=figures["total_units"],
        off_quality_units=figures["off_quality_units"],
    )
