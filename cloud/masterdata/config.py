"""masterdata.toml: which system says what, and how its rows are read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from cloud.addresses import AddressTable
from cloud.config import File
from cloud.errors import Fault
from cloud.toml_file import Array, TomlModel, load_model

Kind = Literal["ideal_rate", "order", "planned_stop", "off_quality", "shift"]
FIELDS: Final[dict[Kind, tuple[str, ...]]] = {
    "ideal_rate": ("ref", "machine", "from", "to", "product", "rate", "deleted", "why"),
    "order": ("ref", "machine", "from", "to", "order", "product", "deleted", "why"),
    "planned_stop": ("ref", "machine", "from", "to", "reason", "deleted", "why"),
    "off_quality": ("ref", "machine", "from", "to", "units", "product", "deleted", "why"),
    "shift": ("ref", "calendar", "date", "shift", "start", "end", "crew", "cancelled", "deleted"),
}
"""What a row of each kind may say."""
REQUIRED: Final[dict[Kind, tuple[str, ...]]] = {
    "ideal_rate": ("ref", "machine", "from", "rate"),
    "order": ("ref", "machine", "from"),
    "planned_stop": ("ref", "machine", "from", "to"),
    "off_quality": ("ref", "machine", "from", "units"),
    "shift": ("ref", "date", "shift"),
}
_WATERMARK: Final = ":watermark"


class MasterDataTable(AddressTable):
    """One `[[source]]`: a query of a database, or files in a folder."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    kind: Kind
    query: str | None = None
    watermark: str | None = None
    overlap: Annotated[float, Field(ge=0, le=86_400 * 31)] = 60.0
    start: str | int = "1970-01-01 00:00:00"
    folder: File | None = None
    pattern: str = "*.csv"
    interval_secs: Annotated[int, Field(ge=1, le=86_400)] = 30
    timezone: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    machines: dict[str, str] = Field(default_factory=dict)

    def column(self, field: str) -> str:
        """Return the name of the column that holds a field."""
        return self.columns.get(field, field)


class MasterDataConfig(TomlModel):
    """All of masterdata.toml."""

    source: Annotated[tuple[MasterDataTable, ...], Array] = ()


def load(path: Path) -> tuple[MasterDataTable, ...]:
    """Read masterdata.toml; raise ConfigError with every fault. Relative paths in it are beside the file."""
    config = load_model(path, MasterDataConfig, _faults)
    folder = path.absolute().parent
    return tuple(
        table.model_copy(
            update={
                key: folder / place
                for key in ("folder", "url_file")
                if (place := getattr(table, key)) is not None
            }
        )
        for table in config.source
    )


def _faults(config: MasterDataConfig, file: str) -> Iterator[Fault]:
    names: set[str] = set()
    for number, table in enumerate(config.source):
        place = f"source[{number}]"
        for key, problem, allowed in _oddities(table):
            yield Fault(file, f"{place}.{key}".rstrip("."), problem, allowed)
        if table.name in names:
            yield Fault(file, f"{place}.name", f"is {table.name!r} once more", "each source has its own name")
        names.add(table.name)


def _oddities(table: MasterDataTable) -> Iterator[tuple[str, str, str]]:
    """Yield what does not go together: key, problem and what is allowed."""
    places = [*table.named(), *(["folder"] if table.folder is not None else [])]
    if len(places) != 1:
        yield "", f"names {' and '.join(places) or 'no source'}", "name one of url, url_env, url_file, folder"
    if table.folder is None:
        if not table.query:
            yield "query", "is missing", "an SQL query whose columns are the fields"
        elif table.watermark is not None and _WATERMARK not in table.query:
            yield "query", f"does not use {_WATERMARK}", f"... WHERE {table.watermark} >= {_WATERMARK}"
        elif table.watermark is None and _WATERMARK in table.query:
            yield "watermark", "is missing", "the column that grows with every change"
    for field in table.columns:
        if field not in FIELDS[table.kind]:
            yield f"columns.{field}", "is no field of this kind", f"one of {', '.join(FIELDS[table.kind])}"
