"""What is installed where, and that the two project files agree."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from oee.errors import EXTRA_OF_PACKAGE, missing

ROOT = Path(__file__).parents[3]
IMPORTED_AS = {"argon2-cffi": "argon2", "python-multipart": "python_multipart", "awsiotsdk": "awsiot"}
NO_CODE = {"tzdata", "oee-gateway"}


def _project(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text())["project"]


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return _project("pyproject.toml")


@pytest.fixture(scope="module")
def edge() -> dict[str, Any]:
    return _project("packaging/edge/pyproject.toml")


@pytest.mark.parametrize("key", ["version", "dependencies", "requires-python", "license", "scripts"])
def test_the_edge_package_is_the_base_of_the_whole(
    whole: dict[str, Any], edge: dict[str, Any], key: str
) -> None:
    assert edge[key] == whole[key]


def test_the_edge_package_offers_the_same_aws_extra(whole: dict[str, Any], edge: dict[str, Any]) -> None:
    assert edge["optional-dependencies"] == {"aws": whole["optional-dependencies"]["aws"]}


def test_every_package_of_an_extra_can_be_asked_for_by_name(whole: dict[str, Any]) -> None:
    extras = whole["optional-dependencies"]
    base = {_name(requirement) for requirement in whole["dependencies"]}
    for extra in ("cloud", "demo", "aws", "spark"):
        for requirement in extras[extra]:
            name = _name(requirement)
            if name not in NO_CODE | base:
                package = IMPORTED_AS.get(name, name.replace("-", "_"))
                assert EXTRA_OF_PACKAGE.get(package) is not None, (
                    f"{name} of {extra} is not in EXTRA_OF_PACKAGE"
                )


def test_a_missing_package_is_told_with_the_extra_that_brings_it() -> None:
    assert missing("fastapi").endswith("pip install 'oee-gateway[cloud]'")
    assert missing("pyspark.sql").endswith("pip install 'oee-gateway[spark]'")
    assert "pip install --force-reinstall oee-gateway" in missing("msgspec")


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the business of whoever installs."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.fail(f"the list of files cannot be had: {tracked.stderr}")
    found = re.compile(
        rb"index[-]url|extra[-]index|(?:files|pypi|registry)\.[a-z-]+\.(?:org|io)/|\"resolve[d]\":"
    )
    for name in tracked.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path != Path(__file__) and path.suffix not in {".png", ".pdf", ".gz"}:
            assert not found.search(path.read_bytes()), name


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ]", requirement, maxsplit=1)[0]
