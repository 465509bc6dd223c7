"""The pages in a real headless Chromium: they open, change live, and say when they are not live."""

import asyncio
import contextlib
import re
from importlib.resources import files

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from dashboards.web import server
from tests.support.demo_cloud import DemoCloud

pytestmark = pytest.mark.browser

MACHINES = tuple(f"{name}-{line}" for line in (1, 2) for name in ("filler", "capper", "labeller", "packer"))
PAGES = (
    "/",
    "/tv",
    "/place?at=demo-plant/packaging/line-1",
    "/place?at=demo-plant/packaging/line-1/filler-1",
    "/timeline",
    "/stops",
    "/losses",
    "/hourly",
    "/shifts",
    "/trends",
    "/alerts",
    "/connections",
    "/reports",
    "/api",
)
DESKTOP, TABLET, PHONE = (1440, 900), (1112, 834), (390, 844)


class Plant:
    """The pages of a demo plant, which can be stopped and started again on the same port."""

    def __init__(self):
        self.cloud = DemoCloud(tick_secs=0.2)
        self.port = 0
        self._stop = asyncio.Event()
        self._task = None

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    async def start(self):
        ready = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(
            server.serve(self.cloud, "127.0.0.1", self.port, stop=self._stop, on_ready=ready.set_result)
        )
        self.port = int((await ready).rstrip("/").rsplit(":", 1)[1])

    async def stop(self):
        self._stop.set()
        await asyncio.wait_for(self._task, 5)


@pytest.fixture
async def plant():
    found = Plant()
    await found.start()
    yield found
    await found.stop()


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
    page.set_default_timeout(15_000)
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if re.match(rf"(http|ws)://127\.0\.0\.1:{plant.port}/|data:", request.url)
            else faults.append(request.url)
        ),
    )
    page.faults = faults
    try:
        yield page
    finally:
        await context.close()


async def serious_findings(page: Page):
    """What axe calls serious or critical on a page."""
    await page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text())
    result = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{found['id']}: {found['help']}: {found['nodes'][0]['html'][:160]}"
        for found in result["violations"]
        if found["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("theme", ["dark", "light"])
async def test_every_page_opens_without_a_fault_and_is_accessible(plant, browser, theme):
    async with opened(browser, plant, theme=theme) as page:
        for path in PAGES:
            answer = await page.goto(plant.address + path)
            assert answer.status == 200, path
            await expect(page.get_by_role("heading", level=1)).to_have_count(1)
            assert await serious_findings(page) == [], path
            assert page.faults == [], path


@pytest.mark.parametrize("path", [path for path in PAGES if path != "/tv"])
async def test_a_phone_shows_everything_without_scrolling_sideways(plant, browser, path):
    async with opened(browser, plant, size=PHONE, theme="light", touch=True) as page:
        await page.goto(plant.address + path)
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE[0]


async def test_the_board_finds_every_machine_by_its_role_and_changes_live(plant, browser):
    async with opened(browser, plant) as page:
        await page.goto(plant.address)
        for machine in MACHINES:
            await expect(page.get_by_role("article", name=machine)).to_be_visible()
        good = page.locator(".goal p b").first
        before = [await page.locator(".goal p b").nth(index).inner_text() for index in range(8)]
        await expect(good).to_be_visible()
        await page.wait_for_function(
            "before => [...document.querySelectorAll('.goal p b')]"
            ".some((node, index) => node.textContent !== before[index])",
            arg=before,
        )
        assert await page.locator("html.stale").count() == 0


async def test_a_restart_under_an_open_page_shows_a_banner_and_heals(plant, browser):
    async with opened(browser, plant) as page:
        await page.goto(plant.address)
        lost = page.get_by_role("alert").filter(has_text="Connection lost")
        await expect(lost).to_be_hidden()
        await plant.stop()
        await expect(lost).to_be_visible()
        await plant.start()
        await expect(lost).to_be_hidden(timeout=20_000)


async def test_a_stop_is_split_and_classified_on_a_tablet(plant, browser):
    async with opened(browser, plant, size=TABLET, theme="light", touch=True) as page:
        yesterday = plant.cloud.shift_table(
            round((plant.cloud.clock() - 86_400) * 1e6), round(plant.cloud.clock() * 1e6), "line"
        )[0]
        shift = f"{yesterday['production_date']}/{yesterday['shift']}"
        await page.goto(f"{plant.address}/stops?at=demo-plant/packaging/line-1&shift={shift}")
        await page.get_by_text("Say why").first.tap()
        await page.get_by_label("Your name").fill("Ida")
        await page.get_by_text("Split this stop").tap()
        await page.get_by_label("Cut after").fill("30")
        await page.get_by_label("The reason is of the first part").check()
        button = page.get_by_role("button", name="Jam at infeed")
        box = await button.bounding_box()
        assert box["height"] >= 70
        await button.tap()
        await expect(page.get_by_role("status").filter(has_text="Noted for")).to_be_visible()
        ((since, until, reason, _, by),) = next(iter(plant.cloud.said.values()))
        assert (reason, by) == ("jam-infeed", "Ida")
        assert until - since == pytest.approx(30, abs=0.01)
        assert page.faults == []


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
        await page.get_by_label("Place").select_option("demo-plant/packaging/line-2/capper-2")
        await page.wait_for_url("**/losses?at=demo-plant/packaging/line-2/capper-2")
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


async def test_eight_tabs_of_one_browser_are_all_live(plant, browser):
    context = await browser.new_context()
    pages = [await context.new_page() for _ in range(8)]
    for page in pages:
        await page.goto(plant.address)
    for page in pages:
        await page.bring_to_front()
        await expect(page.locator("[data-fresh-word]").first).to_have_text(
            re.compile(r"updated (now|[1-3] s ago)")
        )
    await context.close()


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


async def test_hostile_names_stay_text(plant, browser):
    """A PLC may send anything as a reason or product."""
    hostile = "<img src=x onerror=\"document.title='owned'\">"
    plant.cloud.rename_product(hostile)
    async with opened(browser, plant) as page:
        for path in ("/", "/timeline", "/connections"):
            await page.goto(plant.address + path)
            await page.wait_for_timeout(500)
            assert "owned" not in await page.title()
            assert await page.locator("img").count() == 0
        assert page.faults == []
