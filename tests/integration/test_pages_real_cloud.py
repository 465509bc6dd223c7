"""The pages on the real cloud side: a form classifies a stop, and every way to ask says the same OEE."""

import csv
import html
import io
import json
import re
import zipfile

import httpx
import msgspec
import pytest

from cloud.views import RefusedRow
from contract.states import MachineState
from dashboards import port
from dashboards.web.app import Pages
from dashboards.web.work import ONLY_COMMENT
from tests.support import small_cloud
from tests.support.small_cloud import FILLER, HOUR, LINE, SHIFT, life


@pytest.fixture
def cloud(tmp_path):
    with small_cloud.opened(tmp_path) as (found, clock):
        found.now = clock
        yield found


def turn(cloud):
    small_cloud.turn(cloud, cloud.now)


@pytest.fixture
async def client(cloud):
    pages = Pages(cloud, clock=lambda: cloud.now.now)
    transport = httpx.ASGITransport(app=pages.application)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as found:
        yield found


def test_the_real_cloud_side_satisfies_the_port(cloud):
    asked = {name for name in dir(port.Cloud) if not name.startswith("_")}
    assert asked <= set(dir(cloud))


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/",
            "/tv",
            "/place",
            f"/place?at={LINE}/filler-1",
            "/timeline",
            "/stops",
            "/losses",
            "/losses?days=2",
        ),
        *("/hourly", "/shifts", "/trends", "/alerts", "/connections", "/reports", "/api"),
        *("/timeline?shift=2021-06-30/1", "/trends?by=shift", "/shifts?days=4"),
        "/losses?days=2",
    ],
)
async def test_every_page_opens(client, path):
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text[:300]


async def test_an_address_that_leads_nowhere_is_answered_by_a_page(client):
    answer = await client.get("/nowhere")
    assert answer.status_code == 404
    assert "There is no such page." in answer.text
    assert (await client.get("/static/nothing.css")).status_code == 404
    assert (await client.get("/api/v1/nothing")).json() == {"detail": "Not Found"}


async def test_a_page_that_fails_says_so_and_leaves_the_others_alone(cloud, client, monkeypatch):
    def broken(*_, **__):
        raise OSError("disk on fire")

    monkeypatch.setattr(cloud, "timeline", broken)
    answer = await client.get("/timeline")
    assert answer.status_code == 500
    assert "This page failed" in answer.text
    assert "disk on fire" not in answer.text
    assert (await client.get("/losses?days=2")).status_code == 200


async def navigation(client, address):
    page = (await client.get(address)).text
    return {word: to for to, word in re.findall(r'<a [^>]*?href="([^"]*)"[^>]*>(\w+)</a>', page)}


async def test_place_and_shift_are_handed_on_to_the_other_pages_and_the_path_leads_up(client):
    closed = "shift=2021-06-30/1"
    links = await navigation(client, f"/losses?at={LINE}/filler-1&{closed}")
    for word in ("Timeline", "Stops", "Hourly"):
        assert links[word] == f"/{word.lower()}?at={LINE}/filler-1&amp;{closed}"
    assert links["Trends"] == f"/trends?at={LINE}/filler-1"
    assert links["Reports"] == f"/reports?at={LINE}/filler-1"
    assert links["Alerts"] == "/alerts"
    assert links["packaging"] == f"/losses?at=berlin/packaging&amp;{closed}"


async def test_days_are_handed_on_to_pages_that_show_so_many(client):
    links = await navigation(client, "/losses?days=30")
    assert links["Trends"] == "/trends?days=30"
    assert links["Hourly"] == "/hourly"


