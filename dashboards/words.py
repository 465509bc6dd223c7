"""How values are written for people: one spelling for every page, report and chart.

Everything here is rounding and wording. Percentages get one decimal, durations are exact to the second,
times are 24-hour times of the plant. A value that does not exist is a dash, never a zero.
"""

from datetime import datetime, tzinfo
from typing import Final, NamedTuple

from cloud.views import LossLevel

DASH: Final = "–"
MINUS: Final = "−"


class Look(NamedTuple):
    """How a stretch of time is shown: always a word and an icon beside the colour."""

    kind: str
    """The colour class and the icon's name."""
    word: str


LOOKS: Final[dict[str, Look]] = {
    look.kind: look
    for look in (
        Look("running", "Running"),
        Look("idle", "Idle"),
        Look("stopped", "Stopped"),
        Look("faulted", "Down"),
        Look("changeover", "Changeover"),
        Look("planned-stop", "Planned stop"),
        Look("unknown", "No data"),
        Look("break", "Break"),
        Look("off-shift", "Off shift"),
    )
}
"""In the order of a legend."""

_BY_STATE: Final = {
    "running": "running",
    "idle": "idle",
    "stopped": "stopped",
    "faulted": "faulted",
    "changeover": "changeover",
    "planned_stop": "planned-stop",
}
_BY_CATEGORY: Final = {"break": "break", "planned_stop": "planned-stop", "not_scheduled": "off-shift"}

VERDICT_WORDS: Final[dict[str, str]] = {
    "good": "on target",
    "warning": "slightly below target",
    "bad": "below target",
    "none": "",
}

LOSS_NAMES: Final[dict[str, str]] = {
    "not_scheduled": "Not scheduled",
    "break": "Breaks",
    "planned_stop": "Planned stops",
    "changeover": "Changeover",
    "breakdown": "Breakdown",
    "other_stop": "Other stops",
    "idle": "Idle",
    "small_stops": "Small stops",
    "small_stop": "Small stop",
    "unknown": "No data",
    "no_data": "No data",
    "reduced_speed": "Reduced speed",
    "rejects": "Rejects",
    "startup_rejects": "Startup rejects",
    "value_adding": "Value-adding",
}


def iso_minute(epochtime: float, zone: tzinfo) -> str:
    """Write an instant as people type it: `2021-06-30 14:05`."""
    return f"{local(epochtime, zone):%Y-%m-%d %H:%M}"


def way_of_loss(loss: str) -> tuple[str, dict[str, str]] | None:
    """Return the page, and what its address says beside place and time, that tells a loss event by event."""
    if loss in ("changeover", "breakdown", "other_stop", "idle", "small_stops"):
        return "/stops", {"loss": loss}
    if loss in ("planned_stop", "no_data"):
        return "/timeline", {}
    if loss in ("reduced_speed", "rejects", "startup_rejects"):
        return "/hourly", {}
    return None


def look(state: str, category: str) -> Look:
    """Return how a state under a calendar category is shown.

    Running is running whenever it happens, and silence is silence; any other state outside planned
    production is what the calendar says, because nobody has lost anything.
    """
    if state == "running":
        return LOOKS["running"]
    if category in _BY_CATEGORY:
        return LOOKS[_BY_CATEGORY[category]]
    return LOOKS[_BY_STATE.get(state, "unknown")]


def state_word(state: str) -> str:
    """Return the word for a machine's own state, whatever the calendar says."""
    return LOOKS[_BY_STATE.get(state, "unknown")].word


def loss_name(loss: str) -> str:
    """Return the name of a bucket of the time-loss tree."""
    return LOSS_NAMES.get(loss, loss.replace("_", " ").capitalize())


def verdict(verdicts: dict[str, LossLevel], figure: str) -> str:
    """Return how a figure stands to its target as the cloud side judged it; `none` where it did not."""
    return verdicts.get(figure, "none")


def number(value: float | None, decimals: int = 0) -> str:
    """Write a count with thousands separated: `12,345`."""
    if value is None:
        return DASH
    text = f"{abs(value):,.{decimals}f}"
    return MINUS + text if value < 0 and text.strip("0.,") else text


