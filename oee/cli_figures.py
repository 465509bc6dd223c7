"""Commands that tell figures: from files, from the store, and the calendar behind them."""

from pathlib import Path
from typing import Annotated

import typer

from oee.cli_parts import (
    By,
    CloudFile,
    Engine,
    Form,
    Format,
    From,
    Level,
    Of,
    PlantFile,
    To,
    Window,
    app,
    command,
    leave,
)
from oee.errors import require


@command(
    app,
    "compute",
    "Compute figures from files alone: the way to check any number.",
    "oee compute --plant plant.toml --telemetry day.jsonl",
    "oee compute --plant plant.toml --telemetry day.jsonl.gz --by hour --level line",
    "oee compute --plant plant.toml --telemetry a.jsonl --telemetry b.jsonl --format json | jq '.[].oee'",
    "oee compute --plant plant.toml --history /var/lib/oee-cloud/history --by week --format csv",
    "oee compute --plant plant.toml --telemetry day.jsonl --corrections said.json   from /api/v1/corrections",
)
def compute(
    *,
    plant: PlantFile,
    telemetry: Annotated[
        list[Path] | None,
        typer.Option("--telemetry", metavar="FILE", help="JSON lines, also gzipped; may be given again."),
    ] = None,
    history: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Parquet files of closed days, instead.")
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What people said of that time, as /api/v1/corrections gives it."),
    ] = None,
    since: From = None,
    until: To = None,
    by: By = Window.SHIFT,
    level: Of = Level.MACHINE,
    form: Form = Format.TABLE,
    engine: Annotated[Engine, typer.Option(help="What reads a history.")] = Engine.LOCAL,
    master: Annotated[str, typer.Option(help="The Spark cluster: local[2], spark://HOST:7077.")] = "local[2]",
) -> None:
    """Compute figures from files alone, with no server: the way to check any number."""
    require(
        "cloud", "numpy", *(("pyarrow",) if history else ()), *(("pyspark",) if engine == "spark" else ())
    )
    from cloud import commands_files

    leave(
        commands_files.compute(
            plant,
            telemetry or (),
            history=history,
            corrections=corrections,
            since=since,
            until=until,
            per=by.value,
            level=level.value,
            form=form.value,
            engine=engine.value,
            master=master,
        )
    )


@command(
    app,
    "report",
    "Print figures, revisions and what they changed, from the store.",
    "oee report                                   yesterday's and today's shifts",
    "oee report --from 2021-06-01 --by week --level line",
    "oee report --shift 2021-06-30/2 --at berlin/packaging/line-1 --diff     what each revision changed",
    "oee report --pdf shift.pdf --at berlin/packaging/line-1   sheets of the last closed shift",
)
def report(
    *,
    config: CloudFile = Path("cloud.toml"),
    since: From = None,
    until: To = None,
    by: By = Window.SHIFT,
    level: Of = Level.MACHINE,
    form: Form = Format.TABLE,
    revision: Annotated[
        int | None, typer.Option(min=1, help="Closed shifts as they were in this revision.")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="All revisions: when and why they were made.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="What each revision changed.")] = False,
    sheet: Annotated[
        Path | None,
        typer.Option("--pdf", "--write", metavar="FILE", help="A report file: .pdf .xlsx .csv .json .html"),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="PLACE", help="Only of site/area/line/machine, or its beginning.")
    ] = None,
    shift: Annotated[
        str | None,
        typer.Option(metavar="DATE/NAME", help="Only of this one; of a file the last closed one."),
    ] = None,
) -> None:
    """Print figures from the store: the same numbers as on the board."""
    require("cloud", "numpy")
    if sheet is not None:
        require("dashboards", "jinja2")
        from dashboards.commands import write_report

        leave(write_report(config, sheet, place=at, shift=shift))
        return
    from cloud import commands_report

    leave(
        commands_report.report(
            config,
            since=since,
            until=until,
            per=by.value,
            level=level.value,
            form=form.value,
            revision=revision,
            history=history,
            diff=diff,
            place=at,
            shift=shift,
        )
    )


@command(
    app,
    "calendar",
    "Print the shifts that a plant's calendars come to.",
    "oee calendar --plant plant.toml                       the next seven days",
    "oee calendar --plant plant.toml --from 2021-10-30 --to 2021-11-01",
)
def calendar(
    *,
    plant: PlantFile,
    since: From = None,
    until: To = None,
    machine: Annotated[
        str | None, typer.Option(metavar="KEY", help="Of this one alone: site/area/line/machine.")
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="JSON and CSV name all machines of each shift.")
    ] = Format.TABLE,
) -> None:
    """Print the shifts that a plant's calendars come to, with crew, breaks and planned minutes."""
    require("cloud", "numpy")
    from cloud import commands_files

    leave(commands_files.calendar(plant, since=since, until=until, machine=machine, form=form.value))