async def test_the_last_stop_is_asked_for_with_the_reasons_as_buttons(cloud, client):
    made = life(FILLER, 0)[-1]
    later = [
        msgspec.structs.replace(
            made, epochtime=SHIFT + 9 * HOUR + after, state=state, sequence=900_000 + after
        )
        for after in range(0, 400, 10)
        for state in (MachineState.STOPPED if after < 300 else MachineState.RUNNING,)
    ]
    cloud.now.now += 400
    small_cloud.say(cloud, later)
    turn(cloud)
    page = (await client.get(f"/stops?at={LINE}")).text
    asked = page[page.index("Why did filler-1 stand?") :]
    assert "5\xa0min" in asked[:600]
    assert re.findall(r'name="reason" value="(\w+)"', asked) == ["jam", "cleaning"]


async def test_a_machine_that_the_plant_lacks_is_shown_and_breaks_nothing(cloud, client):
    stranger = life(FILLER._replace(machine="robot-9"), 500_000)[-40:]
    small_cloud.say(cloud, stranger)
    turn(cloud)
    page = (await client.get("/")).text
    assert 'aria-label="robot-9"' in page
    assert "Not in plant.toml" in page
    pages = Pages(cloud, clock=lambda: cloud.now.now)
    fragments = pages.feed._all(cloud.board())
    assert f"m/{LINE}/robot-9" in fragments
    assert f"r/{LINE}/robot-9" not in fragments


@pytest.mark.parametrize(
    ("machines", "layout"), [(4, "n-4"), (8, "some"), (20, "many"), (21, "crowd"), (60, "crowd")]
)
async def test_a_wall_display_gives_many_machines_less_room_each(cloud, client, machines, layout):
    """However many stand on a line, all of it is on the screen: nobody scrolls there."""
    board = cloud.board()
    (line,) = board.lines
    crowd = line.machines[:1] * machines
    cloud._present.board = msgspec.structs.replace(
        board, lines=[msgspec.structs.replace(line, machines=crowd)]
    )
    assert f'<div class="tiles {layout}">' in (await client.get("/tv")).text


async def test_nothing_of_a_gateway_that_is_offline_looks_live(cloud, client):
    assert "</svg> connected</span>" in (await client.get("/connections")).text
    gone = msgspec.structs.replace(small_cloud.status_of_its_gateway(cloud.now.now), online=False)
    cloud._store.set_status(gone, cloud.now())
    turn(cloud)
    page = (await client.get("/connections")).text
    assert "</svg> was connected</span>" in page
    assert "</svg> connected</span>" not in page


async def test_a_machine_of_which_nothing_is_known_has_no_percentage_on_the_board_either(cloud, client):
    cloud.now.now += 40 * HOUR
    cloud._present.look()
    page = (await client.get("/")).text
    tile = page.split('<article class="tile', 2)[1]
    assert "<b>–</b><span>% OEE</span>" in tile
    assert 'class="v-bad"' not in page.split('<header class="line-head"', 2)[1].split("</header>")[0]


async def test_a_performance_above_all_that_is_possible_is_explained_on_the_board(cloud, client):
    assert "P above" not in (await client.get("/")).text
    last = life(FILLER, 0)[-1]
    quick = [
        msgspec.structs.replace(
            last,
            epochtime=last.epochtime + after,
            total_units=last.total_units + 20 * after,
            sequence=900_000 + after,
        )
        for after in range(10, 310, 10)
    ]
    small_cloud.say(cloud, quick)
    cloud.now.now += 310
    turn(cloud)
    page = (await client.get("/")).text
    assert "P above 100 %: the ideal rate is too low" in page
    assert page.count("P above") == 1


async def test_a_row_of_another_system_that_is_refused_stands_on_the_page_of_connections(
    cloud, client, monkeypatch
):
    row = RefusedRow(source="mes", ref="<b>7</b>", problem="it has begun", since_epochtime=float(SHIFT))
    monkeypatch.setattr(cloud, "refused_rows", lambda: [row])
    page = (await client.get("/connections")).text
    assert "&lt;b&gt;7&lt;/b&gt;" in page
    assert "it has begun" in page


