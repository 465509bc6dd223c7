"""QuickSight data sets, analysis and dashboard, made by code: `python -m dashboards.quicksight` writes them.

They read two tables of Athena: `records`, the history as docs/history.md describes it, and `figures`, the
Parquet files of `GET /api/v1/figures?format=parquet`. QuickSight shows the figures and computes none: a
ratio is read from the one row of its line and shift, never averaged over rows.
"""

import json
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

FOLDER: Final = Path(__file__).parent
ACCOUNT: Final = "000000000000"
REGION: Final = "eu-central-1"
"""Stand-ins that docs/quicksight.md says how to replace."""
_ARN: Final = f"arn:aws:quicksight:{REGION}:{ACCOUNT}"
_PALETTE: Final = ("#2f6fc9", "#a8142f", "#3f9f80", "#c48800", "#b45712", "#6b7583", "#8d98a3", "#14212b")
_LOSSES: Final = (
    "changeover",
    "breakdown",
    "other_stop",
    "idle",
    "small_stops",
    "no_data",
    "reduced_speed",
    "rejects",
    "startup_rejects",
    "value_adding",
)
_RATIOS: Final = ("oee", "availability", "performance", "quality")

Kind = Literal["STRING", "INTEGER", "DECIMAL", "DATETIME"]


class Column(NamedTuple):
    """One column of a data set and where its table has it."""

    name: str
    kind: Kind
    source: str


class DataSet(NamedTuple):
    """What QuickSight reads: columns of a table, or of a question to it."""

    name: str
    title: str
    columns: tuple[Column, ...]
    table: str
    where: str = ""

    @property
    def sql(self) -> str:
        """Return the question, as Athena and DuckDB alike understand it."""
        columns = ",\n".join(f"  {column.source} AS {column.name}" for column in self.columns)
        return f"SELECT\n{columns}\nFROM {self.table}" + (f"\nWHERE {self.where}" if self.where else "")


def _same(kind: Kind, *names: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind, f'"{name}"') for name in names)


_SHIFT: Final = (
    *_same("STRING", "site", "area", "line"),
    Column("production_date", "DATETIME", 'CAST("production_date" AS timestamp)'),
    *_same("STRING", "shift"),
    Column("shift_label", "STRING", """"production_date" || ' S' || "shift\""""),
)
_FIGURES: Final = (
    *_same("DECIMAL", *_RATIOS),
    *_same("INTEGER", "good_units", "off_quality_units"),
    *_same("DECIMAL", "planned_production_secs", "run_secs", "unknown_secs"),
    *(Column(f"{name}_secs", "DECIMAL", f'"losses.{name}"') for name in _LOSSES),
)

LINES: Final = DataSet(
    "oee-lines", "Lines by shift", (*_SHIFT, *_FIGURES), "figures", '"machine" IS NULL AND "line" IS NOT NULL'
)
MACHINES: Final = DataSet(
    "oee-machines",
    "Machines by shift",
    (*_SHIFT, *_same("STRING", "machine"), *_FIGURES),
    "figures",
    '"machine" IS NOT NULL',
)
STATES: Final = DataSet(
    "oee-states",
    "States, straight from the records",
    (
        *_same("STRING", "site", "area", "line", "machine"),
        Column("day", "STRING", 'CAST("day" AS varchar)'),
        *_same("STRING", "state"),
        Column(
            "secs",
            "INTEGER",
            'date_diff(\'second\', "time", lead("time") OVER '
            '(PARTITION BY "site", "area", "line", "machine" ORDER BY "time", "sequence"))',
        ),
    ),
    "records",
)
DATA_SETS: Final = (LINES, MACHINES, STATES)


class Field(NamedTuple):
    """A value that a visual shows; of one row in each place, so that any sum of it is that row's."""

    column: str
    title: str
    is_ratio: bool = False


class Visual(NamedTuple):
    """One visual: what it reads and how it shows it; a grid cell is 1/36 of the width."""

    name: str
    title: str
    kind: Literal["bars", "lines", "combo", "table"]
    data: DataSet
    by: tuple[str, ...]
    values: tuple[Field, ...]
    width: int
    height: int
    lines: tuple[Field, ...] = ()
    colour: str | None = None


