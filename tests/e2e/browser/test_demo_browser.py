"""The real `oee demo` in a real headless Chromium: what people see is what the simulated factory did.

One demo serves all tests here, in the order in which they stand.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from importlib.resources import files
from pathlib import Path

import openpyxl
import psutil
import pytest
from playwright.sync_api import expect, sync_playwright
from pypdf import PdfReader

from contract.machine_key import MachineKey
from contract.telemetry import Telemetry
from simulator.timetable import windows
from simulator.truth import Truth
from tests.support import judge, kept
from tests.support.demo_process import Demo, crowding, wait_until
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

pytestmark = [pytest.mark.browser, pytest.mark.slow]

OEE = Path(sys.executable).parent / "oee"
LINE = "demo-plant/packaging/line-1"
MACHINES = [f"{kind}-{line}" for line in (1, 2) for kind in ("filler", "capper", "labeller", "packer")]
PAGES = (
    *("/", "/tv", "/place", f"/place?at={LINE}", f"/place?at={LINE}/filler-1", "/timeline", "/stops"),
    *("/losses", "/hourly", "/shifts", "/trends", "/alerts", "/connections", "/reports", "/report", "/api"),
)
DESKTOP, TABLET, PHONE = (1440, 900), (1024, 768), (390, 844)
SHIFTS_SECS, FOLLOWS_SECS = 60.0, 10 * PATIENCE
FOLLOWS_MS = FOLLOWS_SECS * 1000
expect.set_options(timeout=FOLLOWS_MS)


class Factory:
    """The demo and what it knows; `url` without a slash at its end."""

    def __init__(self, folder):
        self.folder = folder
        ports = ["--board-port", str(free_port())]
        self.demo = Demo(OEE, folder, *ports, environment=os.environ)
        self.url = self.demo.board.rstrip("/")
        self.true = None

    def api(self, path):
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=60) as answer:
            return json.loads(answer.read())

    def bytes(self, path):
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return answer.read()

    def truth(self):
        """The span that was played so far [us], and the true figures of the shifts that lie whole in it."""
        truth = Truth.from_log(self.folder / "simulator" / "truth.jsonl")
        begin, end = truth.span_us()
        whole = {
            (shift.start_us, shift.end_us)
            for shift in windows(truth.timetable, begin, end)
            if shift.start_us >= begin and shift.end_us <= end - 5_000_000
        }
        return [one.to_dict() for one in truth.figures(begin, end) if (one.start_us, one.end_us) in whole]

    def closed_shift(self):
        """The true figures of the last shift that is closed, once it is; None until then.

        The same for all tests: another shift may end while they run.
        """
        if self.true is None and (true := self.truth()):
            last = max(row["start"] for row in true)
            found = [row for row in true if row["start"] == last]
            self.true = found
            kept = [row for level in ("machine", "line") for row in self.closed(level) if row.get("revision")]
            if len(kept) < len(MACHINES) + 2:
                self.true = None
        return self.true

    def closed(self, level="machine", at=""):
        """The rows of that shift, as the API gives them."""
        start, end = self.true[0]["start"], self.true[0]["end"]
        rows = self.api(f"shifts?from={start}&to={end}&level={level}&at={at}")
        return [row for row in rows if row["start"] == start]

    def run(self, *arguments):
        done = subprocess.run([str(OEE), *arguments], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    found = Factory(tmp_path_factory.mktemp("factory") / "demo")
    try:
        for line in (1, 2):
            found.demo.wait_for(rf"line-{line} closed shift", SHIFTS_SECS)
        assert wait_until(found.closed_shift, SHIFTS_SECS * crowding()), found.demo.output
        yield found
    finally:
        found.demo.kill()


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[
                *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
                *("--disable-component-update", "--disable-sync", "--no-first-run"),
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(factory, chromium):
    """Open pages; whatever goes wrong in them, and whatever they ask of other hosts, ends the test."""
    contexts, faults = [], []

    def note_request(request):
        if not re.match(rf"(http|ws)://127\.0\.0\.1:{factory.url.rpartition(':')[2]}/|data:", request.url):
            faults.append(f"asked for {request.url}")

    def open_page(path="/", *, size=DESKTOP, theme="dark", touch=False):
        context = chromium.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=theme,
            has_touch=touch,
            locale="en-GB",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(FOLLOWS_MS)
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", note_request)
        assert page.goto(factory.url + path).status == 200
        return page

    open_page.faults = faults
    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def serious_findings(page, theme):
    """What axe calls serious or critical on a page; of the second theme the colours alone can differ."""
    asked = "{ resultTypes: ['violations'] }"
    if theme == "dark":
        asked = "{ resultTypes: ['violations'], runOnly: ['color-contrast'] }"
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text())
    found = page.evaluate(f"axe.run(document, {asked})")["violations"]
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def shift_of(row):
    return f"{row['production_date']}/{row['shift']}"


def test_a_closed_shift_has_the_simulators_true_figures_on_api_and_page(factory, opened):
    rows = factory.closed()
    assert len(rows) == len(factory.true) == len(MACHINES)
    assert judge.compare_figures(rows, factory.true) == []
    page = opened(f"/report?at={LINE}&shift={shift_of(rows[0])}")
    for row in rows:
        if row["line"] == "line-1":
            sheet = page.get_by_role("article", name=row["machine"])
            expect(sheet.locator(".headline .oee b")).to_have_text(f"{row['oee'] * 100:.1f}")
            expect(sheet.locator(".headline .units b")).to_have_text(f"{row['good_units']:,}")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_every_page_opens_without_a_fault_and_is_accessible(factory, opened, theme):
    page = opened(theme=theme)
    for path in PAGES:
        assert page.goto(factory.url + path).status == 200, path
        expect(page.get_by_role("heading", level=1).first).to_be_attached()
        assert serious_findings(page, theme) == [], path
        assert opened.faults == [], path


def test_a_phone_shows_every_page_without_scrolling_sideways(factory, opened):
    page = opened(size=PHONE, theme="light", touch=True)
    for path in PAGES:
        if path != "/tv":
            page.goto(factory.url + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], path


def test_the_board_changes_live_without_being_loaded_anew(factory, opened):
    page = opened()
    page.evaluate("window.loadedOnce = true")
    for machine in MACHINES:
        expect(page.get_by_role("article", name=machine)).to_be_visible()
    before = page.locator(".goal p b").all_inner_texts()
    page.wait_for_function(
        "before => [...document.querySelectorAll('.goal p b')]"
        ".some((node, at) => node.textContent !== before[at])",
        arg=before,
    )
    assert page.evaluate("window.loadedOnce")
    expect(page.locator("html.stale")).to_have_count(0)


def test_eight_tabs_of_one_browser_are_all_live(factory, opened):
    first = opened()
    tabs = [first, *(first.context.new_page() for _ in range(7))]
    for tab in tabs[1:]:
        tab.goto(factory.url)
    for tab in tabs:
        tab.bring_to_front()
        expect(tab.locator("[data-fresh-word]").first).to_have_text(re.compile(r"updated (now|[1-4] s ago)"))


def said_of(factory, shift):
    """The OEE of line 1 in a shift, as each way of asking says it; unrounded where it is told so."""
    query = f"at={LINE}&shift={shift}"
    page = factory.bytes(f"/place?{query}").decode()
    (row,) = [row for row in factory.closed("line", LINE) if shift_of(row) == shift]
    (told, *_) = json.loads(factory.bytes(f"/report.json?{query}"))
    sheet = openpyxl.load_workbook(io.BytesIO(factory.bytes(f"/report.xlsx?{query}")))["Summary"]
    (cells,) = [cells for cells in sheet.iter_rows(values_only=True) if cells[0] == "line-1"]
    paper = PdfReader(io.BytesIO(factory.bytes(f"/report.pdf?{query}"))).pages[0].extract_text()
    config = str(factory.folder / "config" / "cloud.toml")
    stored = factory.run("report", "--config", config, "--level", "line", "--format", "json")
    (kept,) = [one for one in stored if one["line"] == "line-1" and shift_of(one) == shift]
    return {
        "page": re.search(r'<div class="oee[^"]*">.*?<b>([\d.]+)</b>', page, re.DOTALL)[1],
        "pdf": re.search(r"OEE\s+([\d.]+)\s*%", paper)[1],
        "api": row["oee"],
        "json": told["figures"]["oee"],
        "xlsx": cells[1],
        "report": kept["oee"],
        "revision": row["revision"],
        "losses": row["losses"],
    }


def assert_one_truth(said):
    assert said["api"] == said["json"] == said["report"]
    assert said["xlsx"] == pytest.approx(said["api"], rel=1e-14)
    assert said["page"] == said["pdf"] == f"{said['api'] * 100:.1f}"


def test_a_stop_is_split_and_classified_on_a_tablet_and_every_way_to_ask_says_the_same(factory, opened):
    (line,) = factory.closed("line", LINE)
    shift = shift_of(line)
    before = line
    stops = factory.api(f"stops?from={line['start']}&to={line['end']}&at={LINE}&shortest_secs=100")
    stop = max((one for one in stops if one["state"] == "stopped"), key=lambda one: one["secs"])
    address = f"/stops?at={LINE}&shift={shift}&small=all"  # of the longest, too, a small part may be left
    page = opened(address, size=TABLET, theme="light", touch=True)
    for part, reason, comment in (
        ("first", "Drive overload", "fuse of the drive"),
        ("second", "No material", "pallet came late"),
    ):
        page.goto(factory.url + address)
        card = page.locator(f'a.stop-card[href*="since={stop["start_epochtime"]}"]')
        card.tap()
        page.get_by_label("Your name").fill("Ida")
        page.get_by_label("Comment").fill(comment)
        if part == "first":
            page.get_by_text("Split this stop").tap()
            page.get_by_label("Cut after").fill("90")
            page.get_by_label("The reason is of the first part").check()
            stop = stop | {"start_epochtime": stop["start_epochtime"] + 90}
        button = page.get_by_role("button", name=reason)
        assert button.bounding_box()["height"] >= 70
        button.tap()
        expect(page.get_by_role("status").filter(has_text="Noted for")).to_be_visible()
    wanted = before["losses"]["breakdown"] + 89
    assert wait_until(lambda: factory.closed("line", LINE)[0]["losses"]["breakdown"] > wanted, FOLLOWS_SECS)
    assert wait_until(lambda: factory.closed("line", LINE)[0]["revision"] > before["revision"], FOLLOWS_SECS)
    after = said_of(factory, shift)
    assert_one_truth(after)
    moved = after["losses"]["breakdown"] - before["losses"]["breakdown"]
    assert moved == pytest.approx(90, abs=0.001)
    assert sum(after["losses"].values()) == pytest.approx(sum(before["losses"].values()), abs=1e-6)
    sheet = factory.bytes(f"/report?at={LINE}&shift={shift}").decode()
    assert "fuse of the drive" in sheet
    assert "pallet came late" in sheet
    machine = "/".join(stop[level] for level in ("site", "area", "line", "machine"))
    revisions = factory.api(f"revisions?at={machine}&start={line['start']}")
    assert "Ida" in revisions[-1]["why"]


def test_an_engineer_stops_and_starts_a_connection_from_the_page(factory, opened):
    page = opened("/connections", theme="light")
    for action, state in (("Stop", "stopped"), ("Start", "connect")):
        page.locator("tr", has_text="line-2").locator("details.ask summary").click()
        page.locator("tr", has_text="line-2").get_by_label("Your name").fill("Ida")
        page.get_by_role("button", name=f"{action} line-2").click()
        done = "stopped" if action == "Stop" else "started"
        expect(page.get_by_role("status").filter(has_text=f"has {done} line-2")).to_be_visible()
        row = page.get_by_role("region", name="gw-packaging").first.locator("tr", has_text="line-2").first
        expect(row).to_contain_text(state)
    page.get_by_label("Tags").fill("filler*state")
    visible = page.locator("#tags-1 tbody tr:visible")
    expect(visible.first).to_contain_text("filler")
    assert all("filler" in text and "state" in text for text in visible.all_inner_texts())


def test_a_restart_of_the_server_under_an_open_page_shows_a_banner_and_heals(factory, opened):
    page = opened()
    lost = page.get_by_role("alert").filter(has_text="Connection lost")
    expect(lost).to_be_hidden()
    psutil.Process(factory.demo.pid_of("cloud")).send_signal(signal.SIGKILL)
    expect(lost).to_be_visible()
    expect(lost).to_be_hidden(timeout=2 * FOLLOWS_MS)
    expect(page.locator("[data-fresh-word]").first).to_have_text(re.compile("updated"))
    opened.faults.clear()  # a browser tells of each connection that it could not make


def test_compute_from_records_and_corrections_says_what_the_screens_said(factory, tmp_path):
    (line,) = factory.closed("line", LINE)
    (tmp_path / "said.json").write_text(json.dumps(factory.api("corrections")))
    plant = str(factory.folder / "config" / "plant.toml")
    assert factory.demo.end()[0] == 0
    lines = [
        record(stored)
        for stored in kept.read_store(factory.folder / "cloud" / "store.sqlite3")
        if stored.gap_until_us is None
    ]
    (tmp_path / "day.jsonl").write_bytes(b"\n".join(lines))
    telemetry = ("--telemetry", str(tmp_path / "day.jsonl"), "--corrections", str(tmp_path / "said.json"))
    found = factory.run("compute", "--plant", plant, *telemetry, "--level", "line", "--format", "json")
    (computed,) = [row for row in found if row["line"] == "line-1" and row["start"] == line["start"]]
    for name in ("oee", "availability", "performance", "quality", "good_units", "losses"):
        assert computed[name] == line[name], name


def record(stored):
    """Return one stored record as it came, one line of JSON."""
    import msgspec

    key = MachineKey.parse(f"demo-plant/packaging/{stored.machine}")
    shown = stored.shown
    counts = {"total_units": shown.total_units, "off_quality_units": shown.off_quality_units}
    texts = {"reason_code": shown.reason_code, "product": shown.product}
    return msgspec.json.encode(
        Telemetry(
            **key._asdict(),
            epochtime=stored.at_us / 1e6,
            state=shown.state,
            data_quality=stored.quality,
            gateway=stored.gateway,
            sequence=stored.sequence,
            **{name: value for name, value in (counts | texts).items() if value is not None},
        )
    )