async def oee_of(client, place):
    """The OEE of the shift of a place, asked in every way."""
    query = f"at={place}&shift=2021-06-30/1"
    page = (await client.get(f"/place?{query}")).text
    api = (
        await client.get(f"/api/v1/shifts?from=2021-06-30T06:00&to=2021-06-30T14:00&at={place}&level=line")
    ).json()
    table = (await client.get(f"/report.csv?{query}")).text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    told = json.loads((await client.get(f"/report.json?{query}")).text)
    book = zipfile.ZipFile(io.BytesIO((await client.get(f"/report.xlsx?{query}")).content))
    return {
        "page": float(re.search(r'<div class="oee[^"]*">.*?<b>([\d.]+)</b>', page, re.DOTALL)[1]) / 100,
        "api": next(row for row in api if row["shift"] == "1")["oee"],
        "csv": float(next(csv.DictReader(io.StringIO(table)))["oee"]),
        "json": told[0]["figures"]["oee"],
        "xlsx": [
            float(cell)
            for cell in re.findall(r"<v>(0\.\d+)</v>", book.read("xl/worksheets/sheet1.xml").decode())
        ],
    }


async def test_every_way_to_ask_says_the_same_oee(client):
    found = await oee_of(client, LINE)
    assert found["api"] == found["csv"] == found["json"]
    assert found["page"] == pytest.approx(found["json"], abs=0.0005)
    assert any(value == pytest.approx(found["json"], rel=1e-14) for value in found["xlsx"])


async def test_a_reason_given_in_the_form_changes_the_figures_and_the_revision_says_who(cloud, client):
    stops = (await client.get(f"/api/v1/stops?from={SHIFT}&to={SHIFT + 8 * HOUR}&at={FILLER}")).json()
    (stop,) = [item for item in stops if item["secs"] > 1000]
    before = (await oee_of(client, LINE))["json"]
    form = {
        "at": str(FILLER),
        "since": stop["start_epochtime"],
        "until": stop["end_epochtime"],
        "operator": "Ida",
        "comment": "washed the infeed",
        "reason": "cleaning",
    }
    page = await client.get("/stop", params={name: form[name] for name in ("at", "since", "until")})
    assert "Jam at infeed" in page.text
    answer = await client.post("/stop", data=form)
    assert answer.status_code == 303
    turn(cloud)
    found = await oee_of(client, LINE)
    assert found["json"] > before  # a planned stop lies outside planned production time
    assert found["api"] == found["csv"] == found["json"]
    revisions = (
        await client.get("/api/v1/revisions", params={"at": str(FILLER), "start": str(SHIFT)})
    ).json()
    assert "Ida" in revisions[-1]["why"]
    late = await client.get("/api/v1/after-lock", params={"at": str(FILLER), "start": str(SHIFT)})
    assert late.json() == {"records": 0}
    stops = (await client.get(f"/api/v1/stops?from={SHIFT}&to={SHIFT + 8 * HOUR}&at={FILLER}")).json()
    assert not [item for item in stops if item["secs"] > 1000 and item["reason"] is None]
    query = f"at={LINE}&shift=2021-06-30/1"
    (said,) = json.loads((await client.get(f"/report.json?{query}")).text)[0]["comments"]
    assert (said["comment"], said["reason_name"], said["who"]) == ("washed the infeed", "Cleaning", "Ida")
    assert "washed the infeed" in (await client.get(f"/report?{query}")).text


async def test_a_comment_alone_changes_no_figure_and_stands_in_the_report(cloud, client):
    before = (await oee_of(client, LINE))["json"]
    form = {"at": str(FILLER), "since": SHIFT + HOUR, "until": SHIFT + HOUR + 1200, "operator": "Ida"}
    empty = await client.post("/stop", data=form | {"reason": ONLY_COMMENT, "comment": " "})
    assert empty.status_code == 400
    answer = await client.post("/stop", data=form | {"reason": ONLY_COMMENT, "comment": "spare part ordered"})
    assert answer.status_code == 303
    turn(cloud)
    assert (await oee_of(client, LINE))["json"] == before
    page = await client.get("/stop", params={name: form[name] for name in ("at", "since", "until")})
    assert "spare part ordered" in page.text
    for name in ("report", "report.html", "place"):
        assert "spare part ordered" in (await client.get(f"/{name}?at={LINE}&shift=2021-06-30/1")).text


