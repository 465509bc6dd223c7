"""The pages of docs/ that can be checked by a machine, are."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "packaging" / "edge" / "README.md"])


def test_the_telemetry_page_is_the_one_that_the_contract_makes() -> None:
    """When this fails: python packaging/telemetry_page.py."""
    place = ROOT / "packaging" / "telemetry_page.py"
    spec = importlib.util.spec_from_file_location("telemetry_page", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.render()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor and found.suffix == ".md":
            assert anchor in _anchors(found), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_named_in_a_page_exist(page: Path) -> None:
    """Names such as `cloud/oee/counters.py`, with a known room in front."""
    rooms = "cloud|contract|config|dashboards|docs|gateway|oee|packaging|simulator|tests"
    for name in re.findall(rf"`((?:{rooms})/[\w./-]*)`", page.read_text()):
        if not name.startswith("oee/v1/"):  # a topic
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_modules_on_the_map_are_there() -> None:
    """Each room's section of ARCHITECTURE.md names modules and folders of that room."""
    sections = re.split(r"^### (\w+)/$", (ROOT / "ARCHITECTURE.md").read_text(), flags=re.MULTILINE)
    for room, rest in zip(sections[1::2], sections[2::2], strict=True):
        section = rest.split("\n## ", 1)[0]
        below = {path.name for path in (ROOT / room).rglob("*.py")}
        assert not set(re.findall(r"`(\w+\.py)`", section)) - below, room
        for folder in re.findall(r"`(\w+)/`", section):
            assert (ROOT / room / folder).is_dir(), f"{room}/{folder}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
