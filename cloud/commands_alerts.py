"""What `oee alerts ...` does. Each returns the exit code and prints for people.

All work beside the running service, through its store: who may use its folder may mute and acknowledge.
"""

import sys
from collections.abc import Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.commands import FAILED, OK, UNUSABLE, opened, say, told

if TYPE_CHECKING:
    from cloud.plant import Plant
    from cloud.views import AlertView, MuteView

_PAST_SHOWN = 50


@told
def show(config: Path, *, past: bool = False) -> int:
    """Print open alerts and mutes; with past, those that are over, too."""
    from cloud.clock import clock_us

    with opened(config) as (_, plant, store):
        zone = _zone(plant)
        found = store.alerts(open_only=not past, limit=_PAST_SHOWN if past else 100_000)
        _print_alerts(found, zone)
        _print_mutes(store.mutes(clock_us()), zone)
    return OK


@told
def acknowledge(config: Path, alert: str, *, by: str, note: str = "") -> int:
    """Say that somebody looks after an open alert, named by its id or a part of it that no other has."""
    import msgspec

    from cloud.alerts.desk import Errand

    with opened(config) as (_, _, store):
        found = [each.id for each in store.alerts(open_only=True, limit=100_000) if alert in each.id]
        if len(found) != 1:
            say(f"{len(found) or 'no'} open alerts have {alert!r} in their id; see `oee alerts list`")
            return UNUSABLE
        store.add_errand(msgspec.json.encode(Errand(alert=found[0], by=by, note=note)))
    sys.stdout.write(f"{found[0]}: {by} looks after it; the service tells it as soon as it runs\n")
    return OK


@told
def mute(
    config: Path,
    place: str,
    *,
    until: str | None,
    minutes: int | None,
    why: str,
    by: str,
    rules: Sequence[str] = (),
) -> int:
    """Let alerts of a place and of all below it wake nobody, until a moment or for some minutes."""
    from cloud.alerts.desk import checked
    from cloud.clock import clock_us
    from cloud.compute import parse_moment
    from cloud.errors import AskedError
    from cloud.receivers import local_moment
    from cloud.views import MuteView

    if (until is None) == (minutes is None):
        raise AskedError("say either --until or --minutes")
    with opened(config) as (_, plant, store):
        now_us = clock_us()
        if minutes is not None:
            end = now_us / 1e6 + 60 * minutes
        else:
            moment = parse_moment(until or "")
            if not isinstance(moment, datetime):
                raise AskedError(f"{until} is a day; name a moment, such as {until}T14:00")
            end = (moment if moment.tzinfo else moment.replace(tzinfo=_zone(plant))).timestamp()
        wanted = MuteView(
            id=0,
            place=place,
            rules=list(rules),
            from_epochtime=now_us / 1e6,
            until_epochtime=end,
            who=by,
            why=why,
        )
        kept = store.add_mute(checked(wanted, plant, store, now_us))
        sys.stdout.write(f"{kept.id}: {kept.place} is muted until {local_moment(end, _zone(plant))}\n")
    return OK


@told
def unmute(config: Path, number: int, *, by: str) -> int:
    """End a mute."""
    from cloud.clock import clock_us

    with opened(config) as (_, _, store):
        lifted = store.lift_mute(number, by, clock_us())
    if lifted is None:
        say(f"no mute {number} is in force; see `oee alerts list`")
        return UNUSABLE
    sys.stdout.write(f"{number}: {lifted.place} is no longer muted\n")
    return OK