@pytest.mark.parametrize("how", ["", "&reasons=groups"])
async def test_each_loss_leads_to_its_stops_which_sum_up_to_it(cloud, client, how):
    say_why = {"at": str(FILLER), "since": SHIFT + HOUR, "until": SHIFT + HOUR + 600, "operator": "Ida"}
    assert (await client.post("/stop", data=say_why | {"reason": "jam"})).status_code == 303
    turn(cloud)
    page = (await client.get(f"/losses?at={LINE}&shift=2021-06-30/1{how}")).text
    led = []
    for row in page.split("<tr")[1:]:
        if not (to := re.search(r'href="(/stops[^"]*)">([^<]*)<', row)):
            continue
        minutes = re.search(r'<td class="n">[^\d]?([\d.]+)</td>', row)[1]
        stops = (await client.get(html.unescape(to[1]))).text
        assert re.search(r"(\S+) min</span>", stops)[1] == minutes, to[2]
        led.append(to[2])
    assert led == ["Breakdown", "Other stops", "No reason", "Mechanical" if how else "Jam at infeed"]


async def test_who_gives_a_reason_comes_back_to_the_list_of_the_shift_and_place(client):
    listed = (await client.get("/stops?at=berlin/packaging&shift=2021-06-30/1&back=//evil.example")).text
    to = html.unescape(re.search(r'href="(/stop\?[^"]*)"', listed)[1])
    page = (await client.get(to + "&back=//evil.example")).text
    assert "evil" not in page
    assert 'href="/stops?at=berlin/packaging&amp;shift=2021-06-30/1"' in page
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
    answer = await client.post("/stop", data=form | {"operator": "Ida", "reason": "jam"})
    assert answer.headers["location"].startswith("/stops?at=berlin/packaging&shift=2021-06-30/1&said=")
    page = (await client.get(answer.headers["location"])).text
    assert "Noted for capper-1" in page or "Noted for filler-1" in page
    change = html.unescape(re.search(r'href="([^"]*)">Change it, or take it back', page)[1])
    assert 'name="reason" value="">Take the reason back' in (await client.get(change)).text


@pytest.mark.parametrize("said", ["x", "a/b/c/d@1-2-3", "a/b/c/d@x-y", "<b>@1-2", ""])
async def test_what_no_form_has_said_is_not_shown_as_noted(client, said):
    answer = await client.get("/stops", params={"said": said})
    assert answer.status_code == 200
    assert "Noted for" not in answer.text


async def test_the_headline_is_judged_as_the_board_judges(cloud, client):
    (line,) = cloud.board().lines
    page = (await client.get(f"/place?at={LINE}")).text
    for factor, verdict in line.verdicts.items():
        assert f'<div class="{factor} v-{verdict}">' in page


async def test_a_shift_that_is_being_closed_is_listed_and_leads_to_its_figures(cloud, client):
    cloud.now.now = SHIFT + 16 * HOUR + 20.0
    cloud._present.look()
    page = (await client.get(f"/reports?at={LINE}")).text
    row = next(row for row in page.split("<tr>") if "30 Jun 2021 · shift 2" in row)
    assert "being closed" in row
    assert f'href="/place?at={LINE}&amp;shift=2021-06-30/2"' in row
    assert 'data-refresh="15"' in (await client.get(f"/place?at={LINE}&shift=2021-06-30/2")).text
    assert "being closed, as of 22:00:20" in (await client.get(f"/report?at={LINE}&shift=2021-06-30/2")).text
    assert 'data-refresh="30"' in (await client.get("/")).text
    asked = {"from": SHIFT, "to": SHIFT + 24 * HOUR, "at": LINE}
    listed = (await client.get("/api/v1/shifts", params=asked)).json()
    assert [(row["shift"], row["revision"]) for row in listed] == [("1", 1), ("2", 0), ("3", 0)]
    assert await standings_of_the_site(client) == ["running", "being closed", "closed", "closed"]
    turn(cloud)
    cloud.now.now += HOUR
    turn(cloud)
    page = (await client.get(f"/reports?at={LINE}")).text
    assert "being closed" not in page
    assert await standings_of_the_site(client) == ["running", "closed", "closed", "closed"]
    assert 'data-refresh="0"' in (await client.get("/")).text


