"""A folder holds one factory, and one running demo at a time."""

from pathlib import Path

import pytest

from cloud.config import load as load_cloud
from gateway.config import load as load_gateway
from oee import demo_files
from oee.demo_folder import announce, default, opened
from oee.errors import CommandError, UsageError
from simulator import scenarios

FACTORY = {"scenario": "demo", "seed": 1}


def test_a_folder_goes_on_with_the_factory_it_was_begun_with(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "demo"
    with opened(folder, FACTORY, fresh=False):
        (folder / "kept").write_text("x")
    with opened(folder, FACTORY, fresh=False):
        assert (folder / "kept").exists()


def test_another_factory_needs_a_fresh_start(tmp_path: Path) -> None:
    with opened(tmp_path, FACTORY, fresh=False):
        (tmp_path / "old").mkdir()
        (tmp_path / "old" / "file").write_text("x")
    with pytest.raises(UsageError, match="scenario demo, seed 1, not scenario demo, seed 2: add --fresh"):
        opened(tmp_path, {**FACTORY, "seed": 2}, fresh=False).__enter__()
    with opened(tmp_path, {**FACTORY, "seed": 2}, fresh=True):
        assert not (tmp_path / "old").exists()


def test_a_damaged_mark_is_told_and_a_fresh_start_helps(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("")
    with pytest.raises(UsageError, match="damaged: add --fresh"):
        opened(tmp_path, FACTORY, fresh=False).__enter__()
    with opened(tmp_path, FACTORY, fresh=True):
        pass


def test_the_files_of_a_demo_are_right_wherever_they_lie(tmp_path: Path) -> None:
    folder = tmp_path / 'Fabrik "Süd" \U0001f3ed \\x'
    ports = demo_files.Ports(opcua=4840, board=8080, broker=1883, health=9464)
    files = demo_files.write(folder, scenarios.build("demo", seed=1), ports, "mqtt://127.0.0.1:1883")
    assert load_cloud(files["cloud"]).cloud.data_dir == folder / "cloud"
    assert load_gateway(files["gateway"]).gateway.data_dir == folder / "gateway"


def test_a_second_demo_is_told_where_the_first_one_is(tmp_path: Path) -> None:
    with opened(tmp_path, FACTORY, fresh=False):
        announce(tmp_path, "http://127.0.0.1:8080/")
        with pytest.raises(CommandError, match=r"already runs .* see http://127.0.0.1:8080/"):
            opened(tmp_path, FACTORY, fresh=False).__enter__()


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_with_other_peoples_files_is_left_alone(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"thesis.txt, which no demo made"):
        opened(tmp_path, FACTORY, fresh=fresh).__enter__()
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_told_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=r"cannot be used: .*; name another with --data-dir"):
        opened(tmp_path / "file", FACTORY, fresh=False).__enter__()


def test_outside_a_clone_the_folder_lies_where_programs_keep_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert default() == tmp_path / "state" / "oee-gateway" / "demo"
    (tmp_path / ".oee-demo").mkdir()
    assert default() == Path(".oee-demo")