@told
def status(config: Path) -> int:
    """Print the rules of alerts.toml and the outbox of each channel; fail when a channel takes nothing."""
    import msgspec
    from rich import box
    from rich.table import Table

    from cloud.alerts.channels import oldest_epochtime
    from cloud.alerts.config import AlertsConfig, unknown_names
    from cloud.alerts.config import load as load_alerts
    from cloud.receivers import table_of
    from cloud.render import wide_console
    from cloud.views import ChannelView

    with opened(config) as (settings, plant, store):
        file = settings.cloud.alerts
        alerts = AlertsConfig() if file is None else load_alerts(file)
        for fault in unknown_names(alerts, plant):
            say(f"{file}: {fault}")
        done = {each.name: each for each in store.channels()}
        views = [
            msgspec.structs.replace(
                done.get(channel.name) or ChannelView(name=channel.name, kind=channel.kind, waiting=0),
                waiting=store.delivery_count(channel.name),
                oldest_epochtime=oldest_epochtime(store, channel.name),
            )
            for channel in alerts.channel
        ]
        zone = _zone(plant)
    rules = Table("rule", "kind", "level", "escalates to", box=box.SIMPLE_HEAD)
    for rule in alerts.rule:
        steps = alerts.escalation.steps if rule.escalate is None else rule.escalate
        rules.add_row(rule.name, rule.kind, str(rule.level), ", ".join(str(step.level) for step in steps))
    wide_console().print(rules, table_of("channel", views, zone), highlight=False)
    for view in views:
        if view.fault:
            sys.stdout.write(f"! {view.name}: {view.fault}\n")
    return FAILED if any(view.fault for view in views) else OK


@told
def try_channels(config: Path, channel: str | None = None) -> int:
    """Send a test message over each channel of alerts.toml, or over one, and print what became of it."""
    import time

    from cloud.alerts.channels import open_door
    from cloud.alerts.config import load as load_alerts
    from cloud.config import load
    from cloud.errors import NotificationError
    from contract.delivery import Alert

    settings = load(config)
    if settings.cloud.alerts is None:
        say(f"{config}: cloud.alerts: is not set; name the file that lists the channels")
        return UNUSABLE
    found = load_alerts(settings.cloud.alerts).channel
    chosen = [table for table in found if channel in (None, table.name)]
    if not found:
        say(f"{settings.cloud.alerts}: lists no [[channel]]; `oee config show alerts` explains what one has")
        return UNUSABLE
    if not chosen:
        names = ", ".join(table.name for table in found) or "none"
        say(f"{settings.cloud.alerts}: no channel {channel!r}; there are: {names}")
        return UNUSABLE
    now = time.time()
    alert = Alert(
        id=f"test-{now:.0f}",
        event="raised",
        rule="test",
        kind="test",
        site="test",
        epochtime=now,
        since_epochtime=now,
        message="This is a test. No machine needs anything.",
    )
    failed = False
    for table in chosen:
        try:
            open_door(table).send(alert, *table.words(alert))
        except NotificationError as error:
            failed = True
            say(str(error))
        else:
            sys.stdout.write(f"{table.name}: sent\n")
    return FAILED if failed else OK


def _print_alerts(alerts: "Sequence[AlertView]", zone: tzinfo) -> None:
    """Print each alert in a few lines, its id whole: it is what `oee alerts ack` asks for."""
    from cloud.receivers import local_moment

    for alert in alerts:
        seen = "" if alert.acknowledged_by is None else f" by {alert.acknowledged_by}"
        note = f": {alert.note}" if alert.note else ""
        lines = [
            f"{local_moment(alert.raised_epochtime, zone)}  level {alert.level}  {alert.state}{seen}{note}",
            *filter(None, (alert.message, alert.outcome, alert.advice)),
            alert.id,
        ]
        sys.stdout.write("\n  ".join(lines) + "\n")
    if not alerts:
        sys.stdout.write("no alerts\n")


def _print_mutes(mutes: "Sequence[MuteView]", zone: tzinfo) -> None:
    from rich import box
    from rich.table import Table

    from cloud.receivers import local_moment
    from cloud.render import wide_console

    if not mutes:
        return
    table = Table("mute", "place", "rules", "until", "by", "why", box=box.SIMPLE_HEAD)
    for mute in mutes:
        until = local_moment(mute.until_epochtime, zone)
        table.add_row(str(mute.id), mute.place, ", ".join(mute.rules) or "all", until, mute.who, mute.why)
    wide_console().print(table, highlight=False)


def _zone(plant: "Plant") -> tzinfo:
    """Return the time zone of the first site."""
    return next(iter(plant.sites.values())).timezone
