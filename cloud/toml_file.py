"""Reads a TOML file into a frozen pydantic model, or tells all its faults at once."""

import copy
import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from cloud.errors import ConfigError, Fault

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[int | str, ...]
Table = dict[str, Any]

_SHORT_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?![:\d])")
_ATTEMPTS = 20


def _number(value: Any) -> Any:
    """Let through what TOML calls a finite number; nothing that merely looks like one."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic collects ValueErrors only
    number = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise ValueError("must be a finite number")
    return number


def _sequence(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Number = Annotated[Decimal, BeforeValidator(_number)]
"""A TOML integer or float, kept exactly as written."""

Array = BeforeValidator(_sequence)
"""Marks a tuple that TOML writes as an array."""


class Validated(NamedTuple, Generic[Model]):
    """What is right and what is wrong in a table."""

    model: Model | None
    faults: list[Fault]
    positions: Mapping[str, Sequence[int]]
    """By key path of each array of tables: where in the file's array the rows of the model's stand."""


class TomlModel(BaseModel):
    """A table of a TOML file: frozen, without unknown keys, without conversions of type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


def read_table(path: Path) -> Table:
    """Read a TOML file, floats as Decimal; raise ConfigError when it cannot be read or is not TOML."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError.unreadable(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError.unreadable(path, f"is not UTF-8: byte {error.start}") from error
    return parse_table(text, file=str(path))


def parse_table(text: str, *, file: str) -> Table:
    """Read TOML, floats as Decimal; raise ConfigError, which names the file, when it is not TOML."""
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError.unreadable(file, f"is not TOML: {error}{_time_hint(text, str(error))}") from error


def load_model(
    path: Path, model: type[Model], further_faults: Callable[[Model, str], Iterable[Fault]]
) -> Model:
    """Read a TOML file; raise ConfigError with every fault.

    further_faults: what is wrong with a model of that file beyond its single values
    """
    found, faults = validate(read_table(path), model, file=str(path))
    if found is not None:
        faults += further_faults(found, str(path))
    if faults or found is None:
        raise ConfigError(faults)
    return found


def validate(
    table: Table, model: type[Model], *, file: str, stand_ins: Mapping[str, Table] | None = None
) -> tuple[Model | None, list[Fault]]:
    """Return the model of what is right in a table, and a fault for everything that is not.

    The model lacks the faulty items, so that a caller can go on to look for faults between the others;
    it is None when too little is left. stand_ins: what takes the place of needed tables that are faulty.
    """
    found = validated(table, model, file=file, stand_ins=stand_ins)
    return found.model, found.faults


def validated(
    table: Table, model: type[Model], *, file: str, stand_ins: Mapping[str, Table] | None = None
) -> "Validated[Model]":
    """Return what `validate` does, and where in the table the rows of the model stand."""
    faults: list[Fault] = []
    rest = copy.deepcopy(table)
    written = dict(_rows_of(rest))
    for attempt in range(_ATTEMPTS):
        try:
            return Validated(model.model_validate(rest), faults, _positions(rest, written))
        except ValidationError as error:
            problems = error.errors(include_url=False)
            if attempt == 0:
                faults = [_fault(file, table, model, problem) for problem in problems]
            for location in sorted((tuple(p["loc"]) for p in problems), key=_item_order, reverse=True):
                _drop(rest, location)
            rest = {**(stand_ins or {}), **rest}
    return Validated(None, faults, {})


def _rows_of(table: Any) -> Iterator[tuple[int, int]]:
    """Yield (identity, position) of each table within an array, however deep."""
    if isinstance(table, list):
        yield from ((id(row), position) for position, row in enumerate(table) if isinstance(row, dict))
    for inner in table.values() if isinstance(table, dict) else table if isinstance(table, list) else ():
        yield from _rows_of(inner)


def _positions(table: Any, written: Mapping[int, int], path: str = "") -> dict[str, list[int]]:
    """Return by key path of each array of tables at which positions its rows were written."""
    found: dict[str, list[int]] = {}
    if isinstance(table, dict):
        for key, inner in table.items():
            found |= _positions(inner, written, f"{path}.{key}" if path else key)
    elif isinstance(table, list):
        rows = [row for row in table if isinstance(row, dict)]
        found[path] = [written[id(row)] for row in rows]
        for row in rows:
            found |= _positions(row, written, f"{path}[{_item(row, written[id(row)])}]")
    return found


def as_written(path: str, positions: Mapping[str, Sequence[int]]) -> str:
    """Return a key path that counts rows of a model as one that counts those of its file."""
    found = ""
    for part in re.split(r"(\[\d+\])", path):
        row = int(part[1:-1]) - 1 if re.fullmatch(r"\[\d+\]", part) else None
        rows = positions.get(found, ())
        found += f"[{rows[row] + 1}]" if row is not None and row < len(rows) else part
    return found


def item_name(name: str) -> str:
    """Return a row's name as it stands in a key path: one of digits alone is no position."""
    return f"'{name}'" if name.isdigit() else name


