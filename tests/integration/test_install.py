"""The wheels built from this tree install into empty environments and bring what they promise, no more."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
NOT_ON_THE_EDGE = [
    *("numpy", "pandas", "pyarrow", "fastapi", "starlette", "uvicorn", "jinja2", "sqlalchemy", "amqtt"),
    *("simulator", "cloud", "dashboards"),
]


def _pythons() -> list[str]:
    """Return an interpreter of each version that is here, the running one first."""
    running = "{}.{}".format(*sys.version_info)
    found = [sys.executable]
    for version in PYTHONS:
        if version == running:
            continue
        for path in [shutil.which(f"python{version}"), *_pyenv(version)]:
            if path is not None and _answers(path, version):
                found.append(path)
                break
    return found


def _pyenv(version: str) -> list[str]:
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return [str(path / "bin" / "python") for path in sorted(versions.glob(f"{version}.*"))]


def _answers(path: str, version: str) -> bool:
    asked = "import ensurepip, sys, venv; print('{}.{}'.format(*sys.version_info))"
    answer = subprocess.run([path, "-c", asked], capture_output=True, text=True, check=False)
    return answer.returncode == 0 and answer.stdout.strip() == version


_LEFT_OUT = {"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE"}
ALONE = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
"""Environment variables that bring in no code from elsewhere, and let be kept what was compiled once."""


class Environment:
    """An empty virtual environment, and what was installed into it."""

    def __init__(self, folder: Path, python: str) -> None:
        subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.bin = folder / "bin"

    def pip(self, *arguments: str) -> None:
        """Run the pip of the tests' own environment on this one, which is quicker than to give it its own."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python")]
        quiet = ["--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, *quiet, *arguments], capture_output=True, text=True, check=False, env=ALONE
        )
        assert done.returncode == 0, done.stderr

    def install(self, wheel: Path) -> None:
        """Install without compiling what no test imports."""
        self.pip("install", "--no-compile", str(wheel))

    def oee(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "oee"), *arguments],
            capture_output=True,
            text=True,
            cwd=cwd,
            check=False,
            env=ALONE,
        )

    def importable(self, names: list[str], cwd: Path) -> list[str]:
        asked = f"import importlib.util as u, json; print(json.dumps([n for n in {names} if u.find_spec(n)]))"
        return list(json.loads(self._said(asked, cwd)))

    def loaded_by(self, module: str, cwd: Path) -> set[str]:
        return set(self._said(f"import sys, {module}; print('\\n'.join(sys.modules))", cwd).split())

    def _said(self, program: str, cwd: Path) -> str:
        return subprocess.run(
            [str(self.bin / "python"), "-c", program],
            capture_output=True,
            text=True,
            cwd=cwd,
            check=True,
            env=ALONE,
        ).stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build both wheels, from the tree as it is."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, ROOT / "packaging" / "edge"):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "build",
                "--wheel",
                "--no-isolation",
                "--outdir",
                str(folder),
                str(project),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return {
        "edge": next(folder.glob("oee_gateway_edge-*.whl")),
        "whole": next(folder.glob("oee_gateway-*.whl")),
    }


def test_wheels_carry_code_examples_and_licence_and_no_leftovers(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        names = zipfile.ZipFile(wheel).namelist()
        assert "oee/config/gateway.example.toml" in names
        assert any(name.endswith("LICENSE") for name in names)
        assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]
    whole = zipfile.ZipFile(wheels["whole"]).namelist()
    assert any(name.startswith("dashboards/web/static/") for name in whole)
    assert any(name.startswith("dashboards/web/templates/") for name in whole)
    edge = {name.split("/")[0] for name in zipfile.ZipFile(wheels["edge"]).namelist()}
    assert {name for name in edge if not name.endswith(".dist-info")} == {"contract", "gateway", "oee"}


@pytest.mark.slow
@pytest.mark.parametrize("python", _pythons())
def test_both_wheels_install_into_an_empty_environment(
    wheels: dict[str, Path], python: str, tmp_path: Path
) -> None:
    """First the edge, which is lean; then, on the same dependencies, the whole, whose demo answers."""
    environment = Environment(tmp_path / "venv", python)
    environment.install(wheels["edge"])
    _holds_the_edge_alone(environment, tmp_path)
    environment.pip("uninstall", "--yes", "oee-gateway-edge")
    environment.install(wheels["whole"])  # the base install: the same dependencies
    _answers_for_the_demo(environment, tmp_path)


def _holds_the_edge_alone(environment: Environment, cwd: Path) -> None:
    assert environment.importable(NOT_ON_THE_EDGE, cwd) == []
    assert environment.oee("version", cwd=cwd).stdout.startswith("oee-gateway-edge ")
    assert "oee gateway run" in environment.oee("gateway", "run", "--help", cwd=cwd).stdout
    assert environment.oee("config", "write", "config", cwd=cwd).returncode == 0
    assert (cwd / "config" / "gateway.toml").exists()
    for command, extra in ((["demo"], "demo"), (["simulate"], "demo"), (["cloud", "run"], "cloud")):
        refused = environment.oee(*command, cwd=cwd)
        assert refused.returncode == 2
        assert f"pip install 'oee-gateway[{extra}]'" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert not set(NOT_ON_THE_EDGE) & environment.loaded_by("gateway.service", cwd)


def _answers_for_the_demo(environment: Environment, cwd: Path) -> None:
    shown = environment.oee("demo", "--help", cwd=cwd)
    assert shown.returncode == 0
    for option in ("--board-port", "--opcua-port", "--broker-port", "--seed", "--speed", "--scenario"):
        assert option in shown.stdout
    refused = environment.oee("demo", cwd=cwd)
    assert refused.returncode == 2
    assert "pip install 'oee-gateway[" in refused.stderr
