"""Signing in over a real socket: every route needs its role, forms need their origin, guesses are refused."""

import asyncio
import contextlib
import functools
import re
import time

import httpx
import msgspec
import paho.mqtt.client as paho
import pytest
import websockets
from argon2 import PasswordHasher
from paho.mqtt.enums import CallbackAPIVersion

from cloud.config import MqttTable
from cloud.ingest.mqtt import Broker, Inbox
from contract import topics
from contract.delivery import Command
from contract.states import MachineState
from dashboards.people import People
from dashboards.web import server
from tests.support import small_cloud
from tests.support.mosquitto import Mosquitto
from tests.support.patience import PATIENCE
from tests.support.small_cloud import FILLER, HOUR, LINE, SHIFT, life

PASSWORD = "correct horse battery"
QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
READING = (
    "/",
    "/tv",
    "/place",
    "/timeline",
    "/stops",
    "/alerts",
    "/connections",
    "/reports",
    "/api",
    "/api/v1/board",
)


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    """The cloud side and its clock; its last records are of a capper that has stood for seven minutes."""
    with small_cloud.opened(tmp_path_factory.mktemp("cloud"), idle_alert_secs=300) as (cloud, clock):
        last = life(FILLER._replace(machine="capper-1"), 0)[-1]
        small_cloud.say(
            cloud,
            [
                msgspec.structs.replace(
                    last,
                    epochtime=SHIFT + 9 * HOUR + after,
                    state=MachineState.IDLE,
                    sequence=900_000 + after,
                )
                for after in range(0, 430, 10)
            ],
        )
        clock.now = SHIFT + 9 * HOUR + 425.0
        small_cloud.turn(cloud, clock)
        yield cloud, clock


@pytest.fixture
def served(plant):
    """Return what serves the pages to a client for as long as a `with` lasts."""
    return functools.partial(serving, plant[0])


@contextlib.asynccontextmanager
async def serving(cloud, people, **options):
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        server.serve(cloud, "127.0.0.1", 0, stop=stop, on_ready=ready.set_result, people=people, **options)
    )
    try:
        async with httpx.AsyncClient(base_url=await ready, timeout=PATIENCE * 10) as client:
            yield client
    finally:
        stop.set()
        await asyncio.wait_for(task, 5)


@pytest.fixture
def people(tmp_path):
    found = People(tmp_path / "people.sqlite3", time.time, QUICK)
    for name, role in (("vi", "viewer"), ("op", "operator"), ("su", "supervisor"), ("en", "engineer")):
        found.add(name, role, PASSWORD)
    yield found
    found.close()


async def enter(client, name, password=PASSWORD):
    return await client.post("/sign-in", data={"name": name, "password": password, "to": "/timeline"})


async def test_a_stranger_sees_the_door_only(served, people):
    async with served(people) as client:
        for path in READING:
            answer = await client.get(path)
            if path.startswith("/api/"):
                assert answer.status_code == 401
            else:
                assert answer.status_code == 303, path
                assert answer.headers["location"].startswith("/sign-in?to=")
        for path in ("/stop", "/alerts", "/people"):
            assert (await client.post(path)).status_code == 401
        assert (await client.get("/sign-in")).status_code == 200
        with pytest.raises(websockets.InvalidStatus):
            async with websockets.connect(str(client.base_url).replace("http", "ws") + "feed"):
                pass


async def test_signing_in_leads_to_where_one_wanted_to_go_by_a_safe_cookie(served, people):
    async with served(people) as client:
        answer = await enter(client, "vi")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/timeline"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        for path in READING:
            assert (await client.get(path)).status_code == 200, path
        assert (await client.post("/sign-out")).status_code == 303
        assert (await client.get("/")).status_code == 303


async def test_a_wrong_password_forgets_neither_the_name_nor_where_one_wanted_to_go(served, people):
    async with served(people) as client:
        wrong = await enter(client, "vi", "wrong horse battery")
        assert wrong.status_code == 401
        for name, value in (("to", "/timeline"), ("name", "vi")):
            assert re.search(rf'name="{name}"[^>]* value="{value}"', wrong.text), name


@pytest.mark.parametrize(
    "onward", ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:1"]
)
async def test_nobody_is_led_elsewhere_after_signing_in(served, people, onward):
    async with served(people) as client:
        answer = await client.post("/sign-in", data={"name": "vi", "password": PASSWORD, "to": onward})
        assert answer.headers["location"] == "/"


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("vi", set()),
        ("op", {"/alerts"}),
        ("su", {"/alerts", "/audit"}),
        ("en", {"/alerts", "/audit", "/people"}),
    ],
)
async def test_each_role_does_what_it_may(served, people, name, allowed):
    async with served(people) as client:
        await enter(client, name)
        tries = {
            "/alerts": await client.post("/alerts", data={"id": "none"}),
            "/audit": await client.get("/audit"),
            "/people": await client.get("/people"),
        }
        assert {path for path, answer in tries.items() if answer.status_code != 403} == allowed


