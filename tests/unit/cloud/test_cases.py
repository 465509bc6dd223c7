"""Runs every folder of tests/cases: hand-worked telemetry and plant in, expected figures or error text out.

A case holds `plant.toml`, `telemetry.jsonl`, a `README.md` with the arithmetic, and either
`expected_error.txt` or `expected.json`: the rows in order, each with the keys that matter. A text such as
"22380/25200" stands for that quotient. `options.toml` may say since, until, per and level; `corrections.json`
what people said afterwards, of which the last one is checked where `options.toml` says `now`.

With `late.jsonl` the records are stored, their shifts closed when `options.toml` says `closes`, and the late
ones come at `arrives`; `expected.json` tells the revisions of the shifts between `since` and `until`.
"""

import json
import re
import shutil
import tempfile
import tomllib
from contextlib import closing
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from cloud.closing import Closing
from cloud.compute import Computation, compute, parse_moment
from cloud.errors import CloudError
from cloud.evaluation import Evaluation
from cloud.ingest.files import read
from cloud.locks import lock
from cloud.oee.corrections import Correction, check
from cloud.plant import Definitions, load
from cloud.report import history
from cloud.store.port import Arrivals
from cloud.store.sqlite import SqliteStore

CASES_FOLDER = Path(__file__).parents[2] / "cases"
CASES = sorted(path for path in CASES_FOLDER.iterdir() if path.is_dir())
TABLE = CASES_FOLDER / "README.md"
LINES_ONLY = ("production_date", "line_from")
"""What machines of a line cannot differ in."""


def test_there_are_at_least_forty_cases():
    assert len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case):
    assert (case / "README.md").read_text().strip(), "a case tells its arithmetic"
    error = case / "expected_error.txt"
    if error.exists():
        with pytest.raises(CloudError) as raised:
            run(case)
        for line in error.read_text().strip().splitlines():
            assert line in str(raised.value).replace(f"{case}/", "")
        return
    expected = json.loads((case / "expected.json").read_text())
    if (case / "late.jsonl").exists():
        assert differences(expected, revisions(case)) == []
        return
    found = run(case)
    rows = expected if isinstance(expected, list) else expected["figures"]
    figures = [row.to_dict() for row in found.figures]
    assert [differences(row, figure) for row, figure in zip(rows, figures, strict=True)] == [[]] * len(rows)
    for figure in figures:
        assert sum(round(secs * 1e6) for secs in figure["losses"].values()) == round(
            figure["calendar_secs"] * 1e6
        )
    if isinstance(expected, dict):
        refused = [[line.line, line.reason] for line in found.refused]
        assert refused == expected.get("refused", [])
        strangers = {str(key): count for key, count in found.not_in_plant.items()}
        assert strangers == expected.get("not_in_plant", {})
    else:
        assert found.refused == []
        assert found.not_in_plant == {}


def options() -> list[tuple[str, str, list[str]]]:
    """Return (definition, value, cases) of each row of the table of options."""
    rows = re.findall(
        r"^\| `(\w+)` \| `?([\w.]+)`?(?: \(default\))? \| (.*) \|$", TABLE.read_text(), re.MULTILINE
    )
    return [(key, value, cases.split(", ")) for key, value, cases in rows]


def test_every_option_and_rule_names_cases_that_there_are():
    names = {case.name for case in CASES}
    rows = re.findall(r"^\|.*\| ([\w-]+(?:, [\w-]+)*) \|$", TABLE.read_text(), re.MULTILINE)
    told = {case for row in rows for case in row.split(", ")} - {"cases"}
    assert told <= names
    assert len(told) > 60


def test_every_value_of_every_definition_has_a_case():
    told = {(key, value) for key, value, _ in options()}
    for key, field in Definitions.model_fields.items():
        if get_origin(field.annotation) is Literal:
            values = set(get_args(field.annotation))
        elif field.annotation is bool:
            values = {"false", "true"}
        else:
            values = {str(field.default), "any"}
        assert {value for name, value in told if name == key} == values, key


@pytest.mark.parametrize(("key", "value", "case"), [(*row[:2], case) for row in options() for case in row[2]])
def test_a_case_of_an_option_says_it(key, value, case):
    """Or it leaves the default out."""
    plant = load(CASES_FOLDER / case / "plant.toml")
    default = Definitions.model_fields[key].default
    for machine in plant.machines.values():
        said = getattr(machine.definitions, key)
        if value == "any":
            assert said != default
        else:
            assert str(said).lower() == value


