"""Takes the pictures of docs/tour.md from the demo plant: `python -m tests.support.screenshots`."""

import asyncio
import io
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from playwright.async_api import async_playwright

from dashboards.web.server import serve
from tests.support.demo_cloud import ZONE, DemoCloud

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
BEGAN = datetime(2026, 6, 17, 11, 42, 10, tzinfo=ZONE).timestamp()
LINE = "demo-plant/packaging/line-1"
SHIFT = "2026-06-16/2"


class Picture(NamedTuple):
    """One picture: what is opened, in which theme, on what screen."""

    name: str
    path: str
    theme: str = "dark"
    width: int = 1440
    height: int = 900


PICTURES = (
    Picture("board-dark", "/", "dark", 1440, 1250),
    Picture("board-light", "/", "light", 1440, 1250),
    Picture("board-phone", "/", "light", 390, 844),
    Picture("tv", "/tv", "dark", 1920, 1080),
    Picture("timeline", "/timeline", "dark"),
    Picture("stops", f"/stops?at={LINE}", "light", 1112, 834),
    Picture("losses", f"/losses?at={LINE}&shift={SHIFT}", "light"),
    Picture("hourly", f"/hourly?at={LINE}&shift={SHIFT}", "dark"),
    Picture("shifts", f"/shifts?at={LINE}&days=4", "light", 1440, 1000),
    Picture("trends", "/trends", "dark"),
    Picture("alerts", "/alerts", "dark", 1112, 834),
    Picture("connections", "/connections", "light"),
    Picture("report", f"/report?at={LINE}&shift={SHIFT}", "light", 1000, 1300),
)


def keep(taken: bytes, name: str) -> None:
    """Write a picture with few colours, so that the clone stays small."""
    picture = Image.open(io.BytesIO(taken)).convert("P", palette=Image.Palette.ADAPTIVE, colors=220)
    picture.save(FOLDER / f"{name}.png", optimize=True)


async def main() -> None:
    """Serve the demo plant at a fixed moment and take every picture."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    offset = BEGAN - time.time()
    cloud = DemoCloud(lambda: time.time() + offset)
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(cloud, "127.0.0.1", 0, stop=stop, on_ready=ready.set_result))
    address = (await ready).rstrip("/")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        for picture in PICTURES:
            context = await browser.new_context(
                viewport={"width": picture.width, "height": picture.height},
                color_scheme="light" if picture.theme == "light" else "dark",
                device_scale_factor=1,
            )
            page = await context.new_page()
            await page.goto(address + picture.path)
            await page.wait_for_timeout(1500)
            keep(await page.screenshot(), picture.name)
            await context.close()
        page = await browser.new_page(viewport={"width": 1112, "height": 834}, color_scheme="light")
        await page.goto(f"{address}/stops?at={LINE}")
        await page.locator(".stop-card").first.click()
        await page.wait_for_timeout(800)
        taken = Image.open(io.BytesIO(await page.screenshot()))
        taken.convert("P", palette=Image.Palette.ADAPTIVE, colors=220).save(
            FOLDER / "stop.png", optimize=True
        )
        await browser.close()
    stop.set()
    await task


if __name__ == "__main__":
    asyncio.run(main())
