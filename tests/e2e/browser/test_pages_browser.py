"""How the pages take what people do: zooming, choosing, themes, keys; and text that a PLC makes up.

What needs no plant of a special kind is tried on the real demo, in test_demo_browser.py.
"""

import asyncio
import contextlib
import re
import time
from typing import NamedTuple

import pytest
from argon2 import PasswordHasher
from msgspec.structs import replace
from playwright.async_api import Browser, async_playwright, expect

from cloud.service import Cloud
from contract.states import MachineState
from dashboards.people import People
from dashboards.web import server
from dashboards.web.signin import SESSION_COOKIE
from tests.support import small_cloud
from tests.support.patience import PATIENCE
from tests.support.ports import free_port
from tests.support.small_cloud import FILLER, LINE, life

pytestmark = pytest.mark.browser

MACHINES = ("filler-1", "capper-1")
DESKTOP = (1440, 900)
PASSWORD = "correct horse battery"
QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
FOLLOWS_MS = PATIENCE * 5_000
expect.set_options(timeout=FOLLOWS_MS)


class Plant(NamedTuple):
    """The pages of a small plant at the moment at which its clock stands."""

    cloud: Cloud
    clock: small_cloud.Clock
    address: str


@contextlib.asynccontextmanager
async def served(cloud: Cloud, port: int = 0, people: People | None = None):
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        server.serve(cloud, "127.0.0.1", port, stop=stop, on_ready=ready.set_result, people=people),
        name="pages",
    )
    yield (await ready).rstrip("/")
    stop.set()
    await asyncio.wait_for(serving, PATIENCE * 5)


@pytest.fixture
async def plant(tmp_path):
    with small_cloud.opened(tmp_path) as (cloud, clock):
        async with served(cloud) as address:
            yield Plant(cloud, clock, address)


@pytest.fixture
async def browser():
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield found
        await found.close()


@contextlib.asynccontextmanager
async def opened(browser: Browser, plant: Plant, *, size=DESKTOP, theme="dark", touch=False):
    """A page whose faults are gathered: console errors, failed and foreign requests."""
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=theme, has_touch=touch, locale="en-GB"
    )
    page = await context.new_page()
    page.set_default_timeout(FOLLOWS_MS)
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if re.match(
                rf"(http|ws)://{re.escape(plant.address.removeprefix('http://'))}/|data:", request.url
            )
            else faults.append(request.url)
        ),
    )
    page.faults = faults
    try:
        yield page
    finally:
        await context.close()


async def test_the_timeline_is_looked_at_nearer_by_drawing_across_it(plant, browser):
    async with opened(browser, plant) as page:
        await page.goto(f"{plant.address}/timeline")
        box = await page.locator("[data-zoomable]").first.bounding_box()
        middle = box["y"] + box["height"] / 2
        await page.mouse.move(box["x"] + box["width"] * 0.1, middle)
        await page.mouse.down()
        await page.mouse.move(box["x"] + box["width"] * 0.2, middle, steps=4)
        await page.mouse.up()
        await expect(page.get_by_role("link", name="Whole time")).to_be_visible()
        assert "since=" in page.url
        address = page.url
        await page.reload()
        assert page.url == address
        await page.get_by_role("link", name="Whole time").click()
        await expect(page.get_by_role("link", name="Whole time")).to_have_count(0)


async def test_choosing_place_and_shift_writes_an_address_that_can_be_shared(plant, browser):
    async with opened(browser, plant) as page:
        await page.goto(f"{plant.address}/losses")
        await page.get_by_label("Place").select_option(f"{LINE}/capper-1")
        await page.wait_for_url(f"**/losses?at={LINE}/capper-1")
        await page.get_by_title("Shift before").click()
        await page.wait_for_url(re.compile("shift="))
        figure = await page.locator(".headline .oee b").inner_text()
        async with opened(browser, plant, theme="light") as other:
            await other.goto(page.url)
            assert await other.locator(".headline .oee b").inner_text() == figure


async def test_the_theme_is_switched_and_kept(plant, browser):
    async with opened(browser, plant, theme="light") as page:
        await page.goto(plant.address)
        light = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        await page.get_by_role("button", name="Switch between dark and light").click()
        dark = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark != light
        await page.reload()
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