@contextlib.asynccontextmanager
async def asked_by_mqtt(cloud):
    """Give the cloud side a broker; what it asks of gateways is gathered."""
    commands = []
    with Mosquitto() as mosquitto:
        gateway = paho.Client(CallbackAPIVersion.VERSION2)
        gateway.on_message = lambda client, kept, message: commands.append(
            msgspec.json.decode(message.payload, type=Command)
        )
        gateway.connect("127.0.0.1", mosquitto.port)
        gateway.subscribe(topics.gateway_topic("berlin", "gw", "command"), 1)
        gateway.loop_start()
        cloud._broker = Broker(MqttTable(url=mosquitto.url), Inbox(100))
        task = asyncio.create_task(cloud._broker.run())
        try:
            await until(lambda: cloud._broker.state == "connected" and gateway.is_connected())
            yield commands
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            cloud._broker = None
            gateway.disconnect()
            gateway.loop_stop()


async def until(happened):
    """Wait for something that takes no time on an idle machine."""
    async with asyncio.timeout(PATIENCE * 10):
        while not happened():  # noqa: ASYNC110  # both sides are threads of a client library
            await asyncio.sleep(0.02)


async def test_only_an_engineer_stops_a_connection_and_it_is_recorded(served, plant, people):
    form = {"site": "berlin", "gateway": "gw", "connection": "line-1", "action": "stop"}
    api = "/api/v1/gateways/gw/connections/line-1/start?site=berlin"
    async with asked_by_mqtt(plant[0]) as commands, served(people) as client:
        for name in ("vi", "op", "su"):
            await enter(client, name)
            assert (await client.post("/connections", data=form)).status_code == 403
            assert (await client.post(api)).status_code == 403
        await enter(client, "en")
        foreign = {"origin": "http://evil.example"}
        assert (await client.post("/connections", data=form, headers=foreign)).status_code == 403
        assert (await client.post(api, headers=foreign)).status_code == 403
        assert (await client.post("/connections", data=form | {"action": "burn"})).status_code == 400
        assert (await client.post("/connections", data=form)).status_code == 303
        assert (await client.post(api)).status_code == 202
        await until(lambda: len(commands) >= 2)
    asked = sorted((each.action, each.connection, each.requested_by) for each in commands)
    assert asked == [("start", "line-1", "en"), ("stop", "line-1", "en")]
    about = "berlin/gw/line-1"
    assert [(entry.who, entry.what, entry.about) for entry in people.entries()][:2] == [
        ("en", "asked to start a connection", about),
        ("en", "asked to stop a connection", about),
    ]


async def test_operators_mute_and_unmute_by_page_and_api_and_it_is_recorded(served, plant, people):
    form = {"place": LINE, "minutes": "60", "why": "belt <change>"}
    async with served(people) as client:
        await enter(client, "vi")
        assert (await client.post("/alerts/mute", data=form)).status_code == 403
        assert (await client.post(f"/api/v1/mutes?place={LINE}&until=1&why=x")).status_code == 403
        assert (await client.request("DELETE", "/api/v1/mutes/1")).status_code == 403
        await enter(client, "op")
        assert (await client.post("/alerts/mute", data=form | {"minutes": "soon"})).status_code == 400
        assert (await client.post("/alerts/mute", data=form | {"until": "soon"})).status_code == 400
        assert (await client.post("/alerts/mute", data=form)).status_code == 303
        page = (await client.get("/alerts?said=muted")).text
        assert "belt &lt;change&gt;" in page
        assert "Muted: nobody is woken from there." in page
        answer = await client.post(
            "/api/v1/mutes",
            params={"place": LINE, "until": str(plant[1].now + 600), "why": "oil", "rule": "idle"},
        )
        assert answer.status_code == 201
        mutes = (await client.get("/api/v1/mutes")).json()
        assert [(each["who"], each["why"], each["rules"]) for each in mutes] == [
            ("op", "belt <change>", []),
            ("op", "oil", ["idle"]),
        ]
        assert (await client.post("/alerts/unmute", data={"id": "x"})).status_code == 400
        assert (await client.post("/alerts/unmute", data={"id": str(mutes[0]["id"])})).status_code == 303
        assert (await client.request("DELETE", f"/api/v1/mutes/{mutes[1]['id']}")).status_code == 200
        assert (await client.request("DELETE", f"/api/v1/mutes/{mutes[1]['id']}")).status_code == 400
        assert (await client.get("/api/v1/mutes")).json() == []
        known = (await client.get("/api/v1/alerts?open=true")).json()
        (alert,) = known
        assert alert["machine"] == "capper-1"
        seen = await client.post("/api/v1/alerts/acknowledge", params={"id": alert["id"], "note": "mine"})
        assert (seen.json()["acknowledged_by"], seen.json()["note"]) == ("op", "mine")
        assert (await client.post("/api/v1/alerts/acknowledge", params={"id": "none"})).status_code == 400
    told = [entry.what for entry in people.entries()]
    assert told.count("muted alerts") == told.count("unmuted alerts") == 2