def _item(row: Any, position: int) -> str:
    """Return what names a row in a key path: its name, or its position from 1."""
    name = row.get("name") if isinstance(row, dict) else None
    return item_name(name) if isinstance(name, str) else str(position + 1)


def key_path(table: Any, location: Sequence[int | str]) -> str:
    """Return `machine[filler-1].targets.oee`: array items by their name where they have one, else from 1."""
    path = ""
    here = table
    for step in location:
        here = _step(here, step)
        if isinstance(step, int):
            path += f"[{_item(here, step)}]"
        else:
            path += f".{step}" if path else step
    return path


def _item_order(location: Location) -> tuple[tuple[bool, int | str], ...]:
    return tuple((isinstance(step, str), step) for step in location)


def _step(here: Any, step: int | str) -> Any:
    if isinstance(here, dict):
        return here.get(step)
    if isinstance(here, list) and isinstance(step, int) and step < len(here):
        return here[step]
    return None


def _drop(table: Any, location: Location) -> None:
    """Take what a location points at out of a table: the innermost row of an array, or else the key."""
    path: list[tuple[Any, Any]] = []
    here: Any = table
    for step in location:
        if _step(here, step) is None:
            break
        path.append((here, step))
        here = _step(here, step)
    if len(path) < len(location) or not path:  # a missing key: its table goes
        holder, step = path[-1] if path else (table, "")
    else:
        rows = (
            place for place in reversed(path) if isinstance(_step(*place), dict) and isinstance(place[1], int)
        )
        holder, step = next(rows, path[-1])
    if isinstance(holder, dict):
        holder.pop(step, None)
    elif isinstance(step, int) and step < len(holder):
        del holder[step]


def _fault(file: str, table: Table, model: type[BaseModel], problem: Any) -> Fault:
    location = tuple(problem["loc"])
    key = key_path(table, location)
    context: Mapping[str, Any] = problem.get("ctx", {})
    match problem["type"]:
        case "extra_forbidden":
            allowed = _keys_at(model, location[:-1])
            close = difflib.get_close_matches(str(location[-1]), allowed, n=1, cutoff=0.75)
            hint = f"did you mean {close[0]}? " if close else ""
            return Fault(file, key, "unknown key", f"{hint}allowed: {', '.join(allowed)}")
        case "missing":
            return Fault(file, key, "is missing")
        case "literal_error":
            return Fault(file, key, f"is {_shown(problem['input'])}", f"allowed: {context['expected']}")
        case "value_error":
            text = str(context["error"])
            return Fault(file, key, f"is {_shown(problem['input'])}", text)
        case "too_short":
            return Fault(file, key, "is empty", "at least one item")
    wanted = problem["msg"].replace("Input should be", "must be").replace("String should", "must")
    return Fault(file, key, f"is {_shown(problem['input'])}", _plain(wanted))


def _plain(message: str) -> str:
    words = {
        "must be a valid integer": "must be a whole number",
        "must be a valid string": "must be a text in quotes",
        "must be a valid boolean": "must be true or false",
        "must be a valid dictionary": "must be a table",
        "must be a valid tuple": "must be an array",
        "must be a valid list": "must be an array",
        "must be a valid date": "must be a date such as 2021-12-25",
    }
    if message.startswith(("must be a valid dictionary", "must be an object")):
        return "must be a table"
    return words.get(message, message[:1].lower() + message[1:])


def _shown(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return repr(value[:60])
        case dict():
            return "a table"
        case list() | tuple():
            return "an array"
        case date() | datetime() | time():
            return value.isoformat()
    return str(value)[:60]


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """Return the keys allowed in the table at a location."""
    here: Any = model
    for step in location:
        here = _inner(here, step)
    found = _model_of(here)
    return [field.alias or name for name, field in found.model_fields.items()] if found else []


def _inner(annotation: Any, step: int | str) -> Any:
    model = _model_of(annotation)
    if model is not None:
        for name, field in model.model_fields.items():
            if step in (field.alias, name):
                return field.annotation
        return None
    for choice in _choices(annotation):
        origin = get_origin(choice)
        if origin in (list, tuple):
            return get_args(choice)[0]
        if origin in (dict, Mapping):
            return get_args(choice)[1]
    return None


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for choice in _choices(annotation):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice
    return None


def _choices(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _choices(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [choice for part in get_args(annotation) for choice in _choices(part)]
    return [annotation]


def _time_hint(text: str, message: str) -> str:
    line = re.search(r"at line (\d+)", message)
    lines = text.splitlines()
    if line and int(line[1]) <= len(lines) and _SHORT_TIME.search(lines[int(line[1]) - 1]):
        return "; a moment is written with its seconds (2021-06-30T10:00:00) or in quotes"
    return ""
