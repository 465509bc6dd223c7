"""The terminal of a running demo: events as they come, and below them the figures, redrawn in place."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from contract.delivery import Alert
from contract.machine_key import MachineKey
from oee.watch import Heard

_REDRAW_PER_SEC: Final = 2
_FIGURES: Final = ("oee", "availability", "performance", "quality")


class Screen:
    """Says lines, and on a real terminal keeps a table below them."""

    def __init__(
        self, heard: Heard, console: Console | None = None, *, order: Sequence[MachineKey] = ()
    ) -> None:
        """Show what is heard; machines in this order, others after them by name."""
        self._heard = heard
        self._places = {machine: place for place, machine in enumerate(order)}
        self._console = console or Console(highlight=False)
        self._live = Live(
            self._below(),
            console=self._console,
            refresh_per_second=_REDRAW_PER_SEC,
            get_renderable=self._below,
            transient=True,
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def say(self, line: str, style: str = "") -> None:
        """Print a line above the table; what could steer the terminal becomes a question mark."""
        harmless = "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in line)
        self._console.print(Text(harmless, style=style), soft_wrap=True)

    def alert(self, alert: Alert) -> None:
        """Print one change in the life of an alert."""
        sign, style = ("!", "bold red") if alert.event in {"raised", "escalated"} else ("·", "green")
        at = time.strftime("%H:%M:%S", time.localtime(alert.epochtime))
        self.say(f"{at} {sign} alert {alert.event}: {alert.message}", style)

    def _below(self) -> Group:
        heard = self._heard
        if not heard.current and not heard.closed:
            return Group(Text("waiting for the first figures ...", style="dim"))
        return Group(Text(""), self._figures(), Text(_pulse(heard, time.monotonic()), style="dim"))

    def _figures(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("machine")
        for title in ("OEE %", "A %", "P %", "Q %", "good units", "last shift OEE %"):
            table.add_column(title, justify="right")
        known = self._heard.current.keys() | self._heard.closed.keys()
        for machine in sorted(known, key=lambda key: (self._places.get(key, len(self._places)), key)):
            running = self._heard.current.get(machine, {})
            last = self._heard.closed.get(machine, {})
            table.add_row(
                f"{machine.line} {machine.machine}",
                *(percent(running.get(name)) for name in _FIGURES),
                f"{running.get('good_units') or 0:,}".replace(",", " "),
                percent(last.get("oee")),
            )
        return table


def percent(ratio: Any) -> str:
    """Return a ratio in percent with one decimal; a dash where there is none."""
    return "-" if ratio is None else f"{ratio * 100:.1f}"


def closed_shift(figures: Sequence[dict[str, Any]]) -> str:
    """Return a line that sums up the last closed shift of some machines."""
    first = figures[0]
    each = ", ".join(f"{item['machine']} {percent(item.get('oee'))} %" for item in figures)
    return f"closed shift {first.get('shift')} of {first.get('production_date')}: OEE {each}"


def _pulse(heard: Heard, at_secs: float) -> str:
    parts = [f"{heard.records_per_sec(at_secs):.1f} records/s stored"]
    if heard.status is not None:
        connected = sum(connection.state == "connected" for connection in heard.status.connections)
        parts.append(f"{connected} of {len(heard.status.connections)} PLCs connected")
        parts.append(f"backlog {heard.status.backlog_records}")
    parts.append("Ctrl-C ends everything")
    return " · ".join(parts)