async def test_who_may_only_look_is_not_asked_for_reasons(served, people):
    async with served(people) as client:
        await enter(client, "op")
        query = "/stops?days=2"
        assert 'name="reason"' in (await client.get(query)).text
        await enter(client, "vi")
        listed = (await client.get(query)).text
        assert 'name="reason"' not in listed
        assert "no reason yet" in listed
        assert "Say why" not in listed
        stop = f"/stop?at={FILLER}&since={SHIFT + HOUR}&until={SHIFT + HOUR + 1200}"
        page = (await client.get(stop)).text
        assert 'name="reason"' not in page
        assert "vi is signed in as viewer" in page
        assert 'action="/alerts' not in (await client.get("/alerts")).text


async def test_who_may_not_do_something_is_told_so_by_a_page(served, people):
    async with served(people) as client:
        await enter(client, "vi")
        for answer in (await client.get("/people"), await client.post("/stop", data={})):
            assert answer.status_code == 403
            assert "vi is signed in as viewer" in answer.text
            assert '<nav aria-label="Pages">' in answer.text
        refused = await client.post("/api/v1/mutes", params={"place": LINE, "until": "1", "why": "x"})
        assert refused.text == "This needs the role operator."


async def test_the_open_pages_are_these_and_none_that_begins_like_them(served, people):
    async with served(people) as client:
        for path in ("/sign-inside", "/first-running", "/healthz/x"):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["location"][:9]) == (303, "/sign-in?")


async def test_a_form_of_another_site_is_refused(served, people):
    async with served(people) as client:
        await enter(client, "en")
        for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
            answer = await client.post(
                "/people",
                data={"what": "add", "name": "x", "role": "engineer", "password": PASSWORD},
                headers=headers,
            )
            assert answer.status_code == 403
        assert len(people.accounts()) == 4


async def test_guessing_passwords_is_slowed_down(served, people):
    async with served(people) as client:
        codes = [(await enter(client, "en", "guess")).status_code for _ in range(6)]
        assert codes == [401] * 5 + [429]
        assert int((await enter(client, "en")).headers["retry-after"]) > 0


async def test_the_first_run_makes_the_first_engineer_with_the_servers_code(served, tmp_path):
    people = People(tmp_path / "people.sqlite3", time.time, QUICK)
    async with served(people) as client:
        assert (await client.get("/")).headers["location"].startswith("/first-run")
        form = {"name": "Ada", "password": PASSWORD, "code": "guess"}
        assert (await client.post("/first-run", data=form)).status_code == 403
        assert people.is_empty
        answer = await client.post("/first-run", data={**form, "code": people.setup_code})
        assert answer.status_code == 303
        assert people.accounts()[0].role == "engineer"
        assert (await client.get("/people")).status_code == 200
        client.cookies.clear()
        again = await client.post("/first-run", data={**form, "name": "Eve", "code": people.setup_code})
        assert again.headers["location"] == "/sign-in"
        assert len(people.accounts()) == 1
    people.close()


async def test_a_wall_display_comes_by_its_token_and_only_looks(served, people):
    token = people.add_display("north wall")
    async with served(people) as client:
        assert (await client.get(f"/tv?token={token}")).status_code == 200
        assert (await client.get("/tv")).status_code == 200
        assert (await client.post("/alerts", data={"id": "x"})).status_code == 403
        client.cookies.clear()
        assert (await client.get("/tv?token=guess")).status_code == 303
        answer = await client.get("/api/v1/board", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200


async def test_what_was_done_is_recorded_and_shown(served, people):
    async with served(people) as client:
        await enter(client, "op", "guess")
        await enter(client, "en")
        await client.post(
            "/people", data={"what": "add", "name": "Bo", "role": "viewer", "password": PASSWORD}
        )
        done = [(entry.who, entry.what, entry.about) for entry in people.entries()]
        assert done[:3] == [
            ("en", "add", "Bo as viewer"),
            ("en", "signed in", ""),
            ("op", "sign-in failed", ""),
        ]
        assert "Bo as viewer" in (await client.get("/audit")).text
        await client.post("/sign-out")
        assert (people.entries()[0].who, people.entries()[0].what) == ("en", "signed out")


async def test_behind_tls_cookies_are_secure_and_browsers_are_told_to_stay(served, people):
    async with served(people, trusted_proxies=["127.0.0.1"]) as client:
        client.headers["x-forwarded-proto"] = "https"
        answer = await enter(client, "vi")
        assert "Secure" in answer.headers["set-cookie"]
        assert "strict-transport-security" in answer.headers


async def test_what_a_stranger_says_of_forwarding_is_not_believed(served, people):
    forged = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.7"}
    async with served(people) as client:
        client.headers.update(forged)
        answer = await enter(client, "vi")
        assert "Secure" not in answer.headers["set-cookie"]
        assert "strict-transport-security" not in answer.headers
    async with served(people, trusted_proxies=["127.0.0.1"]) as client:
        client.headers.update(forged)
        await enter(client, "vi")
    assert [entry.address for entry in people.entries()] == ["203.0.113.7", "127.0.0.1"]


async def test_without_sign_in_only_this_machine_is_served(plant):
    with pytest.raises(server.OpenDoorError, match=r"127\.0\.0\.1 only"):
        await server.serve(plant[0], "0.0.0.0", 0)