_UNITS: Final = (Field("good_units", "Good units"), Field("off_quality_units", "Off-quality units"))
_FACTORS: Final = tuple(
    Field(name, name.upper() if name == "oee" else name.capitalize(), True) for name in _RATIOS
)

VISUALS: Final = (
    Visual(
        "units",
        "Good units by shift, with OEE",
        "combo",
        LINES,
        ("shift_label",),
        _UNITS,
        36,
        10,
        _FACTORS[:1],
    ),
    Visual("factors", "OEE and its factors by shift", "lines", LINES, ("shift_label",), _FACTORS, 36, 10),
    Visual(
        "losses",
        "Where the time of each machine went, s",
        "bars",
        MACHINES,
        ("machine",),
        tuple(Field(f"{name}_secs", name.replace("_", " ").capitalize()) for name in _LOSSES),
        18,
        12,
    ),
    Visual(
        "states",
        "Time in each state, s",
        "bars",
        STATES,
        ("machine",),
        (Field("secs", "Time"),),
        18,
        12,
        colour="state",
    ),
    Visual(
        "shifts",
        "Machines by shift",
        "table",
        MACHINES,
        ("shift_label", "machine"),
        (*_FACTORS, *_UNITS),
        36,
        14,
    ),
)


def data_set(found: DataSet) -> dict[str, Any]:
    """Return the request of CreateDataSet."""
    question = {
        "DataSourceArn": f"{_ARN}:datasource/oee-athena",
        "Name": found.title,
        "SqlQuery": found.sql,
        "Columns": [{"Name": column.name, "Type": column.kind} for column in found.columns],
    }
    return {
        "AwsAccountId": ACCOUNT,
        "DataSetId": found.name,
        "Name": found.title,
        "ImportMode": "SPICE",
        "PhysicalTableMap": {found.name: {"CustomSql": question}},
    }


def definition() -> dict[str, Any]:
    """Return what analysis and dashboard show."""
    return {
        "DataSetIdentifierDeclarations": [
            {"Identifier": found.name, "DataSetArn": f"{_ARN}:dataset/{found.name}"} for found in DATA_SETS
        ],
        "Sheets": [
            {
                "SheetId": "shifts",
                "Name": "Shifts",
                "ContentType": "INTERACTIVE",
                "Visuals": [_visual(visual) for visual in VISUALS],
                "FilterControls": [
                    {
                        "Dropdown": {
                            "FilterControlId": "line-control",
                            "Title": "Line",
                            "SourceFilterId": "line",
                            "Type": "SINGLE_SELECT",
                        }
                    }
                ],
                "Layouts": [{"Configuration": {"GridLayout": {"Elements": _layout()}}}],
            }
        ],
        "FilterGroups": [
            {
                "FilterGroupId": "line-group",
                "CrossDataset": "ALL_DATASETS",
                "Status": "ENABLED",
                "ScopeConfiguration": {
                    "SelectedSheets": {
                        "SheetVisualScopingConfigurations": [{"SheetId": "shifts", "Scope": "ALL_VISUALS"}]
                    }
                },
                "Filters": [
                    {
                        "CategoryFilter": {
                            "FilterId": "line",
                            "Column": _column(LINES, "line"),
                            "Configuration": {
                                "FilterListConfiguration": {
                                    "MatchOperator": "CONTAINS",
                                    "CategoryValues": ["line-1"],
                                }
                            },
                        }
                    }
                ],
            }
        ],
    }


def analysis() -> dict[str, Any]:
    """Return the request of CreateAnalysis."""
    return {"AwsAccountId": ACCOUNT, "AnalysisId": "oee", "Name": "OEE", "Definition": definition()}


def dashboard() -> dict[str, Any]:
    """Return the request of CreateDashboard."""
    return {"AwsAccountId": ACCOUNT, "DashboardId": "oee", "Name": "OEE", "Definition": definition()}


