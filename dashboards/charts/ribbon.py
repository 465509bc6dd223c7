"""The state ribbon: what a machine did, from left to right, one colour and height per state.

Positions are percentages of the width, so that a ribbon fits any screen and any sheet without a redraw.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Final, NamedTuple

from markupsafe import Markup

from cloud.views import Segment
from dashboards import words
from dashboards.charts import svg
from dashboards.words import Look

HEIGHT: Final = 28
_BOXES: Final[dict[str, tuple[float, float]]] = {
    "running": (7, 14),
    "break": (11, 6),
    "off-shift": (13, 2),
    "unknown": (7, 14),
    "planned-stop": (7, 14),
}
"""Top and height [px] by kind; a stop stands out above and below."""
_STOP_BOX: Final = (2.0, 24.0)
_STEPS_MINUTES: Final = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440)


class Stretch(NamedTuple):
    """Neighbouring segments that look the same."""

    start: float
    end: float
    look: Look
    reason: str | None


def stretches(segments: Iterable[Segment]) -> list[Stretch]:
    """Merge segments that were cut at hours and breaks but show the same."""
    found: list[Stretch] = []
    for segment in segments:
        look = words.look(segment.state, segment.category)
        reason = (segment.reason_name or segment.reason) if look.kind not in ("running", "break") else None
        last = found[-1] if found else None
        if (
            last
            and last.look is look
            and last.reason == reason
            and last.end >= segment.start_epochtime - 1e-6
        ):
            found[-1] = last._replace(end=segment.end_epochtime)
        else:
            found.append(Stretch(segment.start_epochtime, segment.end_epochtime, look, reason))
    return found


def ribbon(
    name: str,
    segments: Sequence[Segment],
    start: float,
    end: float,
    zone: tzinfo,
    *,
    now: float | None = None,
    slow: Sequence[tuple[float, float, float]] = (),
) -> Markup:
    """Draw one machine's states in [start, end) [s since 1970].

    name: the machine, for the drawing's label
    now: where the future begins; nothing is drawn behind it but an empty track
    slow: (start, end, performance) where the machine ran below its ideal rate: the lost part is shaded
    """
    width = max(end - start, 1e-9)
    until = end if now is None else min(max(now, start), end)
    parts = [svg.element("rect", class_="track", x="0", y=13, width="100%", height=2)]
    merged = stretches(segments)
    parts += [_box(stretch, start, end, width, zone) for stretch in merged]
    parts += _shades(merged, slow, start, end, width)
    if now is not None and start <= now < end:
        parts.append(
            svg.element("rect", class_="now", x=_share(until - start, width), y=0, width=1.5, height=HEIGHT)
        )
    label = f"{name}: states from {words.day_clock(start, zone)} to {words.clock(until, zone)}"
    return svg.element(
        "svg", *parts, class_="ribbon", role="img", aria_label=label, width="100%", height=HEIGHT
    )


def axis(start: float, end: float, zone: tzinfo, *, labels: int = 9) -> Markup:
    """Draw the plant's hours under ribbons, at whole local steps, at most `labels` of them."""
    width = max(end - start, 1e-9)
    parts = []
    for index, moment in enumerate(marks(start, end, zone, labels)):
        share = (moment - start) / width
        anchor = "start" if share < 0.02 else "end" if share > 0.98 else "middle"
        local = words.local(moment, zone)
        midnight = local.hour == local.minute == 0
        text = words.day(moment, zone) if midnight and end - start > 90_000 else f"{local:%H:%M}"
        parts.append(svg.element("rect", class_="mark", x=f"{share:.4%}", y=0, width=1, height=4))
        every_other = "odd" if index % 2 else None
        parts.append(svg.text(text, f"{share:.4%}", 17, text_anchor=anchor, class_=every_other))
    return svg.element("svg", *parts, class_="axis", width="100%", height=20, aria_hidden="true")


def marks(start: float, end: float, zone: tzinfo, labels: int) -> list[float]:
    """Return the instants of whole local steps in [start, end], about `labels` of them.

    The steps are those of the plant's clock, also on the night on which it changes.
    """
    least = (end - start) / 60 / max(labels, 1)
    step = next((step for step in _STEPS_MINUTES if step >= least), 1440)
    first = words.local(start, zone)
    wall = datetime(first.year, first.month, first.day)  # noqa: DTZ001  # wall-clock arithmetic, zone added below
    found: list[float] = []
    while True:
        moment = wall.replace(tzinfo=zone).timestamp()
        if moment > end + 1e-6:
            return found
        if moment >= start - 1e-6 and (not found or moment > found[-1]):
            found.append(moment)
        wall += timedelta(minutes=step)


def _box(stretch: Stretch, start: float, end: float, width: float, zone: tzinfo) -> Markup:
    left, right = max(stretch.start, start), min(stretch.end, end)
    top, height = _BOXES.get(stretch.look.kind, _STOP_BOX)
    tip = " · ".join(
        part
        for part in (
            stretch.look.word,
            stretch.reason,
            f"{words.clock(stretch.start, zone)}–{words.clock(stretch.end, zone)}",
            words.span(stretch.end - stretch.start),
        )
        if part
    )
    return svg.element(
        "rect",
        class_=f"k-{stretch.look.kind}",
        x=_share(left - start, width),
        y=top,
        width=_share(right - left, width),
        height=height,
        fill="url(#hatch)" if stretch.look.kind == "unknown" else None,
        data_tip=tip,
    )


def _shades(
    merged: Sequence[Stretch],
    slow: Sequence[tuple[float, float, float]],
    start: float,
    end: float,
    width: float,
) -> Iterable[Markup]:
    """Shade the top of running stretches by what is missing to the ideal rate."""
    top, height = _BOXES["running"]
    for since, until, performance in slow:
        for stretch in merged:
            left, right = max(stretch.start, since, start), min(stretch.end, until, end)
            if stretch.look.kind == "running" and left < right:
                yield svg.element(
                    "rect",
                    class_="slow",
                    x=_share(left - start, width),
                    y=top,
                    width=_share(right - left, width),
                    height=height * (1 - min(max(performance, 0.0), 1.0)),
                    data_tip=f"Running at {words.with_percent(performance)} of the ideal rate in this hour",
                )


def _share(part: float, whole: float) -> str:
    return f"{max(0.0, part) / whole:.4%}"