async def test_the_keyboard_reaches_the_content_and_every_machine(plant, browser):
    async with opened(browser, plant) as page:
        await page.goto(plant.address)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        reached = set()
        for _ in range(30):
            await page.keyboard.press("Tab")
            reached.add(await page.evaluate("document.activeElement.textContent.trim()"))
        assert set(MACHINES) <= reached


async def test_a_page_left_open_beyond_its_session_leads_to_the_door_and_back(plant, browser, tmp_path):
    """A tablet at the line stays open for months."""
    people, port = People(tmp_path / "people.sqlite3", time.time, QUICK), free_port()
    people.add("op", "operator", PASSWORD)
    with contextlib.closing(people):
        async with opened(browser, plant) as page:

            async def sign_in():
                await page.get_by_label("Name").fill("op")
                await page.get_by_label("Password").fill(PASSWORD)
                await page.get_by_role("button", name="Sign in").click()
                await expect(page.get_by_role("heading", name="Stop reasons")).to_be_visible()
                assert page.url.endswith(f"/stops?at={LINE}")

            async with served(plant.cloud, port, people) as address:
                await page.goto(f"{address}/stops?at={LINE}")
                await sign_in()
                (session,) = [each for each in await page.context.cookies() if each["name"] == SESSION_COOKIE]
                people.sign_out(session["value"])
            async with served(plant.cloud, port, people):
                await page.get_by_label("Password").wait_for(timeout=4 * FOLLOWS_MS)
                await sign_in()


WIDER_THAN_ITS_PLACE = (
    "tables => tables.filter(each => each.scrollWidth > each.parentElement.clientWidth + 1)"
    ".map(each => each.scrollWidth)"
)
NOT_WHOLE = (
    "names => names.filter(each => each.scrollHeight > each.clientHeight + 2).map(each => each.textContent)"
)


async def test_long_names_and_many_machines_fit_on_walls_and_phones(browser, tmp_path):
    long = "packaging-line-".ljust(64, "m")
    crowd = [FILLER._replace(line=long, machine=f"filler-no-{number:03}") for number in range(40)]
    with small_cloud.opened(tmp_path, silent=crowd) as (cloud, clock):
        async with served(cloud) as address:
            plant = Plant(cloud, clock, address)
            walls = [(f"/tv?line={long}", size) for size in ((1280, 720), (1920, 1080))]
            for path, size in (*walls, *((path, (390, 844)) for path in ("/alerts", "/", "/reports"))):
                async with opened(browser, plant, size=size) as page:
                    await page.goto(address + path)
                    seen = page.locator(".tile:visible")
                    assert await page.evaluate("document.documentElement.scrollWidth") <= size[0], path
                    assert await seen.locator("h3").evaluate_all(NOT_WHOLE) == [], path
                    assert await page.locator(".archive").evaluate_all(WIDER_THAN_ITS_PLACE) == [], path
                    if path.startswith("/tv"):
                        assert await seen.count() == 40
                        box = await seen.last.bounding_box()
                        assert box["y"] + box["height"] <= size[1]


async def test_hostile_names_stay_text(plant, browser):
    """A PLC may send anything as a reason or product."""
    hostile = "<img src=x onerror=\"document.title='owned'\">"
    last = life(FILLER._replace(machine="capper-1"), 0)[-1]
    stands = replace(
        last,
        epochtime=plant.clock.now + 1,
        state=MachineState.STOPPED,
        reason_code=hostile,
        product=hostile,
        sequence=900_000,
    )
    small_cloud.say(plant.cloud, [stands])
    small_cloud.turn(plant.cloud, plant.clock)
    async with opened(browser, plant) as page:
        for path in ("/", "/timeline", "/connections"):
            await page.goto(plant.address + path)
            if path == "/":
                await expect(page.get_by_role("article", name="capper-1")).to_contain_text(hostile)
            await page.wait_for_timeout(500)
            assert "owned" not in await page.title()
            assert await page.locator("img").count() == 0
        assert page.faults == []