def texts() -> dict[str, str]:
    """Return every file: name to text."""
    made = {f"data-set-{found.name}": data_set(found) for found in DATA_SETS}
    made |= {"analysis": analysis(), "dashboard": dashboard()}
    return {f"{name}.json": json.dumps(request, indent=2) + "\n" for name, request in made.items()}


def write() -> None:
    """Write the files into this folder."""
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def _visual(visual: Visual) -> dict[str, Any]:
    by = [_dimension(visual, column) for column in visual.by]
    values = [_measure(visual, field) for field in visual.values]
    colours = [] if visual.colour is None else [_dimension(visual, visual.colour)]
    head = {
        "VisualId": visual.name,
        "Title": {"Visibility": "VISIBLE", "FormatText": {"PlainText": visual.title}},
    }
    palette = {"VisualPalette": {"ChartColor": _PALETTE[0]}}
    match visual.kind:
        case "bars":
            wells = {"BarChartAggregatedFieldWells": {"Category": by, "Values": values, "Colors": colours}}
            shape = {"Orientation": "HORIZONTAL", "BarsArrangement": "STACKED", **palette}
            return {"BarChartVisual": {**head, "ChartConfiguration": {"FieldWells": wells, **shape}}}
        case "lines":
            wells = {"LineChartAggregatedFieldWells": {"Category": by, "Values": values}}
            return {
                "LineChartVisual": {
                    **head,
                    "ChartConfiguration": {
                        "FieldWells": wells,
                        "Type": "LINE",
                        "PrimaryYAxisDisplayOptions": _FROM_ZERO,
                    },
                }
            }
        case "combo":
            lines = [_measure(visual, field) for field in visual.lines]
            wells = {
                "ComboChartAggregatedFieldWells": {"Category": by, "BarValues": values, "LineValues": lines}
            }
            return {
                "ComboChartVisual": {
                    **head,
                    "ChartConfiguration": {"FieldWells": wells, "BarsArrangement": "STACKED", **palette},
                }
            }
        case "table":
            wells = {"TableAggregatedFieldWells": {"GroupBy": by, "Values": values}}
            return {"TableVisual": {**head, "ChartConfiguration": {"FieldWells": wells}}}


_FROM_ZERO: Final = {
    "AxisOptions": {
        "DataOptions": {"NumericAxisOptions": {"Range": {"MinMax": {"Minimum": 0.0, "Maximum": 1.0}}}}
    }
}


def _dimension(visual: Visual, column: str) -> dict[str, Any]:
    field = {"FieldId": f"{visual.name}.{column}", "Column": _column(visual.data, column)}
    return {"CategoricalDimensionField": field}


def _measure(visual: Visual, field: Field) -> dict[str, Any]:
    measure: dict[str, Any] = {
        "FieldId": f"{visual.name}.{field.column}",
        "Column": _column(visual.data, field.column),
        "AggregationFunction": {"SimpleNumericalAggregation": "MAX" if field.is_ratio else "SUM"},
    }
    if field.is_ratio:
        percent = {"DecimalPlacesConfiguration": {"DecimalPlaces": 1}}
        measure["FormatConfiguration"] = {
            "FormatConfiguration": {"PercentageDisplayFormatConfiguration": percent}
        }
    return {"NumericalMeasureField": measure}


def _column(data: DataSet, name: str) -> dict[str, str]:
    assert any(column.name == name for column in data.columns), (data.name, name)
    return {"DataSetIdentifier": data.name, "ColumnName": name}


def _layout() -> list[dict[str, Any]]:
    """Lay the visuals out from the left, a new row where the next has no room."""
    found, column, row, high = [], 0, 0, 0
    for visual in VISUALS:
        if column + visual.width > 36:
            column, row, high = 0, row + high, 0
        found.append(
            {
                "ElementId": visual.name,
                "ElementType": "VISUAL",
                "ColumnIndex": column,
                "ColumnSpan": visual.width,
                "RowIndex": row,
                "RowSpan": visual.height,
            }
        )
        column, high = column + visual.width, max(high, visual.height)
    return found
