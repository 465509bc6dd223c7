"""What is published of a change of an alert."""

from msgspec import UNSET

from cloud.alerts.conditions import span
from cloud.alerts.life import Event
from cloud.views import AlertView
from contract.delivery import Alert


def message(alert: AlertView, event: Event, now_us: int) -> Alert:
    """Return what is published of one change: for one that is over, how it ended."""
    return Alert(
        id=alert.id[:256],
        event=event,
        rule=alert.rule,
        kind=alert.kind,
        site=alert.site,
        area=alert.area or UNSET,
        line=alert.line or UNSET,
        machine=alert.machine or UNSET,
        gateway=alert.gateway or UNSET,
        connection=alert.connection or UNSET,
        epochtime=now_us / 1e6,
        since_epochtime=alert.since_epochtime,
        message=_text(alert, event)[:1024],
        level=alert.level,
        advice=UNSET if event in ("acknowledged", "cleared") else alert.advice or UNSET,
        by=UNSET if alert.acknowledged_by is None else alert.acknowledged_by,
        note=UNSET if alert.note is None else alert.note,
    )


def _text(alert: AlertView, event: Event) -> str:
    if event == "cleared" and alert.outcome is not None and alert.ended_epochtime is not None:
        lasted = span(round((alert.ended_epochtime - alert.since_epochtime) * 1e6))
        often = f" and came back {'once' if alert.returns == 1 else f'{alert.returns} times'}"
        often = often if alert.returns else ""
        return f"{alert.outcome}; it lasted {lasted}{often}"
    if event == "escalated":
        return f"Nobody has answered: {alert.message}"
    if event == "acknowledged":
        return f"{alert.acknowledged_by} looks after it: {alert.message}"
    return alert.message
