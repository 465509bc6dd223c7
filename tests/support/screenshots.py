"""Takes the pictures of docs/tour.md from a real demo: `python -m tests.support.screenshots [URL]`.

Without the address of a running demo it starts one, waits for its first closed shifts, and ends it.
"""

import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from PIL import Image
from playwright.async_api import Browser, async_playwright

from tests.support.demo_process import Demo

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
LINE = "demo-plant/packaging/line-1"
THEMES = ("dark", "light")
COLOURS = 144
"""Enough for flat colours with smooth letters, and few enough for a small clone."""
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


class Picture(NamedTuple):
    """One picture: what is opened, and on what screen."""

    name: str
    path: str
    width: int = 1440
    height: int = 900
    themes: tuple[str, ...] = THEMES
    steps: tuple[str, ...] = ()
    """What is clicked before the picture is taken."""


def pictures(shift: str) -> tuple[Picture, ...]:
    """Return all pictures; `shift` is a closed one, such as `2021-06-30/2`."""
    closed = f"at={LINE}&shift={shift}"
    return (
        Picture("board", "/", 1440, 1000),
        Picture("board-tablet", "/", 1024, 768, ("light",)),
        Picture("board-phone", "/", 390, 844, ("light",)),
        Picture("tv", "/tv", 1920, 1080, ("dark",)),
        Picture("place", f"/place?{closed}", 1440, 1100),
        Picture("timeline", "/timeline"),
        Picture("stops", f"/stops?{closed}", 1024, 768),
        Picture("stop", f"/stops?{closed}", 1024, 768, steps=(".stop-card",)),
        Picture("losses", f"/losses?{closed}"),
        Picture("hourly", f"/hourly?{closed}"),
        Picture("shifts", f"/shifts?at={LINE}&days=4", 1440, 1000),
        Picture("trends", f"/trends?at={LINE}&by=shift", 1440, 800),
        Picture("connections", "/connections", 1440, 1000),
        Picture("reports", "/reports", 1024, 700),
        Picture("report", f"/report?{closed}", 1000, 1300, ("light",)),
    )


ALERTS = Picture("alerts", "/alerts", 1024, 768)
"""Taken first, while an alert is open."""
ALERT_SECS = 600.0


def keep(taken: bytes, name: str) -> None:
    """Write a picture with few colours."""
    picture = Image.open(io.BytesIO(taken)).convert("RGB")
    few = picture.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(FOLDER / f"{name}.png", optimize=True)


async def take(browser: Browser, url: str, picture: Picture, theme: str) -> None:
    """Open a page as somebody would and keep what is seen."""
    context = await browser.new_context(
        viewport={"width": picture.width, "height": picture.height},
        color_scheme="light" if theme == "light" else "dark",
    )
    page = await context.new_page()
    await page.goto(url + picture.path)
    for step in picture.steps:
        await page.locator(step).first.click()
    await page.wait_for_timeout(1500)
    name = picture.name if len(picture.themes) == 1 else f"{picture.name}-{theme}"
    keep(await page.screenshot(), name)
    await context.close()


def asked(address: str) -> Any:
    """Return what the API answers."""
    with urllib.request.urlopen(address, timeout=60) as answer:
        return json.loads(answer.read())


def shifts_of(url: str) -> list[dict[str, Any]]:
    """Return the line's shifts of the last day, oldest first."""
    now = asked(f"{url}/api/v1/board")["generated_epochtime"]
    rows: list[dict[str, Any]] = asked(
        f"{url}/api/v1/shifts?from={now - 86_400}&to={now}&level=line&at={LINE}"
    )
    return rows


def last_closed(url: str) -> str:
    """Return the last closed shift of the line."""
    now = datetime.now(UTC).isoformat()
    row = [row for row in shifts_of(url) if row.get("revision") and row["end"] < now][-1]
    return f"{row['production_date']}/{row['shift']}"


def say_why(url: str, shift: str) -> None:
    """Give two stops of the shift their reasons, as an operator would, and wait for the revision."""
    rows = [row for row in shifts_of(url) if f"{row['production_date']}/{row['shift']}" == shift]
    start, end, revision = rows[0]["start"], rows[0]["end"], rows[0]["revision"]
    query = f"/api/v1/stops?from={start}&to={end}&at={LINE}&shortest_secs=120"
    stops = [stop for stop in asked(url + query) if stop["reason"] is None]
    known = {one["name"]: one["reason"] for one in asked(url + "/api/v1/plant")["sites"][0]["reasons"]}
    said = (("Drive overload", "Fuse of the drive changed"), ("No material", "Pallet came late"))
    for stop, (name, comment) in zip(stops, said, strict=False):
        form = {
            "at": "/".join(stop[level] for level in ("site", "area", "line", "machine")),
            "since": stop["start_epochtime"],
            "until": stop["end_epochtime"],
            "operator": "Operator 7",
            "reason": known[name],
            "comment": comment,
        }
        with urllib.request.urlopen(url + "/stop", urlencode(form).encode()) as answer:
            answer.read()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and all(row.get("revision") in (None, revision) for row in rows):
        time.sleep(1)
        rows = [row for row in shifts_of(url) if f"{row['production_date']}/{row['shift']}" == shift]


def take_paper(url: str, shift: str) -> None:
    """Keep the first pages of the PDF of a shift's report."""
    with urllib.request.urlopen(f"{url}/report.pdf?at={LINE}&shift={shift}", timeout=120) as answer:
        paper = answer.read()
    with tempfile.TemporaryDirectory() as folder:
        command = ["pdftoppm", "-r", "80", "-l", "2", "-png", "-", f"{folder}/page"]
        subprocess.run(command, input=paper, check=True)
        for number, page in enumerate(sorted(Path(folder).glob("page*.png")), start=1):
            keep(page.read_bytes(), f"report-pdf-{number}")


async def take_alerts(browser: Browser, url: str) -> None:
    """Take the page of alerts once a machine has stood for so long that somebody is told."""
    deadline = time.monotonic() + ALERT_SECS
    for theme in ALERTS.themes:
        while not asked(f"{url}/api/v1/alerts?open=true"):
            if time.monotonic() > deadline:
                sys.exit("no alert was open for long enough")
            await asyncio.sleep(1)
        await take(browser, url, ALERTS, theme)


async def take_all(url: str) -> None:
    """Take every picture of a running demo."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.png"):
        old.unlink()
    shift = last_closed(url)
    say_why(url, shift)
    take_paper(url, shift)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        await take_alerts(browser, url)
        for picture in pictures(shift):
            for theme in picture.themes:
                await take(browser, url, picture, theme)
        await browser.close()


def main() -> None:
    """Take the pictures of the demo at the address given, or of one of our own."""
    if len(sys.argv) > 1:
        asyncio.run(take_all(sys.argv[1].rstrip("/")))
        return
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(Path(sys.executable).parent / "oee", Path(folder) / "demo", environment=os.environ)
        try:
            for line in (1, 2):
                demo.wait_for(rf"line-{line} closed shift", 120)
            asyncio.run(take_all(demo.board.rstrip("/")))
        finally:
            demo.kill()


if __name__ == "__main__":
    main()