async def standings_of_the_site(client):
    """A site keeps no revisions: its shifts are closed when its lines' are."""
    page = (await client.get("/shifts?at=berlin&days=1")).text
    return re.findall(r'<td class="n"><span class="quiet">([\w ]+)</span></td>', page)


async def test_the_archive_goes_back_by_thirty_days(cloud, client):
    page = (await client.get(f"/reports?at={LINE}")).text
    assert f'href="/reports?at={LINE}&amp;to=2021-05-31">Older</a>' in page
    assert ">Newer<" not in page
    page = (await client.get(f"/reports?at={LINE}&to=2021-05-31")).text
    assert "the 30 days until Mon 31 May 2021" in page
    assert "No shift of this time is known." in page
    assert f'href="/reports?at={LINE}&amp;to=2021-06-30">Newer</a>' in page
    cloud.now.now += 25 * 86_400
    assert "30 Jun 2021 · shift 1" in (await client.get(f"/reports?at={LINE}&to=2021-07-01")).text


async def test_machines_stand_in_the_order_of_plant_toml(client):
    told = json.loads((await client.get(f"/report.json?at={LINE}&shift=2021-06-30/1")).text)
    assert [row["machine"] for row in told[0]["children"]] == ["filler-1", "capper-1"]


async def test_hours_days_and_the_whole_range_add_up(client):
    async def units(every):
        query = {"from": "2021-06-30", "to": "2021-07-01", "every": every, "level": "line"}
        return sum(row["good_units"] for row in (await client.get("/api/v1/figures", params=query)).json())

    assert await units("day") == await units("range") > 0


async def test_a_fault_of_a_form_is_said_and_changes_nothing(cloud, client):
    for form in (
        {"at": "x", "since": "1", "until": "2", "operator": "Ida", "reason": "jam"},
        {"at": str(FILLER), "since": "9", "until": "2", "operator": "Ida", "reason": "jam"},
        {
            "at": str(FILLER),
            "since": SHIFT + HOUR,
            "until": SHIFT + HOUR + 60,
            "operator": " ",
            "reason": "jam",
        },
        {
            "at": str(FILLER),
            "since": SHIFT + HOUR,
            "until": SHIFT + HOUR + 60,
            "operator": "Ida",
            "reason": "none",
        },
    ):
        assert (await client.post("/stop", data=form)).status_code == 400
    assert cloud.corrections() == []


@pytest.mark.parametrize(
    ("first", "last"), [("0001-01-01", "0001-01-02"), ("9999-12-30", "9999-12-31"), ("1e15", "2e15")]
)
async def test_time_that_no_calendar_has_is_refused_and_not_looked_for(client, first, last):
    pages = (
        "trends",
        "losses",
        "shifts",
        "stops",
        "timeline",
        "hourly",
        "report.pdf",
        "report.xlsx",
        "place",
    )
    answers = ("figures", "shifts", "stops", f"timeline?at={FILLER}")
    for path in (*pages, *(f"api/v1/{answer}" for answer in answers)):
        asked = f"/{path}{'&' if '?' in path else '?'}from={first}&to={last}"
        assert (await client.get(asked)).status_code == 400, asked