@pytest.mark.parametrize("level", ["line", "machine"])
@pytest.mark.parametrize("case", sorted({case for _, _, cases in options() for case in cases}))
def test_an_option_means_the_same_wherever_it_is_said(case, level, tmp_path):
    shutil.copytree(CASES_FOLDER / case, tmp_path / case)
    path = tmp_path / case / "plant.toml"
    path.write_text(said_by(level, path.read_text()))
    test_case(tmp_path / case)


def said_by(level: str, text: str) -> str:
    """Return a plant.toml whose lines or machines say what its site did."""
    section = re.search(r"^\[definitions\]\n((?:\w+ = .*\n)*)", text, re.MULTILINE)
    assert section is not None
    of_line = level == "line"
    keys = [line for line in section[1].splitlines() if of_line or not line.startswith(LINES_ONLY)]
    rest = [line for line in section[1].splitlines() if line not in keys]
    text = text.replace(section[0], "".join(f"{line}\n" for line in ["[definitions]", *rest]))
    if of_line:
        lines = dict.fromkeys(re.findall(r'^line = "(.*)"$', text, re.MULTILINE))
        return text + "".join("\n".join([f"\n[line.{name}.definitions]", *keys, ""]) for name in lines)
    return text.replace("[[machine]]\n", f"[[machine]]\ndefinitions = {{ {', '.join(keys)} }}\n")


def run(case: Path) -> Computation:
    options = tomllib.loads(path.read_text()) if (path := case / "options.toml").exists() else {}
    plant = load(case / "plant.toml")
    corrections = read_corrections(case / "corrections.json")
    if "now" in options:
        check(corrections[-1], corrections[:-1], plant, now_us=instant(options["now"]))
    return compute(
        plant,
        [case / "telemetry.jsonl"],
        since=parse_moment(options["since"]) if "since" in options else None,
        until=parse_moment(options["until"]) if "until" in options else None,
        per=options.get("per", "shift"),
        level=options.get("level", "machine"),
        corrections=corrections,
    )


def revisions(case: Path) -> dict[str, Any]:
    """Return what a store keeps of m1's shifts when late.jsonl arrives after they are closed."""
    options = tomllib.loads((case / "options.toml").read_text())
    service = load(case / "plant.toml")
    with tempfile.TemporaryDirectory() as folder, closing(SqliteStore(Path(folder) / "store")) as store:
        for file, at in (("telemetry.jsonl", options["closes"]), ("late.jsonl", options["arrives"])):
            now_us = instant(at)
            lock(store, service, now_us)
            for batch in read(case / file):
                store.append(Arrivals(batch.records, batch.gaps))
            closes = Closing(Evaluation(service, store), grace_us=0, settle_us=0)
            while not closes.step(now_us).is_done:
                pass
        since, until = parse_moment(options["since"]), parse_moment(options["until"])
        shifts = history(service, store, since, until, "machine")
        return {
            "shifts": [
                {
                    "revisions": [{"why": each.why, **each.figures} for each in shift.revisions],
                    "after_lock": 0 if shift.after_lock is None else shift.after_lock.records,
                }
                for shift in shifts
            ]
        }


def read_corrections(path: Path) -> list[Correction]:
    if not path.exists():
        return []
    return [
        Correction(
            number=number,
            from_us=instant(said.pop("from")),
            to_us=instant(said.pop("to")),
            when_us=instant("2021-07-02T08:00:00Z"),
            **{"machine": "site/area/line/m1", "who": "Ann", **said},
        )
        for number, said in enumerate(json.loads(path.read_text()), start=1)
    ]


def instant(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)


def differences(expected: Any, found: Any, path: str = "") -> list[str]:
    """Return where a figure is not what was expected; only the keys that are expected count."""
    if isinstance(expected, dict):
        return [
            difference
            for key, value in expected.items()
            for difference in differences(value, found[key], f"{path}.{key}")
        ]
    if isinstance(expected, list):
        if len(expected) != len(found):
            return [f"{path}: {len(found)} in place of {len(expected)}: {found}"]
        return [
            difference
            for index, value in enumerate(expected)
            for difference in differences(value, found[index], f"{path}[{index}]")
        ]
    if isinstance(found, float) and isinstance(expected, str):
        expected = float(Fraction(expected))
    return [] if expected == found else [f"{path}: {found!r} in place of {expected!r}"]
