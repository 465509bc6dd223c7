"""Runs every folder of tests/cases: hand-worked telemetry and plant in, expected figures or error text out.

A case holds `plant.toml`, `telemetry.jsonl`, a `README.md` with the arithmetic, and either
`expected_error.txt` or `expected.json`: the rows in order, each with the keys that matter. A text such as
"22380/25200" stands for that quotient. `options.toml` may say since, until, per and level; `corrections.json`
what people said afterwards, of which the last one is checked where `options.toml` says `now`.

With `late.jsonl` the records are stored, their shifts closed when `options.toml` says `closes`, and the late
ones come at `arrives`; `expected.json` tells the revisions of the shifts between `since` and `until`.
"""

import json
import tempfile
import tomllib
from contextlib import closing
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from cloud.closing import Closing
from cloud.compute import Computation, compute, parse_moment
from cloud.errors import CloudError
from cloud.evaluation import Evaluation
from cloud.ingest.files import read
from cloud.locks import lock
from cloud.oee.corrections import Correction, check
from cloud.plant import load
from cloud.report import history
from cloud.store.port import Arrivals
from cloud.store.sqlite import SqliteStore

CASES = sorted(path for path in (Path(__file__).parents[2] / "cases").iterdir() if path.is_dir())


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
