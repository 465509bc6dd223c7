"""The live board: every machine now, the running shift's states, the last shift's figures, open alerts."""

from datetime import tzinfo
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cloud.views import BoardView, LineView, MachineView, ShiftRow
from dashboards.charts import ribbon
from dashboards.port import CloudReader
from dashboards.web.feed import RIBBON_SECS, Fragments, Renderer, key_of, look_of

if TYPE_CHECKING:
    from contract.machine_key import MachineKey

_US: Final = 1_000_000
_BACK_SECS: Final = 8 * 3600.0
"""How far the ribbon reaches back when no shift runs."""
_CLOSING_REFRESH_SECS: Final = 30
_CYCLE_SECS: Final = 15
_LONGEST_SECS: Final = 24 * 3600.0
_CLOSED_BACK_SECS: Final = 4 * 86_400


class Window(NamedTuple):
    """The time that the board's ribbons show [s since 1970]."""

    start: float
    end: float


class BoardPages:
    """Renders the board, whole for a page and in fragments for the feed."""

    def __init__(self, cloud: CloudReader, jinja: Environment) -> None:
        self._cloud = cloud
        self._page = jinja.get_template("board.html")
        self._wall = jinja.get_template("tv.html")
        self._parts: Any = jinja.get_template("parts/board.html").module
        self._zones: dict[str, tzinfo] = {}
        self._drawn: dict[MachineKey, tuple[float, object, str]] = {}

    def show(self, request: Request) -> Response:
        """Answer `/`."""
        board = self._cloud.board()
        zone = self.zone(board)
        window = shown(board)
        closed = self._closed(board)
        return HTMLResponse(
            self._page.render(
                board=board,
                now=board.generated_epochtime,
                zone=zone,
                window=window,
                parts=self._parts,
                ribbons={
                    str(key_of(machine)): self._ribbon(machine, board)
                    for line in board.lines
                    for machine in line.machines
                },
                axis=ribbon.axis(window.start, window.end, zone),
                closed=closed,
                refresh_secs=_CLOSING_REFRESH_SECS if any(_is_being_closed(line) for line in closed) else 0,
                theme=request.cookies.get("theme", "auto"),
                page="board",
                account=getattr(request.state, "account", None),
            ),
            headers={"cache-control": "no-store"},
        )

    def wall(self, request: Request) -> Response:
        """Answer `/tv`: one line at a time, for a screen that nobody touches.

        `line` shows only that one; `every` is for how long each is shown [s].
        """
        board = self._cloud.board()
        zone = self.zone(board)
        window = shown(board)
        wanted = request.query_params.getlist("line")
        lines = [line for line in board.lines if not wanted or line.line in wanted] or board.lines
        every = request.query_params.get("every", "")
        return HTMLResponse(
            self._wall.render(
                board=board,
                lines=lines,
                zone=zone,
                window=window,
                parts=self._parts,
                ribbons={
                    str(key_of(machine)): self._ribbon(machine, board)
                    for line in lines
                    for machine in line.machines
                },
                axis=ribbon.axis(window.start, window.end, zone),
                every=min(max(int(every), 3), 3600) if every.isascii() and every.isdigit() else _CYCLE_SECS,
                theme=request.cookies.get("theme", "auto"),
                page="tv",
                account=None,
            ),
            headers={"cache-control": "no-store"},
        )

    def renderer(self) -> Renderer:
        """Return the functions that the feed renders with."""
        return Renderer(tile=self._tile, line=self._line, ribbon=self._ribbon_fragment, frame=self._frame)

    def zone(self, board: BoardView) -> tzinfo:
        """Return the plant's time zone."""
        return self._zones.setdefault(board.timezone, ZoneInfo(board.timezone))

    def _tile(self, machine: MachineView, board: BoardView) -> Fragments:
        return {f"m/{key_of(machine)}": str(self._parts.tile(machine, self.zone(board)))}

    def _line(self, line: LineView, board: BoardView) -> Fragments:
        del board
        return {f"l/{line.area}/{line.line}": str(self._parts.line_head(line))}

    def _ribbon_fragment(self, machine: MachineView, board: BoardView) -> Fragments:
        if not machine.in_plant:
            return {}  # a machine without a calendar has no shift to draw
        return {f"r/{key_of(machine)}": str(self._parts.ribbon_cell(machine, self._ribbon(machine, board)))}

    def _frame(self, board: BoardView) -> Fragments:
        zone = self.zone(board)
        return {
            "shift": str(self._parts.shift(board, zone)),
            "alerts": str(self._parts.alerts(board, zone)),
            "banner": str(self._parts.banner(board, zone)),
        }

    def _ribbon(self, machine: MachineView, board: BoardView) -> str:
        """Draw a machine's states; a drawing serves pages and feed until the machine does something else."""
        key, look = key_of(machine), look_of(machine, board)
        known = self._drawn.get(key)
        if known and known[1] == look and 0 <= board.generated_epochtime - known[0] < RIBBON_SECS - 1:
            return known[2]
        window = shown(board)
        timeline = self._cloud.timeline(key, round(window.start * _US), round(window.end * _US))
        drawing = ribbon.ribbon(
            machine.machine,
            timeline.segments,
            window.start,
            window.end,
            self.zone(board),
            now=board.generated_epochtime,
        )
        self._drawn[key] = (board.generated_epochtime, look, drawing)
        return drawing

    def _closed(self, board: BoardView) -> list["ClosedLine"]:
        """Return the last closed shift of each line with its machines."""
        now_us = round(board.generated_epochtime * _US)
        since_us = now_us - _CLOSED_BACK_SECS * _US
        lines = self._cloud.shift_table(since_us, now_us, "line")
        machines = self._cloud.shift_table(since_us, now_us, "machine")
        return closed_lines(board, lines, machines)


class ClosedLine(NamedTuple):
    """The last closed shift of a line."""

    row: ShiftRow
    machines: list[ShiftRow]


def closed_lines(board: BoardView, lines: list[ShiftRow], machines: list[ShiftRow]) -> list[ClosedLine]:
    """Pick each line's newest shift that has ended, with the same shift of its machines."""
    found = []
    for line in board.lines:
        place = (line.site, line.area, line.line)
        ended = [row for row in lines if _place(row) == place and _has_ended(row, board.generated_epochtime)]
        if not ended:
            continue
        last = max(ended, key=lambda row: str(row["start"]))
        own = {
            row.get("machine"): row
            for row in machines
            if _place(row) == place and _shift(row) == _shift(last)
        }
        found.append(ClosedLine(last, [own[item.machine] for item in line.machines if item.machine in own]))
    return found


def shown(board: BoardView) -> Window:
    """Return the time that the ribbons show: the running shift, or the last hours when none runs."""
    if board.shift is None:
        return Window(board.generated_epochtime - _BACK_SECS, board.generated_epochtime)
    start, end = board.shift.start_epochtime, board.shift.end_epochtime
    return Window(max(start, end - _LONGEST_SECS), end)


def _is_being_closed(line: ClosedLine) -> bool:
    return any(row.get("revision") == 0 for row in (line.row, *line.machines))


def _place(row: ShiftRow) -> tuple[Any, Any, Any]:
    return row.get("site"), row.get("area"), row.get("line")


def _shift(row: ShiftRow) -> tuple[Any, Any]:
    return row["production_date"], row["shift"]


def _has_ended(row: ShiftRow, now: float) -> bool:
    from datetime import datetime

    return datetime.fromisoformat(str(row["end"])).timestamp() <= now
