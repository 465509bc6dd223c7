"""What is told of an alert: its view over its life, and the message of each change."""

from typing import Literal

import msgspec

from cloud.alerts.rules import Change
from cloud.views import AlertView
from contract.delivery import Alert

Event = Literal["raised", "escalated", "acknowledged", "cleared"]


def raised(change: Change, now_us: int) -> AlertView:
    """Return the alert that a rule has just raised."""
    return AlertView(
        id=change.id,
        rule=change.rule,
        **change.machine._asdict(),
        state="open",
        level=1,
        message=change.message,
        since_epochtime=change.since_us / 1e6,
        raised_epochtime=now_us / 1e6,
    )


def cleared(alert: AlertView, change: Change, now_us: int) -> AlertView:
    """Return the alert as over; the message says why."""
    return msgspec.structs.replace(
        alert, state="cleared", cleared_epochtime=now_us / 1e6, message=f"{alert.message}; {change.message}"
    )


def acknowledged(alert: AlertView, by: str, note: str, now_us: int) -> AlertView:
    """Return the alert as seen by somebody."""
    return msgspec.structs.replace(
        alert,
        state="acknowledged",
        acknowledged_epochtime=now_us / 1e6,
        acknowledged_by=by[:256],
        note=note[:1024] or None,
    )


def message(alert: AlertView, event: Event, now_us: int) -> Alert:
    """Return what is published of one change."""
    return Alert(
        id=alert.id[:256],
        event=event,
        rule=alert.rule,
        site=alert.site,
        area=alert.area,
        line=alert.line,
        machine=alert.machine,
        epochtime=now_us / 1e6,
        since_epochtime=alert.since_epochtime,
        message=alert.message[:1024],
        level=alert.level,
        by=msgspec.UNSET if alert.acknowledged_by is None else alert.acknowledged_by,
        note=msgspec.UNSET if alert.note is None else alert.note,
    )