def plain(value: str | float | bool | None) -> str:  # noqa: FBT001  a value of any kind, no switch
    """Write a tag's value as the PLC gave it."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def signed(value: float | None) -> str:
    """Write a difference with its sign: `+412`, `−1,180`, `±0`."""
    if value is None:
        return DASH
    rounded = round(value)
    if rounded == 0:
        return "±0"
    return ("+" if rounded > 0 else MINUS) + f"{abs(rounded):,}"


def percent(ratio: float | None, decimals: int = 1) -> str:
    """Write a ratio as the number before a percent sign: 0.812 is `81.2`."""
    return DASH if ratio is None else number(ratio * 100, decimals)


def with_percent(ratio: float | None) -> str:
    """Write a ratio with its unit: `81.2 %`."""
    return DASH if ratio is None else f"{percent(ratio)}\N{NO-BREAK SPACE}%"


def minutes(secs: float | None) -> str:
    """Write a duration as minutes with one decimal; the unit stands in the header."""
    return DASH if secs is None else number(secs / 60, 1)


def loss_minutes(secs: float) -> str:
    """Write what a loss took away as minutes, `−4.5`; and `+4.5` where a machine beat its ideal."""
    text = number(abs(secs) / 60, 1)
    return text if text == "0.0" else (MINUS if secs > 0 else "+") + text


def stopwatch(secs: float | None) -> str:
    """Write a duration as `h:mm:ss`, as a clock that runs."""
    if secs is None:
        return DASH
    whole = max(0, int(secs))
    days, rest = divmod(whole, 86_400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days} d {clock}" if days else clock


def span(secs: float | None) -> str:
    """Write a duration for a sentence: `45 s`, `7 min 12 s`, `2 h 05 min`."""
    if secs is None:
        return DASH
    whole = max(0, round(secs))
    gap = "\N{NO-BREAK SPACE}"
    if whole < 60:
        return f"{whole}{gap}s"
    if whole < 3600:
        return f"{whole // 60}{gap}min" + (f" {whole % 60:02d}{gap}s" if whole % 60 else "")
    rounded = round(whole / 60)
    return f"{rounded // 60}{gap}h" + (f" {rounded % 60:02d}{gap}min" if rounded % 60 else "")


def local(epochtime: float, zone: tzinfo) -> datetime:
    """Return an instant [s since 1970] as the plant's clock shows it."""
    return datetime.fromtimestamp(epochtime, zone)


def clock(epochtime: float | None, zone: tzinfo) -> str:
    """Write an instant as the plant's 24-hour time: `14:03`."""
    return DASH if epochtime is None else f"{local(epochtime, zone):%H:%M}"


def clock_secs(epochtime: float | None, zone: tzinfo) -> str:
    """Write an instant as `14:03:07`."""
    return DASH if epochtime is None else f"{local(epochtime, zone):%H:%M:%S}"


def day(epochtime: float | None, zone: tzinfo) -> str:
    """Write an instant's day: `Wed 30 Jun`."""
    return DASH if epochtime is None else _day(local(epochtime, zone))


def day_clock(epochtime: float | None, zone: tzinfo) -> str:
    """Write an instant with its day: `Wed 30 Jun 14:03`."""
    return DASH if epochtime is None else f"{_day(local(epochtime, zone))} {local(epochtime, zone):%H:%M}"


def iso_day(text: str | None) -> str:
    """Write an ISO date for people: `2021-06-30` is `Wed 30 Jun 2021`."""
    if not text:
        return DASH
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{_day(moment)} {moment.year}"


def iso_utc(epochtime: float | None) -> str:
    """Write an instant for machines: ISO 8601 with its zone, for `<time datetime>`."""
    if epochtime is None:
        return ""
    from datetime import UTC

    return datetime.fromtimestamp(epochtime, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _day(moment: datetime) -> str:
    """Return the day in English whatever the process's locale."""
    week = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    year = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{week[moment.weekday()]} {moment.day} {year[moment.month - 1]}"
