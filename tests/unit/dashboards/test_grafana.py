"""The Grafana dashboard is what the code makes, and asks what the API answers."""

import re
from datetime import UTC, datetime

import httpx
import pytest

from dashboards import grafana
from dashboards.web.app import Pages
from tests.support import small_cloud
from tests.support.small_cloud import FILLER, HOUR, LINE, SHIFT

BEGIN, END = SHIFT - HOUR, SHIFT + 9 * HOUR


def test_the_file_is_what_the_code_makes():
    assert (grafana.FOLDER / "oee.json").read_text(encoding="utf-8") == grafana.text()


def filled(path):
    """A panel's path with Grafana's variables put in."""
    values = {
        "__from:date:iso": datetime.fromtimestamp(BEGIN, UTC).isoformat().replace("+00:00", "Z"),
        "__to:date:iso": datetime.fromtimestamp(END, UTC).isoformat().replace("+00:00", "Z"),
        "place": LINE,
        "machine": str(FILLER),
    }
    return re.sub(r"\$\{([^}]+)\}", lambda found: values[found[1]], path)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    with small_cloud.opened(tmp_path_factory.mktemp("cloud")) as (found, _):
        yield found


@pytest.mark.parametrize("panel", grafana.PANELS, ids=[panel.title for panel in grafana.PANELS])
async def test_every_field_that_a_panel_reads_is_in_the_answer(panel, cloud):
    transport = httpx.ASGITransport(app=Pages(cloud).application)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get("/api/v1" + filled(panel.path))
    assert answer.status_code == 200, answer.text
    rows = answer.json()
    for key in filter(None, panel.root.split(".")):
        rows = rows[key]
    if "/alerts" in panel.path:
        rows = rows or [dict.fromkeys(column.selector for column in panel.columns)]
    assert rows
    for column in panel.columns:
        value = rows[0]
        for key in column.selector.split("."):
            assert key in value, column
            value = value[key]
