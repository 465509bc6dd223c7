"""What `oee compute` and `oee calendar` do: figures and calendars from files alone, with no server."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypedDict

from cloud.commands import OK, UNUSABLE, say, told
from cloud.errors import AskedError

if TYPE_CHECKING:
    from cloud.compute import Computation, Moment
    from cloud.oee.corrections import Correction
    from cloud.oee.figures import Figures
    from cloud.oee.rollup import Level, Per
    from cloud.plant import Plant
    from cloud.render import Format

_REFUSED_SHOWN: Final = 5
_CALENDAR_DAYS: Final = 7


class _Wanted(TypedDict):
    """Which figures."""

    since: "Moment | None"
    until: "Moment | None"
    per: "Per"
    level: "Level"


@told
def compute(
    plant: Path,
    telemetry: Sequence[Path] = (),
    *,
    history: str | None = None,
    corrections: Path | None = None,
    since: str | None = None,
    until: str | None = None,
    per: "Per" = "shift",
    level: "Level" = "machine",
    form: "Format" = "table",
    engine: Literal["local", "spark"] = "local",
    master: str = "local[2]",
) -> int:
    """Print figures of telemetry files, or of a history of Parquet files.

    corrections: JSON of what people said of that time, as the API gives it; with telemetry files alone
    since, until: ISO dates or moments; by default everything that is there
    engine, master: what reads a history: this process, or a Spark cluster
    """
    from cloud import plant as plants
    from cloud.compute import parse_moment
    from cloud.render import print_figures

    if bool(telemetry) == bool(history):
        say("compute reads either telemetry files or one history: give --telemetry or --history")
        return UNUSABLE
    if corrections and history:
        say("corrections are applied to telemetry files: --corrections goes with --telemetry")
        return UNUSABLE
    if engine == "spark" and not history:
        say("a cluster reads a history: --engine spark goes with --history")
        return UNUSABLE
    the_plant = plants.load(plant)
    wanted: _Wanted = {
        "since": None if since is None else parse_moment(since),
        "until": None if until is None else parse_moment(until),
        "per": per,
        "level": level,
    }
    if history is None:
        rows = _of_files(the_plant, telemetry, wanted, _corrections(corrections))
    elif engine == "spark":
        rows = _on_spark(the_plant, history, master, wanted)
    else:
        rows = _of_history(the_plant, Path(history), wanted)
    print_figures(rows, form, the_plant)
    return OK


@told
def calendar(
    plant: Path,
    *,
    since: str | None = None,
    until: str | None = None,
    machine: str | None = None,
    form: "Format" = "table",
) -> int:
    """Print the shifts of a plant's calendars, by default of the next seven days.

    machine: site/area/line/machine to look at alone
    """
    from cloud import plant as plants
    from cloud.calendar_report import calendar_rows, calendar_table, render_calendar
    from cloud.compute import parse_moment
    from cloud.report import span_us
    from contract.machine_key import MachineKey

    the_plant = plants.load(plant)
    begin = parse_moment(since) if since is not None else datetime.fromtimestamp(time.time()).date()  # noqa: DTZ006  the reader's day
    end = parse_moment(until) if until is not None else begin + timedelta(days=_CALENDAR_DAYS)
    try:
        only = None if machine is None else the_plant.machine(MachineKey.parse(machine)).key
        rows = [
            row
            for part in the_plant.by_timezone
            if only is None or only in part.machines
            for row in calendar_rows(part, *span_us(part, begin, end), None if only is None else [only])
        ]
    except ValueError as error:
        raise AskedError(str(error)) from error
    if form == "table":
        from cloud.render import wide_console

        wide_console().print(calendar_table(rows))
    else:
        print(render_calendar(rows, form), end="")
    return OK


def _corrections(file: Path | None) -> "list[Correction]":
    """Read what people said; raise AskedError with the file's name for anything else."""
    import msgspec

    from cloud.oee.corrections import Correction

    if file is None:
        return []
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[Correction])
    except (OSError, ValueError) as error:
        raise AskedError(f"{file}: {error}") from error


def _of_files(
    plant: "Plant", files: Sequence[Path], wanted: _Wanted, corrections: "Sequence[Correction]"
) -> "list[Figures]":
    from cloud.compute import compute as compute_files

    with _progress(files) as progress:
        found = compute_files(plant, files, **wanted, corrections=corrections, progress=progress)
    _tell_what_was_left_out(found)
    return found.figures


def _tell_what_was_left_out(found: "Computation") -> None:
    for line in found.refused[:_REFUSED_SHOWN]:
        say(f"refused {line}")
    if (more := len(found.refused) - _REFUSED_SHOWN) > 0:
        say(f"refused {more} lines more")
    for key, count in found.not_in_plant.items():
        say(f"{key} is not in the plant: {count} records")


def _of_history(plant: "Plant", folder: Path, wanted: _Wanted) -> "list[Figures]":
    from cloud.history import figures_of_history
    from cloud.store.parquet import History

    return figures_of_history(plant, History(folder), **wanted)


def _on_spark(plant: "Plant", history: str, master: str, wanted: _Wanted) -> "list[Figures]":
    from cloud.spark import figures_on_spark, session

    with session(master) as spark:
        return figures_on_spark(plant, history, spark, **wanted)


@contextlib.contextmanager
def _progress(files: Sequence[Path]) -> Iterator[Callable[[int], None]]:
    """Show how far reading has got, where somebody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    total = sum(file.stat().st_size for file in files if file.is_file())
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("read", total=total)
        yield lambda read_bytes: progress.advance(task, read_bytes)
